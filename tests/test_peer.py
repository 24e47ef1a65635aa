"""`ScriptedPeer` against clients whose every byte is written down here: in memory, and on real sockets."""

from __future__ import annotations

import inspect
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import viewreg
from sockets import GUARD, reset, stream_of
from viewreg import InvalidTypeError, InvalidValueError
from viewreg.rpc import StatsRequest, StatsResult
from viewreg.testing import PeerRequest, ScriptedPeer, frames
from viewreg.testing.frames import Frame, FrameReader

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

REQUEST = ((b":method", b"POST"), (b":path", b"/a/b"), (b"te", b"trailers"))
HELLO = frames.PREFACE + frames.settings({4: 1000})


def call(stream_id: int, *messages: bytes) -> bytes:
    """A request as a client sends it."""
    body = b"".join(map(frames.message, messages))
    return frames.headers(stream_id, REQUEST) + frames.data(stream_id, body, end=True)


async def heard(peer: ScriptedPeer, client: trio.abc.Stream) -> bytes:
    """Close the peer; all that it has said."""
    await peer.aclose()
    said = b""
    while part := await client.receive_some():
        said += part
    return said


# -- what it says --


async def test_it_says_nothing_by_itself(autojump_clock: MockClock) -> None:
    """What the test does not write down is not said: no SETTINGS, no answer to a PING, no window, no answer."""
    peer, client = ScriptedPeer.pair()
    await client.send_all(HELLO + frames.ping() + call(1, bytes(10_000)))
    await peer.expect("PING")
    await peer.expect_request()
    await trio.sleep(3600)
    assert await heard(peer, client) == b""


async def test_it_says_what_is_written_down(autojump_clock: MockClock) -> None:
    """Bytes are sent as they are, right or wrong, before and after anything was heard."""
    peer, client = ScriptedPeer.pair()
    await peer.send(b"any", b"thing")
    await peer.send()
    await client.send_all(HELLO)
    await peer.expect("SETTINGS")
    await peer.send(frames.frame(0xEE, length=99))
    assert await heard(peer, client) == b"anything" + bytes.fromhex("000063 ee 00 00000000")


async def test_the_handshake(autojump_clock: MockClock) -> None:
    """SETTINGS first, the acknowledgement once the client's are there; the client's are returned."""
    peer, client = ScriptedPeer.pair()
    reader = FrameReader(preface=False)
    async with trio.open_nursery() as nursery:

        async def shake_hands() -> None:
            assert (await peer.handshake({3: 7})).settings == {4: 1000}

        nursery.start_soon(shake_hands)
        assert reader.feed(await client.receive_some()) == [Frame("SETTINGS", 0, 0, bytes.fromhex("000300000007"))]
        with trio.move_on_after(1) as silence:
            await client.receive_some()
        assert silence.cancelled_caught
        await client.send_all(HELLO)
        assert reader.feed(await client.receive_some()) == [Frame("SETTINGS", 1, 0, b"")]
        await trio.sleep(1)
        assert nursery.child_tasks
        await client.send_all(frames.settings_ack())


async def test_answers(autojump_clock: MockClock) -> None:
    """`respond` says headers, each message, and the status; with `end=False` the stream stays open."""
    peer, client = ScriptedPeer.pair()
    await peer.respond(1, b"one", b"", status=5, details="no 100%")
    await peer.respond(3, end=False)
    said = FrameReader(preface=False).feed(await heard(peer, client))
    fields = ((b"grpc-status", b"5"), (b"grpc-message", b"no 100%25"))
    assert [(found.stream_id, found.kind, found.end_stream) for found in said] == [
        (1, "HEADERS", False),
        (1, "DATA", False),
        (1, "DATA", False),
        (1, "HEADERS", True),
        (3, "HEADERS", False),
    ]
    assert [found.payload for found in said[1:3]] == [b"\0\0\0\0\3one", bytes(5)]
    assert said[0].headers == said[4].headers == ((b":status", b"200"), (b"content-type", b"application/grpc"))
    assert said[3].headers == fields


