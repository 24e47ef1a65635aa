"""Metadata: what may be sent, what is refused without giving a secret away, and what is read."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
import trio

from nasty.nasty_pb2 import Order
from servers import GUARD
from transport import open_channel, open_scripted, orders
from viewreg._errors import InvalidTypeError, InvalidValueError, ViewregError
from viewreg._transport.status import CallError, NotFoundError, ResourceExhaustedError
from viewreg.testing.frames import RESPONSE, data, headers, message

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nasty.nasty_pb2 import Answer
    from servers import Server
    from viewreg._transport.calls import Response

SECRET = "hunter2"


async def response(*fields: tuple[bytes, bytes]) -> Response[Answer]:
    """Answer a call with these fields ahead and after; give what the caller sees."""
    responses: list[Response[Answer]] = []
    async with open_scripted() as (line, peer), trio.open_nursery() as nursery:

        async def call() -> None:
            responses.append(await line.stub.ask.with_metadata(Order()))

        nursery.start_soon(call)
        await peer.expect_request()
        end = headers(1, ((b"grpc-status", b"0"), *fields), end=True)
        await peer.send(headers(1, (*RESPONSE, *fields)), data(1, message(b"")), end)
    return responses[0]


# -- sent --


@pytest.mark.parametrize(
    "metadata",
    [
        [("x-a", "1"), ("x-b", ""), ("x-a", "2"), ("x-c-bin", b"\0\xff"), ("x-d-bin", b""), ("x-e", "a, b;c='d' ~!")],
        {"x-a": "1", "x-b-bin": bytearray(range(256))},
        MappingProxyType({"x-a": "1"}),
        (("x-0_.-9", "1") for _ in range(3)),
        {},
        (),
    ],
    ids=["pairs", "mapping", "proxy", "generator", "empty mapping", "empty tuple"],
)
async def test_metadata_comes_there_and_back(server: Server, metadata: Any) -> None:
    """Text, bytes, names that come twice: a grpcio server sees what was given, and so do we on its return."""
    pairs = list(metadata.items() if hasattr(metadata, "items") else metadata)
    async with open_channel(server.endpoint) as line:
        with trio.fail_after(GUARD):
            response = await line.stub.ask.with_metadata(Order(tag=f"metadata {pairs[:1]}"), metadata=iter(pairs))
        seen = (await server.report("start", f"metadata {pairs[:1]}"))["metadata"]
    returned = [pair for pair in response.initial_metadata if pair[0].startswith("x-")]
    assert sorted(returned, key=str) == sorted(((name, value) for name, value in pairs), key=str)
    texts = [[name, bytes(value).hex() if isinstance(value, (bytes, bytearray)) else value] for name, value in pairs]
    assert sorted(pair for pair in seen if pair[0].startswith("x-")) == sorted(texts)


async def test_each_kind_of_call_sends_metadata(server: Server) -> None:
    """All four kinds, streams in both forms included, send what they are given."""
    async with open_channel(server.endpoint) as line:
        stub, order, metadata = line.stub, Order(tag="kinds", answers=1, enough=True), {"x-sent": "1"}
        with trio.fail_after(GUARD):
            await stub.ask(order, metadata=metadata)
            await anext(listen := stub.listen(order, metadata=metadata))
            await stub.tell(orders(order), metadata=metadata)
            await anext(talk := stub.talk(orders(order), metadata=metadata))
            async with await stub.talk(metadata=metadata) as stream:
                await stream.send_message(order)
                await stream.receive_message()
            for _ in range(5):
                assert ["x-sent", "1"] in (await server.report("start", "kinds"))["metadata"]
            await listen.aclose()
            await talk.aclose()


async def test_bytes_travel_as_base64_without_padding(autojump_clock: object) -> None:
    """A value of a `-bin` name is base64 on the wire, without padding; the order of the fields is kept."""
    async with open_scripted() as (line, peer), trio.open_nursery() as nursery:
        nursery.start_soon(line.stub.ask.with_metadata, Order())
        assert (await peer.expect_request()).headers[-1][0] == b"user-agent"
        await peer.respond(1, b"")

        async def call() -> None:
            await line.stub.ask(Order(), metadata=[("b-bin", b"\xfb\xff"), ("a", "1"), ("b-bin", b"abc")])

        nursery.start_soon(call)
        request = await peer.expect_request()
        assert request.headers[-3:] == ((b"b-bin", b"+/8"), (b"a", b"1"), (b"b-bin", b"YWJj"))
        await peer.respond(3, b"")


# -- refused --


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", SECRET),
        ("X-Upper", SECRET),
        ("x y", SECRET),
        ("x\n", SECRET),
        ("naïve", SECRET),
        ("x:y", SECRET),
        (":path", SECRET),
        (":authority", SECRET),
        ("grpc-timeout", SECRET),
        ("grpc-status", SECRET),
        ("te", SECRET),
        ("host", SECRET),
        ("content-type", SECRET),
        ("content-length", SECRET),
        ("user-agent", SECRET),
        ("connection", SECRET),
        # The others that HTTP/2 forbids: a server may take the whole request for malformed (RFC 9113, 8.2.2).
        ("keep-alive", SECRET),
        ("proxy-connection", SECRET),
        ("transfer-encoding", SECRET),
        ("upgrade", SECRET),
        (b"x-bytes", SECRET),
        (7, SECRET),
        (None, SECRET),
        ("x-text", f"{SECRET}\r\nx-injected: 1"),
        ("x-text", f"{SECRET}\n"),
        ("x-text", f"{SECRET}\0"),
        ("x-text", f"{SECRET}\x7f"),
        ("x-text", f"{SECRET} é"),
        # Space at the ends of a value makes a request malformed (RFC 9113, 8.2.1).
        ("x-text", f" {SECRET}"),
        ("x-text", f"{SECRET} "),
        ("x-text", SECRET.encode()),
        ("x-text", 7),
        ("x-text", None),
        ("x-bin", SECRET),
        ("x-bin", None),
        ("x-bin", 7),
    ],
    ids=repr,
)
async def test_what_may_not_be_sent(server: Server, name: Any, value: Any) -> None:
    """Illegal metadata is refused by each kind of call, by name and never with its value; nothing is sent."""
    async with open_channel(server.endpoint) as line:
        stub, order = line.stub, Order()
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: stub.ask(order, metadata=[(name, value)]),
            lambda: stub.ask.with_metadata(order, metadata=[(name, value)]),
            lambda: anext(stub.listen(order, metadata=[(name, value)])),
            lambda: stub.tell(orders(order), metadata=[(name, value)]),
            lambda: anext(stub.talk(orders(order), metadata=[(name, value)])),
            lambda: stub.talk(metadata=[(name, value)]),
        ]
        for call in calls:
            with pytest.raises((InvalidValueError, InvalidTypeError)) as caught, trio.fail_after(GUARD):
                await call()
            assert isinstance(caught.value, ViewregError)
            assert repr(name) in str(caught.value)
            assert SECRET not in str(caught.value)
            assert caught.value.__cause__ is None
        assert line.open_streams == 0
        assert line.connection.http2._next_stream_id == 1


@pytest.mark.parametrize("metadata", [7, SECRET, [SECRET], [(SECRET,)], [("x", SECRET, SECRET)], [7], object], ids=repr)
async def test_what_is_no_metadata(server: Server, metadata: Any) -> None:
    """Anything that is no mapping and no pairs is refused in words, without what was in it."""
    async with open_channel(server.endpoint) as line:
        with pytest.raises(InvalidTypeError, match="pairs") as caught:
            await line.stub.ask(Order(), metadata=metadata)
        assert SECRET not in str(caught.value)


async def test_an_error_in_the_users_own_pairs(server: Server) -> None:
    """What a generator of metadata raises is the user's own, also if it is a ValueError."""

    def pairs() -> Any:
        yield ("x-a", "1")
        raise ValueError("the user's own")

    async with open_channel(server.endpoint) as line:
        with pytest.raises(ValueError, match="the user's own"):
            await line.stub.ask(Order(), metadata=pairs())


