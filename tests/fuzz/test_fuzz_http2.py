"""The protocol under any program of bytes, cuts and calls: see `http2_program`. `nox -s fuzz` searches for longer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from http2_program import CODES, EDGES, HOLD, SEEDS, SESSIONS, Program, assembled, read_hex
from viewreg._http2.errors import ConnectionFailedError
from viewreg._http2.frames import SETTINGS_ACK, ErrorCode
from viewreg._http2.protocol import Protocol

if TYPE_CHECKING:
    from http2_program import Step
    from viewreg._http2.errors import StreamFailure
    from viewreg._http2.stream import Stream

CORPUS = Path(__file__).parent / "corpus"
STEPS = st.builds(
    lambda code, hold, operands: bytes((code | hold,)) + operands,
    st.integers(0, CODES - 1),
    st.sampled_from((0, 0, 0, HOLD)),
    st.binary(max_size=4),
)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(SEEDS), st.lists(STEPS, max_size=40), st.booleans())
def test_no_program_breaks_a_promise(seed: bytes, steps: list[bytes], fresh: bool) -> None:
    """After each step every promise holds, and at the end every call has come to its own."""
    Program((seed[:2] if fresh else seed) + b"".join(steps)).run()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_as_a_program_break_a_promise(program: bytes) -> None:
    """The same for bytes that nobody chose, most of which end before the first SETTINGS."""
    Program(program).run()


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.hex")), ids=lambda path: path.stem)
def test_what_was_once_found_stays_mended(path: Path) -> None:
    """Programs that have broken a promise, kept by `nox -s fuzz`."""
    Program(read_hex(path)).run()


@pytest.mark.parametrize("session", SESSIONS)
def test_ordinary_sessions_are_read_as_they_are_written(session: tuple[Step, ...]) -> None:
    """The sessions from which a search begins run step by step, and get to a good end unless they give up before."""
    program = Program(assembled(*session))
    program.run()
    steps = [str(name).partition("+")[0] for name, *_ in session]
    done = [words.partition(" ")[0].rstrip(":") for words in program.trace]
    assert done[: len(steps)] == steps


def test_every_block_and_frame_once() -> None:
    """Each block as an answer, and each kind of frame in the sizes and with the flags that matter to one of them."""
    for program in EDGES:
        Program(program).run()


# -- the same programs find faults --


class WithoutAck(Protocol):
    """Acknowledges no SETTINGS."""

    def _reply(self, data: bytes) -> None:
        if data != SETTINGS_ACK:
            super()._reply(data)


class Mute(Protocol):
    """Forgets to tell the owner of a stream."""

    def _tell(self, stream: Stream) -> None:
        if stream.trailers is None:
            super()._tell(stream)


class Shut(Protocol):
    """Opens no window again."""

    def _extend(self, stream: Stream) -> None:
        pass


class Open(Protocol):
    """Opens more than it may hold."""

    def _extend(self, stream: Stream) -> None:
        super()._extend(stream)
        stream.receive_window += 1


class Drowsy(Protocol):
    """Does not say that a window opened."""

    def _window_opened(self) -> None:
        pass


class Blind(Protocol):
    """Bears frames for streams that never were."""

    def _check_opened(self, stream_id: int, kind: str) -> None:
        pass


class Reckless(Protocol):
    """Ignores the windows."""

    def send_data(self, stream: Stream, data: memoryview, *, end_stream: bool, limit: int) -> memoryview | None:
        stream.send_window += 1000
        try:
            return super().send_data(stream, data, end_stream=end_stream, limit=limit)
        finally:
            stream.send_window -= 1000


class Crowded(Protocol):
    """Ignores MAX_CONCURRENT_STREAMS."""

    @property
    def free_streams(self) -> int:
        return 0 if self.going_away or not self.settings_received else 1


class Confused(Protocol):
    """Mixes up the bytes of messages."""

    def take_message(self, stream: Stream) -> bytes:
        return super().take_message(stream)[::-1] + b"?"


class Silent(Protocol):
    """Ends a connection without a word."""

    def close(self, code: ErrorCode = ErrorCode.NO_ERROR, debug: str = "") -> None:
        self._closed = True


class Forgetful(Protocol):
    """Does not reset a stream that it gives up."""

    def _fail_stream(self, stream: Stream, failure: StreamFailure) -> None:
        stream.failure, stream.local_closed = failure, True
        self.streams.pop(stream.id, None)


class Clumsy(Protocol):
    """Lets an error of its own out."""

    def _count_idle_frame(self) -> None:
        raise LookupError("an error of its own")


class Touchy(Protocol):
    """Blames a server that has done nothing wrong."""

    def _close_remote(self, stream: Stream) -> None:
        if stream.held:
            raise ConnectionFailedError(ErrorCode.PROTOCOL_ERROR, "too much of it")
        super()._close_remote(stream)


FAULTY = [
    (WithoutAck, "no answer"),
    (Mute, "nobody is told"),
    (Shut, "can never go on"),
    (Open, "the windows of stream 1"),
    (Drowsy, "nobody tells stream 1 that it may send"),
    (Blind, "the connection lives"),
    (Reckless, "past the window"),
    (Crowded, "1 free streams"),
    (Confused, "another message"),
    (Silent, "no answer"),
    (Forgetful, "no RST_STREAM"),
    (Clumsy, "of its own"),
    (Touchy, "expected Expected"),
]


@pytest.mark.parametrize(("kind", "words"), FAULTY)
def test_a_faulty_protocol_is_found_out(kind: type[Protocol], words: str) -> None:
    """The sessions from which a search begins are enough to find a protocol that breaks one of its promises."""

    def search() -> None:
        for seed in SEEDS:
            Program(seed, kind).run()

    with pytest.raises((AssertionError, LookupError), match=words):
        search()
