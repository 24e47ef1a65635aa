"""What hostile servers make a client hold: the growth of its resident memory, beside what docs/transport.md allows.

Server and client are processes of their own, a new pair for each kind of hostility. The server keeps to the windows
that it is given, and says all it can; the calls take one answer and leave the rest. Linux only: it reads /proc.
With viewreg installed: `python benchmarks/bench_limits.py [--calls N] [--quick]`
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import repeat
from pathlib import Path
from typing import Any, Final, NamedTuple

import trio

from viewreg import CallError, Channel, Config, Feature, ProbeResult, View, open_registry
from viewreg.rpc import CarouselRequest, CarouselResult, Fact
from viewreg.testing.frames import (
    END_HEADERS,
    RESPONSE,
    FrameReader,
    block,
    data,
    frame,
    headers,
    message,
    ping,
    settings,
    settings_ack,
    status_fields,
)

KIB, MIB = 1024, 1024 * 1024
FRAME: Final = 16_384  # bytes of the largest frame that a client must take
PATIENCE: Final = 0.5  # seconds without a window after which a server has said all it can
LARGE: Final = 8 * MIB  # bytes of the largest message that a client takes here

# What a client may hold, by docs/transport.md.
FIXED: Final = MIB
WINDOW: Final = 256 * KIB
REST: Final = 216 * KIB  # of a call: headers and trailers, and the parts of its buffer


class Server:
    """One connection, as its server sees it."""

    def __init__(self) -> None:
        self.streams: list[int] = []
        self.windows = {0: 1024 * KIB}  # bytes that may still be sent on each stream; 0 is the connection
        self._reader = FrameReader()

    def hear(self, received: bytes | bytearray) -> None:
        """Take in what the client says."""
        for found in self._reader.feed(received):
            if found.kind == "HEADERS":
                self.streams.append(found.stream_id)
                self.windows[found.stream_id] = WINDOW
            elif found.kind == "WINDOW_UPDATE" and found.stream_id in self.windows and self.streams:
                self.windows[found.stream_id] += found.increment
            elif found.kind == "RST_STREAM":
                self.windows.pop(found.stream_id, None)

    def say(self, unit: bytes, *, once: bool = False, padding: int | None = None) -> Iterator[bytes]:
        """On all streams `unit` as often as windows allow, or once. Yields nothing, b"", to wait for a window."""
        overhead = 0 if padding is None else 1 + padding
        whole = unit if once else unit * (2 + FRAME // len(unit))
        places = dict.fromkeys(self.streams, 0)
        while places:
            waits = True
            for stream_id, at in list(places.items()):
                room = min(FRAME, self.windows.get(stream_id, 0), self.windows[0]) - overhead
                part = whole[at : at + max(0, room)]
                if not part:
                    continue
                waits = False
                self.windows[stream_id] -= len(part) + overhead
                self.windows[0] -= len(part) + overhead
                places[stream_id] = at + len(part) if once else (at + len(part)) % len(unit)
                yield data(stream_id, part, padding=padding)
            places = {stream_id: at for stream_id, at in places.items() if at < len(whole)}
            if waits:
                yield b""


Says = Callable[[Server], Iterator[bytes]]


class Kind(NamedTuple):
    """What a server does, to which part of the calls, and the largest message that it sends or begins to send."""

    says: Says
    share: float = 1.0
    largest: int = 0
    deaf: bool = False  # it reads nothing any more


def answers(payload: int, *, padding: int | None = None) -> Says:
    """Messages without end."""
    unit = message(CarouselResult(facts=[Fact(object=bytes(payload))]).SerializeToString() if payload else b"")
    return lambda server: _after(map(headers, server.streams), server.say(unit, padding=padding))


def torn(size: int) -> Says:
    """A small message, and a large one without its last byte."""
    whole = message(b"") + message(b"", length=size) + bytes(size - 1)
    return lambda server: _after(map(headers, server.streams), server.say(whole, once=True))


def announced(size: int) -> Says:
    """The first byte of a large message."""
    return lambda server: _after(map(headers, server.streams), server.say(message(b"x", length=size), once=True))


def everything(server: Server) -> Iterator[bytes]:
    """Headers, a window of data and trailers, as large as may be."""
    large = tuple((b"x%d" % number, b"v" * 470) for number in range(124))
    yield from (_cut(stream_id, block((*RESPONSE, *large))) for stream_id in server.streams)
    yield from server.say(message(b"") + message(b"", length=WINDOW) + bytes(WINDOW - 100), once=True)
    yield from (_cut(stream_id, block((*status_fields(0), *large)), end=True) for stream_id in server.streams)


def table(server: Server) -> Iterator[bytes]:
    """A table of headers, each of which comes in a long block."""
    yield from map(headers, server.streams)
    for number in range(200):
        yield _cut(server.streams[0], b"\x40\1x\x03%03d" % number + block(((b"x", bytes(60_000)),)))


def informational(server: Server) -> Iterator[bytes]:
    """Responses before the response, without end."""
    for _ in range(1000):
        yield _cut(server.streams[0], block(((b":status", b"103"), (b"x", b"v" * 16_000))))


def flood(part: bytes) -> Says:
    """The same frame again and again."""
    return lambda server: _after(map(headers, server.streams), repeat(part * (FRAME // len(part) or 1), 1000))


KINDS: Final[dict[str, Kind]] = {
    "messages of 1,000 bytes": Kind(answers(1000)),
    "messages of nothing": Kind(answers(0)),
    "padded messages": Kind(answers(50, padding=255)),
    "a message without its end": Kind(torn(LARGE), 0.05, LARGE),
    "a message announced": Kind(announced(LARGE), 1.0),
    "headers, data and trailers": Kind(everything),
    "a table of headers": Kind(table, 0.0),
    "responses before the response": Kind(informational, 0.0),
    "PINGs, and it does not read": Kind(flood(ping()), 0.0, deaf=True),
    "SETTINGS, and it does not read": Kind(flood(settings({3: 100})), 0.0, deaf=True),
    "frames of unknown kinds": Kind(flood(frame(0xEE, 0, 0, bytes(16_000))), 0.0),
    "padding": Kind(flood(data(1, padding=255)), 0.0),
}


def _after(first: Iterator[bytes], then: Iterator[bytes]) -> Iterator[bytes]:
    yield b"".join(first)
    yield from then


def _cut(stream_id: int, whole: bytes, *, end: bool = False) -> bytes:
    pieces = [whole[at : at + FRAME] for at in range(0, len(whole), FRAME)]
    flags = [0] * len(pieces)
    flags[-1] = END_HEADERS
    flags[0] |= end
    kinds = ["HEADERS"] + ["CONTINUATION"] * (len(pieces) - 1)
    return b"".join(map(frame, kinds, flags, repeat(stream_id), pieces))


# -- the server's process --


async def serve(kind: Kind, calls: int) -> None:
    """Take one connection, wait for the calls, say it all, and tell when that is done."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print(listener.socket.getsockname()[1], flush=True)
    async with listener, await listener.accept() as stream:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await _talk(stream, kind, calls)
        print("done", flush=True)
        await trio.sleep_forever()


