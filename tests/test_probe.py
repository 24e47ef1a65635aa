"""StatsProbe: what a server serves by its own statistics, and the judgement of what a probe did."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from fleet import all_healthy, open_fleet, stats
from viewreg import Event, FactPartition, Feature, HashRange, KeyEncoding, ProbeAnswerError, ProbeResult, StatsProbe
from viewreg._probe import read_stats
from viewreg._prober import judge, judge_error
from viewreg.rpc import StatsResult

if TYPE_CHECKING:
    from trio.testing import MockClock

DISK = Feature.DIAGNOSTICS | Feature.CAROUSEL


@pytest.mark.parametrize(
    ("answer", "features", "partition"),
    [
        (stats("SPO"), DISK | Feature.HASH_SP, FactPartition(KeyEncoding.SPO, HashRange.FULL)),
        (stats("POS"), DISK | Feature.HASH_PO, FactPartition(KeyEncoding.POS, HashRange.FULL)),
        (stats("POS", 7, 2**63), DISK | Feature.HASH_PO, FactPartition(KeyEncoding.POS, HashRange(7, 2**63))),
        (stats("SPO", 2**63), DISK | Feature.HASH_SP, FactPartition(KeyEncoding.SPO, HashRange(2**63, None))),
        (StatsResult(viewType="txtimeout"), Feature.DIAGNOSTICS, None),
    ],
)
def test_what_statistics_say(answer: StatsResult, features: Feature, partition: FactPartition | None) -> None:
    """A disk view serves its partition by the encoding's lookups; the transaction timer serves diagnostics alone."""
    assert read_stats(answer) == ProbeResult(features, partition)


def unknown_encoding(number: int) -> StatsResult:
    """Statistics with an encoding that may not exist."""
    answer = stats()
    answer.hashPartition.encoding = number  # type: ignore[assignment]
    return answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (StatsResult(viewType="megaview"), "unsupported view type: megaview"),
        (StatsResult(), "unsupported view type: "),
        (StatsResult(viewType="txtimeout2"), "unsupported view type: txtimeout2"),
        (StatsResult(viewType="diskview"), "unsupported view type: diskview"),
        (StatsResult(viewType="diskview/x"), "unexpected FactKeyEncoding value of KeyEncodingUnknown"),
        (unknown_encoding(1957), "unexpected FactKeyEncoding value of 1957"),
        (stats("SPO", 10, 5), "impossible hash partition"),
    ],
)
def test_what_makes_no_sense(answer: StatsResult, words: str) -> None:
    """Statistics that say nothing that is known are an answer that is not understood, in the original's words."""
    with pytest.raises(ProbeAnswerError, match=words):
        read_stats(answer)


def test_long_nonsense_is_cut() -> None:
    """A view type of any length gives a message of a bounded one."""
    with pytest.raises(ProbeAnswerError) as caught:
        read_stats(StatsResult(viewType="x" * 100_000))
    assert len(str(caught.value)) < 200


async def test_stats_probe_asks_diagnostics(autojump_clock: MockClock) -> None:
    """StatsProbe makes one call, of Diagnostics.stats."""
    async with open_fleet() as fleet, fleet.open("a:1") as registry:
        await registry.wait_until(all_healthy)
        assert [request.path for request in fleet["a:1"].view.requests] == ["/rpc.Diagnostics/stats"]
    assert StatsProbe().no_features == Feature(0)
    assert repr(StatsProbe()) == "StatsProbe()"


def test_verdicts() -> None:
    """What a probe returned or raised is judged once, with words for the history."""
    partition = FactPartition.nth(KeyEncoding.SPO, 0, of=2)
    good = judge(ProbeResult(Feature.HASH_SP, partition), Feature(0))
    assert (good.event, good.reason) == (Event.PROBE_OK, f"serves HashSP [{partition}]")
    assert judge(ProbeResult(Feature(0)), Feature(0)).reason == "serves nothing"
    assert judge(ProbeResult(Feature(0), serving=False), Feature(0)).reason == "the server says so"
    puzzling = judge_error(ProbeAnswerError("what?"))
    assert (puzzling.event, puzzling.reason, puzzling.error) == (Event.PROBE_NOT_UNDERSTOOD, "what?", None)
    unexpected = ValueError("bug of the probe's")
    assert judge_error(unexpected).error is unexpected
    assert judge_error(ConnectionResetError(errno.ECONNRESET, "x")).reason == "Connection reset by peer (ECONNRESET)"
