"""One gRPC call as HTTP/2 sees it: a stream, its windows, and the bytes that its reader has not taken yet.

Rules:
* Received bytes stay as they came until `take_message` cuts the message at the head off: so what a stream holds is what
  flow control counts, however small the messages are.
* Only the message at the head is looked at. What is wrong with it (too large, compressed) is found when it gets there,
  after the messages before it were delivered.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from viewreg._http2.errors import FailureKind, StreamFailure
from viewreg._http2.flow import STREAM_WINDOW
from viewreg._http2.frames import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from viewreg._http2.headers import HeaderList

_PREFIX: Final = Struct(">BL")  # compressed?, length
PREFIX_SIZE: Final = _PREFIX.size  # bytes


class Stream:
    """State of one stream. The protocol writes it; its owner reads it, when `wake` tells it that something changed."""

    __slots__ = (
        "_at", "_buffer", "_max_message_size", "failure", "headers", "id", "local_closed", "needed", "receive_window",
        "remote_closed", "send_window", "trailers", "wake",
    )  # fmt: skip

    def __init__(self, wake: Callable[[], None], max_message_size: int) -> None:
        self.wake = wake  # for the owner's use; the protocol never calls it
        self.id = 0  # given when the stream is opened
        self.headers: HeaderList | None = None  # of the final response, 1xx are dropped
        self.trailers: HeaderList | None = None  # the same object as `headers` for a trailers-only response
        self.failure: StreamFailure | None = None
        self.local_closed = False
        self.remote_closed = False
        self.send_window = 0
        self.receive_window = STREAM_WINDOW  # what the peer may still send
        self.needed = 0  # size of the message at the head with its prefix; 0: its prefix is not here yet
        self._max_message_size: Final = max_message_size
        self._buffer: bytes | bytearray = b""  # a bytearray takes up to an eighth more than what is in it
        self._at = 0  # bytes of it that were taken; of a bytearray they are gone

    def __repr__(self) -> str:
        state = self.failure.message if self.failure else "ended" if self.remote_closed else "open"
        return f"<Stream {self.id}: {state}, {self.held} bytes held>"

    @property
    def ended(self) -> bool:
        """Nothing more will arrive; complete messages may still be there to take."""
        return self.remote_closed or self.failure is not None

    @property
    def held(self) -> int:
        """Bytes received and not taken."""
        return len(self._buffer) - self._at

    @property
    def has_message(self) -> bool:
        return 0 < self.needed <= len(self._buffer) - self._at

    def append(self, payload: bytes) -> StreamFailure | None:
        """Take in the payload of a DATA frame. Returns what is wrong with the message at the head, if it came now."""
        if not self._buffer:
            self._buffer = payload
        else:
            if not isinstance(self._buffer, bytearray):
                self._buffer, self._at = bytearray(memoryview(self._buffer)[self._at :]), 0
            self._buffer += payload
        return None if self.needed else self._look_at_head()

    def take_message(self) -> tuple[bytes, StreamFailure | None]:
        """The message at the head, without prefix; with it what is wrong with the next one. Requires `has_message`."""
        buffer = self._buffer
        start, end = self._at + PREFIX_SIZE, self._at + self.needed
        self.needed = 0
        # Copied once: slices of a bytearray are bytearrays.
        message = buffer[start:end] if isinstance(buffer, bytes) else bytes(memoryview(buffer)[start:end])
        if end == len(buffer):
            self._buffer, self._at = b"", 0
            return message, None
        if isinstance(buffer, bytes):
            self._at = end
        else:
            del buffer[:end]  # moves nothing, until most of it is gone
        return message, self._look_at_head()

    def discard(self) -> None:
        """Forget what was received: nobody will read it."""
        self._buffer, self._at, self.needed = b"", 0, 0

    def _look_at_head(self) -> StreamFailure | None:
        at, buffer = self._at, self._buffer
        if len(buffer) - at < PREFIX_SIZE:
            return None
        compressed, length = _PREFIX.unpack_from(buffer, at)
        if compressed:
            text = "a compressed message, though none was offered"
            return StreamFailure(FailureKind.COMPRESSED, ErrorCode.CANCEL, text)
        if length > self._max_message_size:
            text = f"a message of {length} bytes; at most {self._max_message_size} are allowed"
            return StreamFailure(FailureKind.TOO_LARGE, ErrorCode.CANCEL, text)
        self.needed = PREFIX_SIZE + length
        return None
