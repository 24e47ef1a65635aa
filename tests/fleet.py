"""A fleet of view servers in memory, and the `dial` that reaches them: the registry's tests in virtual time run on it.

Rules:
* `fleet["a:1"]` is one server, made when it is first named. `server.does` says what becomes of the dials from now on;
  its methods do something to the connections that are there.
* `fleet.streams` are the client's ends that are open: when a registry has been left there must be none.
"""

from __future__ import annotations

import enum
import errno
import os
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from random import Random
from typing import TYPE_CHECKING, Any, Final, Literal

import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

import viewreg
from peers import H2View
from viewreg.rpc import LogStatusRequest, StatsResult
from viewreg.testing.frames import (
    ACK,
    END_STREAM,
    Frame,
    FrameReader,
    data,
    frame,
    goaway,
    headers,
    message,
    settings,
    trailers,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from viewreg import Config, Endpoint, Event, Feature, Registry, Snapshot, View

Encoding = Literal["SPO", "POS"]
INSTANT: Final = 0.001  # seconds; in virtual time only sleeping takes any
CLOSED: Final = 0.11  # seconds in which a connection that is given up is closed
_PREFACE_SIZE: Final = 24  # bytes
_ENCODINGS: Final[dict[Encoding, Any]] = {"SPO": 1, "POS": 2}


class Does(enum.Enum):
    """What a server does when it is dialled."""

    SERVE = "serve"
    REFUSE = "refuse"
    BLACK_HOLE = "never answer the dial"
    MUTE = "accept and say nothing"
    CLOSE = "accept and close"
    LEAVE = "send SETTINGS, and GOAWAY as soon as it has been asked something"
    SETTLE_AND_CLOSE = "send SETTINGS and close, all in one"
    GARBAGE = "send garbage"
    HTTP1 = "speak HTTP/1.1"
    RAISE = "the dial raises what `server.error` is"


_SAYS: Final = {
    Does.CLOSE: b"",
    Does.SETTLE_AND_CLOSE: settings(),
    Does.GARBAGE: bytes(range(255, 155, -1)),
    Does.HTTP1: b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
}


class SilentError(Exception):
    """An error that cannot even say what is wrong."""

    def __str__(self) -> str:
        raise RuntimeError("even this fails")


def stats(encoding: Encoding = "SPO", start: int = 0, end: int = 0) -> StatsResult:
    """What a disk view says of itself; `end` 0 is infinity."""
    result = StatsResult(viewType="diskview/memory")
    result.hashPartition.encoding = _ENCODINGS[encoding]
    result.hashPartition.start, result.hashPartition.end = start, end
    return result


class Server:
    """One server. Made by its fleet."""

    def __init__(self, fleet: Fleet, host_port: str) -> None:
        self.does = Does.SERVE
        self.error: Exception = OSError()  # for Does.RAISE
        self.view: Final = H2View(stats())
        self.records = False  # keep what clients send in `frames`
        self.frames: Final[list[Frame]] = []
        self.dials: Final[list[float]] = []  # when each began, by Trio's clock
        self.streams: Final[set[ClientEnd]] = set()  # open ones
        self.host_port: Final = host_port
        self._fleet: Final = fleet

    @property
    def probes(self) -> int:
        """How many requests for statistics have come."""
        return sum(request.path == "/rpc.Diagnostics/stats" for request in self.view.requests)

    @property
    def gaps(self) -> list[float]:
        """The seconds between its dials."""
        return [later - earlier for earlier, later in zip(self.dials, self.dials[1:], strict=False)]

    @property
    def pings(self) -> int:
        """How many PINGs have come, while `records` was set."""
        return sum(found.kind == "PING" and not found.ack for found in self.frames)

    def freeze(self) -> None:
        """Go on listening, never answer."""
        self.view.frozen = True

    def thaw(self) -> None:
        """Answer, first what is due."""
        self.view.frozen = False

    def cut(self) -> None:
        """End all connections, without a word."""
        for stream in self.streams.copy():
            stream.server.close()

    def reset(self) -> None:
        """Break all connections."""
        for stream in self.streams.copy():
            stream.broken = True
            stream.server.close()

    async def say(self, *parts: bytes) -> None:
        """Send these bytes on all connections."""
        for stream in self.streams.copy():
            await stream.server.send_all(b"".join(parts))

    async def dial(self) -> trio.abc.Stream:
        """Do as `does` says."""
        self.dials.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if self.does is Does.RAISE:
            raise self.error
        if self.does is Does.REFUSE:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        if self.does is Does.BLACK_HOLE:
            await trio.sleep_forever()
        client = ClientEnd(self, self._fleet)
        if self.does is Does.SERVE:
            serve = self._fleet.serve_simply if self._fleet.simple else self.serve
            self._fleet.nursery.start_soon(serve, client.server)
        elif self.does is Does.LEAVE:
            self._fleet.nursery.start_soon(_leave, client.server)
        elif self.does is not Does.MUTE:
            await client.server.send_all(_SAYS[self.does])
            client.server.close()
        return client

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serve one connection by `view`."""
        await self.view.serve(stream)


async def _leave(stream: trio.abc.Stream) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await stream.send_all(settings())
        await wait_all_tasks_blocked()
        await stream.send_all(goaway(0))


class ServerEnd(trio.abc.Stream):
    """A memory stream that can be closed without waiting."""

    def __init__(self, stream: trio.StapledStream[Any, Any]) -> None:
        self._stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    def close(self) -> None:
        self._stream.send_stream.close()
        self._stream.receive_stream.close()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()


class ClientEnd(trio.abc.Stream):
    """What `dial` returns: counted as long as it is open."""

    def __init__(self, server: Server, fleet: Fleet) -> None:
        self._client, far = memory_stream_pair()
        self.server: Final = ServerEnd(far)
        self.broken = False
        self._reader: FrameReader | None = None  # made when recording begins
        self._sent = False
        self._owner: Final = server
        self._all: Final = fleet.streams
        self._owner.streams.add(self)
        self._all.add(self)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._owner.records:
            self._reader = self._reader or FrameReader(preface=not self._sent)  # whole frames are sent at once
            self._owner.frames.extend(self._reader.feed(bytes(data)))
        self._sent = True
        await self._client.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._client.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        received = bytes(await self._client.receive_some(max_bytes))
        if self.broken and not received:
            reset = ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
            raise trio.BrokenResourceError from reset
        return received

    async def aclose(self) -> None:
        self._client.send_stream.close()
        self._client.receive_stream.close()
        self._owner.streams.discard(self)
        self._all.discard(self)
        await trio.lowlevel.checkpoint()


class Fleet:
    """Made by `open_fleet`. With `simple`, servers cost little, answer statistics and PINGs, and have no `view`."""

    def __init__(self, nursery: trio.Nursery, *, simple: bool) -> None:
        self.nursery: Final = nursery
        self.simple: Final = simple
        self.locator: Final = viewreg.StaticLocator()
        self.streams: Final[set[ClientEnd]] = set()  # open ones
        self._servers: Final[dict[str, Server]] = {}
        self._answer: Final = (headers(0), data(0, message(stats().SerializeToString())), trailers(0))

    def __getitem__(self, host_port: str) -> Server:
        """The server at this address."""
        server = self._servers.get(host_port)
        if server is None:
            server = self._servers[host_port] = Server(self, host_port)
        return server

    async def dial(self, endpoint: Endpoint) -> trio.abc.Stream:
        """For `open_registry`."""
        return await self[endpoint.host_port].dial()

    def open(
        self, *host_ports: str, config: Config | None = None, rng: Random | None = None
    ) -> AbstractAsyncContextManager[Registry[Feature]]:
        """A registry of these servers; later ones by `fleet.locator.set`. Its randomness is the same every time."""
        self.locator.set(host_ports)
        return viewreg.open_registry(
            self.locator, config or viewreg.Config(), dial=self.dial, rng=rng or Random(1), wall_clock=lambda: 1e9
        )

    async def serve_simply(self, stream: trio.abc.Stream) -> None:
        """Answer every request with the same statistics. No state, little time."""
        received = b""
        skip = _PREFACE_SIZE
        try:
            await stream.send_all(settings())
            while arrived := await stream.receive_some(65_536):
                received += arrived
                if len(received) < skip + 9:
                    continue
                answer, used = b"", skip
                while len(received) >= (end := used + 9 + int.from_bytes(received[used : used + 3], "big")):
                    answer += self._reply(received[used:end])
                    used = end
                    if len(received) < used + 9:
                        break
                received, skip = received[used:], 0
                if answer:
                    await stream.send_all(answer)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client, or the test, has closed it
        finally:
            await trio.aclose_forcefully(stream)

    def _reply(self, raw: bytes) -> bytes:
        kind, flags, stream_id = raw[3], raw[4], raw[5:9]
        if kind == 4 and not flags & ACK:
            return frame("SETTINGS", ACK)
        if kind == 6 and not flags & ACK:
            return frame("PING", ACK, 0, raw[9:])
        if kind in (0, 1) and flags & END_STREAM:
            return b"".join(part[:5] + stream_id + part[9:] for part in self._answer)
        return b""


@asynccontextmanager
async def open_fleet(*, simple: bool = False) -> AsyncIterator[Fleet]:
    """Servers that live as long as the block. They raise what is wrong with the client."""
    async with trio.open_nursery() as nursery:
        yield Fleet(nursery, simple=simple)
        nursery.cancel_scope.cancel()


# -- what tests ask --


def hosts(views: Iterable[View[Any]]) -> list[str]:
    """The addresses of views, in their order."""
    return [view.endpoint.host_port for view in views if view.endpoint is not None]


def reason(registry: Registry[Any], host_port: str) -> str:
    """What last happened to an endpoint, and why."""
    return str(registry.history(host_port)[-1])


def events(registry: Registry[Any], host_port: str) -> list[Event]:
    """What happened to an endpoint, oldest first."""
    return [entry.what for entry in registry.history(host_port)]


async def tasks() -> int:
    """How many tasks live, once none of them has anything left to do."""
    await wait_all_tasks_blocked()
    return trio.lowlevel.current_statistics().tasks_living


async def call(registry: Registry[Feature], host_port: str) -> None:
    """A call that is not a probe's, of any server; it is answered as `Server.view` is set to."""
    await registry.snapshot.view(host_port).carousel().logStatus(LogStatusRequest())


# -- predicates for `wait_until` --


def all_healthy(snapshot: Snapshot[Any]) -> bool:
    """There are views, and all are healthy."""
    return bool(snapshot.views) and all(view.healthy for view in snapshot.views)


def healthy(host_port: str) -> Callable[[Snapshot[Any]], bool]:
    """The view of this endpoint is healthy."""
    return lambda snapshot: snapshot.view(host_port).healthy


def unhealthy(host_port: str) -> Callable[[Snapshot[Any]], bool]:
    """The view of this endpoint is not healthy."""
    return lambda snapshot: not snapshot.view(host_port).healthy
