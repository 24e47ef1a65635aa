"""Servers that talk nonsense: the connection ends with the right code, its calls with it, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from nasty.nasty_pb2 import Order
from servers import GUARD
from transport import KINDS, open_channel, open_scripted
from viewreg._http2.frames import ErrorCode
from viewreg._transport.status import UnavailableError
from viewreg.testing import ScriptedPeer
from viewreg.testing.frames import data, frame, headers, message, ping, rst_stream, settings, trailers, window_update

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from nasty.nasty_grpc import NastyStub

    Kind = Callable[[NastyStub, Order], Coroutine[Any, Any, None]]

MALFORMED = {
    "HTTP/1.1": (b"HTTP/1.1 400 Bad Request\r\n\r\n", None),
    "TLS alert": (b"\x15\x03\x01\x00\x02\x02\x46" * 3, None),
    "zeros": (bytes(100), None),
    "0xff": (b"\xff" * 100, None),
    "frame too long": (frame("DATA", 0, 1, length=16_385), ErrorCode.FRAME_SIZE_ERROR),
    "DATA on stream 0": (data(0, b"x"), ErrorCode.PROTOCOL_ERROR),
    "DATA on an idle stream": (data(99, b"x"), ErrorCode.PROTOCOL_ERROR),
    "DATA with too much padding": (frame("DATA", 0x8, 1, b"\5abc"), ErrorCode.PROTOCOL_ERROR),
    "HEADERS on stream 0": (headers(0), ErrorCode.PROTOCOL_ERROR),
    "HEADERS on an even stream": (headers(2), ErrorCode.PROTOCOL_ERROR),
    "HEADERS that are no HPACK": (frame("HEADERS", 0x4, 1, b"\xff\xff\xff\xff\xff\xff"), ErrorCode.COMPRESSION_ERROR),
    "HEADERS not continued": (frame("HEADERS", 0, 1, b"\x88") + ping(), ErrorCode.PROTOCOL_ERROR),
    "CONTINUATION of nothing": (frame("CONTINUATION", 0x4, 1, b"\x88"), ErrorCode.PROTOCOL_ERROR),
    "RST_STREAM on stream 0": (rst_stream(0), ErrorCode.PROTOCOL_ERROR),
    "RST_STREAM on an idle stream": (rst_stream(99), ErrorCode.PROTOCOL_ERROR),
    "RST_STREAM too short": (frame("RST_STREAM", 0, 1, b"\0"), ErrorCode.FRAME_SIZE_ERROR),
    "SETTINGS on a stream": (frame("SETTINGS", 0, 1), ErrorCode.PROTOCOL_ERROR),
    "SETTINGS of 5 bytes": (frame("SETTINGS", 0, 0, bytes(5)), ErrorCode.FRAME_SIZE_ERROR),
    "SETTINGS window too large": (settings({0x4: 2**31}), ErrorCode.FLOW_CONTROL_ERROR),
    "SETTINGS frame too small": (settings({0x5: 100}), ErrorCode.PROTOCOL_ERROR),
    "PUSH_PROMISE": (frame("PUSH_PROMISE", 0x4, 1, b"\0\0\0\2\x88"), ErrorCode.PROTOCOL_ERROR),
    "PING of 7 bytes": (ping(b"1234567"), ErrorCode.FRAME_SIZE_ERROR),
    "PING on a stream": (frame("PING", 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "GOAWAY too short": (frame("GOAWAY", 0, 0, b"\0"), ErrorCode.FRAME_SIZE_ERROR),
    "GOAWAY on a stream": (frame("GOAWAY", 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "WINDOW_UPDATE of 0": (window_update(0, 0), ErrorCode.PROTOCOL_ERROR),
    "WINDOW_UPDATE too large": (window_update(0, 2**31 - 1), ErrorCode.FLOW_CONTROL_ERROR),
    "WINDOW_UPDATE on an idle stream": (window_update(99, 1), ErrorCode.PROTOCOL_ERROR),
    "a flood of PINGs": (ping() * 2000, ErrorCode.ENHANCE_YOUR_CALM),
    "a flood of SETTINGS": (settings() * 2000, ErrorCode.ENHANCE_YOUR_CALM),
    "a flood of empty DATA": (headers(1) + data(1) * 20_000, ErrorCode.ENHANCE_YOUR_CALM),
}


@pytest.mark.parametrize("what", MALFORMED)
async def test_malformed_frames_close_that_connection_alone(autojump_clock: object, what: str) -> None:
    """What HTTP/2 forbids ends this connection, with GOAWAY and the right code, and its calls; no other's."""
    frames, code = MALFORMED[what]
    async with open_scripted() as (other, other_peer), open_scripted() as (line, peer), trio.open_nursery() as nursery:

        async def call(kind: Kind) -> None:
            with pytest.raises(UnavailableError, match="broke the protocol"):
                await kind(line.stub, Order(answers=1))

        for kind in KINDS:
            nursery.start_soon(call, kind)
        await wait_all_tasks_blocked()
        with trio.fail_after(GUARD):
            await peer.send(frames)
            said = await peer.expect("GOAWAY")
            await peer.expect_end()
        assert said.code == code if code is not None else said.code != ErrorCode.NO_ERROR
        assert [kind for kind, _ in line.told] == ["ready", "lost"]
        nursery.start_soon(other.stub.ask, Order())
        await other_peer.expect_request()
        await other_peer.respond(1, b"")


