"""How calls fail by the server's word, or by a word that is not gRPC's: the class, the code, the details."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import purerpc
import pytest
import trio

from nasty.nasty_grpc import AbsentStub
from nasty.nasty_pb2 import Order
from servers import GUARD
from transport import ENDPOINT, KINDS, numbers, open_channel, open_scripted, orders
from viewreg._errors import ViewregError
from viewreg._http2.frames import ErrorCode
from viewreg._transport.purerpc import StatusCode
from viewreg._transport.status import (
    ERRORS,
    AbortedError,
    CallError,
    CancelledError,
    InternalError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
    UnknownError,
)
from viewreg.testing.frames import RESPONSE, data, headers, message, rst_stream, trailers

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from nasty.nasty_grpc import NastyStub
    from servers import Server

    Kind = Callable[[NastyStub, Order], Coroutine[Any, Any, None]]

kinds = pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
FAILURES = [code for code in StatusCode if code is not StatusCode.OK]


async def failure(*answer: bytes) -> CallError:
    """Answer a unary call with these frames; give the error that it raises. The connection goes on."""
    errors: list[CallError] = []
    async with open_scripted() as (line, peer), trio.open_nursery() as nursery:

        async def call() -> None:
            with pytest.raises(CallError) as caught:
                await line.stub.ask(Order())
            errors.append(caught.value)

        nursery.start_soon(call)
        assert (await peer.expect_request()).stream_id == 1
        await peer.send(*answer)
        await trio.testing.wait_all_tasks_blocked()
        assert errors, "the call goes on"
        assert line.open_streams == 0
        assert line.lost is None
    return errors[0]


# -- what a real server says --


@pytest.mark.parametrize("code", FAILURES, ids=lambda code: code.name)
async def test_each_status_has_its_class(server: Server, code: StatusCode) -> None:
    """Each of the sixteen statuses is caught by viewreg's class and by purerpc's, with words and metadata."""
    metadata: dict[str, str | bytes] = {"t-tail": "1", "t-tail-bin": b"\0\1"}
    details = "naïve \N{EN DASH} 100 % \n\t∞ %41"
    async with open_channel(server.endpoint) as line:
        order = Order(abort=True, code=code.value, details=details)
        ours = ERRORS[code]
        theirs = getattr(purerpc, ours.__name__)
        for expected in (ours, theirs, CallError, ViewregError, purerpc.RpcFailedError):
            with pytest.raises(expected) as caught:
                await line.stub.ask(order, metadata=metadata)
            error = caught.value
            assert type(error) is ours
            assert (error.code, error.details, error.endpoint) == (code, details, server.endpoint)
            assert dict(error.trailing_metadata) == metadata
            assert error.status.status_code is code
            assert code.name in str(error)


@kinds
async def test_a_status_after_a_message(server: Server, kind: Kind) -> None:
    """A status other than OK that comes after an answer is raised, by each kind of call."""
    async with open_channel(server.endpoint) as line:
        with pytest.raises(AbortedError, match="changed my mind") as caught:
            with trio.fail_after(GUARD):
                await kind(line.stub, Order(answers=1, code=StatusCode.ABORTED.value, details="changed my mind"))
        assert caught.value.details == "changed my mind"
        assert line.open_streams == 0


async def test_answers_before_a_bad_end_are_given(server: Server) -> None:
    """A stream of answers gives all that came before the status, then raises it, then is over."""
    async with open_channel(server.endpoint) as line:
        order = Order(answers=3, code=StatusCode.NOT_FOUND.value)
        for answers in (line.stub.listen(order), line.stub.talk(orders(order))):
            received = []
            with pytest.raises(NotFoundError):  # noqa: PT012 (what came before is tested as well)
                async for answer in answers:
                    received.append(answer.number)  # noqa: PERF401 (a comprehension would lose them)
            assert received == [1, 2, 3]
            assert await numbers(answers) == []


async def test_a_method_that_the_server_lacks(server: Server) -> None:
    """A server without the method is UNIMPLEMENTED, for each kind of call."""
    async with open_channel(server.endpoint) as line:
        stub = line.channel.stub(AbsentStub)
        for kind in KINDS:
            with pytest.raises(UnimplementedError), trio.fail_after(GUARD):
                await kind(stub, Order(answers=1))  # type: ignore[arg-type]


async def test_an_error_survives_pickling(server: Server) -> None:
    """An error can be sent to another process, with all that it knows."""
    async with open_channel(server.endpoint) as line:
        with pytest.raises(NotFoundError) as caught:
            await line.stub.ask(Order(abort=True, code=5, details="gone"), metadata={"t-tail": "1"})
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is NotFoundError
    assert str(copy) == str(caught.value)
    assert copy.trailing_metadata == caught.value.trailing_metadata


# -- what a server says wrongly --

OK_MESSAGE = message(b"")


def response(status: bytes, content_type: bytes | None = b"text/html", *, end: bool = False) -> bytes:
    """HEADERS of a response that is not gRPC's."""
    fields = ((b":status", status), *(((b"content-type", content_type),) if content_type is not None else ()))
    return headers(1, fields, end=end)


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        (((b"grpc-status", b"5"), (b"grpc-message", b"a%20b%E2%88%9E")), NotFoundError, "a b∞"),
        (((b"grpc-status", b"5"), (b"grpc-message", b"100% %zz %")), NotFoundError, "100% %zz %"),
        (((b"grpc-status", b"5"), (b"grpc-message", b"%ff")), NotFoundError, "\N{REPLACEMENT CHARACTER}"),
        ((), UnknownError, "without a grpc-status"),
        (((b"grpc-status", b""),), UnknownError, "''"),
        (((b"grpc-status", b"abc"),), UnknownError, "'abc'"),
        (((b"grpc-status", b"17"),), UnknownError, "'17'"),
        (((b"grpc-status", b"-1"),), UnknownError, "'-1'"),
        (((b"grpc-status", b"99999999999999999999"),), UnknownError, "'9999999999999999'"),
        (((b"grpc-status", b"\xff"), (b"grpc-message", b"words")), UnknownError, "words"),
        (((b"grpc-status", b"0"),), UnimplementedError, "no answer"),
    ],
)
@pytest.mark.parametrize("only", [True, False], ids=["trailers-only", "trailers"])
async def test_the_end_of_an_answer(
    autojump_clock: object, fields: tuple[tuple[bytes, bytes], ...], kind: type[CallError], words: str, only: bool
) -> None:
    """Statuses in trailers, or alone, good and bad: each is a CallError that says what was wrong."""
    frames = (headers(1, (*RESPONSE, *fields), end=True),) if only else (headers(1), headers(1, fields, end=True))
    error = await failure(*frames)
    assert type(error) is kind
    assert words in error.details
    assert error.endpoint == ENDPOINT


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (b"400", InternalError),
        (b"401", UnauthenticatedError),
        (b"403", PermissionDeniedError),
        (b"404", UnimplementedError),
        (b"429", UnavailableError),
        (b"431", InternalError),
        (b"502", UnavailableError),
        (b"503", UnavailableError),
        (b"504", UnavailableError),
        (b"500", UnknownError),
        (b"302", UnknownError),
        (b"418", UnknownError),
        (b"204", UnknownError),
    ],
)
async def test_an_http_status(autojump_clock: object, status: bytes, kind: type[CallError]) -> None:
    """An HTTP status instead of gRPC's is translated by gRPC's table, with a page behind it or without."""
    page = b"<html>" + bytes(20_000)
    for frames in [
        (response(status, end=True),),
        (response(status), data(1, page[:16_384]), data(1, page[16_384:], end=True)),
        (response(status, None), data(1, b"", end=True)),
        (response(status), data(1, b"\0"), headers(1, ((b"x", b"y"),), end=True)),
    ]:
        error = await failure(*frames)
        assert type(error) is kind
        assert status.decode() in error.details


