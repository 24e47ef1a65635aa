"""`viewreg.testing.frames` against bytes that were written down by hand, from the figures of RFC 9113 and RFC 7541."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from viewreg import InvalidTypeError, InvalidValueError
from viewreg.testing import frames
from viewreg.testing.frames import ErrorCode, Frame, FrameReader, Setting

if TYPE_CHECKING:
    from collections.abc import Callable


def read(raw: bytes) -> list[Frame]:
    """The frames in these bytes of a server."""
    return FrameReader(preface=False).feed(raw)


def read_one(raw: bytes) -> Frame:
    """The only one."""
    (found,) = read(raw)
    return found


# -- packing --

# A frame is: length (3 bytes), kind, flags, stream id (4 bytes), payload.
PACKED: list[tuple[bytes, str]] = [
    (frames.frame("PRIORITY", 0, 3, bytes(5)), "000005 02 00 00000003 0000000000"),
    (frames.frame("CONTINUATION", 0x4, 1, b"\x88"), "000001 09 04 00000001 88"),
    (frames.frame(0xEE, 0xFF, 2**32 - 1, b"?"), "000001 ee ff ffffffff 3f"),
    (frames.frame("PING", length=2**24 - 1), "ffffff 06 00 00000000"),
    (frames.frame("PING", length=0, payload=b"?"), "000000 06 00 00000000 3f"),
    (frames.data(1), "000000 00 00 00000001"),
    (frames.data(1, b"ab", end=True), "000002 00 01 00000001 6162"),
    (frames.data(5, b"ab", padding=0), "000003 00 08 00000005 00 6162"),
    (frames.data(5, b"ab", end=True, padding=2), "000005 00 09 00000005 02 6162 0000"),
    (frames.headers(1, [(b"a", b"bc")]), "000006 01 04 00000001 00 01 61 02 6263"),
    (frames.headers(1, (), end=True), "000000 01 05 00000001"),
    (frames.headers(1),
     ("00002c 01 04 00000001 00 07 3a737461747573 03 323030"
      "00 0c 636f6e74656e742d74797065 10 6170706c69636174696f6e2f67727063")),
    (frames.trailers(7), "00000f 01 05 00000007 00 0b 677270632d737461747573 01 30"),
    (frames.trailers(7, 14, (b"a", b""), details="no"),
     "000025 01 05 00000007 00 0b 677270632d737461747573 02 3134 00 0c 677270632d6d657373616765 02 6e6f 00 01 61 00"),
    (frames.settings(), "000000 04 00 00000000"),
    (frames.settings({Setting.MAX_CONCURRENT_STREAMS: 1, 0xF0F0: 2**32 - 1}),
     "00000c 04 00 00000000 0003 00000001 f0f0 ffffffff"),
    (frames.settings_ack(), "000000 04 01 00000000"),
    (frames.ping(b"abcdefgh"), "000008 06 00 00000000 6162636465666768"),
    (frames.ping(ack=True), "000008 06 01 00000000 3132333435363738"),
    (frames.goaway(), "000008 07 00 00000000 7fffffff 00000000"),
    (frames.goaway(5, ErrorCode.ENHANCE_YOUR_CALM, b"why"), "00000b 07 00 00000000 00000005 0000000b 776879"),
    (frames.window_update(3, 65_536), "000004 08 00 00000003 00010000"),
    (frames.rst_stream(3, ErrorCode.CANCEL), "000004 03 00 00000003 00000008"),
    (frames.block([(b"a", b""), (b":b", b"\xff")]), "00 01 61 00 00 02 3a62 01 ff"),
    (frames.message(b"ab"), "00 00000002 6162"),
    (frames.message(b"", compressed=True, length=2**32 - 1), "01 ffffffff"),
]  # fmt: skip


@pytest.mark.parametrize(("packed", "by_hand"), PACKED, ids=[by_hand[:21] for _, by_hand in PACKED])
def test_packing(packed: bytes, by_hand: str) -> None:
    """Every function packs the bytes that the standard shows."""
    assert packed == bytes.fromhex(by_hand)


@pytest.mark.parametrize(
    ("size", "number"),
    [
        (126, "7e"), (127, "7f00"), (254, "7f7f"), (255, "7f8001"), (16_510, "7fff7f"), (16_511, "7f808001"),
        (2_097_278, "7fffff7f"),
    ],
)  # fmt: skip
def test_header_texts_of_any_length(size: int, number: str) -> None:
    """A header's name or value has the number before it that its length needs, and is read back whole."""
    text = b"x" * size
    packed = frames.block([(b"", text)])
    assert packed == b"\0\0" + bytes.fromhex(number) + text
    assert read_one(frames.headers(1, [(b"", text)])).headers == ((b"", text),)


