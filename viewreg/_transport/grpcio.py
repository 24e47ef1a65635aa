"""grpcio's way to call: what `Channel.unary_unary` and its three siblings return, for stubs of grpcio's protoc plugin.

Rules:
* What is called, and what that returns, have the names of `grpc.aio`, as far as they make sense over Trio. The rest is
  not there, rather than there and different.
* A call begins when it is awaited, iterated or written to, in the task that does it, like every call here; `timeout`
  counts from then on. In grpcio it begins when it is made, in the background.
* A failed call raises our `CallError`, not grpcio's error: nobody who has no grpcio shall need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from viewreg._errors import InvalidTypeError, InvalidValueError
from viewreg._transport.calls import Line, StreamStream, StreamUnary, UnaryStream, UnaryUnary
from viewreg._transport.grpcio_calls import Requests, StreamCall, TwoWayCall, UnaryCall

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable

    from viewreg._http2.metadata import MetadataLike

Req = TypeVar("Req")
Res = TypeVar("Res")


class Calling(Line, Protocol):
    """What a channel is to these calls."""

    def waiting(self) -> Line:
        """The same, with calls that wait for the server."""
        ...


class Factories:
    """The four methods by which stubs that grpcio's protoc plugin has generated make their calls."""

    def unary_unary(
        self: Calling,
        method: str,
        request_serializer: Callable[[Req], bytes] | None = None,
        response_deserializer: Callable[[bytes], Res] | None = None,
        **_: object,
    ) -> UnaryUnaryMethod[Req, Res]:
        """A method with one request and one answer, by its path, such as "/acme.Search/find"."""
        return UnaryUnaryMethod(self, method, request_serializer, response_deserializer)

    def unary_stream(
        self: Calling,
        method: str,
        request_serializer: Callable[[Req], bytes] | None = None,
        response_deserializer: Callable[[bytes], Res] | None = None,
        **_: object,
    ) -> UnaryStreamMethod[Req, Res]:
        """A method with one request and many answers."""
        return UnaryStreamMethod(self, method, request_serializer, response_deserializer)

    def stream_unary(
        self: Calling,
        method: str,
        request_serializer: Callable[[Req], bytes] | None = None,
        response_deserializer: Callable[[bytes], Res] | None = None,
        **_: object,
    ) -> StreamUnaryMethod[Req, Res]:
        """A method with many requests and one answer."""
        return StreamUnaryMethod(self, method, request_serializer, response_deserializer)

    def stream_stream(
        self: Calling,
        method: str,
        request_serializer: Callable[[Req], bytes] | None = None,
        response_deserializer: Callable[[bytes], Res] | None = None,
        **_: object,
    ) -> StreamStreamMethod[Req, Res]:
        """A method with many requests and many answers."""
        return StreamStreamMethod(self, method, request_serializer, response_deserializer)


class Method(Generic[Req, Res]):
    """One method of a stub on one channel."""

    __slots__ = ("_channel", "_path", "_response_type", "_serialize")

    def __init__(
        self,
        channel: Calling,
        path: str | bytes,
        serialize: Callable[[Req], bytes] | None,
        deserialize: Callable[[bytes], Res] | None,
    ) -> None:
        self._channel: Final = channel
        if not isinstance(path, str | bytes):
            raise InvalidTypeError(f"method {path!r}: expected a path such as '/acme.Search/find'")
        self._path: Final = path.decode() if isinstance(path, bytes) else path
        if not self._path.startswith("/"):
            raise InvalidValueError(f"method {path!r}: expected a path such as '/acme.Search/find'")
        self._serialize: Final[Callable[[Req], Any]] = serialize or _as_it_is
        self._response_type: Final[Any] = bytes if deserialize is None else _Type(deserialize)

    def _line(self, credentials: object, wait_for_ready: bool | None, compression: object) -> Line:  # noqa: FBT001
        if credentials is not None:
            raise InvalidValueError(f"credentials {credentials!r}: expected None; see `Config.metadata`")
        if compression:
            raise InvalidValueError(f"compression {compression!r}: expected None or NoCompression")
        return self._channel.waiting() if wait_for_ready else self._channel

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._path} on {self._channel}>"


