"""What the HTTP/2 state machine costs by itself, without sockets and without Trio.

Run `python benchmarks/bench_http2.py`, with viewreg installed; `--quick` for one round. It prints the best of several
rounds, as CPU time of one core:

* the whole life of one unary call: the request goes out, the answer comes in as one piece, its message is taken;
* 1 MiB of a streamed answer in DATA frames of 16 KiB, in messages of 1 MiB and of 1 KiB, taken as they come.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from viewreg._http2 import frames
from viewreg._http2.headers import literal, request_block
from viewreg._http2.protocol import Protocol
from viewreg._http2.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 7
CALLS = 5_000  # a round
MEGABYTES = 32  # a round
MESSAGE = b"\0\0\0\0\x0b" + b"eleven more"
MAX_MESSAGE = 64 * 1024 * 1024  # bytes


def main() -> None:
    """Measure and print."""
    global ROUNDS  # noqa: PLW0603 (a setting, made once)
    if "--quick" in sys.argv:
        ROUNDS = 1
    print(f"unary call:                      {best(unary_calls) / CALLS * 1e6:7.2f} us")
    for size in (1024 * 1024, 1024):
        seconds = best(partial(streamed, size)) / MEGABYTES
        print(f"1 MiB in messages of {size:7} bytes: {seconds * 1e6:5.0f} us")


def best(work: Callable[[], None]) -> float:
    """CPU seconds of the fastest round."""
    rounds = []
    for _ in range(ROUNDS):
        started = time.process_time()
        work()
        rounds.append(time.process_time() - started)
    return min(rounds)


def connected() -> Protocol:
    """A connection as a grpcio server leaves it after the handshake."""
    protocol = Protocol()
    protocol.receive(frames.settings_frame({frames.SETTINGS_MAX_FRAME_SIZE: 2**14}) + frames.SETTINGS_ACK)
    protocol.take_outbox()
    return protocol


def response(*, first: bool) -> tuple[bytes, bytes]:
    """Header blocks of an answer's head and of its trailers; the first on a connection sets the table's size."""
    head = b"\x88" + literal(b"content-type", b"application/grpc") + literal(b"grpc-accept-encoding", b"identity")
    return (b"\x20" if first else b"") + head, literal(b"grpc-status", b"0") + literal(b"grpc-message", b"")


def answer(stream_id: int, *, first: bool) -> bytes:
    """All that a server sends for one unary call."""
    head, trailers = response(first=first)
    return b"".join((
        frames.window_update_frame(0, len(MESSAGE)),
        frames.headers_frames(stream_id, head, end_stream=False, max_frame_size=2**14),
        frames.frame(frames.DATA, 0, stream_id, MESSAGE),
        frames.headers_frames(stream_id, trailers, end_stream=True, max_frame_size=2**14),
    ))  # fmt: skip


ANSWERS = [answer(2 * call + 1, first=not call) for call in range(CALLS)]


def unary_calls() -> None:
    """One after the other, on one connection."""
    protocol = connected()
    for piece in ANSWERS:
        block = request_block("http", "view.example:8080", "/rpc.Diagnostics/stats", "viewreg")
        stream = Stream(wake, MAX_MESSAGE)
        protocol.open_stream(stream, block, MESSAGE, 65_536)
        protocol.take_outbox()
        protocol.receive(piece)
        if protocol.take_message(stream) != MESSAGE[5:] or not stream.ended:
            raise AssertionError("the call did not end well")


def streamed(size: int) -> None:
    """One call with many messages of `size` bytes, received in pieces of 64 KiB."""
    protocol = connected()
    stream = Stream(wake, MAX_MESSAGE)
    block = request_block("http", "view.example:8080", "/rpc.Carousel/ride", "viewreg")
    protocol.open_stream(stream, block, MESSAGE, 65_536)
    head, _ = response(first=True)
    protocol.receive(frames.headers_frames(stream.id, head, end_stream=False, max_frame_size=2**14))
    message = (b"\0" + (size - 5).to_bytes(4, "big")).ljust(size, b"x")
    frame = frames.frame(frames.DATA, 0, stream.id, (message * (2**14 // size + 1))[: 2**14])
    if size > 2**14:
        rest = frames.frame(frames.DATA, 0, stream.id, b"x" * 2**14)
        pieces = [frame + rest * 3] + [rest * 4] * (size // 2**16 - 1)
    else:
        pieces = [frame * 4]
    taken = 0
    for _ in range(MEGABYTES * 16 // len(pieces)):
        for piece in pieces:
            protocol.receive(piece)
            while stream.has_message:
                taken += len(protocol.take_message(stream)) + 5
            if protocol.outbox_size:
                protocol.take_outbox()
    if taken != MEGABYTES * 2**20:
        raise AssertionError(f"{taken} bytes arrived")


def wake() -> None:
    """Nobody sleeps here."""


if __name__ == "__main__":
    main()
