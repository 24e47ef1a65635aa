"""What operators are told: every failure once, with its reason, in one printable line of bounded length."""

from __future__ import annotations

import io
import logging
import math
from typing import TYPE_CHECKING

import pytest
import trio

import viewreg
from fleet import CLOSED, INSTANT, Does, all_healthy, call, events, open_fleet, reason, unhealthy
from viewreg import Config, Event, Feature, ProbeAnswerError, ProbeResult
from viewreg._health import reason_text
from viewreg.testing.frames import goaway, settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from viewreg import Channel, Registry

A = "a:1"
NASTY = "x\n2024-01-01 ERROR forged\r\x1b[2J\x07\u202e\ud800 " + "y" * 60_000
LONGEST = 2_100  # characters: 200 of a reason, each escaped as "\U0010ffff", and what stands around it


class Told:
    """A probe that does what its list of steps says, the last one again and again."""

    no_features = Feature(0)

    def __init__(self, *steps: Callable[[], ProbeResult[Feature]]) -> None:
        self.steps = list(steps)

    async def __call__(self, channel: Channel) -> ProbeResult[Feature]:
        await trio.lowlevel.checkpoint()
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        return step()


def raises(error: Exception) -> Callable[[], ProbeResult[Feature]]:
    """A step that fails."""

    def step() -> ProbeResult[Feature]:
        raise error

    return step


def good() -> ProbeResult[Feature]:
    """A step that is well."""
    return ProbeResult(Feature.DIAGNOSTICS)


def ours(caplog: pytest.LogCaptureFixture, level: int) -> list[logging.LogRecord]:
    """What viewreg has logged at this level."""
    return [record for record in caplog.records if record.name == "viewreg" and record.levelno == level]


# -- text of servers and probes --

SAYS: list[Callable[[], ProbeResult[Feature]]] = [
    raises(viewreg.UnknownError(NASTY)),
    raises(ProbeAnswerError(NASTY)),
    raises(ValueError(NASTY)),
    lambda: ProbeResult(Feature(0), serving=False, reason=NASTY),
]


