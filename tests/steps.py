"""Cancelling a program at each of its steps: an instrument that several test modules share."""

from __future__ import annotations

import trio


class CancelAt(trio.abc.Instrument):
    """Cancels a scope when a task is about to make its k-th step."""

    def __init__(self, task: trio.lowlevel.Task, k: int, scope: trio.CancelScope) -> None:
        self.task, self.left, self.scope = task, k, scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.left -= 1
            if self.left == 0:
                self.scope.cancel()