def test_status_fields() -> None:
    """A status has no message unless there are details; they are ASCII without a bare per cent, as gRPC demands."""
    assert frames.status_fields(0) == ((b"grpc-status", b"0"),)
    assert frames.status_fields(5, "no: \u00fc 100%\n~ \x7f") == (
        (b"grpc-status", b"5"),
        (b"grpc-message", b"no: %C3%BC 100%25%0A~ %7F"),
    )


@pytest.mark.parametrize(
    ("pack", "words"),
    [
        (lambda: frames.frame("HEADER"), "kind 'HEADER': expected one of DATA, HEADERS, .*CONTINUATION, or a number"),
        (lambda: frames.frame(256), "kind 256: expected a whole number from 0 to 255"),
        (lambda: frames.frame("PING", 256), "flags 256: .* from 0 to 255"),
        (lambda: frames.frame("PING", 0, -1), "stream_id -1: .* from 0 to 4294967295"),
        (lambda: frames.frame("PING", length=2**24), "length 16777216: .* from 0 to 16777215"),
        (lambda: frames.data(1, bytes(2**24)), "length 16777216: .* from 0 to 16777215"),
        (lambda: frames.data(1, padding=256), "padding 256: .* from 0 to 255"),
        (lambda: frames.settings({2**16: 0}), "setting 65536: .* from 0 to 65535"),
        (lambda: frames.settings({1: 2**32}), "value 4294967296: .* from 0 to 4294967295"),
        (lambda: frames.goaway(2**32), "last_stream_id 4294967296: .* from 0 to 4294967295"),
        (lambda: frames.goaway(0, -1), "code -1: .* from 0 to 4294967295"),
        (lambda: frames.window_update(0, 2**32), "increment 4294967296: .* from 0 to 4294967295"),
        (lambda: frames.rst_stream(1, 2**32), "code 4294967296: .* from 0 to 4294967295"),
        (lambda: frames.message(b"", length=2**32), "length 4294967296: .* from 0 to 4294967295"),
    ],
)
def test_what_fits_no_frame(pack: Callable[[], bytes], words: str) -> None:
    """What no field of a frame can hold is an error that names the value and the range."""
    with pytest.raises(InvalidValueError, match=words):
        pack()


def test_a_number_of_another_type() -> None:
    """A stream id that is no whole number is an error of its type."""
    wrong: Any = 1.0
    with pytest.raises(InvalidTypeError, match=r"stream_id 1\.0: expected a whole number"):
        frames.data(wrong)


# -- reading --


def test_reading_what_is_packed() -> None:
    """The attributes of each kind of frame are those that it was sent with."""
    assert read_one(bytes.fromhex("000002 00 01 00000001 6162")) == Frame("DATA", 1, 1, b"ab")
    assert read_one(bytes.fromhex("000000 01 05 00000001")).end_stream
    assert not read_one(bytes.fromhex("000000 09 05 00000001")).end_stream
    assert not read_one(bytes.fromhex("000000 00 04 00000001")).end_stream
    assert read_one(bytes.fromhex("000000 04 01 00000000")).ack
    assert read_one(bytes.fromhex("000008 06 01 00000000 6162636465666768")).ack
    assert not read_one(bytes.fromhex("000000 00 01 00000001")).ack
    assert read_one(bytes.fromhex("000004 03 00 00000003 00000008")).code == ErrorCode.CANCEL
    assert read_one(bytes.fromhex("00000b 07 00 00000000 00000005 0000000b 776879")).code == 11
    assert read_one(bytes.fromhex("000004 08 00 00000003 00010000")).increment == 65_536
    found = read_one(bytes.fromhex("00000c 04 00 00000000 0003 00000001 f0f0 ffffffff"))
    assert found.settings == {Setting.MAX_CONCURRENT_STREAMS: 1, 0xF0F0: 2**32 - 1}


