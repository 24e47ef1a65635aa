"""What happens to the servers of a soak, one life for each, and how soon the registry's view of it is right again.

Rules:
* A life knows the truth: whether its server can be reached, where, and what it serves. The view must say the same.
* Each event is noticed in its own time, and so is its end; what was promised for it follows from the registry's
  `Config`. A promise is for a machine that is not late itself: broken is what takes longer than `allowed`, which is
  known only in the end.
* Between two events the view must stay right. One that becomes unhealthy then is a false alarm.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio
from attrs import define, field, frozen

from soak_servers import PARTS, new_port
from viewreg import Config, Event, Feature, Registry, UnknownViewError

if TYPE_CHECKING:
    from random import Random

    from soak_servers import Relay, Server
    from viewreg import Endpoint, Snapshot

    Predicate = Callable[[Snapshot[Feature]], bool]

_CALM: Final = (2.0, 10.0)  # seconds between two events of a server
_AWAY: Final = (0.0, 3.0)  # seconds that a server is away once that has been noticed
_STEPS: Final = 10  # in a row, ours and the server's, from a dial to a view that is right; each may be late
_GIVEN_UP: Final = 60.0  # seconds after which an event shows no more
_BLINK: Final = (0.05, 0.5)  # seconds of a freeze that need not be noticed


def allowed(promise: float, lag: float) -> float:
    """The seconds after which a promise counts as broken, on a machine on which this program was late by `lag`."""
    return 2 * promise + 2.0 + _STEPS * lag


@frozen
class Promises:
    """How soon, in seconds, by the documentation."""

    config: Config

    @property
    def at_once(self) -> float:
        """That a connection is closed, or discovery says something new."""
        return 0.0

    @property
    def silence(self) -> float:
        """That nothing is heard any more."""
        return self.config.keepalive_interval + self.config.keepalive_timeout + 0.5

    @property
    def back(self) -> float:
        """That a server that refused listens again."""
        backoff = self.config.backoff
        return backoff.maximum * (1 + backoff.jitter) + 0.1

    @property
    def heard_again(self) -> float:
        """That one speaks again that was silent: a dial may have to fail first."""
        return self.back + self.config.connect_timeout


@frozen
class Seen:
    """Something that the registry showed."""

    took: float  # seconds
    promise: float  # seconds
    text: str


@define
class Report:
    """What was seen. Written by all lives."""

    seen: defaultdict[tuple[str, str], list[Seen]] = field(factory=lambda: defaultdict(list))
    """By event, and whether it is its beginning or its end."""
    alarms: list[str] = field(factory=list)
    errors: list[str] = field(factory=list)

    def faults(self, lag: float) -> list[str]:
        """What is wrong, one line each."""
        found = [seen for every in self.seen.values() for seen in every]
        late = [f"{seen.text} after {seen.took:.1f} s" for seen in found if seen.took > allowed(seen.promise, lag)]
        # A busy machine may keep a server from answering in time: one in fifty is its fault, more are ours.
        return self.errors + late + (self.alarms if len(self.alarms) > 1 + len(found) // 50 else [])


@frozen
class World:
    """What all lives have in common."""

    registry: Registry[Feature]
    promises: Promises
    locate: Callable[[], None]  # tells discovery what is true
    due: float  # in Trio's time; nothing begins after it
    pace: float  # by which the pauses between events are multiplied


class Life:
    """Of one server, from the start of the soak to its end."""

    def __init__(self, server: Server, relay: Relay | None, report: Report) -> None:
        self.listed = True  # discovery knows of it
        self._server: Final = server
        self._relay: Final = relay
        self._report: Final = report
        self._world: World  # this and the next are given to `live`
        self._rng: Random

    @property
    def endpoint(self) -> Endpoint:
        """Where it is reached."""
        return self._server.endpoint if self._relay is None else self._relay.endpoint

    def is_right(self, snapshot: Snapshot[Feature]) -> bool:
        """The view of a server that can be reached says what it serves."""
        try:
            view = snapshot.view(self.endpoint)
        except UnknownViewError:
            return False
        return view.healthy and view.partition == self._server.partition and view.provides(Feature.HASH_SP)

    def is_noticed(self, snapshot: Snapshot[Feature]) -> bool:
        """The view of a server that cannot be reached is unhealthy, or not there."""
        return not any(view.endpoint == self.endpoint for view in snapshot.healthy_views())

    async def live(self, world: World, rng: Random) -> None:
        """One event after the other until the time has come; then its view is right."""
        self._world, self._rng = world, rng
        events = [self.kill, self.stop, self.freeze, self.blink, self.remove]
        events += [self.move] if self._relay is None else [self.cut, self.reset]
        while await self._stay_calm():
            await self._rng.choice(events)()

    async def _stay_calm(self) -> bool:
        """Wait for the next event, and see that nothing happens meanwhile. False: there will be none."""
        until = trio.current_time() + self._world.pace * self._rng.uniform(*_CALM)
        with trio.move_on_at(min(until, self._world.due)):
            while True:
                await self._world.registry.wait_until(lambda snapshot: not self.is_right(snapshot))
                self._report.alarms.append(self._say("was right", "became unhealthy"))
                await self._shows(
                    "false alarm", "ended", self.is_right, trio.current_time(), self._world.promises.heard_again
                )
        return until < self._world.due

    # -- events; each ends with a view that is right --

    async def kill(self) -> None:
        """It crashes, and is started again with another partition."""
        await self._server.kill()
        await self._shows("kill", "began", self.is_noticed, trio.current_time(), self._world.promises.at_once)
        await self._start_again("kill")

    async def stop(self) -> None:
        """It ends politely, and is started again with another partition."""
        await self._server.stop()
        await self._shows("stop", "began", self.is_noticed, trio.current_time(), self._world.promises.at_once)
        await self._start_again("stop")

    async def move(self) -> None:
        """It is started again at another address, of which discovery tells at once."""
        old = self.endpoint
        await self._server.kill()
        await self._server.start(new_port())
        self._world.locate()
        await self._disappears("move", old)
        await self._shows("move", "ended", self.is_right, self._server.listened, self._world.promises.back)

    async def freeze(self) -> None:
        """It stands still until that has been noticed, and a little longer."""
        self._server.freeze()
        await self._shows("freeze", "began", self.is_noticed, trio.current_time(), self._world.promises.silence)
        await self._stay_away()
        self._server.thaw()
        await self._shows("freeze", "ended", self.is_right, trio.current_time(), self._world.promises.heard_again)

    async def blink(self) -> None:
        """It stands still for a moment, which nobody need notice."""
        self._server.freeze()
        await trio.sleep(self._rng.uniform(*_BLINK))
        self._server.thaw()
        await self._shows("blink", "ended", self.is_right, trio.current_time(), self._world.promises.back)

    async def cut(self) -> None:
        """Nothing passes the relay until that has been noticed, and a little longer."""
        assert self._relay is not None
        self._relay.hold()
        await self._shows("cut", "began", self.is_noticed, trio.current_time(), self._world.promises.silence)
        await self._stay_away()
        self._relay.go_on()
        await self._shows("cut", "ended", self.is_right, trio.current_time(), self._world.promises.heard_again)

    async def reset(self) -> None:
        """All its connections break. It can be reached again at once: so only the history shows it for sure."""
        assert self._relay is not None
        began = trio.current_time()
        self._relay.reset()

        def lost(_: Snapshot[Feature]) -> bool:
            history = self._world.registry.history(self.endpoint)
            return any(entry.what is Event.LOST and entry.until >= began for entry in history)

        await self._shows("reset", "began", lost, began, self._world.promises.at_once)
        await self._shows("reset", "ended", self.is_right, began, self._world.promises.back)

    async def remove(self) -> None:
        """Discovery forgets it, and remembers it a little later."""
        self.listed = False
        self._world.locate()
        await self._disappears("remove", self.endpoint)
        await self._stay_away()
        self.listed = True
        self._world.locate()
        await self._shows("remove", "ended", self.is_right, trio.current_time(), self._world.promises.back)

    # -- what they share --

    async def _start_again(self, event: str) -> None:
        await self._stay_away()
        self._server.part = self._rng.randrange(PARTS)
        await self._server.start(self._server.endpoint.port)
        await self._shows(event, "ended", self.is_right, self._server.listened, self._world.promises.back)

    async def _disappears(self, event: str, endpoint: Endpoint) -> None:
        def gone(snapshot: Snapshot[Feature]) -> bool:
            return all(view.endpoint != endpoint for view in snapshot.views)

        await self._shows(event, "began", gone, trio.current_time(), self._world.promises.at_once)

    async def _stay_away(self) -> None:
        await trio.sleep(self._world.pace * self._rng.uniform(*_AWAY))

    async def _shows(self, event: str, what: str, predicate: Predicate, since: float, promise: float) -> None:
        """Wait until the registry shows it; note how long that took."""
        with trio.move_on_at(since + _GIVEN_UP) as scope:
            await self._world.registry.wait_until(predicate)
        took = max(0.0, trio.current_time() - since)
        text = self._say(f"{event} {what}", "shows not" if scope.cancelled_caught else "shows")
        self._report.seen[event, what].append(Seen(took, promise, text))

    def _say(self, *texts: str) -> str:
        try:
            last = f"; last: {self._world.registry.history(self.endpoint)[-1]}"
        except (UnknownViewError, IndexError):
            last = ""
        return f"{self.endpoint.host_port} ({self._server.kind.value}): {', '.join(texts)}{last}"