async def test_a_large_answer_is_cut(autojump_clock: MockClock) -> None:
    """No DATA of `respond` is larger than what each client must take."""
    peer, client = ScriptedPeer.pair()
    await peer.respond(1, bytes(40_000))
    _, *parts, _ = FrameReader(preface=False).feed(await heard(peer, client))
    assert [len(part.payload) for part in parts] == [16_384, 16_384, 40_005 - 2 * 16_384]
    assert b"".join(part.payload for part in parts) == frames.message(bytes(40_000))


async def test_a_refusal(autojump_clock: MockClock) -> None:
    """`refuse` is one frame, with the headers of an answer and the status."""
    peer, client = ScriptedPeer.pair()
    await peer.refuse(1, 14, "not now")
    (said,) = FrameReader(preface=False).feed(await heard(peer, client))
    assert said.end_stream
    assert said.headers == (*frames.RESPONSE, (b"grpc-status", b"14"), (b"grpc-message", b"not now"))


# -- what it gets --


async def test_it_records_all(autojump_clock: MockClock) -> None:
    """`frames` has all that arrived, in order, claimed or not; it stays when the peer is closed."""
    async with ScriptedPeer.pair()[0] as empty:
        assert empty.frames == []
    peer, client = ScriptedPeer.pair()
    await client.send_all(HELLO + frames.ping() + call(1, b"x") + frames.frame(0xEE))
    await peer.expect("DATA")
    ended = [peer.ended]
    await peer.aclose()
    assert [*ended, peer.ended] == [False, True]
    assert [found.kind for found in peer.frames] == ["SETTINGS", "PING", "HEADERS", "DATA", "0xee"]


async def test_frames_in_any_order(autojump_clock: MockClock) -> None:
    """`expect` passes over what it was not asked for, leaves it for later, and returns nothing twice."""
    peer, client = ScriptedPeer.pair()
    await client.send_all(HELLO + call(1, b"x") + call(3, b"y") + frames.rst_stream(1, 8) + frames.rst_stream(3, 7))
    assert (await peer.expect("RST_STREAM", code=7)).stream_id == 3
    assert (await peer.expect("HEADERS", stream_id=3, end_stream=False)).header(b":path") == b"/a/b"
    assert (await peer.expect("HEADERS")).stream_id == 1
    assert (await peer.expect("RST_STREAM")).code == 8
    assert (await peer.expect("SETTINGS", settings={4: 1000}, ack=False)).flags == 0
    assert (await peer.expect("DATA", body=frames.message(b"y"))).stream_id == 3
    await client.aclose()
    with pytest.raises(AssertionError):
        await peer.expect("RST_STREAM")
    assert (await peer.expect("DATA")).stream_id == 1


async def test_requests(autojump_clock: MockClock) -> None:
    """A request is returned when it is whole, however it was cut, padded or weighed."""
    peer, client = ScriptedPeer.pair()
    block = frames.block(REQUEST)
    await client.send_all(HELLO)
    await client.send_all(frames.frame("HEADERS", frames.PRIORITY, 1, bytes(5) + block[:9]))
    await client.send_all(frames.frame("CONTINUATION", 0, 1, block[9:12]))
    await client.send_all(frames.frame("CONTINUATION", frames.END_HEADERS, 1, block[12:]))
    await client.send_all(frames.headers(3, REQUEST, end=True))
    await client.send_all(frames.data(1, frames.message(b"one")[:6], padding=3) + frames.data(1))
    await client.send_all(frames.data(1, frames.message(b"one")[6:] + frames.message(b""), end=True))
    first, second = await peer.expect_request(), await peer.expect_request()
    assert first == PeerRequest(1, "/a/b", REQUEST, b"\0\0\0\0\3one\0\0\0\0\0")
    assert first.messages == (b"one", b"")
    assert first.header(b"te") == b"trailers"
    assert first.header(b"grpc-timeout") is None
    assert second == PeerRequest(3, "/a/b", REQUEST, b"")
    assert second.messages == ()


