"""RFC 9113 as values: frames on the wire, what may follow from one, a call as a server knows it, what is malformed.

Numbers in comments are its sections. Nothing here comes from the code that is judged by it, but the names of errors.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from attrs import Factory, define, field

from viewreg._http2.errors import FailureKind
from viewreg._http2.frames import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Collection

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD: Final = 9  # bytes of a frame before its payload
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY_FLAG = 1, 1, 4, 8, 32
MAX_WINDOW: Final = 2**31 - 1
DEFAULT_WINDOW: Final = 65_535

# What docs/transport.md promises ("What it holds").
HELD_BY_ALL: Final = 1024 * 1024  # bytes
HELD_BY_A_CALL: Final = 256 * 1024  # bytes, or one message
HEADER_LIST: Final = 64 * 1024  # bytes
CONTINUATIONS: Final = 128  # frames
HEADER_FIELDS: Final = 128  # in one list; more are malformed
PATIENCE: Final = 10_000  # frames of any kind that nobody may find too many

HOP_BY_HOP: Final = {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
NOT_IN_NAME: Final = re.compile(rb"[\x00-\x20A-Z\x7f-\xff:]")  # 8.2.1
NOT_IN_VALUE: Final = re.compile(rb"[\0\r\n]")
LONG_NUMBER: Final = re.compile(rb"[\x80-\xff]{1024}")  # maybe one: no decoder need bear it (RFC 7541, 5.1)

Fields = tuple[tuple[bytes, bytes], ...]
NOTHING: Final[frozenset[int]] = frozenset()
FLOW_CONTROL: Final = frozenset({ErrorCode.FLOW_CONTROL_ERROR})
PROTOCOL: Final = frozenset({ErrorCode.PROTOCOL_ERROR})
FRAME_SIZE: Final = frozenset({ErrorCode.FRAME_SIZE_ERROR})
CALM: Final = frozenset({ErrorCode.ENHANCE_YOUR_CALM})
CANCEL: Final = frozenset({ErrorCode.CANCEL})


class Raw(NamedTuple):
    """A frame as it lies on the wire."""

    kind: int
    flags: int
    stream_id: int  # with its reserved bit
    payload: bytes

    @classmethod
    def read(cls, data: bytes) -> Raw:
        return cls(data[3], data[4], int.from_bytes(data[5:HEAD], "big"), data[HEAD:])


def length_of(head: bytes) -> int:
    """What a frame's head says of its payload."""
    return int.from_bytes(head[:3], "big")


class Fatal(Exception):  # noqa: N818 (it ends a connection as it should end)
    """The connection must end with one of these codes."""

    def __init__(self, codes: Collection[int]) -> None:
        super().__init__(sorted(codes))
        self.codes: Final = frozenset(codes)


@define
class Expected:
    """What may follow from one frame of the server's, or from one call of the client's owner."""

    fatal: frozenset[int] = NOTHING  # the connection must end with one of these
    tolerated: frozenset[int] = NOTHING  # it may
    answers: list[tuple[int, int, bytes]] = Factory(list)  # kind, flags, payload of frames on stream 0 that must come
    resets: dict[int, frozenset[int]] = Factory(dict)  # RST_STREAMs that must come: codes by stream
    sender: Call | None = None  # whose HEADERS or DATA may come
    events: list[str] = Factory(list)  # the connection's own that must be told, but WindowOpened


@define(eq=False)
class Call:
    """One stream, and what its owner should see of it."""

    id: int
    largest_message: int  # bytes that its owner takes
    up_window: int = 0
    down_window: int = 0
    block: bytes = b""  # of the request's header fields
    up_ended: bool = False
    down_ended: bool = False
    closed: bool = False
    request: bytearray = field(factory=bytearray)  # as it arrived
    unread: bytearray = field(factory=bytearray)  # of the answer: what the owner has not taken
    headers: Fields | None = None
    trailers: Fields | None = None
    failure: tuple[FailureKind, int] | None = None

    @property
    def needed(self) -> int:
        """Bytes of the message at the head with its prefix, 0 if there is none that may be taken when complete."""
        if len(self.unread) < 5 or self.head_failure is not None:
            return 0
        return 5 + int.from_bytes(self.unread[1:5], "big")

    @property
    def head_failure(self) -> FailureKind | None:
        """What is wrong with the message at the head, as soon as its prefix is here."""
        if len(self.unread) < 5:
            return None
        if self.unread[0]:
            return FailureKind.COMPRESSED
        return FailureKind.TOO_LARGE if int.from_bytes(self.unread[1:5], "big") > self.largest_message else None

    @property
    def has_message(self) -> bool:
        return 0 < self.needed <= len(self.unread)

    def end(self, failure: tuple[FailureKind, int] | None = None) -> None:
        """Both sides are through with it."""
        self.failure = self.failure or failure
        self.up_ended = self.closed = True


def setting_error(number: int, value: int) -> frozenset[int]:
    """6.5.2, for a client."""
    if number == 2 and value:
        return PROTOCOL
    if number == 4 and value > MAX_WINDOW:
        return FLOW_CONTROL
    if number == 5 and not 2**14 <= value < 2**24:
        return PROTOCOL
    return NOTHING


def status_of(fields: Fields) -> int | None:
    """The status of a block that is not malformed."""
    return int(fields[0][1]) if fields and fields[0][0] == b":status" and fields[0][1].isdigit() else None


def is_malformed(fields: Fields) -> bool:
    """8.2 and 8.3.2, of a response or its trailers; docs/transport.md bears spaces around a value."""
    if len(fields) > HEADER_FIELDS:
        return True
    for at, (name, value) in enumerate(fields):
        if name == b":status":
            if at or len(value) != 3 or not value.isdigit() or not b"100" <= value <= b"599":
                return True
        elif NOT_IN_NAME.search(name) or not name or name in HOP_BY_HOP or NOT_IN_VALUE.search(value):
            return True
    return False
