"""How frames get to real sockets: at once where that is possible, whole and in order where it is not."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

import viewreg
from nasty.nasty_pb2 import Answer, Order
from sockets import GUARD, arrived, fill, read_to, reset, stream_of, tcp_pair
from transport import Line, open_channel
from viewreg._http2.protocol import Protocol
from viewreg._transport.writer import Writer
from viewreg.testing import ScriptedPeer
from viewreg.testing.frames import FrameReader, ping

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sockets import Pair


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Both ends of a TCP connection."""
    with tcp_pair() as ends:
        yield ends


class Side:
    """A writer on a real socket, with an outbox into which numbered PINGs are put."""

    def __init__(self, near: socket.socket) -> None:
        self.stream = stream_of(near)
        self.http2 = Protocol()
        self.http2.take_outbox()  # the preface, which is not of interest here
        self.put = b""  # all that was ever put into the outbox
        self.emptied = 0
        self.started = 0
        self.writer = Writer(self.stream, self.http2, self._count_emptied)
        self.writer.begin(self._count_started)

    def ping(self, times: int = 1) -> None:
        """Put so many frames of 17 bytes into the outbox."""
        number = len(self.put) // 17
        payloads = [count.to_bytes(8, "big") for count in range(number, number + times)]
        for payload in payloads:
            self.http2.ping(payload)
        self.put += b"".join(map(ping, payloads))

    def _count_emptied(self) -> None:
        self.emptied += 1

    def _count_started(self) -> None:
        self.started += 1


# -- at once --


async def test_a_lone_frame_leaves_in_the_step_that_sends_it(pair: Pair) -> None:
    """`flush(at_once=True)` writes before it returns, and starts no task for that."""
    near, far = pair
    side = Side(near)
    with trio.testing.assert_no_checkpoints():
        for _ in range(3):
            side.ping()
            side.writer.flush(at_once=True)
            assert side.http2.outbox_size == 0
    assert await read_to(far, 3 * 17) == side.put
    assert side.started == 0


async def test_without_haste_a_frame_waits_for_the_task(pair: Pair) -> None:
    """`flush()` leaves the outbox as it is and starts the task that writes, once."""
    near, far = pair
    side = Side(near)
    for _ in range(3):
        side.ping()
        side.writer.flush()
    assert side.started == 1
    assert arrived(far) == b""
    with trio.fail_after(GUARD):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(side.writer.run)
            assert await read_to(far, 3 * 17) == side.put
            side.writer.close(trio.current_time())
    assert side.emptied == 1  # all three left together


async def test_a_call_is_sent_before_the_caller_sleeps() -> None:
    """A lone call's request is in the kernel when its task first waits: the writer has not run at all."""
    near, far = socket.socketpair()
    with far, trio.fail_after(GUARD):
        stream = stream_of(near)
        far.setblocking(False)
        peer = ScriptedPeer(stream_of(far))
        async with open_channel(stream=stream) as line:
            await peer.handshake()
            await line.channel.wait_ready()
            exchange = line.channel.exchange("/a/b", None, b"\0\0\0\0\0")
            with trio.testing.assert_no_checkpoints():
                coroutine = exchange.start()
                with pytest.raises(StopIteration):
                    coroutine.send(None)
                assert b"/a/b" in far.recv(65_536)
            exchange.cancel()


# -- a short write --


@pytest.mark.parametrize("before", [0, 17, 1000])
async def test_a_full_buffer_tears_no_frame(pair: Pair, before: int) -> None:
    """What a full socket buffer does not take follows later: every frame whole, in order, once."""
    near, far = pair
    side = Side(near)
    filled = fill(near)
    arrived_early = b""
    if before:
        while len(arrived_early) < before:  # make some room
            await trio.lowlevel.wait_readable(far)
            arrived_early += far.recv(before - len(arrived_early))
    side.ping(20_000)
    side.writer.flush(at_once=True)
    assert side.started == 1
    side.ping(3)
    side.writer.flush(at_once=True)  # must not overtake what is left
    with trio.fail_after(GUARD):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(side.writer.run)
            await trio.testing.wait_all_tasks_blocked()
            received = arrived_early + arrived(far)  # there is room, and the task that waits for it does not know yet
            side.ping(3)
            side.writer.flush(at_once=True)
            received += await read_to(far, filled + 17 * 20_006 - len(received))
            await trio.testing.wait_all_tasks_blocked()
            side.ping(3)
            side.writer.flush(at_once=True)  # the task sleeps again: at once
            assert side.http2.outbox_size == 0
            received += await read_to(far, 3 * 17)
            side.writer.close(trio.current_time())
    assert received[:filled] == bytes(filled)
    assert received[filled:] == side.put