async def test_grpcs_status_goes_before_https(autojump_clock: object) -> None:
    """A proxy's response that does carry a grpc-status is taken at that word."""
    error = await failure(headers(1, ((b":status", b"503"), (b"grpc-status", b"16")), end=True))
    assert type(error) is UnauthenticatedError


@pytest.mark.parametrize("content_type", [b"text/html; charset=utf-8", b"application/json", None])
async def test_a_web_page(autojump_clock: object, content_type: bytes | None) -> None:
    """A page that a web server sends with 200 is UNKNOWN, and its type is named."""
    for body in (b"<html><body>It works!</body></html>", b"", b"\0\0\0\0\4page"):
        error = await failure(response(b"200", content_type), data(1, body, end=True))
        assert type(error) is UnknownError
        assert (content_type or b"''").decode() in error.details


async def test_informational_responses_are_no_response(autojump_clock: object) -> None:
    """Any number of 1xx responses may go ahead of the answer."""
    async with open_scripted() as (line, peer), trio.open_nursery() as nursery:
        nursery.start_soon(line.stub.ask, Order())
        await peer.expect_request()
        for status in (b"100", b"103", b"103", b"199"):
            await peer.send(headers(1, ((b":status", status),)))
        await peer.respond(1, b"")


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ((headers(1), data(1, b"\0\0"), trailers(1)), "middle of a message"),
        ((headers(1), data(1, b"\0\0\0\0\5abc"), trailers(1)), "middle of a message"),
        ((headers(1), data(1, message(b"\xff")), trailers(1)), "no Answer"),
        ((data(1, OK_MESSAGE), rst_stream(1)), "before the response's headers"),
        ((headers(1), headers(1), trailers(1)), "no trailer"),
    ],
)
async def test_answers_that_are_none(autojump_clock: object, frames: tuple[bytes, ...], words: str) -> None:
    """What is wrong with an answer fails that call as INTERNAL, in words; the connection goes on."""
    error = await failure(*frames)
    assert type(error) is InternalError
    assert words in error.details


