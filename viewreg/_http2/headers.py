"""Header blocks: requests are encoded without state, responses decoded with as little as the peer allows.

Rules:
* We announce a dynamic table of size 0 and never use one ourselves: a request's constant part is encoded once for each
  (scheme, authority, path) and then only copied; the rest is appended as literals.
* Once the peer has signalled size 0, the same bytes always mean the same, on every connection: such blocks are
  remembered, those of the whole process together.
* A peer that ignores our 0 and goes on with its table of 4,096 bytes is legal enough: it is decoded, only slower.
* Whatever `hpack` dislikes is a COMPRESSION_ERROR of this connection; a header list too large is ENHANCE_YOUR_CALM.
  What HTTP dislikes in a block that can be read concerns its stream only.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, TypeAlias

from attrs import frozen
from hpack import Decoder
from hpack.exceptions import HPACKError, OversizedHeaderListError
from hpack.table import HeaderTable

from viewreg._http2.errors import ConnectionFailedError
from viewreg._http2.frames import ErrorCode

Header: TypeAlias = tuple[bytes, bytes]
HeaderList: TypeAlias = tuple[Header, ...]

MAX_HEADER_LIST_SIZE: Final = 64 * 1024  # bytes, counted as in RFC 9113, 6.5.2
MAX_HEADER_FIELDS: Final = 128  # in one list; Envoy's default is 100. In memory each takes 150 bytes beside its text
_MEMO_ENTRIES: Final = 256  # blocks; a server repeats two or three
_MEMO_ENTRY: Final = 512  # bytes; longer blocks carry what changes from call to call
_REQUEST_BLOCKS: Final = 4096  # one for each method that is called on each server
_DEFAULT_TABLE_SIZE: Final = 4096  # bytes, before the peer has signalled another (RFC 9113, 6.5.2)

TABLE_SIZE_ZERO: Final = b"\x20"  # what the first block of every connection begins with (RFC 7541, 6.3)
_KIND: Final = 0xE0  # the bits that tell a change of the table's size from a header field

# hpack 3 reads a number of any length, in time that grows with its square. A run of bytes like this one may be such a
# number, or only a text in Huffman's code: then it is worth a look.
_SUSPICIOUS: Final = 1024  # bytes
_SUSPICIOUS_RUN: Final = re.compile(rb"[\x80-\xff]{%d}" % _SUSPICIOUS)
_LONGEST_NUMBER: Final = 10  # bytes after the first; more than any length or index of this world needs

# hpack's words may show where in memory the block lies. They go to the server, whom that does not concern.
_ADDRESS: Final = re.compile(r"<memory at [^>]*>")

_STATUS: Final = re.compile(rb"[1-5][0-9]{2}")
_NAME: Final = re.compile(rb"[\x21-\x39\x3b-\x40\x5b-\x7e]+")  # no colon, no capitals, nothing invisible
_NOT_IN_VALUE: Final = re.compile(rb"[\0\r\n]")
_HOP_BY_HOP: Final = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})

# Prefixes of header fields with a name from the static table (RFC 7541, appendix A and section 6).
_METHOD_POST: Final = b"\x83"
_SCHEME: Final = {"http": b"\x86", "https": b"\x87"}
_AUTHORITY: Final = b"\x01"
_PATH: Final = b"\x04"
_CONTENT_TYPE: Final = b"\x0f\x10"
_USER_AGENT: Final = b"\x0f\x2b"
_WITHOUT_INDEXING: Final = b"\x00"
_NEVER_INDEXED: Final = b"\x10"

# Intermediaries must not put these into a table of theirs either (RFC 7541, 7.1.3).
_SECRETS: Final = frozenset({b"authorization", b"proxy-authorization", b"cookie", b"x-api-key"})


@lru_cache(maxsize=_REQUEST_BLOCKS)
def request_block(scheme: str, authority: str, path: str, user_agent: str) -> bytes:
    """The part of a gRPC request's header block that is the same for every call of one method on one server."""
    return b"".join((
        _METHOD_POST,
        _SCHEME[scheme],
        _PATH, _text(path.encode()),
        _AUTHORITY, _text(authority.encode("ascii")),
        literal(b"te", b"trailers"),
        _CONTENT_TYPE, _text(b"application/grpc+proto"),
        _USER_AGENT, _text(user_agent.encode("ascii")),
    ))  # fmt: skip


def literal(name: bytes, value: bytes) -> bytes:
    """One header field as a literal that enters no table."""
    kind = _NEVER_INDEXED if name in _SECRETS else _WITHOUT_INDEXING
    return kind + _text(name) + _text(value)


def _text(value: bytes) -> bytes:
    """A string literal (RFC 7541, 5.2), without Huffman coding: it costs more than the bytes it saves."""
    length = len(value)
    if length < 0x7F:  # noqa: PLR2004 (what seven bits hold; all of them set means that more follow)
        return bytes((length,)) + value
    prefix = bytearray(b"\x7f")
    length -= 0x7F
    while length >= 0x80:  # noqa: PLR2004 (seven bits in a byte)
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return bytes(prefix) + value