async def test_a_request_of_two_streams_at_once(autojump_clock: MockClock) -> None:
    """Requests come back in the order in which they began, whatever lies between their frames."""
    peer, client = ScriptedPeer.pair()
    begin = [frames.headers(stream_id, REQUEST) for stream_id in (1, 3)]
    end = [frames.data(stream_id, frames.message(b"%d" % stream_id), end=True) for stream_id in (3, 1)]
    await client.send_all(HELLO + b"".join(begin + end))
    assert [(await peer.expect_request()).message for _ in range(2)] == [b"1", b"3"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the request on stream 1 has 0 messages, expected one; `messages` has them all"),
        (frames.message(b"x") * 2, "has 2 messages, expected one"),
        (frames.message(b"x") + b"\0\0\0\0", "the request on stream 1 ends 4 bytes into a message"),
        (frames.message(b"abc", length=4), "ends 8 bytes into a message"),
    ],
)
def test_a_request_that_is_not_one_message(body: bytes, words: str) -> None:
    """`message` is for requests of just one, and says what there is instead."""
    with pytest.raises(AssertionError, match=words):
        assert PeerRequest(1, "/a/b", REQUEST, body).message


async def test_a_request_without_a_path(autojump_clock: MockClock) -> None:
    """Headers that are no request fail the expectation, and are shown."""
    peer, client = ScriptedPeer.pair()
    await client.send_all(HELLO + frames.trailers(1))
    with pytest.raises(AssertionError, match=r"the request on stream 1 has no :path, but .*grpc-status"):
        await peer.expect_request()


async def test_the_end(autojump_clock: MockClock) -> None:
    """`expect_end` returns when the client has closed; the frames before the end are still to be claimed."""
    peer, client = ScriptedPeer.pair()
    await client.send_all(HELLO + frames.goaway(0))
    await client.aclose()
    ended = [peer.ended]
    await peer.expect_end()
    assert [*ended, peer.ended] == [False, True]
    assert (await peer.expect("GOAWAY")).code == 0
    await peer.expect_end()


# -- expectations in vain --


async def test_patience(autojump_clock: MockClock) -> None:
    """An expectation fails after its seconds of Trio's clock, and tells what was expected and what came."""
    peer, client = ScriptedPeer.pair(patience=2.5)
    await client.send_all(HELLO + frames.rst_stream(1, 8))
    began = trio.current_time()
    with pytest.raises(AssertionError) as caught:
        await peer.expect("RST_STREAM", stream_id=1, code=7)
    assert str(caught.value) == (
        "expected RST_STREAM stream_id=1 code=7; nothing like it came within 2.5 s. What came and no expect has "
        "returned:\n    SETTINGS stream_id=0 settings={4: 1000}\n    RST_STREAM stream_id=1 code=8"
    )
    with pytest.raises(AssertionError, match=r"expected the end of the stream; nothing like it came within 2\.5 s"):
        await peer.expect_end()
    assert trio.current_time() == began + 5


async def test_the_usual_patience(autojump_clock: MockClock) -> None:
    """A minute."""
    peer, _client = ScriptedPeer.pair()
    with pytest.raises(AssertionError, match=r"within 60 s\. What came and no expect has returned: nothing"):
        await peer.expect("PING")
    assert trio.current_time() == 60


async def test_patience_without_end(autojump_clock: MockClock) -> None:
    """With math.inf it waits for ever, and until it is cancelled."""
    peer, _client = ScriptedPeer.pair(patience=float("inf"))
    with trio.move_on_after(1e6) as scope:
        await peer.expect("PING")
    assert scope.cancelled_caught


ENDS: dict[str, Callable[[ScriptedPeer, trio.abc.Stream], Awaitable[None]]] = {
    "the client closed the stream": lambda _peer, client: client.aclose(),
    "the peer itself was closed": lambda peer, _client: peer.aclose(),
}


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("late", [True, False])
async def test_an_end_in_vain(autojump_clock: MockClock, how: str, *, late: bool) -> None:
    """An expectation fails as soon as the connection ends, and says who ended it."""
    peer, client = ScriptedPeer.pair()
    async with trio.open_nursery() as nursery:

        async def end() -> None:
            await trio.sleep(5 if late else 0)
            await ENDS[how](peer, client)

        if late:
            nursery.start_soon(end)
        else:
            await end()
        with pytest.raises(AssertionError, match=f"expected PING; {how}"):
            await peer.expect("PING")
    assert trio.current_time() == (5 if late else 0)


