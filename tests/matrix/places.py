"""Where a kernel's faults happen: servers on real sockets, and what is done to them.

Rules:
* A place is good until `strike`, and again from `heal` on; in between, no new connection gets a word.
* It has a second address, where a server accepts and says nothing before `heal`: for what happens during connect.
* Calls that want to hang are not answered, streams that do get one answer.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from select import select
from typing import TYPE_CHECKING, Final

import trio
from attrs import define

from matrix.actors import serve
from matrix.namespaces import SERVER, open_cable
from servers import running
from viewreg import Endpoint
from viewreg._transport.dial import Dial, dial_tcp
from viewreg.testing import ScriptedPeer
from viewreg.testing.frames import FrameReader, ping

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CONNECT_TIMEOUT: Final = 0.3  # seconds
KEEPALIVE_INTERVAL: Final = 0.3  # seconds
KEEPALIVE_TIMEOUT: Final = 0.7  # seconds in which a server that is well answers, also on a busy machine
_FULL: Final = 0.05  # seconds without an answer to a SYN on loopback: it was dropped
_LOCALHOST: Final = "127.0.0.1"
_RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER of no time


async def _nothing() -> None:
    """What is there already cannot come."""
    await trio.lowlevel.checkpoint()


@define(kw_only=True)
class Place:
    """A server, how to reach it, and what can happen to it."""

    endpoint: Endpoint
    mute: Endpoint
    dial: Dial = dial_tcp
    strike: Callable[[], Awaitable[None]] = _nothing
    heal: Callable[[], Awaitable[None]]
    mute_accepts: trio.Event | None = None
    """Set when the mute server has a connection; None if the fault must be there before that is dialled."""


class Awake(trio.abc.Stream):
    """A server's end that answers PINGs, whatever else it is told to do."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream: Final = stream
        self._reader: Final = FrameReader()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        received = await self._stream.receive_some(max_bytes)
        for frame in self._reader.feed(received):
            if frame.kind == "PING" and not frame.ack:
                await self._stream.send_all(ping(frame.payload, ack=True))
        return received

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


class Host:
    """Two servers in this process: a good one, and a mute one until all is good again."""

    def __init__(self, nursery: trio.Nursery, first: socket.socket, second: socket.socket) -> None:
        self.streams: Final[list[trio.SocketStream]] = []
        self.mute_accepts: Final = trio.Event()
        self.endpoint: Final = Endpoint(*first.getsockname())
        self.mute: Final = Endpoint(*second.getsockname())
        self._nursery: Final = nursery
        self._good: Final = trio.socket.from_stdlib_socket(first)
        self._mute: Final = trio.socket.from_stdlib_socket(second)
        self._struck = False
        self._healed: Final = trio.Event()

    def listen(self) -> None:
        """Be there."""
        for listener in (self._good, self._mute):
            listener.listen()
            self._nursery.start_soon(self._accept, listener)

    def fill(self, fillers: ExitStack) -> None:
        """Listen, with a queue that takes no more connections; those in it live as long as the stack."""
        self._mute.listen(0)
        while True:
            filler = fillers.enter_context(_tcp_socket())
            filler.setblocking(False)
            filler.connect_ex((self.mute.host, self.mute.port))
            if not select([], [filler], [], _FULL)[1]:
                return

    def pause(self) -> None:
        """Say nothing on new connections."""
        self._struck = True

    async def heal(self) -> None:
        """Be good on all connections."""
        self._healed.set()
        await trio.lowlevel.checkpoint()

    async def _accept(self, listener: trio.socket.SocketType) -> None:
        while True:
            accepted, _ = await listener.accept()
            stream = trio.SocketStream(accepted)
            self.streams.append(stream)
            if listener is self._mute:
                self.mute_accepts.set()
            self._nursery.start_soon(self._serve, stream, self._struck or listener is self._mute)

    async def _serve(self, stream: trio.SocketStream, waits: bool) -> None:
        async with ScriptedPeer(Awake(stream), patience=math.inf) as peer:
            if waits:
                await self._healed.wait()
            await serve(peer)
        self.streams.remove(stream)