@frozen
class HeaderBlock:
    """A decoded block, and what HTTP says about it."""

    fields: HeaderList
    status: int  # HTTP's, of a response; 0 for a block without one, such as trailers
    fault: str  # why the response is malformed, a fault of this stream only; empty if it is well-formed


class HeaderDecoder:
    """The receiving side of one connection. It has an `hpack.Decoder` only while the peer uses a dynamic table."""

    __slots__ = ("_decoder", "_stateless")

    def __init__(self) -> None:
        self._decoder: Decoder | None = None
        self._stateless = False  # the peer has signalled a table of size 0: no block depends on another

    def decode(self, block: bytes) -> HeaderBlock:
        """The fields of one whole block, in order. Raises ConnectionFailedError: HPACK state is then lost for good."""
        if block[:1] == TABLE_SIZE_ZERO:
            self._stateless, self._decoder, block = True, None, block[1:]
        if self._stateless and (not block or block[0] & _KIND != TABLE_SIZE_ZERO[0]):
            return _decode_stateless(block) if len(block) <= _MEMO_ENTRY else _judge(_decode(_decoder(0), block))
        if self._decoder is None:
            self._decoder = _decoder(0 if self._stateless else _DEFAULT_TABLE_SIZE, _Table())
            self._stateless = False
        return _judge(_decode(self._decoder, block))


class _Table(HeaderTable):  # type: ignore[misc, unused-ignore]
    """hpack 3 puts views into its table, each of which keeps the whole block that it is a part of."""

    def add(self, name: bytes | memoryview, value: bytes | memoryview) -> None:
        super().add(bytes(name), bytes(value))


def _decoder(table_size: int, table: HeaderTable | None = None) -> Decoder:
    decoder = Decoder(max_header_list_size=MAX_HEADER_LIST_SIZE)
    if table is not None:
        decoder.header_table = table
    decoder.header_table_size = table_size
    return decoder


@lru_cache(maxsize=_MEMO_ENTRIES)
def _decode_stateless(block: bytes) -> HeaderBlock:
    """The same bytes mean the same on every connection without a table, so all of them share one memory."""
    return _judge(_decode(_decoder(0), block))


def _decode(decoder: Decoder, block: bytes) -> HeaderList:
    if len(block) > _SUSPICIOUS and _SUSPICIOUS_RUN.search(block):
        _check_numbers(block)
    try:
        return tuple([(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)])
    except OversizedHeaderListError as error:
        message = f"a header list of more than {MAX_HEADER_LIST_SIZE} bytes"
        raise ConnectionFailedError(ErrorCode.ENHANCE_YOUR_CALM, message) from error
    except (HPACKError, ArithmeticError, LookupError, ValueError, RecursionError) as error:
        # HPACKError is what hpack promises. The others are how a slip of any of its versions over nonsense would show.
        message = f"a header block that cannot be read: {_ADDRESS.sub('the block', str(error))[:100]}"
        raise ConnectionFailedError(ErrorCode.COMPRESSION_ERROR, message) from error


def _check_numbers(block: bytes) -> None:
    """Walk through the fields of a block (RFC 7541, 6), looking at their numbers only. Raises for an endless one."""
    at = 0
    while at < len(block):
        first = block[at]
        prefix = 7 if first & 0x80 else 6 if first & 0x40 else 5 if first & 0x20 else 4
        index, at = _number(block, at, prefix)
        texts = 0 if prefix in (7, 5) else 1 if index else 2
        for _ in range(texts):
            length, at = _number(block, at, 7)
            at += length


def _number(block: bytes, at: int, prefix: int) -> tuple[int, int]:
    """The number at `at` (RFC 7541, 5.1) and where it ends; past the block's end there are only zeros."""
    most = (1 << prefix) - 1
    value = block[at] & most if at < len(block) else 0
    if value < most:
        return value, at + 1
    for place, byte in enumerate(block[at + 1 : at + 1 + _LONGEST_NUMBER]):
        value += (byte & 0x7F) << 7 * place
        if byte < 0x80:  # noqa: PLR2004 (the last byte of a number)
            return value, at + 2 + place
    if at + _LONGEST_NUMBER < len(block):
        raise ConnectionFailedError(ErrorCode.COMPRESSION_ERROR, "a header block with a number that does not end")
    return value, len(block)


def _judge(fields: HeaderList) -> HeaderBlock:
    """Whether it is well-formed (RFC 9113, 8.2 and 8.3.2). Spaces around a value pass: grpc-message may have them."""
    if len(fields) > MAX_HEADER_FIELDS:
        return HeaderBlock((), 0, f"{len(fields)} header fields; at most {MAX_HEADER_FIELDS} are taken")
    status = 0
    fault = ""
    for at, (name, value) in enumerate(fields):
        if name == b":status" and at == 0:
            if not _STATUS.fullmatch(value):
                fault = f"the HTTP status {value[:16]!r}"
            else:
                status = int(value)
        elif not _NAME.fullmatch(name) or name in _HOP_BY_HOP:
            fault = f"the header field {name[:80]!r}, which has no place in a response of HTTP/2"
        elif _NOT_IN_VALUE.search(value):
            fault = f"a control character in the value of {name[:80]!r}"
    return HeaderBlock(fields, status, fault)
