"""What is written to the log, at which level, and what never is."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import trio

import viewreg
from fleet import Does, all_healthy, open_fleet
from viewreg import Event, Feature
from viewreg.rpc import CarouselRequest, LogStatusRequest

if TYPE_CHECKING:
    from trio.testing import MockClock


A, B = "a:1", "b:1"


# -- the log --


def lines(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    """What was logged at this level."""
    return [record.getMessage() for record in caplog.records if record.levelno == level and record.name == "viewreg"]


async def test_log_of_transitions(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Each transition is one line at INFO that names endpoint, state and reason; repetitions are at DEBUG."""
    caplog.set_level(logging.DEBUG, logger="viewreg")
    async with open_fleet() as fleet, fleet.open(A) as registry:
        await registry.wait_until(all_healthy)
        fleet[A].does = Does.REFUSE
        fleet[A].cut()
        await trio.sleep(30)
        fleet[A].does = Does.SERVE
        await registry.wait_until(all_healthy)
        await trio.sleep(60)
    info = lines(caplog, logging.INFO)
    good = "tcp://a:1 is healthy: probe answered: serves Diagnostics,Carousel,HashSP [SPO: 0x00.. - ∞]"
    assert info == [good, "tcp://a:1 is unhealthy: connection lost: the server closed the connection", good]
    assert any("ECONNREFUSED" in line for line in lines(caplog, logging.DEBUG))
    assert {record.name for record in caplog.records} == {"viewreg"}


async def test_log_of_a_dead_endpoint(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """An endpoint that refuses for an hour is one line at INFO, with the reason."""
    caplog.set_level(logging.INFO, logger="viewreg")
    async with open_fleet() as fleet:
        fleet[A].does = Does.REFUSE
        async with fleet.open(A):
            await trio.sleep(3600)
    assert lines(caplog, logging.INFO) == [
        "tcp://a:1 is unhealthy: connecting failed: Connection refused (ECONNREFUSED)"
    ]


async def test_calls_are_not_logged(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is logged for a call above DEBUG, well or badly ended, and its metadata at no level."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        view = (await registry.wait_until(all_healthy)).view(A)
        caplog.set_level(logging.DEBUG, logger="viewreg")
        caplog.clear()
        secret = {"authorization": "Bearer hunter2"}
        await view.carousel().logStatus(LogStatusRequest(), metadata=secret)
        fleet[A].view.status = 13
        with pytest.raises(viewreg.InternalError):
            await view.carousel().logStatus(LogStatusRequest(), metadata=secret)
        async with view.carousel().ride(CarouselRequest()) as ride:
            with pytest.raises(viewreg.InternalError):
                await anext(ride)
    ours = [record for record in caplog.records if record.name == "viewreg"]
    assert [record for record in ours if record.levelno > logging.DEBUG] == []
    assert not any("hunter2" in record.getMessage() for record in ours)


async def test_a_probe_with_a_bug_is_logged_once(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """A probe that raises what it should not is logged with its traceback once, not every second."""
    caplog.set_level(logging.INFO, logger="viewreg")

    class Buggy:
        no_features = Feature(0)
        fails = False

        async def __call__(self, channel: object) -> viewreg.ProbeResult[Feature]:
            if self.fails:
                raise ZeroDivisionError("bug of the probe's")
            return viewreg.ProbeResult(Feature.DIAGNOSTICS)

    async with open_fleet() as fleet:
        probe = Buggy()
        async with viewreg.open_registry("static:///a:1", dial=fleet.dial, probe=probe) as registry:
            await registry.wait_until(all_healthy)
            probe.fails = True
            await trio.sleep(100)
            assert registry.history(A)[-1].what is Event.PROBE_FAILED
    with_traceback = [record for record in caplog.records if record.exc_info]
    assert len(with_traceback) == 1
    assert "ZeroDivisionError: bug of the probe's" in with_traceback[0].getMessage()


async def test_a_server_that_talks_for_ever(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Of a server's words only what a line has room for counts: what differs behind that is no news."""
    caplog.set_level(logging.INFO, logger="viewreg")
    async with open_fleet() as fleet, fleet.open(A) as registry:
        await registry.wait_until(all_healthy)
        fleet[A].view.status = 13
        for number in range(5):
            fleet[A].view.details = "blah " * 100 + str(number)
            await trio.sleep(10)
    assert [len(line) < 300 for line in lines(caplog, logging.INFO)] == [True] * 2