def test_attributes_of_other_kinds() -> None:
    """An attribute that a kind of frame does not have is empty, and a frame that is too short breaks nothing."""
    for kind in (*frames.KINDS, 0xEE):
        found = read_one(frames.frame(kind, 0, 1, b""))
        assert (found.code, found.increment, found.settings, found.headers) == (0, 0, {}, ())
    found = read_one(frames.frame("PING", 0, 0, bytes([1] * 12)))
    assert (found.code, found.increment, found.settings) == (0, 0, {})


def test_a_frame_of_an_unknown_kind() -> None:
    """A kind that no standard knows is read, and named by its number; the reserved bit is left out."""
    assert read_one(bytes.fromhex("000001 ee ff 80000001 3f")) == Frame("0xee", 0xFF, 1, b"?")


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        ("000005 00 09 00000005 02 6162 0000", b"ab"),
        ("000003 00 08 00000005 00 6162", b"ab"),
        ("000000 00 08 00000005", b""),  # the length of the padding is missing
        ("000003 00 08 00000005 03 6162", b""),  # more padding than payload
        ("000003 00 08 00000005 04 6162", b""),
        ("000002 00 20 00000005 6162", b"ab"),  # the flag means something else
        ("000003 06 08 00000000 01 6162", b"\1ab"),  # the same
    ],
)
def test_padding_is_no_body(raw: str, body: bytes) -> None:
    """`body` is what a frame carries, without its padding; `payload` is all of it."""
    found = read_one(bytes.fromhex(raw))
    assert found.body == body
    assert found.payload == bytes.fromhex(raw)[9:]


HEADERS = [
    "000006 01 04 00000001 00 01 61 02 6263",
    "00000b 01 24 00000001 80000000ff 00 01 61 02 6263",  # with priority
    "000009 01 0c 00000001 02 00 01 61 02 6263 0000",  # with padding
    "00000e 01 2c 00000001 02 80000000ff 00 01 61 02 6263 0000",  # with both
    "000003 01 00 00000001 00 01 61  000002 09 00 00000001 02 62  000001 09 04 00000001 63",  # in three frames
]


@pytest.mark.parametrize("raw", HEADERS)
def test_reading_header_blocks(raw: str) -> None:
    """A header block is read however it is sent; its fields stand in the frame that completes it."""
    *before, last = read(bytes.fromhex(raw))
    assert last.headers == ((b"a", b"bc"),)
    assert not any(found.headers for found in before)
    assert last.header(b"a") == b"bc"
    assert last.header(b"b") is None


def test_the_first_field_of_a_name() -> None:
    """`header` is the first of several fields of one name."""
    assert read_one(frames.headers(1, [(b"a", b"1"), (b"a", b"2")])).header(b"a") == b"1"


def test_reading_what_hpack_allows() -> None:
    """Huffman's code, a dynamic table, and one larger than usual are understood: RFC 7541, C.4.1 and C.4.2."""
    reader = FrameReader(preface=False)
    larger = bytes.fromhex("3fe1ff03")  # a table of 65,536 bytes
    first = larger + bytes.fromhex("828684418cf1e3c2e5f23a6ba0ab90f4ff")
    second = bytes.fromhex("828684be5886a8eb10649cbf")
    request = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com"))
    (one, two) = reader.feed(frames.frame("HEADERS", 0x5, 1, first) + frames.frame("HEADERS", 0x5, 3, second))
    assert one.headers == request
    assert two.headers == (*request, (b"cache-control", b"no-cache"))