async def test_an_answer_without_trailers(autojump_clock: object) -> None:
    """An answer that ends with a message is UNKNOWN, like one whose trailers have no status."""
    error = await failure(headers(1), data(1, OK_MESSAGE, end=True))
    assert type(error) is UnknownError
    assert "without a status" in error.details


async def test_two_answers(autojump_clock: object) -> None:
    """More than one answer where there must be one is UNIMPLEMENTED: the method is another kind of call."""
    error = await failure(headers(1), data(1, OK_MESSAGE + OK_MESSAGE), trailers(1))
    assert type(error) is UnimplementedError
    assert "more than one" in error.details


async def test_a_message_cut_short_before_a_bad_status(autojump_clock: object) -> None:
    """A message that was cut short by a failure does not hide the failure."""
    error = await failure(headers(1), data(1, b"\0\0\0\0\5abc"), trailers(1, StatusCode.ABORTED.value))
    assert type(error) is AbortedError


# -- RST_STREAM --

BY_RESET: dict[int, type[CallError]] = {
    ErrorCode.REFUSED_STREAM: UnavailableError,
    ErrorCode.CANCEL: CancelledError,
    ErrorCode.ENHANCE_YOUR_CALM: ResourceExhaustedError,
    ErrorCode.INADEQUATE_SECURITY: PermissionDeniedError,
}


@pytest.mark.parametrize("code", [*ErrorCode, 0x4D2, 2**32 - 1], ids=lambda code: getattr(code, "name", hex(code)))
async def test_each_code_of_a_reset(autojump_clock: object, code: int) -> None:
    """A stream that the server resets fails by gRPC's table, whatever came before; the code is named."""
    for before in ((), (headers(1),), (headers(1), data(1, OK_MESSAGE))):
        if code == ErrorCode.REFUSED_STREAM and not before:
            continue  # sent again: tests/test_calls_refused.py
        error = await failure(*before, rst_stream(1, code))
        assert type(error) is BY_RESET.get(code, InternalError)
        assert (code.name if isinstance(code, ErrorCode) else f"{code:#x}") in error.details


async def test_what_was_answered_has_started(autojump_clock: object) -> None:
    """`started` is True once the server has said anything, also of a call that it then says it has refused."""
    error = await failure(headers(1), rst_stream(1, ErrorCode.REFUSED_STREAM))
    assert isinstance(error, UnavailableError)
    assert error.started
    error = await failure(headers(1, (*RESPONSE, (b"grpc-status", b"14")), end=True))
    assert isinstance(error, UnavailableError)
    assert error.started


@pytest.mark.parametrize("code", list(ErrorCode), ids=lambda code: code.name)
@kinds
async def test_a_reset_after_the_trailers_is_too_late(autojump_clock: object, kind: Kind, code: ErrorCode) -> None:
    """Once the status is here, a reset of what is left of the request changes nothing."""
    async with open_scripted() as (line, peer), trio.open_nursery() as nursery:
        nursery.start_soon(kind, line.stub, Order(answers=1))
        await peer.expect("HEADERS")
        await peer.send(headers(1), data(1, OK_MESSAGE), trailers(1), rst_stream(1, code))
        await trio.testing.wait_all_tasks_blocked()
        assert line.open_streams == 0
        assert line.lost is None
