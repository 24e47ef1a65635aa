"""How a call can fail: one error class for each gRPC status, and the tables that say which one it is.

Rules:
* Every class here is also the purerpc class of the same status, so one `except` of either kind catches it.
* A status that the server sent is passed on as it is. One that is made here follows gRPC's own tables (statuscodes.md,
  http-grpc-status-mapping.md, and the error codes of PROTOCOL-HTTP2.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import unquote_to_bytes

from viewreg._errors import ViewregError
from viewreg._http2.errors import FailureKind
from viewreg._http2.frames import ErrorCode
from viewreg._http2.metadata import decode_metadata
from viewreg._transport.purerpc import StatusCode, errors, purerpc_status

if TYPE_CHECKING:
    from viewreg._endpoint import Endpoint
    from viewreg._http2.errors import StreamFailure
    from viewreg._http2.headers import HeaderList
    from viewreg._http2.metadata import Metadata
    from viewreg._http2.stream import Stream


class CallError(ViewregError, errors.RpcFailedError):  # type: ignore[misc, unused-ignore]
    """A call did not end with OK. Raised by every call of a stub; its subclasses tell the statuses apart.

    `details` are the server's words, decoded, or ours where the server had no say. `trailing_metadata` is what the
    server sent with its status. `endpoint` is the server that was asked.
    """

    code: ClassVar[StatusCode] = StatusCode.UNKNOWN

    def __init__(
        self, details: str = "", *, trailing_metadata: Metadata = (), endpoint: Endpoint | None = None
    ) -> None:
        Exception.__init__(self, details)
        self.details = details
        self.trailing_metadata = trailing_metadata
        self.endpoint = endpoint

    @property
    def status(self) -> Any:  # noqa: ANN401 (purerpc has no types)
        """The same as a `purerpc.Status`."""
        return purerpc_status(self.code, self.details)

    @property
    def reason(self) -> str:
        """Status and details, such as "NOT_FOUND: no such fact"."""
        return f"{self.code.name}: {self.details}" if self.details else self.code.name

    def __str__(self) -> str:
        return f"{self.reason} [{self.endpoint}]" if self.endpoint else self.reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.details,), self.__dict__


class CancelledError(CallError, errors.CancelledError):  # type: ignore[misc, unused-ignore]
    """The call was cancelled: by the server, something between, or another task. One's own is `trio.Cancelled`."""

    code = StatusCode.CANCELLED


class UnknownError(CallError, errors.UnknownError):  # type: ignore[misc, unused-ignore]
    """The server failed and did not say how, or said it in a way that gRPC does not know."""

    code = StatusCode.UNKNOWN


class InvalidArgumentError(CallError, errors.InvalidArgumentError):  # type: ignore[misc, unused-ignore]
    """The request is wrong, whatever state the server is in."""

    code = StatusCode.INVALID_ARGUMENT


class DeadlineExceededError(CallError, errors.DeadlineExceededError):  # type: ignore[misc, unused-ignore]
    """The server gave up for lack of time. The caller's own deadline cancels, as everywhere in Trio."""

    code = StatusCode.DEADLINE_EXCEEDED


class NotFoundError(CallError, errors.NotFoundError):  # type: ignore[misc, unused-ignore]
    """What was asked for does not exist."""

    code = StatusCode.NOT_FOUND


class AlreadyExistsError(CallError, errors.AlreadyExistsError):  # type: ignore[misc, unused-ignore]
    """What was to be made exists."""

    code = StatusCode.ALREADY_EXISTS


class PermissionDeniedError(CallError, errors.PermissionDeniedError):  # type: ignore[misc, unused-ignore]
    """The caller is known and may not do this."""

    code = StatusCode.PERMISSION_DENIED


class ResourceExhaustedError(CallError, errors.ResourceExhaustedError):  # type: ignore[misc, unused-ignore]
    """A quota, or a limit of ours: a message of more than `Config.max_message_size` bytes, for one."""

    code = StatusCode.RESOURCE_EXHAUSTED


class FailedPreconditionError(CallError, errors.FailedPreconditionError):  # type: ignore[misc, unused-ignore]
    """The server is not in a state that allows this."""

    code = StatusCode.FAILED_PRECONDITION


class AbortedError(CallError, errors.AbortedError):  # type: ignore[misc, unused-ignore]
    """The server gave the call up, often for a conflict with another."""

    code = StatusCode.ABORTED


class OutOfRangeError(CallError, errors.OutOfRangeError):  # type: ignore[misc, unused-ignore]
    """The request goes past the valid range."""

    code = StatusCode.OUT_OF_RANGE


class UnimplementedError(CallError, errors.UnimplementedError):  # type: ignore[misc, unused-ignore]
    """The server has no such method or service; or one that sends another number of answers than the stub expects."""

    code = StatusCode.UNIMPLEMENTED


class InternalError(CallError, errors.InternalError):  # type: ignore[misc, unused-ignore]
    """Something that must hold does not: an answer that cannot be decoded, for one."""

    code = StatusCode.INTERNAL


class UnavailableError(CallError, errors.UnavailableError):  # type: ignore[misc, unused-ignore]
    """The server cannot be reached, or the connection to it was lost. `started`: it may have seen the request."""

    code = StatusCode.UNAVAILABLE

    def __init__(
        self,
        details: str = "",
        *,
        started: bool = True,
        trailing_metadata: Metadata = (),
        endpoint: Endpoint | None = None,
    ) -> None:
        super().__init__(details, trailing_metadata=trailing_metadata, endpoint=endpoint)
        self.started = started


