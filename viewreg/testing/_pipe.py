"""What lies between the two ends of a connection in memory: bytes under way, each with its time of arrival.

Rules:
* No task, no clock but Trio's. What is sent is stamped with the time at which it arrives; who reads, sleeps until then.
* What is under way when a `Way` is cut has not arrived and gets no time until the way is healed: then it is sent anew.
* A pipe never waits: its ends do, on its two sleepers. They look at the state and go to sleep without a checkpoint
  between, so that no wake-up needs to be kept.
"""

from __future__ import annotations

import errno
import math
import os
from collections import deque
from random import Random
from typing import Final

import trio
from attrs import field, frozen

from viewreg._errors import InvalidValueError, as_float, number

BUFFER_SIZE: Final = 64 * 1024  # bytes, each way: sent and not read yet
PACKET_SIZE: Final = 1_460  # bytes; what Ethernet carries of TCP. A limited way delivers by the packet
_LONGEST_DELAY: Final = 86_400.0  # seconds
_FASTEST: Final = 1e12  # bytes a second
_NEVER: Final = math.inf


@frozen
class Pace:
    """How fast things pass. Validated, with errors that name what was given to `Link.delay` and `Link.limit`."""

    delay: float = field(default=0.0, converter=as_float, validator=number(0, _LONGEST_DELAY))
    jitter: float = field(default=0.0, converter=as_float, validator=number(0, _LONGEST_DELAY))
    rate: float = field(default=math.inf, converter=as_float, validator=number(1, _FASTEST, or_inf=True))

    def __attrs_post_init__(self) -> None:
        if self.jitter > self.delay:
            raise InvalidValueError(f"jitter {self.jitter!r}: expected a number from 0 to the delay, {self.delay:g}")


class Way:
    """One direction of a link, for all its connections: says when what is sent now arrives.

    `seed` is what jitter is made of, together with the moment.
    """

    def __init__(self, seed: str) -> None:
        self.pace = Pace()  # written by `Link`, between `hold` and `release` of all its pipes; so is `cut`
        self.cut = False
        self.passed = 0  # bytes sent into it; written by `Pipe.push`
        self._changed = trio.Event()  # swapped by `change`
        self._seed: Final = seed

    @property
    def instant(self) -> bool:
        """Whether what is sent arrives at once."""
        return self.pace.delay == 0 and self.pace.rate == math.inf and not self.cut

    def arrival(self, leaves: float) -> float:
        """When a packet arrives that leaves at that time; never while the way is cut."""
        if self.cut:
            return _NEVER
        arrival, jitter = leaves + self.pace.delay, self.pace.jitter
        if jitter:
            # Drawn anew for each moment, and from nothing that was drawn before: how many packets leave in one moment,
            # and in which order, depends on Trio, which runs the tasks of one moment in any order.
            arrival += Random(f"{self._seed} {leaves!r}").uniform(-jitter, jitter)
        return arrival

    def change(self) -> None:
        """Tell the dials under way that it has changed."""
        old, self._changed = self._changed, trio.Event()
        old.set()

    async def cross(self) -> None:
        """Let one packet of a dial pass: wait until it has arrived, or for ever. A checkpoint."""
        if self.instant:
            await trio.lowlevel.checkpoint()
            return
        arrived = False
        while not arrived:
            changed = self._changed
            with trio.move_on_at(self.arrival(trio.current_time())) as crossing:
                await changed.wait()
            arrived = crossing.cancelled_caught