def _tcp_socket() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM)


@asynccontextmanager
async def _open_host(
    address: str = _LOCALHOST, make_socket: Callable[[], socket.socket] = _tcp_socket
) -> AsyncIterator[Host]:
    """Its sockets are bound, and do not listen yet: so they refuse."""
    with make_socket() as first, make_socket() as second:
        first.bind((address, 0))
        second.bind((address, 0))
        async with trio.open_nursery() as nursery:
            yield Host(nursery, first, second)
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_unlistened() -> AsyncIterator[Place]:
    """Nobody listens there before `heal`."""
    async with _open_host() as host:

        async def heal() -> None:
            host.listen()
            await host.heal()

        yield Place(endpoint=host.endpoint, mute=host.mute, heal=heal)


@asynccontextmanager
async def open_full() -> AsyncIterator[Place]:
    """The kernel's queue of connections is full before `heal`, so that it takes no notice of a SYN."""
    async with _open_host() as host:
        with ExitStack() as fillers:
            host.fill(fillers)

            async def heal() -> None:
                fillers.close()
                host.listen()
                await host.heal()

            yield Place(endpoint=host.endpoint, mute=host.mute, heal=heal)


@asynccontextmanager
async def open_mute() -> AsyncIterator[Place]:
    """A server that accepts and says nothing before `heal`."""
    async with _open_host() as host:
        host.listen()
        yield Place(endpoint=host.endpoint, mute=host.mute, heal=host.heal, mute_accepts=host.mute_accepts)


@asynccontextmanager
async def open_resetting() -> AsyncIterator[Place]:
    """All connections are reset."""
    async with _open_host() as host:

        async def strike() -> None:
            host.pause()
            for stream in host.streams.copy():
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
                await stream.aclose()

        host.listen()
        yield Place(
            endpoint=host.endpoint, mute=host.mute, strike=strike, heal=host.heal, mute_accepts=host.mute_accepts
        )


@asynccontextmanager
async def open_ending() -> AsyncIterator[Place]:
    """The server ends all connections, and still reads."""
    async with _open_host() as host:

        async def strike() -> None:
            host.pause()
            for stream in host.streams.copy():
                await stream.send_eof()

        host.listen()
        yield Place(
            endpoint=host.endpoint, mute=host.mute, strike=strike, heal=host.heal, mute_accepts=host.mute_accepts
        )


@asynccontextmanager
async def open_cut() -> AsyncIterator[Place]:
    """Nothing passes between two hosts, either way."""
    with open_cable() as cable:

        async def dial(endpoint: Endpoint) -> trio.abc.Stream:
            connection = trio.socket.from_stdlib_socket(cable.client_socket())
            connected = False
            try:
                await connection.connect((endpoint.host, endpoint.port))
                connected = True
            finally:
                if not connected:
                    connection.close()
            return trio.SocketStream(connection)

        async with _open_host(SERVER, cable.server_socket) as host:

            async def strike() -> None:
                cable.cut()
                await trio.lowlevel.checkpoint()

            async def heal() -> None:
                cable.heal()
                await host.heal()

            host.listen()
            yield Place(endpoint=host.endpoint, mute=host.endpoint, dial=dial, strike=strike, heal=heal)


@asynccontextmanager
async def open_frozen() -> AsyncIterator[Place]:
    """A grpcio server, whose process is stopped and goes on."""
    with running() as server:

        async def send(number: signal.Signals) -> None:
            server.process.send_signal(number)
            if number is signal.SIGSTOP:  # which comes through a little later
                os.waitid(os.P_PID, server.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 (at once)
            await trio.lowlevel.checkpoint()

        yield Place(
            endpoint=server.endpoint,
            mute=server.endpoint,
            strike=partial(send, signal.SIGSTOP),
            heal=partial(send, signal.SIGCONT),
        )
