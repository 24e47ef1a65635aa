"""Header blocks: what leaves is what any decoder reads, what arrives is read and remembered only when that is safe."""

from __future__ import annotations

import tracemalloc
from typing import Any

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from http2_driver import MAX_MESSAGE, NO_LIMIT, Driver, a_block, nobody
from viewreg._http2 import headers as headers_module
from viewreg._http2.errors import ConnectionFailedError
from viewreg._http2.frames import ErrorCode
from viewreg._http2.headers import (
    MAX_HEADER_FIELDS,
    MAX_HEADER_LIST_SIZE,
    HeaderDecoder,
    literal,
    request_block,
)
from viewreg._http2.stream import Stream
from viewreg.testing.frames import END_HEADERS, RESPONSE, block, frame, headers
from viewreg.testing.frames import settings as settings_frame

NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.", min_size=1, max_size=300).map(str.encode)
FIELDS = st.lists(st.tuples(NAMES, st.binary(max_size=300)), max_size=8)


def decoded(block_: bytes) -> list[tuple[bytes, bytes]]:
    """What an independent decoder reads."""
    decoder: Any = hpack.Decoder()
    return [(bytes(name), bytes(value)) for name, value in decoder.decode(block_, raw=True)]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_request_has_grpcs_fields(scheme: str) -> None:
    """Pseudo fields first, then those of gRPC over HTTP/2, and nothing else."""
    assert decoded(request_block(scheme, "[::1]:80", "/rpc.Diagnostics/stats", "viewreg/1")) == [
        (b":method", b"POST"),
        (b":scheme", scheme.encode()),
        (b":path", b"/rpc.Diagnostics/stats"),
        (b":authority", b"[::1]:80"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc+proto"),
        (b"user-agent", b"viewreg/1"),
    ]


@given(FIELDS)
def test_literals_decode_to_what_they_were(fields: list[tuple[bytes, bytes]]) -> None:
    """Any name and value, of any length, comes out of a decoder as it went in."""
    assert decoded(b"".join(literal(name, value) for name, value in fields)) == fields


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 254, 255, 16_510, 16_511, 50_000])
def test_lengths_at_the_edges_of_their_encoding(size: int) -> None:
    """A length is read back at every size where its encoding grows by a byte."""
    assert decoded(literal(b"x", bytes(size))) == [(b"x", bytes(size))]


@pytest.mark.parametrize("name", [b"authorization", b"proxy-authorization", b"cookie", b"x-api-key"])
def test_secrets_are_never_indexed(name: bytes) -> None:
    """Fields that hold secrets tell every intermediary to keep them out of its tables; others do not."""
    decoder: Any = hpack.Decoder()
    secret, plain = decoder.decode(literal(name, b"s") + literal(b"x-plain", b"p"), raw=True)
    assert (secret.indexable, plain.indexable) == (False, True)


def test_only_the_first_block_sets_the_table_size() -> None:
    """The first block of a connection begins with the table size 0 that we promise, and no later one."""
    driver = Driver()
    for first in (True, False, False):
        driver.protocol.open_stream(Stream(nobody, MAX_MESSAGE), a_block(), b"\0\0\0\0\0", NO_LIMIT)
        request = driver.sent()[0]
        assert request.payload == (b"\x20" if first else b"") + a_block()
        assert request.header(b":path") == b"/rpc.Diagnostics/stats"


