"""How much the peer may send us: HTTP/2 flow control on the receiving side, as a policy without I/O.

Rules:
* One stream may hold at most `STREAM_WINDOW` bytes that its reader has not taken, or the one message at its head
  if that is longer: then, and only then, the window is opened as far as that message needs.
* The connection's credit is returned on receipt. What a slow reader holds back is its own stream's business, and one
  stalled stream never starves the others.
* Small updates are saved up: a WINDOW_UPDATE is due when half of a window can be returned, or when the message at the
  head could not be completed without one.
"""

from __future__ import annotations

from typing import Final

STREAM_WINDOW: Final = 256 * 1024  # bytes
CONNECTION_WINDOW: Final = 1024 * 1024  # bytes
STREAM_DUE: Final = STREAM_WINDOW // 2  # bytes of a window that are left when an update may be due
CONNECTION_DUE: Final = CONNECTION_WINDOW // 2


def stream_credit(window: int, held: int, needed: int) -> int:
    """The increment to send for a stream now, 0 for none.

    `window` is what the peer may still send, `held` what lies here unread, `needed` the size of the message at the head
    with its prefix (0 while that is unknown), all in bytes. Afterwards `window + held <= max(STREAM_WINDOW, needed)`.
    """
    room = max(STREAM_WINDOW, needed) - held - window
    if room >= STREAM_DUE or (room > 0 and window + held < needed):
        return room
    return 0


def connection_credit(window: int) -> int:
    """The increment to send for the connection now, of which the peer may still send `window` bytes; 0 for none."""
    return CONNECTION_WINDOW - window if window <= CONNECTION_DUE else 0
