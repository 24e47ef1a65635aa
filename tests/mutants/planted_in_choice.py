"""Bugs planted in what decides whom to ask: coverage, pick, fan-out."""

from __future__ import annotations

from typing import Final

from mutants.mutant import Mutant

IN_CHOICE: Final = (
    # -- coverage --
    Mutant(
        "covers-without-their-cost",
        "of ways with equally few calls any is taken, whatever the caller prefers",
        "_coverage.py",
        "heapq.heappush(chains, (links + 1, so_far + cost, number, ",
        "heapq.heappush(chains, (links + 1, so_far, number, ",
        "test_coverage.py::test_cover_prefers_the_smaller_sum",
    ),
    Mutant(
        "a-failed-view-is-asked-again",
        "what was to be left out is among whom to ask",
        "_coverage.py",
        " and span[1] > start and span[2] not in without]",
        " and span[1] > start]",
        "test_coverage.py::test_a_failed_part_is_taken_over",
    ),
    Mutant(
        "a-hash-at-a-boundary",
        "the first hash of a part is looked up in the part before it",
        "_coverage.py",
        "self.parts[bisect_right(self._starts, hash) - 1]",
        "self.parts[max(bisect_right(self._starts, hash - 1) - 1, 0)]",
        "test_coverage.py::test_everyone_is_found_at_every_hash",
    ),
    # -- pick --
    Mutant(
        "everyone-runs-to-the-busy-one",
        "of two views the one with more calls in flight is taken",
        "_pick.py",
        "one if one.channel.calls_in_flight <= other",
        "one if one.channel.calls_in_flight > other",
        "test_pick.py::test_the_less_busy",
    ),
    Mutant(
        "old-choices",
        "a view that is no longer healthy is chosen for a second",
        "_pick.py",
        "if snapshot is not self._snapshot or now >= self._until:",
        "if now >= self._until:",
        "test_pick.py::test_only_who_can",
    ),
    # -- fan-out --
    Mutant(
        "what-was-seen-comes-again",
        "a part that fails after its first answer is asked for again, and facts come twice",
        "_fan_out.py",
        "if not part.seen or self._repeat:",
        "if True:",
        "test_fan_out_failures.py::test_a_view_that_dies_after_its_first_answer",
    ),
    Mutant(
        "an-unseen-answer-stays",
        "an answer that waits when its call fails is handed out, and comes again from another view",
        "_fan_out.py",
        "            self._held.pop(part, None)\n",
        "",
        "test_fan_out_failures.py::test_an_answer_that_nobody_has_seen",
    ),
    Mutant(
        "the-failed-are-asked-for-ever",
        "two views that both fail are asked in turn, without an end",
        "_fan_out.py",
        "tried | {assignment.view.channel}",
        "frozenset({assignment.view.channel})",
        "test_fan_out_failures.py::test_nobody_is_asked_twice",
    ),
    Mutant(
        "an-error-for-one-only",
        "after the first error the other calls run on, for nobody",
        "_fan_out.py",
        "        for part in self._parts:\n            part.scope.cancel()\n",
        "",
        "test_fan_out_failures.py::test_a_view_that_dies_after_its_first_answer",
    ),
    Mutant(
        "a-slow-reader-is-not-felt",
        "what nobody takes is fetched all the same, and fills the memory",
        "_fan_out.py",
        "        while part in self._held:\n            await part.taken.park()\n",
        "",
        "test_fan_out.py::test_a_slow_reader_is_felt_by_the_servers",
    ),
    Mutant(
        "the-last-part-wakes-nobody",
        "who waits for the next answer when the last call ends waits for ever",
        "_fan_out.py",
        "        if not self._parts:\n            self._readers.unpark_all()\n",
        "",
        "test_fan_out_failures.py::test_a_part_will_do",
    ),
    Mutant(
        "left-looks-like-the-end",
        "who shares an iterator whose block was left takes this for the end of all answers",
        "_fan_out.py",
        "self._closed = bool(self._parts or self._held or self._error)",
        "self._closed = False",
        "test_fan_out.py::test_leaving_ends_all_calls",
    ),
)
