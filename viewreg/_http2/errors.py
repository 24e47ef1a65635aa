"""How an HTTP/2 connection or stream fails, as values; the transport turns them into gRPC statuses."""

from __future__ import annotations

import enum
from typing import Final

from attrs import frozen

from viewreg._http2.frames import ErrorCode, error_name


class ConnectionFailedError(Exception):
    """The peer broke the protocol: this connection ends with GOAWAY(code); nothing else is touched."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(f"{message} ({code.name})")
        self.code: Final = code
        self.message: Final = message


class FailureKind(enum.Enum):
    """Why a stream ended without an end of its own."""

    RESET_BY_PEER = "reset by the server"
    MALFORMED = "malformed"  # headers or frames that HTTP/2 forbids, on this stream only
    TOO_LARGE = "too large"
    COMPRESSED = "compressed"
    CONNECTION_LOST = "connection lost"
    NOT_PROCESSED = "not processed"  # above GOAWAY's last stream id: the server promises that it did nothing


@frozen
class StreamFailure:
    """How a stream failed: the kind, the RST_STREAM code that came or went, and words for people."""

    kind: FailureKind
    code: int
    message: str

    @classmethod
    def reset(cls, code: int) -> StreamFailure:
        return cls(FailureKind.RESET_BY_PEER, code, f"the server reset the stream with {error_name(code)}")