class Pipe:
    """One direction of one connection: what was sent and not read, each piece with its time of arrival."""

    back: Pipe  # the other direction

    def __init__(self, way: Way) -> None:
        self.reader: Final = Sleeper()
        self.writer: Final = Sleeper()
        self.instant = way.instant  # a copy, which `release` renews: it is asked for at every push
        self.ended = False  # nothing follows what was sent
        self.end_at = _NEVER  # when its reader learns that
        self.was_reset = False
        self.reset_at = _NEVER  # when its reader learns that, and may not write either
        self.deserted = False  # nobody reads any more: what arrives is answered with a reset
        self.size = 0  # bytes sent and not read; those that nobody reads stay
        self.idle_at = -math.inf  # when the last packet has left, at the rate of the way
        self.last = -math.inf  # when the last piece arrives: later ones never do so earlier
        self._unanswered = False  # a deserted end was sent to while the way was cut
        self._way: Final = way
        self._pieces: deque[tuple[float, bytes]] = deque()

    # -- its writer --

    def push(self, data: bytes, start: int) -> int:
        """Send what there is room for, from `start` on. Returns how many bytes."""
        taken = min(len(data) - start, BUFFER_SIZE - self.size)
        if taken <= 0:
            return 0
        self.size += taken
        self._way.passed += taken
        if self.deserted:
            self._answer(self._stamp(taken))
        elif self.instant:
            self._pieces.append((self.last, data if taken == len(data) else data[start : start + taken]))
        else:
            step = PACKET_SIZE if self._way.pace.rate < math.inf else taken
            for at in range(start, start + taken, step):
                piece = data[at : min(at + step, start + taken)]
                self._pieces.append((self._stamp(len(piece)), piece))
        self.reader.wake()
        return taken

    def end(self) -> None:
        """Send the end, after all bytes. Sending it twice is nothing."""
        if not self.ended:
            self.ended = True
            self.end_at = self._stamp(0)
            self.reader.wake()

    def reset(self) -> None:
        """Send a reset, after all bytes that are under way."""
        if not self.was_reset:
            self.was_reset = True
            self.reset_at = self._stamp(0)
            self._wake()

    # -- its reader --

    def arrived(self) -> bool:
        """Whether there is a byte to be read now."""
        return bool(self._pieces) and self._pieces[0][0] <= trio.current_time()

    def next_at(self) -> float:
        """When there will be something to tell the reader, as far as is known."""
        return min(self._pieces[0][0] if self._pieces else self.end_at, self.reset_at)

    def pull(self, most: int) -> bytes | None:
        """Take what has arrived: bytes, none at the end, or None if there is nothing to say yet. Raises if reset."""
        pieces = self._pieces
        now = trio.current_time()
        if pieces and pieces[0][0] <= now:
            data = pieces.popleft()[1]
            if pieces and len(data) < most:
                parts, total = [data], len(data)
                while total < most and pieces and pieces[0][0] <= now:
                    parts.append(pieces.popleft()[1])
                    total += len(parts[-1])
                data = b"".join(parts)
            if len(data) > most:
                pieces.appendleft((now, data[most:]))
                data = data[:most]
            self.size -= len(data)
            self.writer.wake()
            return data
        if not pieces and self.end_at <= now:
            return b""
        if self.reset_at <= now:
            raise broken(errno.ECONNRESET)
        return None

    def desert(self) -> None:
        """Nobody reads any more. What was not read is lost, and what is under way will be answered with a reset."""
        self.deserted = True
        if self._pieces:
            self._answer(max(self._pieces[0][0], trio.current_time()))
            self._pieces.clear()

    def _answer(self, at: float) -> None:
        """Bytes reach a deserted end at that time: their sender is told."""
        self._unanswered = at == _NEVER
        if not self._unanswered and not self.back.was_reset:
            self.back.idle_at = max(self.back.idle_at, at)
            self.back.reset()

    # -- the network --

    def snap(self) -> None:
        """Break it from outside: what is under way is lost."""
        now = trio.current_time()
        self._pieces = deque(piece for piece in self._pieces if piece[0] <= now)
        if self.end_at > now:
            self.ended, self.end_at = False, _NEVER
        self.was_reset = True
        self.reset_at = min(self.reset_at, _NEVER if self._way.cut else now)
        self._wake()

    def close(self) -> None:
        """End it from outside: what is under way arrives, then the end; what is sent later is answered with a reset."""
        self.end()
        self.deserted = True

    def hold(self) -> None:
        """Before its way changes: what has not arrived by now gets no time of arrival."""
        now = trio.current_time()
        self._pieces = deque((at if at <= now else _NEVER, data) for at, data in self._pieces)
        self.end_at = self.end_at if self.end_at <= now else _NEVER
        self.reset_at = self.reset_at if self.reset_at <= now else _NEVER
        self.idle_at = self.last = -math.inf

    def release(self) -> None:
        """After its way has changed: what was held is sent anew, in order."""
        self.instant = self._way.instant
        self._pieces = deque((at if at < _NEVER else self._stamp(len(data)), data) for at, data in self._pieces)
        if self.ended and self.end_at == _NEVER:
            self.end_at = self._stamp(0)
        if self.was_reset and self.reset_at == _NEVER:
            self.reset_at = self._stamp(0)
        if self._unanswered:
            self._answer(self._stamp(0))
        self._wake()

    def _stamp(self, size: int) -> float:
        """When so many bytes arrive that are sent now, behind all that was sent before."""
        self.idle_at = max(self.idle_at, trio.current_time()) + size / self._way.pace.rate
        arrival = max(self.last, self._way.arrival(self.idle_at))
        if arrival < _NEVER:
            self.last = arrival
        return arrival

    def _wake(self) -> None:
        self.reader.wake()
        self.back.writer.wake()  # a reset concerns both directions


class Sleeper:
    """One task sleeps, anyone wakes it. Who wakes nobody has done nothing."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None

    def wake(self) -> None:
        """Let the sleeper look again at what it waits for."""
        task = self._task
        if task is not None:
            self._task = None
            trio.lowlevel.reschedule(task)

    async def sleep(self, until: float = _NEVER) -> None:
        """Wait for a wake-up, or until that time. A checkpoint."""
        if until == _NEVER:
            await self._sleep()
        else:
            with trio.move_on_at(until):
                await self._sleep()

    async def _sleep(self) -> None:
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


def broken(number: int) -> trio.BrokenResourceError:
    """Return the error that a broken socket gives, with its cause."""
    error = trio.BrokenResourceError(f"connection in memory broken: {os.strerror(number)}")
    error.__cause__ = OSError(number, os.strerror(number))  # Python makes the kind of OSError that goes with the number
    return error