@pytest.mark.parametrize("limit", [16_384, 32_768])
@pytest.mark.parametrize("body", [None, b"\0\0\0\0\0"])
def test_a_block_larger_than_a_frame_is_continued(limit: int, body: bytes | None) -> None:
    """HEADERS and CONTINUATION frames leave one behind the other, none larger than the server takes."""
    driver = Driver({5: limit})
    secret = bytes(range(33, 127)) * 600
    driver.protocol.open_stream(Stream(nobody, MAX_MESSAGE), a_block((b"x-large", secret)), body, NO_LIMIT)
    sent = driver.sent()
    if body is not None:
        last = sent.pop()
        assert (last.kind, last.end_stream) == ("DATA", True)
    kinds = [frame.kind for frame in sent]
    assert kinds == ["HEADERS"] + ["CONTINUATION"] * (len(kinds) - 1)
    assert len(kinds) == -(-(len(secret) + 100) // limit)
    assert max(len(frame.payload) for frame in sent) == limit
    assert sent[-1].header(b"x-large") == secret


def test_the_same_block_is_decoded_once() -> None:
    """Once a server has promised an empty table, a block seen before costs nothing."""
    decoder, other = HeaderDecoder(), HeaderDecoder()
    first = decoder.decode(b"\x20" + block(RESPONSE))
    assert first.fields == RESPONSE
    assert decoder.decode(block(RESPONSE)) is first
    assert other.decode(block(RESPONSE)) is not first  # has not promised it yet
    assert other.decode(b"\x20" + block(RESPONSE)) is first
    assert decoder._decoder is None  # and costs no memory while it is idle


def test_nothing_is_remembered_while_the_server_has_a_table() -> None:
    """The same bytes mean something else after the table has changed: they are decoded anew."""
    decoder = HeaderDecoder()
    encoder: Any = hpack.Encoder()
    encoder.encode([(b"x", b"one")])
    assert decoder.decode(b"\x40\1x\3one").fields == ((b"x", b"one"),)
    assert decoder.decode(b"\xbe").fields == ((b"x", b"one"),)
    assert decoder.decode(b"\x40\1x\3two").fields == ((b"x", b"two"),)
    assert decoder.decode(b"\xbe").fields == ((b"x", b"two"),)


def test_a_server_that_takes_its_promise_back_is_understood() -> None:
    """After table size 0 a server may go back to 4,096: what was remembered then is forgotten."""
    decoder = HeaderDecoder()
    decoder.decode(b"\x20\x88")
    decoder.decode(b"\x40\1x\3one")  # enters a table of size 0: stays out
    with pytest.raises(ConnectionFailedError):
        decoder.decode(b"\xbe")
    decoder = HeaderDecoder()
    decoder.decode(b"\x20\x88")
    for value in (b"one", b"two"):
        assert decoder.decode(b"\x3f\xe1\x1f\x40\1x\3" + value).fields == ((b"x", value),)
        assert decoder.decode(b"\xbe").fields == ((b"x", value),)


@given(st.lists(st.tuples(st.booleans(), FIELDS), min_size=1, max_size=12), st.booleans())
def test_any_servers_blocks_are_read(blocks: list[tuple[bool, list[tuple[bytes, bytes]]]], empty_table: bool) -> None:
    """Blocks of an encoder with or without a table, Huffman coded or not, new or repeated, are what they were."""
    encoder: Any = hpack.Encoder()
    decoder = HeaderDecoder()
    if empty_table:
        encoder.header_table_size = 0
    for huffman, fields in blocks * 2:
        encoded = encoder.encode(fields, huffman=huffman)
        assert list(decoder.decode(encoded).fields) == fields


@pytest.mark.parametrize("empty_table", [False, True])
def test_long_text_in_huffmans_code_is_no_number(empty_table: bool) -> None:
    """Some characters are all bits set in Huffman's code: a long text of them is legal, and read."""
    encoder: Any = hpack.Encoder()
    if empty_table:
        encoder.header_table_size = 0
    fields = [(b"grpc-status", b"5"), (b"grpc-message", b"X" * 5000), (b"x-more", b"&" * 3000)]
    encoded = encoder.encode(fields, huffman=True)
    assert headers_module._SUSPICIOUS_RUN.search(encoded)
    assert list(HeaderDecoder().decode(encoded).fields) == fields


def test_the_memory_of_blocks_is_bounded() -> None:
    """A server whose every block is new fills no memory, and long blocks are not remembered."""
    decoder = HeaderDecoder()
    decoder.decode(b"\x20\x88")
    remembered = headers_module._decode_stateless.cache_info
    for number in range(2000):
        decoder.decode(b"\x88" + block(((b"x-trace", b"%0100d" % number),)))
        assert remembered().currsize <= headers_module._MEMO_ENTRIES
    misses = remembered().misses
    long = b"\x88" + block(((b"x-long", bytes(range(48, 58)) * 200),))
    assert len(long) > headers_module._MEMO_ENTRY
    assert decoder.decode(long).fields == decoder.decode(long).fields
    assert remembered().misses == misses


def test_a_servers_table_holds_what_is_in_it() -> None:
    """A table of 4,096 bytes, each entry from a block of 60,000, does not keep the blocks."""
    decoder = HeaderDecoder()
    rest = literal(b"x-long", bytes(60_000))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(200):
            decoder.decode(b"\x40\1x\x03%03d" % number + rest)
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert decoder.decode(b"\xbe").fields == ((b"x", b"199"),)
    assert held < 64 * 1024


@pytest.mark.parametrize("filler", [b"\x90", literal(b"xy", b"zz")], ids=["indexed", "literal"])
def test_a_memory_full_of_the_worst_blocks_is_small(filler: bytes) -> None:
    """Blocks that are short and say much take up less than 4 MiB of the process, whoever sends them."""
    decoder = HeaderDecoder()
    decoder.decode(b"\x20\x88")
    worst = b"\x88" + filler * ((headers_module._MEMO_ENTRY - 20) // len(filler))
    headers_module._decode_stateless.cache_clear()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(headers_module._MEMO_ENTRIES):
            decoder.decode(worst + literal(b"x", b"%d" % number))
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
        headers_module._decode_stateless.cache_clear()
    assert held < 4 * 1024 * 1024


@pytest.mark.parametrize("count", [MAX_HEADER_FIELDS - 1, MAX_HEADER_FIELDS, 1_500])
def test_fields_are_counted(count: int) -> None:
    """A list of more fields than `MAX_HEADER_FIELDS`, which cost more than their text, fails its own stream."""
    driver = Driver()
    stream, other = driver.call(), driver.call()
    fields = tuple((b"x%d" % number, b"") for number in range(count))
    driver.receive(headers(stream.id, (*RESPONSE[:1], *fields)), headers(other.id))
    taken = count < MAX_HEADER_FIELDS
    assert (stream.headers is not None) is taken
    assert taken or f"{count + 1} header fields; at most 128" in str(stream.failure)
    assert other.headers is not None


NONSENSE = st.binary(max_size=200)
# Fields to encode, and what happens to the block on its way: a byte that changes, the rest that is missing.
DAMAGED = st.tuples(
    FIELDS, st.booleans(), st.none() | st.tuples(st.integers(0, 400), st.integers(0, 255), st.booleans())
)


@settings(max_examples=300, deadline=None)
@given(st.lists(NONSENSE | DAMAGED, min_size=1, max_size=6), st.booleans())
def test_a_block_is_what_hpack_makes_of_it_or_an_error_of_ours(blocks: list[Any], empty_table: bool) -> None:
    """Blocks of a real encoder, whole and damaged, and mere nonsense: hpack alone reads and refuses the same ones."""
    encoder: Any = hpack.Encoder()
    alone: Any = hpack.Decoder(max_header_list_size=MAX_HEADER_LIST_SIZE)
    decoder = HeaderDecoder()
    if empty_table:
        encoder.header_table_size = 0
    for block_ in blocks:
        received = block_ if isinstance(block_, bytes) else damaged(encoder, *block_)
        expected: object
        try:
            expected = [(bytes(name), bytes(value)) for name, value in alone.decode(received, raw=True)]
        except hpack.HPACKError as error:
            expected = code_for(type(error))
        assert outcome(decoder, received) == expected
        if isinstance(expected, ErrorCode):
            return


def damaged(encoder: Any, fields: object, huffman: bool, damage: tuple[int, int, bool] | None) -> bytes:
    """A block of these fields that has suffered on its way."""
    encoded = bytearray(encoder.encode(fields, huffman=huffman))
    if damage is not None and encoded:
        at = damage[0] % len(encoded)
        encoded[at] = damage[1]
        del encoded[at + 1 if damage[2] else len(encoded) :]
    return bytes(encoded)


def outcome(decoder: HeaderDecoder, received: bytes) -> list[tuple[bytes, bytes]] | ErrorCode:
    """The fields of a block, or the code with which it ends the connection."""
    try:
        return list(decoder.decode(received).fields)
    except ConnectionFailedError as error:
        return error.code


def code_for(kind: type[Exception]) -> ErrorCode:
    """What becomes of an error of hpack's."""
    too_large = issubclass(kind, hpack.OversizedHeaderListError)
    return ErrorCode.ENHANCE_YOUR_CALM if too_large else ErrorCode.COMPRESSION_ERROR


UNREADABLE = {
    "text cut short": b"\x00\x05ab",
    "number cut short": b"\x00\x7f\xff",
    "field cut short": b"\x40",
    "a table's size behind a field": b"\x88\x20",
    "Huffman's code with an end": b"\x00\x84\xff\xff\xff\xff\x00",
    "no such entry": b"\xff\x7f",
    "entry 0": b"\x80",
    "name of no such entry": b"\x7f\x7f\x01x",
    "too large a table": b"\x3f\xff\xff\x7f",
    "too many fields": b"\x00\x01x\x7f\x81\x07" + b"v" * 1024 + b"\x88" * 2000,
    "one field too large": b"\x00\x01x\x7f\xff\xff\x03" + b"v" * (127 + 0xFFFF),
}


@pytest.mark.parametrize("prefix", [b"", b"\x20"], ids=["table", "no table"])
@pytest.mark.parametrize("received", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_hpack_refuses_ends_the_connection(received: bytes, prefix: bytes) -> None:
    """With COMPRESSION_ERROR, but a header list too large with ENHANCE_YOUR_CALM."""
    assert outcome(HeaderDecoder(), prefix + received) == code_for(refusal(prefix + received))


def test_all_errors_of_hpack_are_among_them() -> None:
    """Every class of error that this version of hpack has is raised for a block above, by itself or by a subclass."""
    raised = {refusal(received) for received in UNREADABLE.values()}
    unmet = {kind for kind in errors(hpack.HPACKError) if not any(issubclass(other, kind) for other in raised)}
    assert not unmet


def refusal(received: bytes) -> type[Exception]:
    """How hpack alone refuses a block."""
    decoder: Any = hpack.Decoder(max_header_list_size=MAX_HEADER_LIST_SIZE)
    with pytest.raises(hpack.HPACKError) as caught:
        decoder.decode(received, raw=True)
    return caught.type


def errors(kind: type[Exception]) -> set[type[Exception]]:
    """The class and all below it."""
    return {kind}.union(*map(errors, kind.__subclasses__()))


SLIPS = [
    *sorted(errors(hpack.HPACKError), key=lambda kind: kind.__name__),
    IndexError, KeyError, ValueError, UnicodeDecodeError, OverflowError, RecursionError,
]  # fmt: skip


@pytest.mark.parametrize("kind", SLIPS)
def test_a_slip_of_hpack_ends_only_the_connection(kind: type[Exception]) -> None:
    """Whatever a version of hpack stumbles over, the peer's bytes were the cause: one of both codes."""
    slip = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "text") if kind is UnicodeDecodeError else kind("text")

    class Slipping:
        header_table_size = 0

        def decode(self, block: bytes, *, raw: bool) -> list[tuple[bytes, bytes]]:
            raise slip

    decoder = HeaderDecoder()  # of a server that has a table
    stand_in: Any = Slipping()
    decoder._decoder = stand_in
    assert outcome(decoder, b"\x88") == code_for(kind)


def test_a_server_is_not_told_where_its_block_lies() -> None:
    """The words about a block that cannot be read go to the server: they show no address in this process."""
    driver = Driver()
    with pytest.raises(ConnectionFailedError, match="a header block that cannot be read"):
        driver.receive(frame("HEADERS", END_HEADERS, driver.call().id, b"\xff"))
    (goaway,) = driver.sent()
    assert b"cannot be read" in goaway.payload
    assert b"0x" not in goaway.payload


def test_spaces_around_a_value_pass() -> None:
    """grpc-message may begin or end with a space, whatever HTTP says."""
    assert not HeaderDecoder().decode(block(((b"grpc-status", b"5"), (b"grpc-message", b" no ")))).fault


def test_the_servers_header_limit_is_known() -> None:
    """SETTINGS_MAX_HEADER_LIST_SIZE stands in `max_send_header_list`, for calls to look at."""
    driver = Driver()
    assert driver.protocol.max_send_header_list >= 2**31
    driver.receive(settings_frame({6: 8192}), headers(driver.call().id))
    assert driver.protocol.max_send_header_list == 8192