class UnaryUnaryMethod(Method[Req, Res]):
    """One request, one answer: `answer = await stub.find(request)`."""

    __slots__ = ()

    def __call__(
        self,
        request: Req,
        *,
        timeout: float | None = None,
        metadata: MetadataLike | None = None,
        credentials: None = None,
        wait_for_ready: bool | None = None,
        compression: object = None,
    ) -> UnaryCall[Res]:
        """A call that begins when it is awaited. `timeout` is in seconds, the enclosing scope's deadline counts too."""
        line = self._line(credentials, wait_for_ready, compression)
        ask = UnaryUnary[Any, Res](line, self._path, self._response_type)
        body = self._serialize(request)
        return UnaryCall(lambda: ask.with_metadata(body, metadata=metadata), timeout)


class StreamUnaryMethod(Method[Req, Res]):
    """Many requests, one answer: `answer = await stub.collect(requests)`."""

    __slots__ = ()

    def __call__(  # noqa: PLR0917 (grpcio's)
        self,
        request_iterator: AsyncIterable[Req] | Iterable[Req],
        timeout: float | None = None,
        metadata: MetadataLike | None = None,
        credentials: None = None,
        wait_for_ready: bool | None = None,  # noqa: FBT001 (grpcio's)
        compression: object = None,
    ) -> UnaryCall[Res]:
        """A call that begins when it is awaited."""
        line = self._line(credentials, wait_for_ready, compression)
        ask = StreamUnary[Any, Res](line, self._path, self._response_type)
        requests = Requests(request_iterator, self._serialize)
        return UnaryCall(lambda: ask.with_metadata(requests, metadata=metadata), timeout)


class UnaryStreamMethod(Method[Req, Res]):
    """One request, many answers: `async for answer in stub.list(request): ...`."""

    __slots__ = ()

    def __call__(
        self,
        request: Req,
        *,
        timeout: float | None = None,
        metadata: MetadataLike | None = None,
        credentials: None = None,
        wait_for_ready: bool | None = None,
        compression: object = None,
    ) -> StreamCall[Res]:
        """A call that begins when it is iterated."""
        line = self._line(credentials, wait_for_ready, compression)
        ask = UnaryStream[Any, Res](line, self._path, self._response_type)
        return StreamCall(ask(self._serialize(request), metadata=metadata), timeout)


class StreamStreamMethod(Method[Req, Res]):
    """Many requests, many answers: `async for answer in stub.talk(requests): ...`, or write and iterate."""

    __slots__ = ()

    def __call__(  # noqa: PLR0917 (grpcio's)
        self,
        request_iterator: AsyncIterable[Req] | Iterable[Req] | None = None,
        timeout: float | None = None,
        metadata: MetadataLike | None = None,
        credentials: None = None,
        wait_for_ready: bool | None = None,  # noqa: FBT001 (grpcio's)
        compression: object = None,
    ) -> StreamCall[Res] | TwoWayCall[Req, Res]:
        """A call that begins when it is iterated or, without requests, written to."""
        line = self._line(credentials, wait_for_ready, compression)
        if request_iterator is None:
            return TwoWayCall(
                lambda: line.open_message_stream(self._path, self._response_type, metadata), self._serialize, timeout
            )
        ask = StreamStream[Any, Res](line, self._path, self._response_type)
        return StreamCall(ask(Requests(request_iterator, self._serialize), metadata=metadata), timeout)


class _Type:
    """A function that deserialises, as the type that `decode` expects."""

    __slots__ = ("FromString", "__name__")

    def __init__(self, deserialize: Callable[[bytes], Any]) -> None:
        self.FromString: Final = deserialize
        self.__name__ = getattr(getattr(deserialize, "__self__", deserialize), "__name__", "message")


def _as_it_is(request: object) -> object:
    return request
