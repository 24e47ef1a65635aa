"""The peers that other tests stand on do what they say, in virtual time and without the code that they test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from http2_driver import NO_LIMIT, a_block, nobody
from peers import H2View
from viewreg._http2.events import GoAway, PingAnswered, WindowOpened
from viewreg._http2.frames import ErrorCode
from viewreg._http2.headers import literal, request_block
from viewreg._http2.protocol import Protocol
from viewreg._http2.stream import Stream
from viewreg.rpc import StatsResult
from viewreg.testing import ScriptedPeer
from viewreg.testing.frames import ACK, headers, message, ping, rst_stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

STATS = "/rpc.Diagnostics/stats"


class Client:
    """The least that talks HTTP/2 over a Trio stream: whoever waits, reads."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.protocol = Protocol()
        self.stream = stream
        self.seen: list[object] = []

    async def until(self, condition: Callable[[], bool]) -> None:
        """Write what is due, and read until the condition holds."""
        while True:
            await self.stream.send_all(self.protocol.take_outbox())
            if condition():
                return
            received = await self.stream.receive_some()
            assert received, "the server closed the connection"
            self.seen += self.protocol.receive(received)

    async def begin(self, path: str, body: bytes = b"") -> Stream:
        """Send a request; all of it has left."""
        await self.until(lambda: self.protocol.free_streams > 0)
        stream = Stream(nobody, 2**30)
        block = request_block("http", "view:1", path, "tests") + literal(b"x-field", b"value")
        rest = self.protocol.open_stream(stream, block, message(body), NO_LIMIT)
        while rest is not None:
            self.seen.clear()
            await self.until(lambda: any(isinstance(event, WindowOpened) for event in self.seen))
            rest = self.protocol.send_data(stream, rest, end_stream=True, limit=NO_LIMIT)
        await self.until(lambda: True)
        return stream

    async def finish(self, stream: Stream) -> tuple[list[bytes], bytes | None]:
        """The messages, and the gRPC status."""
        messages = []
        while not stream.ended or stream.has_message:
            await self.until(lambda: stream.has_message or stream.ended)
            if stream.has_message:
                messages.append(self.protocol.take_message(stream))
        return messages, dict(stream.trailers or ()).get(b"grpc-status")

    async def call(self, path: str, body: bytes = b"") -> tuple[list[bytes], bytes | None]:
        """Both."""
        return await self.finish(await self.begin(path, body))


async def test_a_view_answers(nursery: trio.Nursery) -> None:
    """Stats, replies given, and an echo of any size; each request is noted."""
    stats = StatsResult(viewType="txtimeout")
    view = H2View(stats)
    view.replies["/rpc.Carousel/ride"] = [b"one", b"two" * 200_000]
    client = Client(view.connect(nursery))
    assert await client.call(STATS) == ([stats.SerializeToString()], b"0")
    assert await client.call("/rpc.Carousel/ride") == ([b"one", b"two" * 200_000], b"0")
    assert await client.call("/any/other", b"echo" * 100_000) == ([b"echo" * 100_000], b"0")
    assert [request.path for request in view.requests] == [STATS, "/rpc.Carousel/ride", "/any/other"]
    assert view.requests[2].message == b"echo" * 100_000
    assert view.requests[0].header(b"x-field") == b"value"
    assert (view.open_streams, view.connections, view.connections_made) == (0, 1, 1)