@pytest.mark.parametrize("whole", ["ff", "00 05 61", "3fff"])
def test_a_header_block_that_is_none(whole: str) -> None:
    """A header block that HPACK cannot read is an error that shows it."""
    with pytest.raises(InvalidValueError, match=r"the header block b'.*': expected one that HPACK can read"):
        read(frames.frame("HEADERS", 0x4, 1, bytes.fromhex(whole)))


def test_every_split_of_the_bytes() -> None:
    """Bytes that come one by one, or all at once, or in two parts, are the same frames at the same places."""
    raw = frames.PREFACE + bytes.fromhex("".join(HEADERS)) + frames.settings() + frames.data(1, b"abc")
    whole = FrameReader().feed(raw)
    assert [found.kind for found in whole][-2:] == ["SETTINGS", "DATA"]
    one_by_one = FrameReader()
    assert [found for at in range(len(raw)) for found in one_by_one.feed(raw[at : at + 1])] == whole
    for at in range(len(raw)):
        halves = FrameReader()
        assert halves.feed(raw[:at]) + halves.feed(bytearray(raw[at:])) == whole


@pytest.mark.parametrize("begin", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r"])
def test_another_preface(begin: bytes) -> None:
    """A client that says something else than the preface is an error from its first wrong byte on."""
    reader = FrameReader()
    words = "the first bytes .*: expected the preface of HTTP/2, .* without TLS and without an upgrade"
    for part in (begin, b"more"):
        with pytest.raises(InvalidValueError, match=words):
            reader.feed(part)


def test_frames_have_a_text() -> None:
    """The text of a frame says what it carries, and stays short."""
    reader = FrameReader(preface=False)
    raw = frames.settings({3: 1}) + frames.headers(1, [(b"a", b"bc")]) + frames.data(1, bytes(10_000), end=True)
    raw += frames.rst_stream(1, 8) + frames.window_update(0, 5) + frames.goaway(1, 2) + frames.frame(0xEE)
    assert [str(found) for found in reader.feed(raw)] == [
        "SETTINGS stream_id=0 settings={3: 1}",
        "HEADERS stream_id=1 flags=0x4 b'a': b'bc'",
        "DATA stream_id=1 flags=0x1 10000 bytes",
        "RST_STREAM stream_id=1 code=8",
        "WINDOW_UPDATE stream_id=0 increment=5",
        "GOAWAY stream_id=0 code=2",
        "0xee stream_id=0 0 bytes",
    ]


# -- the module --

FUNCTIONS = [name for name in frames.__all__ if inspect.isfunction(getattr(frames, name))]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_have_docstrings(name: str) -> None:
    """Every public function lives in the public module and has a docstring."""
    found = getattr(frames, name)
    assert found.__module__ == "viewreg.testing.frames"
    assert found.__doc__


def test_all_is_complete() -> None:
    """`__all__` names every public thing that the module defines."""
    tree = ast.parse(inspect.getsource(frames))
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    defined |= {
        node.target.id for node in tree.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    assert {name for name in defined if not name.startswith("_")} | {"ErrorCode"} == set(frames.__all__)


def test_the_numbers() -> None:
    """Flags, settings and error codes are those of RFC 9113."""
    assert (frames.END_STREAM, frames.ACK, frames.END_HEADERS, frames.PADDED, frames.PRIORITY) == (1, 1, 4, 8, 32)
    assert [setting.value for setting in Setting] == [1, 2, 3, 4, 5, 6]
    assert [code.value for code in ErrorCode] == list(range(14))
    assert (ErrorCode.REFUSED_STREAM, ErrorCode.CANCEL, ErrorCode.ENHANCE_YOUR_CALM) == (7, 8, 11)


def test_no_check_vanishes() -> None:
    """Wrong use is an error under `python -O` too."""
    program = "from viewreg.testing import frames\ntry: frames.frame('X')\nexcept ValueError as error: print(error)"
    run = subprocess.run([sys.executable, "-O", "-c", program], check=True, capture_output=True, text=True)
    assert run.stdout.startswith("kind 'X': expected one of DATA")
