"""The soak in short, and that it would find what it is there to find. Long ones: `nox -s soak -- --minutes 3`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from soak import Settings, soak
from soak_calls import ANSWERED, LEFT, Call, Ledger
from soak_events import Report, Seen
from transport import note
from viewreg import Config

if TYPE_CHECKING:
    from collections.abc import Sequence

QUICK = Config(keepalive_interval=0.5, keepalive_timeout=1.0, connect_timeout=1.0)
SHORT = Settings(seconds=10.0, seed=7, servers=12, pace=0.3, config=QUICK)


@pytest.mark.timeout(300)
async def test_a_short_soak() -> None:
    """Servers crash, freeze, move and come back while they are called: ledger and logs agree, the views were right."""
    result = await soak(SHORT)
    note(result.table())
    assert result.faults == []
    assert result.ledger.outcomes[ANSWERED]
    assert len(result.report.seen) > 3


@pytest.mark.parametrize(
    ("call", "ran", "fault"),
    [
        (Call(1, "a", 5.0), [], "has not ended"),
        (Call(1, "a", 5.0, ANSWERED, 7.5), [1], "ended 2.5 s after its deadline"),
        (Call(1, "a", 5.0, "UNAVAILABLE", 1.0), [1, 1], "was run 2 times"),
        (Call(1, "a", 5.0, ANSWERED, 1.0), [], "was answered, and no server has run it"),
        (Call(1, "a", 5.0, LEFT, 1.0), [], "was left, and no server has run it"),
        (Call(1, "a", 5.0, "UNAVAILABLE", 1.0, started=False), [1], "not started, and a server has run it"),
        (Call(1, "a", 5.0, ANSWERED, 1.0), [1, 2], "call 2 was run, and nobody made it"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_the_ledger_finds_what_is_wrong(call: Call, ran: Sequence[int], fault: str) -> None:
    """Each way in which the callers' ledger and the servers' logs can disagree is found, and said."""
    (found,) = Ledger([call]).faults(ran, 0.0)
    assert fault in found


def test_a_broken_promise_is_found() -> None:
    """What shows later than is allowed is said; a program that was late itself allows for that."""
    report = Report()
    report.seen["kill", "began"] += [Seen(1.9, 0.0, "in time"), Seen(2.1, 0.0, "late")]
    assert report.faults(0.0) == ["late after 2.1 s"]
    assert report.faults(0.1) == []


@pytest.mark.parametrize("call", [Call(1, "a", 5.0, "UNAVAILABLE", 1.0), Call(1, "a", 5.0, "out of time", 5.1)])
@pytest.mark.parametrize("ran", [[], [1]], ids=["not run", "run"])
def test_a_call_that_failed_may_have_run(call: Call, ran: list[int]) -> None:
    """A call that was lost, or ran out of time, may have run once or not at all."""
    assert Ledger([call]).faults(ran, 0.0) == []