async def test_more_than_the_server_takes(autojump_clock: object) -> None:
    """Metadata beyond the server's MAX_HEADER_LIST_SIZE fails its own call, unsent; a little less is sent."""
    async with open_scripted(settings={0x6: 8192}) as (line, peer), trio.open_nursery() as nursery:
        for kind in (line.stub.ask, line.stub.ask.with_metadata):
            with pytest.raises(ResourceExhaustedError, match="8192"):
                await kind(Order(), metadata={"x-large": "x" * 8192})

        async def call() -> None:
            await line.stub.ask(Order(), metadata={"x-large": "x" * 7000})

        nursery.start_soon(call)
        assert len((await peer.expect_request()).header(b"x-large") or b"") == 7000
        await peer.respond(1, b"")


async def test_a_real_server_takes_large_metadata(server: Server) -> None:
    """A field of several kilobytes, which grpcio takes, comes there and back, also with each call of many."""
    value = "x" * 6000
    async with open_channel(server.endpoint) as line:
        with trio.fail_after(GUARD):
            for _ in range(20):
                response = await line.stub.ask.with_metadata(Order(), metadata={"x-large": value})
                assert ("x-large", value) in response.initial_metadata


# -- read --


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ((b"x-bin", b"AAE="), [("x-bin", b"\0\1")]),
        ((b"x-bin", b"AAE"), [("x-bin", b"\0\1")]),
        ((b"x-bin", b"AAE,AAI=, AAM"), [("x-bin", b"\0\1"), ("x-bin", b"\0\2"), ("x-bin", b"\0\3")]),
        ((b"x-bin", b""), [("x-bin", b"")]),
        ((b"x-bin", b"!!!!"), []),
        ((b"x-bin", b"A"), []),
        ((b"x-bin", b"AAE,!,AAI"), [("x-bin", b"\0\1"), ("x-bin", b"\0\2")]),
        ((b"x-bin", b"\xff"), []),
        ((b"x", b"a,b"), [("x", "a,b")]),
        ((b"x", b"\xff"), [("x", "\\xff")]),
        ((b"grpc-encoding", b"identity"), []),
        ((b"grpc-status-details-bin", b"AAE"), [("grpc-status-details-bin", b"\0\1")]),
        ((b"server", b"nginx"), [("server", "nginx")]),
    ],
    ids=repr,
)
async def test_what_is_read(
    autojump_clock: object, field: tuple[bytes, bytes], expected: list[tuple[str, str | bytes]]
) -> None:
    """Reading is forgiving: padding or none, several in one field; what cannot be read is left out, gRPC's own too."""
    seen = await response((b"before", b"1"), field, (b"after", b"2"))
    whole = (("before", "1"), *expected, ("after", "2"))
    assert seen.initial_metadata == whole
    assert seen.trailing_metadata == whole


