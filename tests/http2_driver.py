"""A `Protocol` in the hands of a test: frames in, events and frames out, without I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from viewreg._http2.headers import literal, request_block
from viewreg._http2.protocol import Protocol
from viewreg._http2.stream import Stream
from viewreg.testing.frames import FrameReader, message, settings, settings_ack

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from viewreg._http2.protocol import Event
    from viewreg.testing.frames import Frame

MAX_MESSAGE: Final = 64 * 1024 * 1024  # bytes
NO_LIMIT: Final = 2**40  # bytes for the outbox


class Driver:
    """After the handshake, unless `handshake` is false; then the preface is still to be sent."""

    def __init__(self, values: Mapping[int, int] | None = None, *, handshake: bool = True) -> None:
        self.protocol: Final = Protocol()
        self._reader: Final = FrameReader()
        if handshake:
            self.receive(settings(values), settings_ack())
            self.sent()

    def receive(self, *parts: bytes) -> list[Event]:
        """Hand these bytes in as one."""
        return self.protocol.receive(b"".join(parts))

    def sent(self) -> list[Frame]:
        """The frames that came out since this was last asked."""
        return self._reader.feed(self.protocol.take_outbox())

    def call(self, body: bytes = b"", *, max_message: int = MAX_MESSAGE) -> Stream:
        """A call whose request of one message has left. Its frames are not in `sent`."""
        stream = Stream(nobody, max_message)
        assert self.protocol.open_stream(stream, a_block(), message(body), NO_LIMIT) is None
        self.sent()
        return stream

    def open(self) -> Stream:
        """A call whose request is still open. Its frames are not in `sent`."""
        stream = Stream(nobody, MAX_MESSAGE)
        assert self.protocol.open_stream(stream, a_block(), None, NO_LIMIT) is None
        self.sent()
        return stream

    def take_all(self, stream: Stream) -> list[bytes]:
        """The messages that are complete."""
        messages = []
        while stream.has_message:
            messages.append(self.protocol.take_message(stream))
        return messages


def a_block(*fields: tuple[bytes, bytes]) -> bytes:
    """A request's header block, with these fields at its end."""
    head = request_block("http", "view.example:8080", "/rpc.Diagnostics/stats", "viewreg-tests")
    return head + b"".join(literal(name, value) for name, value in fields)


def named(events: Iterable[Event]) -> list[str]:
    """Events as words: "stream 1", "GoAway". A stream that comes several times in a row is named once."""
    names: list[str] = []
    for event in events:
        name = f"stream {event.id}" if isinstance(event, Stream) else type(event).__name__
        if not isinstance(event, Stream) or names[-1:] != [name]:
            names.append(name)
    return names


def nobody() -> None:
    """The `wake` of a stream that no task waits for."""