async def _talk(stream: trio.abc.Stream, kind: Kind, calls: int) -> None:
    server, heard = Server(), trio.Event()

    async def listen() -> None:
        nonlocal heard
        while received := await stream.receive_some():
            server.hear(received)
            old, heard = heard, trio.Event()
            old.set()
            if kind.deaf and len(server.streams) >= calls:
                return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await stream.send_all(settings() + settings_ack())
        while len(server.streams) < calls:
            await heard.wait()
        for part in kind.says(server):
            if part:
                with trio.move_on_after(PATIENCE * 4):
                    await stream.send_all(part)
                continue
            with trio.move_on_after(PATIENCE) as waiting:
                await heard.wait()
            if waiting.cancelled_caught:
                break
        nursery.cancel_scope.cancel()


# -- the client's process --


class ReadyIsEnough:
    """A probe that asks nothing."""

    no_features = Feature(0)

    async def __call__(self, channel: Channel) -> ProbeResult[Feature]:  # noqa: ARG002 (a probe's)
        """Healthy."""
        await trio.lowlevel.checkpoint()
        return ProbeResult(Feature(0))


async def hold(port: int, calls: int) -> None:
    """Make the calls; when the server has done its worst, tell what that is in memory."""
    config = Config(max_message_size=LARGE)
    async with open_registry(f"static:///127.0.0.1:{port}", config, probe=ReadyIsEnough()) as registry:
        snapshot = await registry.wait_until(lambda at: bool(at.healthy_views()))
        (view,) = snapshot.views
        gc.collect()
        before = resident("VmRSS", afresh=True)
        async with trio.open_nursery() as nursery:
            for _ in range(calls):
                nursery.start_soon(take_one, view)
            await trio.to_thread.run_sync(sys.stdin.readline)
            await trio.sleep(PATIENCE)  # for what is on its way
            print(json.dumps({"held": resident("VmRSS") - before, "most": resident("VmHWM") - before}), flush=True)
            nursery.cancel_scope.cancel()


async def take_one(view: View[Any]) -> None:
    """Take one answer, and wait."""
    with suppress(CallError):
        async with view.carousel().ride(CarouselRequest()) as chunks:
            await anext(chunks)
            await trio.sleep_forever()


def resident(name: str, *, afresh: bool = False) -> int:
    """Bytes of this process in memory, now (VmRSS) or at most (VmHWM), which may begin `afresh`."""
    if afresh:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * KIB for line in lines if line.startswith(name))


# -- both --


def measure(name: str, calls: int) -> dict[str, int]:
    """Run a pair of processes."""
    program = [sys.executable, __file__, "--kind", name, "--calls", str(calls)]
    pipe = subprocess.PIPE
    with subprocess.Popen([*program, "--role", "server"], stdout=pipe, text=True) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        with subprocess.Popen([*program, "--role", port], stdin=pipe, stdout=pipe, text=True) as client:
            server.stdout.readline()
            found, _ = client.communicate("done\n")
        server.kill()
    measured: dict[str, int] = json.loads(found)
    return measured


def main() -> None:
    """Play the part that the command line gives."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100, help="on the one connection, of kinds that need many")
    parser.add_argument("--quick", action="store_true", help="few calls and kinds, to see that it runs")
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--role", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "server":
        trio.run(serve, KINDS[options.kind], options.calls)
    elif options.role:
        trio.run(hold, int(options.role), options.calls)
    else:
        report(list(KINDS)[::3], 20) if options.quick else report(list(KINDS), options.calls)


def report(names: list[str], most_calls: int) -> None:
    """Print a line for each of these kinds."""
    print(f"{'':34}{'calls':>6}{'held':>10}{'at most':>10}{'allowed':>10}   KiB")
    for name in names:
        kind = KINDS[name]
        calls = max(1, round(kind.share * most_calls))
        found = measure(name, calls)
        allowed = FIXED + calls * (max(WINDOW, kind.largest) + REST)
        print(f"{name:34}{calls:6}{found['held'] // KIB:10}{found['most'] // KIB:10}{allowed // KIB:10}", flush=True)


if __name__ == "__main__":
    main()
