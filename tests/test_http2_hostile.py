"""Bytes that a hostile server made to cost much. What any bytes may do, and any cuts, is in `fuzz/`."""

from __future__ import annotations

import random
import time
from contextlib import suppress

import pytest

from http2_driver import Driver
from viewreg._http2.errors import ConnectionFailedError
from viewreg.testing.frames import (
    END_HEADERS,
    data,
    frame,
    goaway,
    headers,
)
from viewreg.testing.frames import settings as settings_frame


def test_a_long_garbage_session_stays_small() -> None:
    """Megabytes of legal and senseless frames leave a connection with nothing but its own state."""
    rng = random.Random(7)
    driver = Driver()
    for _ in range(2000):
        kind = rng.choice([0xB, 0x20, 0xFF])
        driver.receive(frame(kind, rng.randrange(256), rng.randrange(2**31), rng.randbytes(rng.randrange(2000))))
    assert driver.protocol.outbox_size == 0
    assert driver.protocol._buffer == b""


@pytest.mark.parametrize(
    "received",
    [
        frame("HEADERS", 0, 1, b"\x00\x7f" + b"\xff" * 16_000) + frame("CONTINUATION", 4, 1, b"\xff" * 16_000),
        frame("HEADERS", END_HEADERS, 1, (b"\x00\x7f" + b"\xff" * 1000) * 16),
        settings_frame({4: 70_000}) + frame("SETTINGS", 0, 0, bytes(6) * 2730),
        b"".join(frame("SETTINGS", 0, 0, (b"\0\4\0\1\0\0" + b"\0\4\0\0\0\0") * 1365) for _ in range(20)),
        b"".join(goaway(2**31 - 1 - at) for at in range(4000)),
        headers(1) + data(1, b"\0" * 5) * 4000,
    ],
    ids=["endless number", "endless numbers", "many settings", "window up and down", "goaways", "empty messages"],
)
def test_no_bytes_take_long(received: bytes) -> None:
    """Some 64 KiB that were made to cost much are dealt with in far less than a second, with a thousand calls open."""
    driver = Driver({3: 2000})
    for _ in range(1000):
        driver.call()
    started = time.process_time()
    with suppress(ConnectionFailedError):
        driver.receive(received)
    assert time.process_time() - started < 0.25