ALLOWED = {
    "unknown frame": frame(0xEE, 0xFF, 1, b"what?"),
    "unknown frame on stream 0": frame(0xEE, 0xFF, 0, b"what?"),
    "unknown setting": settings({0xF0F0: 7}),
    "PRIORITY": frame("PRIORITY", 0, 1, bytes(5)),
    "PRIORITY on an idle stream": frame("PRIORITY", 0, 99, bytes(5)),
    "PING": ping(),
    "a PING's answer that nobody asked for": ping(ack=True),
    "table size": settings({0x1: 65_536}),
    "more streams": settings({0x3: 2**32 - 1}),
    "no streams": settings({0x3: 0}),
    "window": window_update(1, 100),
    "window of a stream that is over": window_update(1, 100),
    "empty DATA": headers(1) + data(1) + data(1, padding=255),
    "reserved bit": frame("PING", 0, 2**31, bytes(8)),
    "empty SETTINGS": settings(),
}


@pytest.mark.parametrize("what", ALLOWED)
async def test_what_is_allowed_does_no_harm(autojump_clock: object, what: str) -> None:
    """What HTTP/2 allows, be it ever so strange, changes nothing for the call."""
    async with open_scripted() as (line, peer), trio.open_nursery() as nursery:
        nursery.start_soon(line.stub.ask, Order())
        await peer.expect_request()
        await peer.send(ALLOWED[what])
        await wait_all_tasks_blocked()
        head = b"" if what == "empty DATA" else headers(1)
        await peer.send(head, data(1, message(b""), padding=3), trailers(1), ALLOWED["window of a stream that is over"])
        await wait_all_tasks_blocked()
        assert line.lost is None


async def test_every_split_of_the_bytes(autojump_clock: object) -> None:
    """An answer that comes byte by byte is the same answer."""
    async with open_scripted() as (line, peer), trio.open_nursery() as nursery:
        nursery.start_soon(line.stub.ask, Order())
        await peer.expect_request()
        whole = headers(1) + data(1, message(b"\x08\1")) + trailers(1)
        for at in range(len(whole)):
            await peer.send(whole[at : at + 1])


async def test_a_server_that_does_not_read(autojump_clock: object) -> None:
    """A client whose bytes nobody reads can still be left: its scope closes the stream, and its calls end."""
    (server, client) = trio.testing.lockstep_stream_pair()
    peer = ScriptedPeer(server)
    with trio.fail_after(GUARD):
        async with trio.open_nursery() as nursery, open_channel(stream=client) as line:
            nursery.start_soon(peer.send, settings())
            await line.channel.wait_ready()

            async def call() -> None:
                with pytest.raises(UnavailableError):
                    await line.stub.ask(Order())

            nursery.start_soon(call)
            await wait_all_tasks_blocked()