async def test_a_view_turns_its_knobs(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Statuses and delays act on the next request; a delay is one of virtual time."""
    view = H2View()
    client = Client(view.connect(nursery))
    assert await client.call(STATS) == ([], b"12")
    view.status, view.details = 14, "not now"
    assert await client.call("/any/other") == ([], b"14")
    view.status, view.delay = 0, 3600.0
    started = trio.current_time()
    assert await client.call("/any/other", b"late") == ([b"late"], b"0")
    assert trio.current_time() == started + 3600


async def test_a_view_that_hangs_sees_the_reset(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A call that is never answered is open until the client resets it, which is noted with its code."""
    view = H2View(hang=True)
    client = Client(view.connect(nursery))
    stream = await client.begin("/any/other")
    await view.wait_requests(1)
    assert view.open_streams == 1
    client.protocol.reset_stream(stream)
    await client.until(lambda: True)
    await trio.sleep(1)
    assert (view.open_streams, view.resets) == (0, [(stream.id, ErrorCode.CANCEL)])


async def test_a_frozen_view_is_silent(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Nothing comes while it is frozen, and all of it when it thaws."""
    view = H2View()
    client = Client(view.connect(nursery))
    await client.call("/any/other")
    view.frozen = True
    client.protocol.ping(b"answer!!")
    stream = await client.begin("/any/other", b"x")
    with trio.move_on_after(100) as scope:
        await client.finish(stream)
    assert scope.cancelled_caught
    view.frozen = False
    assert await client.finish(stream) == ([b"x"], b"0")
    assert PingAnswered(b"answer!!") in client.seen


async def test_a_view_goes_away_gracefully(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """After GOAWAY a request that has begun is still answered."""
    view = H2View(delay=10)
    client = Client(view.connect(nursery))
    stream = await client.begin("/any/other", b"last")
    await view.wait_requests(1)
    view.go_away(debug=b"max_age")
    assert await client.finish(stream) == ([b"last"], b"0")
    assert GoAway(stream.id, 0, "max_age") in client.seen


async def test_a_view_is_cut(nursery: trio.Nursery) -> None:
    """A cut connection ends at once, and a new one can be made."""
    view = H2View()
    client = Client(view.connect(nursery))
    await client.call("/any/other")
    view.cut()
    assert await client.stream.receive_some() == b""
    assert view.connections == 0
    assert await Client(view.connect(nursery)).call("/any/other", b"x") == ([b"x"], b"0")


async def test_a_script_is_played(autojump_clock: MockClock) -> None:
    """Handshake, request, answer: the client gets what the peer sends, and the peer knows what it got."""
    peer, stream = ScriptedPeer.pair()
    client = Client(stream)
    async with trio.open_nursery() as nursery:
        answers: list[tuple[list[bytes], bytes | None]] = []

        async def two_calls() -> None:
            answers.append(await client.call("/a/b", b"first"))
            answers.append(await client.call("/a/b", b"second"))

        nursery.start_soon(two_calls)
        assert (await peer.handshake({3: 100})).settings[4] == 262_144
        request = await peer.expect_request()
        assert (request.path, request.message) == ("/a/b", b"first")
        await peer.respond(request.stream_id, b"one", b"two")
        await peer.refuse((await peer.expect_request()).stream_id, 5, "no such thing")
    assert answers == [([b"one", b"two"], b"0"), ([], b"5")]
    assert client.protocol.max_concurrent_streams == 100
    await stream.aclose()
    await peer.expect_end()


async def test_frames_can_be_expected_in_any_order(autojump_clock: MockClock) -> None:
    """`expect` passes over what it is not asked for, returns nothing twice, and says why it gives up."""
    peer, stream = ScriptedPeer.pair()
    protocol = Protocol()
    await stream.send_all(protocol.take_outbox())
    await peer.send(headers(1), ping(), rst_stream(1))  # nobody reads it
    protocol.ping(b"12345678")
    protocol.open_stream(Stream(nobody, 1), a_block(), None, NO_LIMIT)
    await stream.send_all(protocol.take_outbox())
    assert (await peer.expect("HEADERS", stream_id=1)).header(b":method") == b"POST"
    assert (await peer.expect("PING", flags=0)).payload == b"12345678"
    with pytest.raises(AssertionError, match=r"(?s)expected PING flags=0; nothing like it came within 60 s.*SETTINGS"):
        await peer.expect("PING", flags=0)
    await stream.aclose()
    with pytest.raises(AssertionError, match=f"expected SETTINGS flags={ACK}; the client closed the stream"):
        await peer.expect("SETTINGS", flags=ACK)
