"""The world of a scenario: its servers and what they see, its discovery, its probe. Only this module knows of fleets.

Rules:
* `World.act` does what one line says, in one step: it never waits, and nothing else happens meanwhile.
* What servers see is noted at the client's end of the stream, from the bytes that pass: however the server is made.
"""

from __future__ import annotations

import math
import os
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from fleet import Does, Server, open_fleet
from viewreg import Discovery, Endpoint, Feature, LocatorError, ProbeResult, StatsProbe
from viewreg.rpc import StatsResult
from viewreg.testing.frames import ErrorCode, FrameReader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from fleet import Fleet
    from scenario_words import Action
    from viewreg import Channel

_STATS: Final = "/rpc.Diagnostics/stats"
_ENCODINGS: Final = {"SPO": 1, "POS": 2}  # on the wire


@asynccontextmanager
async def open_world(servers: Iterable[str]) -> AsyncIterator[World]:
    """A world that lasts as long as the block."""
    async with open_fleet() as fleet:
        yield World(fleet, servers)


class World:
    """Made by `open_world`. At first all servers accept, answer and serve diagnostics only; discovery lists nothing."""

    def __init__(self, fleet: Fleet, servers: Iterable[str]) -> None:
        self.locator: Final = WorldLocator()
        self.probe: Final = WorldProbe()
        self.wire: Final[dict[str, list[tuple[float, str]]]] = {server: [] for server in servers}
        self._fleet: Final = fleet
        for server in self.wire:
            _serve_diagnostics(fleet[server])

    @property
    def open_streams(self) -> int:
        """How many connections the client has open."""
        return len(self._fleet.streams)

    async def dial(self, endpoint: Endpoint) -> trio.abc.Stream:
        """For `open_registry`."""
        note = partial(self._note, endpoint.host_port)
        note("dial")
        given_up = True
        try:
            stream = await self._fleet.dial(endpoint)
            given_up = False
        except OSError:
            given_up = False
            raise
        finally:
            if given_up:
                note("dial given up")
        return Tap(stream, note)

    def act(self, action: Action) -> None:
        """Do what a line says whose actor is a server, discovery or the probe."""
        if action.actor == "discovery":
            DISCOVERY_ACTS[action.verb](self.locator, *action.args)
        elif action.actor == "probe":
            PROBE_ACTS[action.verb](self.probe, *action.args)
        elif action.verb == "sends bytes {hex}":
            self._fleet.nursery.start_soon(self._fleet[action.actor].say, *action.args)
        else:
            SERVER_ACTS[action.verb](self._fleet[action.actor], *action.args)

    def _note(self, host_port: str, what: str) -> None:
        self.wire[host_port].append((trio.current_time(), what))


class Tap(trio.abc.Stream):
    """A client's end that notes what passes: dials, calls, PINGs and resets, and that it was closed."""

    def __init__(self, stream: trio.abc.Stream, note: Callable[[str], None]) -> None:
        self._stream: Final = stream
        self._note: Final = note
        self._frames: Final = FrameReader()
        self._open = True

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        for frame in self._frames.feed(bytes(data)):
            if frame.kind == "HEADERS":
                self._note("probe" if frame.header(b":path") == _STATS.encode() else "call")
            elif frame.kind == "RST_STREAM":
                self._note(f"RST_STREAM {ErrorCode(frame.code).name}")
            elif frame.kind == "PING" and not frame.ack:
                self._note("PING")
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        if self._open:
            self._open = False
            self._note("closed")
        await self._stream.aclose()


class WorldLocator:
    """A locator that fails, lies and recovers as it is told. It knows an empty list at first, version 0."""

    def __init__(self) -> None:
        self._found = Discovery(0, ())
        self._failing: Exception | None = None
        self._once: list[Any] = []  # returned before anything else, whatever it is
        self._told = trio.Event()  # swapped whenever something is new

    def cached(self) -> Discovery:
        if self._failing is not None:
            raise self._failing
        return self._found

    async def wait_for_update(self, old_version: int) -> Any:
        while True:
            if self._once:
                await trio.lowlevel.checkpoint()
                return self._once.pop(0)
            if self._failing is not None:
                await trio.lowlevel.checkpoint()
                raise self._failing
            if self._found.version > old_version:
                await trio.lowlevel.checkpoint()
                return self._found
            await self._told.wait()

    def lists(self, endpoints: tuple[Endpoint, ...], version: int | None = None) -> None:
        """A list, with the next version or the one that is given; an old one is returned just once."""
        found = Discovery(self._found.version + 1 if version is None else version, endpoints)
        if found.version > self._found.version:
            self._found = found
        else:
            self._once.append(found)
        self._tell()

    def lists_two(self, first: tuple[Endpoint, ...], second: tuple[Endpoint, ...]) -> None:
        """Two lists, of which nobody sees the first."""
        self.lists(first)
        self.lists(second)

    def returns(self, anything: object) -> None:
        """Return it once."""
        self._once.append(anything)
        self._tell()

    def fails(self, error: Exception | None) -> None:
        """Raise this from now on, or nothing any more."""
        self._failing = error
        self._tell()

    def _tell(self) -> None:
        old, self._told = self._told, trio.Event()
        old.set()

    def __str__(self) -> str:
        return "scenario:///"


