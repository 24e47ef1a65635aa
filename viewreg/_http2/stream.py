"""One gRPC call as HTTP/2 sees it: a stream, its windows, and the bytes that its reader has not taken yet.

Rules:
* Received bytes stay as they came until `take_message` cuts the message at the head off: so what a stream holds is what
  flow control counts, however small the messages are. Small payloads are put together, large ones are never moved.
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
_PART: Final = 16 * 1024  # bytes that are kept as they came; smaller payloads are put together


class Stream:
    """State of one stream. The protocol writes it; its owner reads it, when `wake` tells it that something changed."""

    __slots__ = (
        "_at", "_max_message_size", "_parts", "failure", "headers", "held", "id", "local_closed", "needed",
        "receive_window", "remote_closed", "send_window", "trailers", "wake",
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
        self.held = 0  # bytes received and not taken
        self._parts: list[bytes | bytearray] = []  # none of them empty; all but the last `_PART` bytes long or longer
        self._at = 0  # bytes of the first one that were taken

    def __repr__(self) -> str:
        state = self.failure.message if self.failure else "ended" if self.remote_closed else "open"
        return f"<Stream {self.id}: {state}, {self.held} bytes held>"

    @property
    def ended(self) -> bool:
        """Nothing more will arrive; complete messages may still be there to take."""
        return self.remote_closed or self.failure is not None

    @property
    def has_message(self) -> bool:
        return 0 < self.needed <= self.held

    def append(self, payload: bytes) -> StreamFailure | None:
        """Take in the payload of a DATA frame. Returns what is wrong with the message at the head, if it came now."""
        parts = self._parts
        self.held += len(payload)
        if parts and len(last := parts[-1]) < _PART:
            if not isinstance(last, bytearray):
                parts[-1] = last = bytearray(last)
            last += payload
            if len(last) >= _PART:
                parts[-1] = bytes(last)  # a bytearray takes up to an eighth more than what is in it
        else:
            parts.append(payload)
        return None if self.needed else self._look_at_head()

    def take_message(self) -> tuple[bytes, StreamFailure | None]:
        """The message at the head, without prefix; with it what is wrong with the next one. Requires `has_message`."""
        parts, first, at, end = self._parts, self._parts[0], self._at, self._at + self.needed
        self.held -= self.needed
        self.needed = 0
        if end > len(first):
            return self._join(end), self._look_at_head()
        # Copied once: slices of a bytearray are bytearrays.
        start = at + PREFIX_SIZE
        message = first[start:end] if isinstance(first, bytes) else bytes(memoryview(first)[start:end])
        if end < len(first):
            self._at = end
        else:
            del parts[0]
            self._at = 0
        return message, self._look_at_head()

    def discard(self) -> None:
        """Forget what was received: nobody will read it."""
        self._parts, self._at, self.held, self.needed = [], 0, 0, 0

    def _join(self, end: int) -> bytes:
        """Take the message at the head, which ends in a later part: `end` counts from the first one."""
        parts, count = self._parts, 0
        pieces: list[memoryview] = []
        while end > len(parts[count]):
            pieces.append(memoryview(parts[count]))
            end -= len(parts[count])
            count += 1
        pieces.append(memoryview(parts[count])[:end])
        pieces[0] = pieces[0][self._at + PREFIX_SIZE :]
        message = b"".join(pieces)
        if end == len(parts[count]):
            count, end = count + 1, 0
        del parts[:count]
        self._at = end
        return message

    def _look_at_head(self) -> StreamFailure | None:
        if self.held < PREFIX_SIZE:
            return None
        parts = self._parts
        while len(parts[0]) - self._at < PREFIX_SIZE:  # the prefix itself is cut
            parts[:2] = [parts[0][self._at :] + parts[1]]
            self._at = 0
        at, buffer = self._at, parts[0]
        compressed, length = _PREFIX.unpack_from(buffer, at)
        if compressed:
            text = "a compressed message, though none was offered"
            return StreamFailure(FailureKind.COMPRESSED, ErrorCode.CANCEL, text)
        if length > self._max_message_size:
            text = f"a message of {length} bytes; at most {self._max_message_size} are allowed"
            return StreamFailure(FailureKind.TOO_LARGE, ErrorCode.CANCEL, text)
        self.needed = PREFIX_SIZE + length
        return None