class DataLossError(CallError, errors.DataLossError):  # type: ignore[misc, unused-ignore]
    """Data is lost or corrupt for good."""

    code = StatusCode.DATA_LOSS


class UnauthenticatedError(CallError, errors.UnauthenticatedError):  # type: ignore[misc, unused-ignore]
    """The caller did not show who it is."""

    code = StatusCode.UNAUTHENTICATED


ERRORS: Final[dict[StatusCode, type[CallError]]] = {kind.code: kind for kind in CallError.__subclasses__()}
_BY_NUMBER: Final[dict[int, type[CallError]]] = {code.value: kind for code, kind in ERRORS.items()}

# RST_STREAM instead of a status (PROTOCOL-HTTP2.md, "Errors"). Codes that are not here mean INTERNAL.
_BY_RESET: Final[dict[int, type[CallError]]] = {
    ErrorCode.REFUSED_STREAM: UnavailableError,
    ErrorCode.CANCEL: CancelledError,
    ErrorCode.ENHANCE_YOUR_CALM: ResourceExhaustedError,
    ErrorCode.INADEQUATE_SECURITY: PermissionDeniedError,
}

# An HTTP status without a gRPC status: a proxy answered (http-grpc-status-mapping.md). Others mean UNKNOWN.
_BY_HTTP_STATUS: Final[dict[bytes, type[CallError]]] = {
    b"400": InternalError,
    b"401": UnauthenticatedError,
    b"403": PermissionDeniedError,
    b"404": UnimplementedError,
    b"429": UnavailableError,
    b"431": InternalError,
    b"502": UnavailableError,
    b"503": UnavailableError,
    b"504": UnavailableError,
}


def outcome(stream: Stream, endpoint: Endpoint) -> CallError | None:
    """The error that an ended stream stands for; None for a status of OK."""
    headers = stream.headers or ()
    if stream.failure is not None:
        if stream.failure.kind in (FailureKind.COMPRESSED, FailureKind.TOO_LARGE):
            # What looks like a bad message may be a web page that a proxy sent.
            return _of_response(headers, endpoint) or _of_failure(stream, stream.failure, endpoint)
        return _of_failure(stream, stream.failure, endpoint)
    trailers = stream.trailers
    if trailers is None:
        return _of_response(headers, endpoint) or UnknownError("the answer ended without a status", endpoint=endpoint)
    code = message = None
    for name, value in trailers:
        if name == b"grpc-status":
            code = value
        elif name == b"grpc-message":
            message = value
    if code == b"0":
        if stream.held and not stream.has_message:
            return InternalError("the answer ended in the middle of a message", endpoint=endpoint)
        return None
    details = unquote_to_bytes(message).decode("utf-8", "replace") if message else ""
    metadata = decode_metadata(trailers)
    if code is None:
        error = _of_response(headers, endpoint) or UnknownError(
            "the answer ended without a grpc-status", endpoint=endpoint
        )
        error.trailing_metadata = metadata
        return error
    kind = _BY_NUMBER.get(int(code)) if code.isdigit() and len(code) <= 2 else None  # noqa: PLR2004 (statuses are 0 to 16)
    if kind is None:
        said = code[:16].decode("ascii", "backslashreplace")
        details = f"the server sent the unknown grpc-status {said!r}" + (f": {details}" if details else "")
        kind = UnknownError
    return kind(details, trailing_metadata=metadata, endpoint=endpoint)


def _of_failure(stream: Stream, failure: StreamFailure, endpoint: Endpoint) -> CallError:
    if failure.kind in (FailureKind.CONNECTION_LOST, FailureKind.NOT_PROCESSED):
        return UnavailableError(failure.message, started=failure.kind is FailureKind.CONNECTION_LOST, endpoint=endpoint)
    if failure.kind is FailureKind.TOO_LARGE:
        return ResourceExhaustedError(failure.message, endpoint=endpoint)
    if failure.kind is not FailureKind.RESET_BY_PEER:
        return InternalError(failure.message, endpoint=endpoint)
    if failure.code == ErrorCode.REFUSED_STREAM:
        # A server that refuses what it has begun to answer contradicts itself: nobody knows what it has done.
        return UnavailableError(failure.message, started=stream.headers is not None, endpoint=endpoint)
    return _BY_RESET.get(failure.code, InternalError)(failure.message, endpoint=endpoint)


def _of_response(headers: HeaderList, endpoint: Endpoint) -> CallError | None:
    """What a response says that is no gRPC response; None if it looks like one."""
    fields = dict(headers)
    http_status = fields.get(b":status", b"")
    content_type = fields.get(b"content-type", b"")
    if http_status != b"200":
        kind = _BY_HTTP_STATUS.get(http_status, UnknownError)
        return kind(
            f"HTTP status {http_status.decode('ascii', 'backslashreplace')} instead of a gRPC status", endpoint=endpoint
        )
    if not content_type.startswith(b"application/grpc"):
        said = content_type[:80].decode("ascii", "backslashreplace")
        return UnknownError(f"content type {said!r} instead of application/grpc", endpoint=endpoint)
    return None