async def test_a_write_that_is_cut_short(pair: Pair) -> None:
    """The kernel takes the beginning of a large write: the task goes on in the middle of the frame."""
    near, far = pair
    side = Side(near)
    side.ping(50_000)
    side.writer.flush(at_once=True)
    assert side.http2.outbox_size == 0
    assert side.started == 1
    first = arrived(far)
    assert 0 < len(first) < 17 * 50_000
    with trio.fail_after(GUARD):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(side.writer.run)
            received = first + await read_to(far, 17 * 50_000 - len(first))
            side.writer.close(trio.current_time() + GUARD)
    assert received == side.put


async def test_requests_past_a_full_buffer_arrive_whole() -> None:
    """A server that reads nothing for a while then gets every request as it was sent, however large."""
    near, far = socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    with trio.fail_after(GUARD):
        stream = stream_of(near)
        peer = ScriptedPeer(stream_of(far))
        async with open_channel(stream=stream) as line, trio.open_nursery() as nursery:
            await peer.handshake({0x4: 2**31 - 1})
            await line.channel.wait_ready()
            sent = [Order(payload=bytes([number]) * 6000) for number in range(8)]
            for order in sent:
                nursery.start_soon(line.stub.ask, order)
                await trio.testing.wait_all_tasks_blocked()
            for order in sent:
                request = await peer.expect_request()
                assert request.message == order.SerializeToString()
                await peer.respond(request.stream_id, Answer().SerializeToString())
        await peer.aclose()


# -- the end --


async def test_last_words_need_no_task(pair: Pair) -> None:
    """A connection whose frames all left at once says GOAWAY by `close` alone, in the same step."""
    near, far = pair
    side = Side(near)
    side.http2.close()
    with trio.testing.assert_no_checkpoints():
        side.writer.close(trio.current_time())
    assert side.started == 0
    assert [found.kind for found in FrameReader(preface=False).feed(await read_to(far, 17))] == ["GOAWAY"]


def connected() -> tuple[trio.SocketStream, ScriptedPeer]:
    """A client's plain stream, and the peer at its other end."""
    near, far = socket.socketpair()
    return stream_of(near), ScriptedPeer(stream_of(far))


async def ready(line: Line, peer: ScriptedPeer) -> None:
    """Shake hands."""
    await peer.handshake()
    await line.channel.wait_ready()


async def test_a_connection_says_goodbye() -> None:
    """A connection that is left sends GOAWAY ahead of its end; calls that it had are reset by that alone."""
    stream, peer = connected()
    with trio.fail_after(GUARD):
        async with open_channel(stream=stream) as line:
            await ready(line, peer)
        await peer.expect("GOAWAY", code=0)
        await peer.expect_end()
        await peer.aclose()


# -- a socket that is somebody else's --


async def test_a_foreign_close_writes_into_nobody_s_file(tmp_path: Path) -> None:
    """When the user closes the socket and a file gets its number, a call fails and the file stays empty."""
    stream, peer = connected()
    victim = tmp_path / "victim"
    with trio.fail_after(GUARD):
        async with open_channel(stream=stream) as line:
            await ready(line, peer)
            number = stream.socket.fileno()
            stream.socket.close()
            file = os.open(victim, os.O_RDWR | os.O_CREAT)
            try:
                assert file == number
                with pytest.raises(viewreg.UnavailableError):
                    await line.stub.ask(Order(), metadata={"authorization": "secret"})
            finally:
                os.close(file)
            assert line.lost is not None
        await peer.aclose()
    assert victim.read_bytes() == b""


async def test_a_closed_socket_takes_nothing(pair: Pair, tmp_path: Path) -> None:
    """The file of a stream is asked for at each write: after a close it is none, whoever has its number now."""
    near, _far = pair
    side = Side(near)
    number = side.stream.socket.fileno()
    side.stream.socket.close()
    with (tmp_path / "victim").open("w+b", buffering=0) as victim:
        assert victim.fileno() == number
        side.ping()
        side.writer.flush(at_once=True)
        assert side.started == 1
        with trio.fail_after(GUARD):
            assert "EBADF" in await side.writer.run()
        assert victim.read() == b""


async def test_a_write_error_is_told(pair: Pair) -> None:
    """That sending failed ends the task with a reason in the system's words."""
    near, far = pair
    side = Side(near)
    reset(far)
    side.ping()
    side.writer.flush(at_once=True)
    assert side.started == 1
    with trio.fail_after(GUARD):
        said = await side.writer.run()
    assert said in {f"{os.strerror(code)} ({errno.errorcode[code]})" for code in (errno.EPIPE, errno.ECONNRESET)}
