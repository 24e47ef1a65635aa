"""Plays every file in scenarios/: what it says happens, at the second it says, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from scenario_format import Scenario, load, read
from scenario_player import play
from scenario_words import CONDITIONS, VERBS, Names

FOLDER = Path(__file__).parent / "scenarios"
FILES = sorted(FOLDER.glob("*.json"))
UP = "READY Partition: Features:Diagnostics Healthy:true"
OPENING: Any = {
    "do": ["discovery lists a:1"],
    "views": {"a:1": UP},
    "changes": [
        "0 s: added a:1",
        "0 s: updated a:1 CONNECTING",
        "0 s: updated a:1 READY",
        "0 s: updated a:1 Features:Diagnostics Healthy:true",
    ],
    "history": {"a:1": ["0 s: connecting", "0 s: connected", "0 s: probe answered: serves Diagnostics"]},
    "wire": {"a:1": ["0 s: dial", "0 s: probe"]},
}


def played(scenario: Scenario) -> str:
    """What is different. Not in an async test: pytest-trio would wrap a failure in a group, and hide the report."""
    return trio.run(play, scenario, clock=MockClock(autojump_threshold=0))


def report(*phases: Any, **keys: Any) -> str:
    """What is different in a scenario of these phases."""
    start = {"name": "x", "shows": "y", "servers": ["a:1"]}
    return played(read("x.json", json.dumps(start | keys | {"phases": phases})))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    """What the file says happens, and nothing else."""
    if different := played(load(path)):
        pytest.fail(different, pytrace=False)


# -- that a scenario can fail --


def test_a_right_one() -> None:
    """The opening of the following tests is right, so that what they report is their own mistake."""
    assert report(OPENING) == ""


def test_nothing_expected() -> None:
    """A phase that expects nothing reports all that happened."""
    assert report({"do": ["discovery lists a:1"]}).splitlines() == [
        "x.json: phase 1, from 0 s to 0 s",
        "    discovery lists a:1",
        "  - is expected, + is found:",
        "  views",
        f"    + a:1: {UP}",
        "  changes",
        *(f"    + {line}" for line in OPENING["changes"]),
        "  history",
        *(f"    + a:1: {line}" for line in OPENING["history"]["a:1"]),
    ]


@pytest.mark.parametrize(
    ("key", "value", "lines"),
    [
        ("views", {}, [f"+ a:1: {UP}"]),
        ("views", {"a:1": UP + " zone=x"}, [f"- a:1: {UP} zone=x", f"+ a:1: {UP}"]),
        ("changes", OPENING["changes"][:-1], [f"+ {OPENING['changes'][-1]}"]),
        ("changes", OPENING["changes"] * 2, [f"- {line}" for line in OPENING["changes"]]),
        ("history", {}, [f"+ a:1: {line}" for line in OPENING["history"]["a:1"]]),
        ("wire", {"a:1": ["0 s: dial"]}, ["+ a:1: 0 s: probe"]),
        ("users", {"program": ["0 s: the block was left"]}, ["- program: 0 s: the block was left"]),
        ("discovery", "version 7 since 0 s", ["- version 7 since 0 s", "+ version 1 since 0 s"]),
    ],
)
def test_each_expectation(key: str, value: Any, lines: list[str]) -> None:
    """An expectation that is not met is reported, line by line, with nothing else."""
    found = report(OPENING | {key: value}).splitlines()
    assert found[3] == f"  {key}"
    assert set(lines) <= {line.strip() for line in found[4:]}
    assert not [line for line in found[4:] if re.match(r"  \w", line)]


def test_a_later_phase() -> None:
    """The report names the phase and its note; what was as expected before is left out."""
    found = report(OPENING, {"note": "too long", "after": "10.5 s"}).splitlines()
    assert found[:2] == ["x.json: phase 2, from 0 s to 10.5 s", "    (too long)"]
    assert "    + a:1: 0 s: probe answered: serves Diagnostics (2 times) until 10 s" in found
    assert "    + a:1: 8 s: PING" in found


def test_the_end_of_a_user_that_nobody_expected() -> None:
    """What a user did and how it ended must be listed, too."""
    found = report(OPENING, {"do": ["ann waits for a change since ever"]}, users=["ann"])
    assert "    + ann: 0 s: version 4" in found.splitlines()


def test_an_error_of_discovery_that_nobody_expected() -> None:
    """A phase that says nothing of discovery expects it to be well."""
    found = report(OPENING, {"do": ["discovery fails: no luck"]})
    assert "    + version 1 since 0 s, failing: LocatorError: no luck" in found.splitlines()


@pytest.mark.parametrize(("times", "meets"), [("7 to 9 s", True), ("8 to 8 s", True), ("7 to 7.999 s", False)])
def test_ranges(times: str, meets: bool) -> None:
    """A time may be a range; it does not meet what lies outside."""
    found = report(OPENING, {"after": "9.5 s", "wire": {"a:1": [f"{times}: PING"]}})
    assert (found == "") is meets


def test_not_healthy_at_first() -> None:
    """A scenario whose servers are not healthy at first has nothing to begin with."""
    assert "not all are healthy at first" in report({}, healthy=["a:1"], config={"rise": 2})


# -- that the scenarios are whole --


def test_how_many() -> None:
    """There are more than a hundred, and no two have the same name."""
    scenarios = [load(path) for path in FILES]
    assert len(scenarios) >= 100
    assert len({scenario.name for scenario in scenarios}) == len(scenarios)


def test_every_verb_is_played() -> None:
    """Every verb and every condition is part of a scenario."""
    verbs, conditions = set(), set()
    for scenario in map(load, FILES):
        kinds = Names(scenario.servers, scenario.users)
        for action in (action for phase in scenario.phases for action in phase.do):
            verbs.add((kinds.kind(action.actor), action.verb))
            if action.verb == "waits until {condition}":
                conditions.add(action.args[0][0])
    assert verbs == {(kind, verb) for kind, found in VERBS.items() for verb in found}
    assert conditions == set(CONDITIONS)


def test_the_example_is_right() -> None:
    """The scenario that README.md shows is one."""
    example = re.search(r"```json\n(.*?)```", (FOLDER / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    assert played(read("README.md", example[1])) == ""