async def test_the_metadata_of_an_error(autojump_clock: object) -> None:
    """What came with a bad status is on the error: in trailers, and in a response that is only trailers."""
    async with open_scripted() as (line, peer), trio.open_nursery() as nursery:
        fields = ((b"grpc-status", b"5"), (b"why", b"1"), (b"why-bin", b"AAE,AAI"))
        for stream_id, frames in [
            (1, (headers(1, (*RESPONSE, *fields), end=True),)),
            (3, (headers(3, (*RESPONSE, (b"first", b"1"))), headers(3, fields, end=True))),
        ]:
            errors: list[CallError] = []

            async def call(errors: list[CallError] = errors) -> None:
                with pytest.raises(NotFoundError) as caught:
                    await line.stub.ask(Order())
                errors.append(caught.value)

            nursery.start_soon(call)
            await peer.expect_request()
            await peer.send(*frames)
            await trio.testing.wait_all_tasks_blocked()
            assert errors[0].trailing_metadata == (("why", "1"), ("why-bin", b"\0\1"), ("why-bin", b"\0\2"))
            assert line.open_streams == 0, stream_id


async def test_metadata_is_there_when_it_is_there(autojump_clock: object) -> None:
    """A stream's initial metadata can be read with its first answer, the trailing metadata at its end, not before."""
    async with open_scripted() as (line, peer), line.stub.listen(Order()) as answers:
        await trio.testing.wait_all_tasks_blocked()
        assert (answers.initial_metadata, answers.trailing_metadata) == ((), ())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(anext, answers)
            await peer.expect("HEADERS")
            await peer.send(headers(1, (*RESPONSE, (b"x", b"1"))), data(1, message(b"")))
        assert (answers.initial_metadata, answers.trailing_metadata) == ((("x", "1"),), ())
        await peer.send(headers(1, ((b"grpc-status", b"0"), (b"t", b"2")), end=True))
        assert [answer async for answer in answers] == []
        assert answers.trailing_metadata == (("t", "2"),)
