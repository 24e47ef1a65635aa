"""The protocol against another implementation: the `h2` package as the server, in random sessions (`h2_session`)."""

from __future__ import annotations

from typing import Any, Final

import h2.config
import h2.connection
import h2.exceptions
import pytest

from h2_session import Session, play
from viewreg._http2.protocol import Protocol
from viewreg._http2.stream import Stream
from viewreg.testing.frames import RESPONSE, block, message

SESSIONS: Final = 400


@pytest.mark.parametrize("start", range(0, SESSIONS, 100))
def test_random_sessions_with_h2(start: int) -> None:
    """Both sides agree on every message, window and end, and neither finds fault with the other."""
    calls = 0
    for seed in range(start, start + 100):
        calls += len(play(seed).calls)
    assert calls > 200


def test_h2_finds_fault_with_a_faulty_client() -> None:
    """The server of these tests does refuse what is wrong: a response's fields in a request, for one."""
    client = Protocol()
    server: Any = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
    server.initiate_connection()
    client.receive(server.data_to_send())
    client.open_stream(Stream(lambda: None, 100), block(RESPONSE), message(b""), 1000)
    with pytest.raises(h2.exceptions.ProtocolError):
        server.receive_data(client.take_outbox())


def test_a_difference_is_noticed() -> None:
    """A client that counts one byte of a window wrong does not agree with its server."""
    session = Session(1)
    session.call()
    session.settle()
    session.client.streams[1].receive_window -= 1
    with pytest.raises(AssertionError):
        session.agree()
