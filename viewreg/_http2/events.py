"""What happens to a connection beside its streams, as values that `Protocol.receive` returns."""

from __future__ import annotations

from typing import Final, TypeAlias

from attrs import frozen

from viewreg._http2.stream import Stream


@frozen
class SettingsReceived:
    """The server's SETTINGS, and with the first of them its word that it speaks HTTP/2."""


@frozen
class PingAnswered:
    """The answer to a PING of ours."""

    payload: bytes


@frozen
class GoAway:
    """The server takes no new streams; those above `last_stream_id` were not processed, their failure is set."""

    last_stream_id: int
    code: int
    debug: str  # the server's words, at most 256 bytes of them


@frozen
class WindowOpened:
    """Whoever was left with a rest by `open_stream` or `send_data` may send more."""


WINDOW_OPENED: Final = WindowOpened()

Event: TypeAlias = Stream | SettingsReceived | PingAnswered | GoAway | WindowOpened
"""A `Stream` stands for itself: look at it again. It comes once for several frames in a row."""