@pytest.mark.parametrize("step", SAYS, ids=["status", "not understood", "bug", "not serving"])
async def test_what_a_probe_says_is_one_short_line(
    step: Callable[[], ProbeResult[Feature]], autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a probe or a server says stands escaped and cut in history, log and dump; nothing can be forged."""
    caplog.set_level(logging.DEBUG, "viewreg")
    sink = io.StringIO()
    async with open_fleet() as fleet:
        fleet.locator.set([A])
        async with viewreg.open_registry(fleet.locator, dial=fleet.dial, probe=Told(step)) as registry:
            await trio.sleep(60)
            registry.dump(sink, reasons=True)
            texts = [str(entry) for entry in registry.history(A)]
            assert len(texts) == 3  # connecting, connected, and one reason however often it was given
    texts += sink.getvalue().split("\n")
    texts += [record.getMessage() for record in ours(caplog, logging.INFO) + ours(caplog, logging.DEBUG)]
    assert sum(r"x\n2024-01-01 ERROR forged\r\x1b[2J\x07\u202e\ud800 yyy" in text for text in texts) >= 4
    assert all(text.isprintable() for text in texts)
    assert max(map(len, texts)) < LONGEST


@pytest.mark.parametrize(
    ("why", "text"),
    [
        ("", ""),
        ("no such fact", "no such fact"),
        ("Größe ∞ 日本", "Größe ∞ 日本"),
        ("a\nb\tc\x00", r"a\nb\tc\x00"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\u2028\u202e\ud800", r"\u2028\u202e\ud800"),
        ("y" * 200, "y" * 200),
        ("y" * 201, "y" * 200 + " ..."),
    ],
    ids=ascii,
)
def test_text_of_a_reason(why: str, text: str) -> None:
    """What cannot be printed is escaped as Python does it, the first 200 characters are kept, and the cut shows."""
    assert reason_text(why) == text


async def test_history_of_a_lying_server_is_small(autojump_clock: MockClock) -> None:
    """A server that gives another endless reason each time fills its history with a few KiB at most."""
    count = 0

    def step() -> ProbeResult[Feature]:
        nonlocal count
        count += 1
        raise viewreg.UnknownError(f"{count} " + NASTY)

    async with open_fleet() as fleet:
        fleet.locator.set([A])
        async with viewreg.open_registry(fleet.locator, dial=fleet.dial, probe=Told(step)) as registry:
            await trio.sleep(600)
            history = registry.history(A)
    assert len(history) == Config().history_length
    assert all(len(entry.why) < 300 for entry in history)


async def test_what_a_goaway_says_is_one_line(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """The words in a server's GOAWAY are escaped and cut like all others."""
    caplog.set_level(logging.DEBUG, "viewreg")
    async with open_fleet() as fleet, fleet.open(A) as registry:
        await registry.wait_until(all_healthy)
        await fleet[A].say(goaway(0, 2, b"x\n\x1b[2J" + b"y" * 10_000))
        await registry.wait_until(unhealthy(A))
        told = [str(entry) for entry in registry.history(A)]
    told += [record.getMessage() for record in ours(caplog, logging.INFO)]
    assert sum("INTERNAL_ERROR: x" in text for text in told) >= 2
    assert all(text.isprintable() and len(text) < LONGEST for text in told)


# -- what is logged --


async def run_for_a_minute(probe: Told) -> None:
    """A registry of one server with this probe."""
    async with open_fleet() as fleet:
        fleet.locator.set([A])
        async with viewreg.open_registry(fleet.locator, dial=fleet.dial, probe=probe):
            await trio.sleep(60)


async def test_the_first_failure_of_a_probe_is_logged(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A probe that has never worked is one line at INFO, with the traceback of its bug; its repetition is DEBUG."""
    caplog.set_level(logging.DEBUG, "viewreg")
    await run_for_a_minute(Told(raises(AttributeError("typo"))))
    (told,) = ours(caplog, logging.INFO)
    assert told.getMessage() == "tcp://a:1 is unhealthy: probe failed: AttributeError: typo"
    assert told.exc_info is not None
    repeated = [record for record in ours(caplog, logging.DEBUG) if "typo" in record.getMessage()]
    assert len(repeated) >= 50
    assert not any(record.exc_info for record in repeated)


async def test_a_server_without_the_service_is_logged(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A status that the probe's call got from the server is one line at INFO, and no traceback: it is no bug."""
    caplog.set_level(logging.INFO, "viewreg")
    async with open_fleet() as fleet:
        fleet[A].view.stats = None
        async with fleet.open(A):
            await trio.sleep(60)
    (told,) = ours(caplog, logging.INFO)
    assert told.getMessage().startswith("tcp://a:1 is unhealthy: probe failed: UNIMPLEMENTED")
    assert told.exc_info is None


async def test_a_new_reason_is_news(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """An unhealthy endpoint that fails for another reason is another line at INFO; so is one that failed before."""
    caplog.set_level(logging.INFO, "viewreg")
    first, second = raises(viewreg.UnknownError("first")), raises(viewreg.UnknownError("second"))
    await run_for_a_minute(Told(first, first, second, second, good, first))
    told = [record.getMessage().removeprefix("tcp://a:1 is ") for record in ours(caplog, logging.INFO)]
    assert told == [
        "unhealthy: probe failed: UNKNOWN: first",
        "unhealthy: probe failed: UNKNOWN: second",
        "healthy: probe answered: serves Diagnostics",
        "unhealthy: probe failed: UNKNOWN: first",
    ]


# -- what is in the history --


async def open_calls(registry: Registry[Feature], count: int, nursery: trio.Nursery) -> None:
    """Make calls that are not answered."""
    for _ in range(count):
        nursery.start_soon(call, registry, A)
    await trio.lowlevel.checkpoint()


async def test_a_probe_that_is_not_sent_is_told(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """A probe that gets no stream changes nothing that anyone sees, and the history says that it was not sent."""
    caplog.set_level(logging.INFO, "viewreg")
    config = Config(keepalive_interval=math.inf)
    async with open_fleet() as fleet:
        fleet[A].view.max_concurrent_streams = 1
        async with fleet.open(A, config=config) as registry, trio.open_nursery() as nursery:
            await registry.wait_until(all_healthy)
            version = registry.version
            caplog.clear()
            fleet[A].view.hang = True
            await open_calls(registry, 1, nursery)
            await trio.sleep(60)
            assert registry.version == version
            assert events(registry, A) == [
                Event.CONNECTING,
                Event.CONNECTED,
                Event.PROBE_OK,
                Event.PROBE_NOT_SENT,
            ]
            entry = registry.history(A)[-1]
            assert entry.why == "the server has all the calls open that it allows"
            assert entry.times > 1
            assert ours(caplog, logging.INFO) == []
            nursery.cancel_scope.cancel()


async def test_a_server_that_admits_no_calls_at_all(autojump_clock: MockClock) -> None:
    """A healthy server that lowers MAX_CONCURRENT_STREAMS to 0 has a probe's time to raise it; then it is unhealthy."""
    async with open_fleet() as fleet, fleet.open(A, config=Config(probe_jitter=0.0)) as registry:
        await registry.wait_until(all_healthy)
        version = registry.version
        for pause in (1.0, 4.9):  # borne
            await trio.sleep_until(trio.current_time() // 10 * 10 + 9)
            await fleet[A].say(settings({0x3: 0}))
            await trio.sleep(1 + pause)
            await fleet[A].say(settings({0x3: 100}))
        await trio.sleep(10)
        assert registry.version == version
        await trio.sleep_until(trio.current_time() // 10 * 10 + 9)
        await fleet[A].say(settings({0x3: 0}))
        begun = trio.current_time()
        await registry.wait_until(unhealthy(A))
        assert trio.current_time() - begun <= 10 + 5 + 1
        assert reason(registry, A) == "probe failed: the server has allowed no calls at all for 5 s"
        await fleet[A].say(settings({0x3: 1}))
        with trio.fail_after(1 + INSTANT):
            await registry.wait_until(all_healthy)


async def test_why_connecting_failed_at_the_last_moment(autojump_clock: MockClock) -> None:
    """A server that closes just when the time for connecting is over is told by that, not as one that was silent."""
    hosts = [f"{letter}:1" for letter in "abcdefghij"]  # Trio runs the tasks of one step in any order
    async with open_fleet() as fleet:
        for host in hosts:
            fleet[host].does = Does.MUTE
        async with fleet.open(*hosts) as registry:
            await trio.sleep(Config().connect_timeout)
            for host in hosts:
                fleet[host].cut()
            await trio.sleep(CLOSED / 2)
            told = {reason(registry, host) for host in hosts}
    assert told == {"connecting failed: the server closed the connection before it said anything: it may expect TLS"}
