"""What is known of one endpoint, and what has happened to it: one place for both, told by its supervisor.

Rules:
* Health changes in `happened` and nowhere else. It never awaits.
* Each event is noted in the history, logged if it is news, and published if it changes the health.
"""

from __future__ import annotations

import enum
import logging
from typing import TYPE_CHECKING, Final, Generic

import trio
from typing_extensions import TypeVar

from viewreg._feature import Feature
from viewreg._health import LONGEST_REASON, Connectivity, Event, Health, History, reason_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from viewreg._config import Config
    from viewreg._endpoint import Endpoint
    from viewreg._health import ProbeResult

F = TypeVar("F", bound=enum.Flag, default=Feature)

logger = logging.getLogger("viewreg")

_QUIET: Final = frozenset({Event.CONNECTING, Event.CONNECTED, Event.REMOVED})  # not worth a line in the log each
_BAD: Final = frozenset({Event.PROBE_FAILED, Event.PROBE_NOT_UNDERSTOOD, Event.PROBE_NOT_SERVING})


class Record(Generic[F]):
    """See the module. `publish` is told of every new health, in the step in which it comes about."""

    def __init__(
        self,
        endpoint: Endpoint,
        config: Config,
        no_features: F,
        wall_clock: Callable[[], float],
        publish: Callable[[Health[F]], None],
    ) -> None:
        self.history: Final = History(config.history_length, wall_clock)
        self.health: Health[F] = Health(no_features)  # written by `happened`
        self._endpoint: Final = endpoint
        self._config: Final = config
        self._no_features: Final = no_features
        self._publish: Final = publish
        self._told = ""  # the reason that was logged last

    def happened(
        self,
        event: Event,
        why: str = "",
        result: ProbeResult[F] | None = None,
        error: Exception | None = None,
        *,
        is_self: bool | None = None,
    ) -> None:
        """Note, log and publish. After REMOVED nothing happens any more.

        `result` comes with what a probe found, `error` with what it raised and no probe is expected to raise, `is_self`
        with a connection.
        """
        before, config = self.health, self._config
        if before.connectivity is Connectivity.SHUTDOWN:
            return
        self.health = after = before.after(
            event,
            rise=config.rise,
            fall=config.fall,
            no_features=self._no_features,
            result=result,
            is_self=is_self,
        )
        if event is not Event.CONNECTING or before.connectivity is Connectivity.IDLE:
            self.history.add(event, why, trio.current_time())
        self._log(event, why, error, changed=not after.shows_as(before))
        if after is not before:
            self._publish(after)

    def _log(self, event: Event, why: str, error: Exception | None, *, changed: bool) -> None:
        """What changes, and every new reason for being unhealthy, is worth a line; its repetition is not."""
        said = why[:LONGEST_REASON]
        news = event not in _QUIET and (changed or (event in _BAD and said != self._told))
        if news:
            self._told = said
        level = logging.INFO if news else logging.DEBUG
        if logger.isEnabledFor(level):
            state = "healthy" if self.health.healthy else "unhealthy"
            text = f"{event.value}: {reason_text(why)}" if why else event.value
            logger.log(level, "%s is %s: %s", self._endpoint, state, text, exc_info=error if news else None)