async def test_the_end_of_a_closed_peer(autojump_clock: MockClock) -> None:
    """A peer that has closed the stream itself cannot see the client do so."""
    peer, _client = ScriptedPeer.pair()
    await peer.aclose()
    with pytest.raises(AssertionError, match="expected the end of the stream; the peer itself was closed"):
        await peer.expect_end()


# -- wrong use --


@pytest.mark.parametrize("patience", [0, -1.0, float("nan")])
def test_a_patience_out_of_range(patience: float) -> None:
    """A patience is above 0."""
    with pytest.raises(InvalidValueError, match=r"patience .*: expected a number of seconds above 0, or math\.inf"):
        ScriptedPeer.pair(patience=patience)


@pytest.mark.parametrize("patience", [None, "1", True])
def test_a_patience_of_another_type(patience: Any) -> None:
    """A patience is a number."""
    with pytest.raises(InvalidTypeError, match=r"patience .*: expected a number of seconds above 0"):
        ScriptedPeer.pair(patience=patience)


async def test_expecting_what_there_is_not(autojump_clock: MockClock) -> None:
    """A kind or an attribute that no frame has is an error at once, which names those that there are."""
    peer, _client = ScriptedPeer.pair()
    with pytest.raises(InvalidValueError, match=r"kind 'headers': expected one of DATA, HEADERS, .*CONTINUATION"):
        await peer.expect("headers")
    with pytest.raises(InvalidValueError, match=r"attribute 'stream' of a frame: expected one of ack, .*, stream_id"):
        await peer.expect("HEADERS", stream=1)
    assert trio.current_time() == 0


async def test_every_attribute_can_be_expected(autojump_clock: MockClock) -> None:
    """`expect` takes all attributes of a frame but its kind."""
    peer, client = ScriptedPeer.pair()
    await client.send_all(HELLO)
    (found,) = FrameReader().feed(HELLO)
    names = {name for name in dir(Frame) if not name.startswith("_")} - {"header", "kind"}
    assert await peer.expect("SETTINGS", **{name: getattr(found, name) for name in names}) == found


@pytest.mark.parametrize("other", [ScriptedPeer.expect_end, ScriptedPeer.expect_request, ScriptedPeer.handshake])
async def test_two_tasks(autojump_clock: MockClock, other: Callable[[ScriptedPeer], Awaitable[object]]) -> None:
    """A second task in an `expect` gets an error that says what to do; the first one gets its frame."""
    peer, client = ScriptedPeer.pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.expect, "PING")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError, match=r"another task waits .*: let one task do all of them"):
            await other(peer)
        await client.send_all(HELLO + frames.ping())
    await peer.expect("SETTINGS")  # alone again