class WorldProbe:
    """Asks for statistics as `StatsProbe` does; what comes of it may be told otherwise, for each server."""

    def __init__(self) -> None:
        self.not_serving: Final[dict[str, str]] = {}  # words, by server
        self.raises: Final[dict[str, str]] = {}  # words, by server
        self.nonsense: Final[set[str]] = set()  # servers
        self._stats: Final = StatsProbe()

    @property
    def no_features(self) -> Feature:
        return self._stats.no_features

    async def __call__(self, channel: Channel) -> ProbeResult[Feature]:
        result = await self._stats(channel)
        server = channel.endpoint.host_port
        if server in self.raises:
            raise RuntimeError(self.raises[server])
        if server in self.nonsense:
            nonsense: Any = 5
            return nonsense  # type: ignore[no-any-return]
        if server in self.not_serving:
            return attrs.evolve(result, serving=False, reason=self.not_serving[server])
        return result

    def serving(self, server: str) -> None:
        """Tell the truth about it again."""
        self.not_serving.pop(server, None)
        self.raises.pop(server, None)
        self.nonsense.discard(server)


# -- what the lines do --


def _does(does: Does) -> Callable[[Server], None]:
    def act(server: Server) -> None:
        server.does = does

    return act


def _fail_dials(server: Server, code: int) -> None:
    server.does, server.error = Does.RAISE, OSError(code, os.strerror(code))


def _serve(server: Server, encoding: str, start: float, end: float) -> None:
    result = StatsResult(viewType="diskview/scenario")
    result.hashPartition.encoding = _ENCODINGS[encoding]  # type: ignore[assignment]
    result.hashPartition.start, result.hashPartition.end = int(start), 0 if math.isinf(end) else int(end)
    _answer(server, result)


def _serve_diagnostics(server: Server) -> None:
    _answer(server, StatsResult(viewType="txtimeout"))


def _say_view_type(server: Server, view_type: str) -> None:
    _answer(server, StatsResult(viewType=view_type))


def _say_encoding(server: Server, encoding: int) -> None:
    result = StatsResult(viewType="diskview/scenario")
    result.hashPartition.encoding = encoding  # type: ignore[assignment]
    _answer(server, result)


def _answer(server: Server, result: StatsResult) -> None:
    server.view.stats = result
    server.view.replies.pop(_STATS, None)


def _answer_bytes(server: Server, answer: bytes) -> None:
    server.view.replies[_STATS] = [answer]


def _fail_calls(server: Server, status: int, words: str = "") -> None:
    server.view.status, server.view.details = status, words


def _never_answer(server: Server) -> None:
    server.view.hang = True


def _answer_after(server: Server, seconds: float) -> None:
    server.view.delay = seconds


def _answer_calls(server: Server) -> None:
    server.view.status, server.view.details, server.view.hang, server.view.delay = 0, "", False, 0.0


def _allow(server: Server, count: int) -> None:
    server.view.max_concurrent_streams = count


def _go_away(server: Server, code: int, words: str = "") -> None:
    server.view.go_away(code, words.encode())


SERVER_ACTS: Final[dict[str, Callable[..., None]]] = {
    "accepts dials": _does(Does.SERVE),
    "refuses dials": _does(Does.REFUSE),
    "never answers dials": _does(Does.BLACK_HOLE),
    "accepts dials and says nothing": _does(Does.MUTE),
    "accepts dials and closes": _does(Does.CLOSE),
    "sends SETTINGS and closes": _does(Does.SETTLE_AND_CLOSE),
    "speaks HTTP/1.1": _does(Does.HTTP1),
    "fails dials with {errno}": _fail_dials,
    "serves {encoding} from {hash} to {hash}": _serve,
    "serves diagnostics only": _serve_diagnostics,
    "says view type {words}": _say_view_type,
    "says encoding {count}": _say_encoding,
    "answers bytes {hex}": _answer_bytes,
    "fails calls with {status}: {words}": _fail_calls,
    "fails calls with {status}": _fail_calls,
    "never answers calls": _never_answer,
    "answers after {seconds} s": _answer_after,
    "answers calls": _answer_calls,
    "allows {count} calls at a time": _allow,
    "freezes": Server.freeze,
    "thaws": Server.thaw,
    "closes its connections": Server.cut,
    "resets its connections": Server.reset,
    "sends GOAWAY {code}: {words}": _go_away,
    "sends GOAWAY {code}": _go_away,
}
DISCOVERY_ACTS: Final[dict[str, Callable[..., None]]] = {
    "lists {endpoints}, and at once {endpoints}": WorldLocator.lists_two,
    "lists {endpoints} as version {count}": WorldLocator.lists,
    "lists {endpoints}": WorldLocator.lists,
    "fails with {errno}": lambda locator, code: locator.fails(OSError(code, os.strerror(code))),
    "fails: {words}": lambda locator, words: locator.fails(LocatorError(words)),
    "returns nonsense": lambda locator: locator.returns(5),
    "recovers": lambda locator: locator.fails(None),
}
PROBE_ACTS: Final[dict[str, Callable[..., None]]] = {
    "finds {server} not serving: {words}": lambda probe, server, words: probe.not_serving.update({server: words}),
    "finds {server} serving": WorldProbe.serving,
    "raises for {server}: {words}": lambda probe, server, words: probe.raises.update({server: words}),
    "returns nonsense for {server}": lambda probe, server: probe.nonsense.add(server),
}
