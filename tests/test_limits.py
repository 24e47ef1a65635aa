"""What a connection holds, in bytes as Python counts them, while its server does all it can to make it more.

The bound is that of docs/transport.md: `FIXED`, and for each open call what `of_a_call` says. In virtual time.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import pytest
import trio
from attrs import frozen
from trio.testing import wait_all_tasks_blocked

import hostile
from hostile import (
    Hostile,
    all_of_everything,
    announced,
    drip,
    endless_headers,
    fields,
    flood,
    informational,
    long_headers,
    messages,
    table,
    torn,
)
from nasty.nasty_grpc import NastyStub
from nasty.nasty_pb2 import Order
from transport import note, open_channel
from viewreg._config import Config
from viewreg._http2.flow import STREAM_WINDOW
from viewreg._http2.headers import MAX_HEADER_FIELDS, MAX_HEADER_LIST_SIZE
from viewreg._transport.status import CallError
from viewreg.testing.frames import data, frame, goaway, ping, rst_stream, settings, settings_ack, window_update

KIB: Final = 1024
MIB: Final = 1024 * KIB
FIXED: Final = MIB  # bytes, with or without calls
FIELD: Final = 150  # bytes that a header field takes beside its text and the 32 that HTTP/2 counts for it
MOMENT: Final = MIB  # bytes for a step: what has just arrived, and what hpack makes of a header block
PART: Final = 16 * KIB  # bytes: what a buffer is made of
LARGE: Final = 2 * MIB  # bytes of the largest message
REQUEST: Final = 500 * KIB  # bytes of a large request, which is its caller's own
FLOOD: Final = 256 * KIB  # bytes of small frames
SMALL: Final = 128 * KIB  # bytes: a connection, a call, and what has arrived last


def of_a_call(largest: int) -> int:
    """Bytes for one open call: a window or a message, headers and trailers, and what is not given back at once."""
    return max(STREAM_WINDOW, largest) + 2 * (MAX_HEADER_LIST_SIZE + MAX_HEADER_FIELDS * FIELD) + 3 * PART


# -- the clients --


async def unread(stub: NastyStub) -> None:
    """Take one answer of many, and never the next."""
    async with stub.listen(Order()) as answers:
        await anext(answers)
        await trio.sleep_forever()


async def reads(stub: NastyStub) -> None:
    """Take one answer after the other."""
    async with stub.listen(Order()) as answers:
        async for _ in answers:
            pass


async def one(stub: NastyStub) -> None:
    """Wait for the one answer."""
    await stub.ask(Order())


async def asks_much(stub: NastyStub) -> None:
    """Send more than any window takes."""
    await stub.ask(Order(payload=bytes(REQUEST)))


# -- the servers --


@frozen
class Kind:
    """A kind of hostility, to how many calls it is done, and what it must not bring about."""

    says: hostile.Says
    calls: int = 1
    client: Callable[[NastyStub], Awaitable[None]] = unread
    deaf: bool = False
    largest: int = 0  # bytes of the largest message that it sends, or begins to send
    held: int | None = None  # bytes that are enough for it; None is all that is allowed
    lost: str = ""  # why the connection ends; by default it does not


LISTED: Final = fields(MAX_HEADER_FIELDS - 2, 470)  # some bytes less than may be
PING, SETTINGS, UNKNOWN = ping(), settings({3: 1}), frame(0xEE, 0xFF, 1, bytes(16_000))
PROMISE: Final = frame("PUSH_PROMISE", 0x4, 1, bytes(4) + b"\x88")
LATE: Final = rst_stream(1) + data(1, bytes(9000))
CALM: Final = "ENHANCE_YOUR_CALM"

KINDS: Final = {
    "messages of 1,000 bytes": Kind(messages(1000), 20),
    "messages of 100,000 bytes": Kind(messages(100_000), 20),
    "messages of nothing": Kind(messages(0), 20),
    "frames of five bytes": Kind(messages(0, frame_size=5)),
    "padded frames": Kind(messages(50, frame_size=57, padding=255), 10),
    "a large message without its end": Kind(torn(LARGE - 10), 3, largest=LARGE),
    "small messages, then the same": Kind(torn(LARGE - 10, before=9000), 3, reads, largest=LARGE),
    "two large messages for one": Kind(torn(LARGE - 10, before=1, each=LARGE - 10), 3, one, largest=LARGE, held=SMALL),
    "large messages announced": Kind(announced(LARGE - 10), 100, held=FIXED),
    "a message byte by byte": Kind(drip(1000), held=SMALL),
    "large headers": Kind(long_headers(LISTED), 20),
    "many header fields": Kind(long_headers(fields(1500, 0)), 5, held=SMALL),
    "headers, data and trailers": Kind(all_of_everything(LISTED), 20),
    "responses before the response": Kind(informational, held=SMALL),
    "endless headers": Kind(endless_headers, held=SMALL, lost=CALM),
    "a table of headers": Kind(table, held=SMALL),
    "PINGs": Kind(flood(PING, FLOOD), held=SMALL, lost=CALM),
    "PINGs, and it does not read": Kind(flood(PING, FLOOD), deaf=True, held=SMALL, lost=CALM),
    "SETTINGS, and it does not read": Kind(flood(SETTINGS, FLOOD), deaf=True, held=SMALL, lost=CALM),
    "answers to no PING": Kind(flood(ping(ack=True), FLOOD), held=SMALL, lost=CALM),
    "acknowledgements of no SETTINGS": Kind(flood(settings_ack(), FLOOD), held=SMALL, lost=CALM),
    "windows": Kind(flood(window_update(1, 1), FLOOD), held=SMALL, lost=CALM),
    "resets": Kind(flood(rst_stream(1), FLOOD), held=SMALL, lost=CALM),
    "priorities": Kind(flood(frame("PRIORITY", 0, 1, bytes(5)), FLOOD), held=SMALL, lost=CALM),
    "unknown frames": Kind(flood(UNKNOWN, 16 * MIB), held=SMALL),
    "empty frames": Kind(flood(data(1), FLOOD), held=SMALL, lost=CALM),
    "frames of padding": Kind(flood(data(1, padding=255), FLOOD), held=SMALL),
    "frames for a call that was reset": Kind(flood(LATE, 16 * MIB), held=SMALL),
    "the beginning of a frame": Kind(flood(frame(0xEE, length=16_384) + bytes(16_383), 16_392), held=SMALL),
    "promises": Kind(flood(PROMISE, FLOOD), held=SMALL, lost="push is disabled"),
    "words of farewell": Kind(flood(goaway(debug=b"\xff" * 16_000), MIB), held=SMALL),
    "nothing, and it does not read": Kind(long_headers(()), 10, asks_much, deaf=True, held=SMALL + 10 * REQUEST),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
async def test_what_a_connection_holds(name: str, autojump_clock: object) -> None:
    """Whatever the server does, the memory of a connection and its calls stays below the bound, at every moment."""
    kind = KINDS[name]
    allowed = FIXED + kind.calls * of_a_call(kind.largest)
    gc.collect()
    tracemalloc.start()
    try:
        held, most, lost, said = await measure(kind)
    finally:
        tracemalloc.stop()
    note(f"{name}: {held // KIB} KiB held, at most {most // KIB}, allowed {allowed // KIB}; {said // KIB} said; {lost}")
    assert kind.lost in (lost or "")
    assert (lost is None) is (not kind.lost)
    assert held <= (allowed if kind.held is None else kind.held)
    assert most <= allowed + MOMENT + kind.largest


async def measure(kind: Kind) -> tuple[int, int, str | None, int]:
    """Bytes held once the server has said all, and at most; why the connection was lost; and how much was said."""
    server = Hostile(kind.says, kind.calls, deaf=kind.deaf)
    config = Config(max_message_size=kind.largest or LARGE)
    before = tracemalloc.get_traced_memory()[0]
    async with open_channel(config=config, stream=server) as line, trio.open_nursery() as nursery:

        async def call() -> None:
            with suppress(CallError):
                await kind.client(line.stub)

        for _ in range(kind.calls):
            nursery.start_soon(call)
        await wait_all_tasks_blocked()
        gc.collect()
        held, most = (size - before for size in tracemalloc.get_traced_memory())
        lost = line.lost
        nursery.cancel_scope.cancel()
    return held, most, lost, server.said