@pytest.mark.parametrize("wait", [lambda peer: peer.expect("PING"), ScriptedPeer.expect_end])
async def test_a_client_of_another_language(
    autojump_clock: MockClock, wait: Callable[[ScriptedPeer], Awaitable[object]]
) -> None:
    """A client that does not speak HTTP/2 is an error that shows what it said and what a client has to say."""
    peer, client = ScriptedPeer.pair()
    await client.send_all(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(InvalidValueError, match=r"the first bytes b'GET / HTTP/1\.1.*': expected the preface"):
        await wait(peer)


# -- as a good citizen of Trio --


async def test_checkpoints(autojump_clock: MockClock) -> None:
    """Every wait is a checkpoint, also when what it waits for is there."""
    peer, client = ScriptedPeer.pair()
    await client.send_all(HELLO + frames.ping() + call(1, b"x"))
    await client.aclose()
    await peer.expect_end()
    for wait in (lambda: peer.expect("PING"), peer.expect_request, peer.expect_end):
        with trio.testing.assert_checkpoints():
            await wait()


@pytest.mark.parametrize("arrived", [True, False])
async def test_a_cancelled_wait_loses_nothing(autojump_clock: MockClock, *, arrived: bool) -> None:
    """What has arrived, or arrives later, is there for the next `expect`."""
    peer, client = ScriptedPeer.pair()
    if arrived:
        await client.send_all(HELLO + frames.ping())
        await peer.expect("SETTINGS")
    with trio.CancelScope() as scope:
        scope.cancel()
        await peer.expect("PING")
    assert scope.cancelled_caught
    if not arrived:
        await client.send_all(HELLO + frames.ping())
    await peer.expect("PING")


async def test_leaving_the_block(autojump_clock: MockClock) -> None:
    """The stream is closed when the block is left, by the end, by an error, or by cancellation."""
    peer, client = ScriptedPeer.pair()
    async with peer as same:
        assert same is peer
    assert await client.receive_some() == b""
    peer, client = ScriptedPeer.pair()
    with pytest.raises(ZeroDivisionError):
        async with peer:
            assert 1 / 0
    assert await client.receive_some() == b""
    peer, client = ScriptedPeer.pair()
    with trio.move_on_after(1):
        async with peer:
            await peer.expect("PING")
    assert await client.receive_some() == b""
    with pytest.raises(trio.ClosedResourceError):
        await peer.send(b"x")


async def test_on_a_socket() -> None:
    """A real socket is a stream as any other: an exchange on it, and the end of a connection that breaks."""
    near, far = socket.socketpair()
    with trio.fail_after(GUARD):
        client = stream_of(near)
        async with client, ScriptedPeer(stream_of(far), patience=GUARD) as peer, trio.open_nursery() as nursery:
            nursery.start_soon(client.send_all, HELLO + frames.settings_ack() + call(1, bytes(500_000)))
            await peer.handshake()
            request = await peer.expect_request()
            assert request.message == bytes(500_000)
            await peer.respond(1, b"done")
            reader, said = FrameReader(preface=False), list[Frame]()
            while not said or not said[-1].end_stream:
                said += reader.feed(await client.receive_some())
            assert said[-2].body == frames.message(b"done")


async def test_a_broken_connection() -> None:
    """A connection that is reset has ended, and failures say that it broke."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with trio.fail_after(GUARD):
        async with listeners[0] as listener:
            client = socket.create_connection(listener.socket.getsockname())
            async with ScriptedPeer(await listener.accept(), patience=GUARD) as peer:
                client.sendall(HELLO)
                await peer.expect("SETTINGS")
                reset(client)
                with pytest.raises(AssertionError, match="expected PING; the connection broke"):
                    await peer.expect("PING")
                await peer.expect_end()
                assert peer.ended


async def test_as_a_server_of_a_registry() -> None:
    """Behind a listener it is a server that a registry on a real socket finds healthy, and whose refusal it tells."""

    async def serve(stream: trio.SocketStream) -> None:
        async with ScriptedPeer(stream, patience=GUARD) as peer:
            await peer.handshake()
            probe = await peer.expect_request()
            await peer.respond(probe.stream_id, StatsResult(viewType="txtimeout").SerializeToString())
            await peer.refuse((await peer.expect_request()).stream_id, 8, "a hundred per cent: 100%")
            await peer.expect_end()

    with trio.fail_after(GUARD):
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
            port = listener.socket.getsockname()[1]
            async with viewreg.open_registry(f"static:///127.0.0.1:{port}") as registry:
                snapshot = await registry.wait_until(lambda snapshot: len(snapshot.healthy_views()) == 1)
                with pytest.raises(viewreg.CallError) as caught:
                    await snapshot.views[0].diagnostics().stats(StatsRequest())
            nursery.cancel_scope.cancel()
    assert (caught.value.code.name, caught.value.details) == ("RESOURCE_EXHAUSTED", "a hundred per cent: 100%")


# -- as a public name --


@pytest.mark.parametrize("kind", [ScriptedPeer, PeerRequest])
def test_home_and_docstrings(kind: type) -> None:
    """Both classes live in `viewreg.testing`, and each public method has a docstring."""
    assert kind.__module__ == "viewreg.testing"
    for name, member in vars(kind).items():
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property | classmethod)):
            assert inspect.getdoc(getattr(kind, name)), name
