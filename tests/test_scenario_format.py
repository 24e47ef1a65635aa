"""What a scenario file may not say: each mistake is an error that names its place and what is allowed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scenario_format import EXACT, read
from scenario_values import ScenarioError
from scenario_words import ARGUMENTS, CONDITIONS, SERVER, USER, VERBS
from scenario_world import DISCOVERY_ACTS, PROBE_ACTS, SERVER_ACTS

UP = "READY Partition: Features:Diagnostics Healthy:true"
README = (Path(__file__).parent / "scenarios" / "README.md").read_text(encoding="utf-8")


def scenario(*phases: Any, **keys: Any) -> str:
    """The text of a file with these phases."""
    start = {"name": "x", "shows": "y", "servers": ["a:1", "b:1"], "users": ["ann"], "healthy": ["a:1"]}
    return json.dumps(start | {"phases": phases or [{}]} | keys)


def test_what_it_becomes() -> None:
    """A file becomes a scenario: times add up, actions are understood, the config is without chance."""
    found = read("x.json", scenario({"do": ["a:1 answers after 0.5 s"], "after": "1.5 s"}, {"after": "2 s"}))
    first, second = found.phases
    assert (first.number, first.began, first.until) == (1, 0.0, 1.5)
    assert (second.number, second.began, second.until) == (2, 1.5, 3.5)
    (action,) = first.do
    assert (action.actor, action.verb, action.args) == ("a:1", "answers after {seconds} s", (0.5,))
    assert found.config == EXACT
    assert found.config.probe_jitter == found.config.backoff.jitter == found.config.discovery_backoff.jitter == 0.0


def test_what_is_not_said() -> None:
    """Without expectations nothing may happen: only the views stay as they are."""
    (phase,) = read("x.json", scenario({})).phases
    assert phase.views is None
    assert not any((phase.changes, phase.history, phase.wire, phase.users))
    assert phase.until == phase.began


def test_the_config() -> None:
    """Config values differ from the exact ones, a backoff's too; "inf" is infinity."""
    config = {"rise": 2, "keepalive_interval": "inf", "backoff": {"initial": 2, "maximum": 4}}
    found = read("x.json", scenario(config=config)).config
    assert (found.rise, found.keepalive_interval, found.backoff.initial) == (2, float("inf"), 2.0)
    assert found.backoff.jitter == 0.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "x.json: line 1: "),
        ("[]", r"x.json: \[\]: expected an object"),
        ('{"name": "x", "name": "y"}', "x.json: 'name': expected each key once"),
        (scenario(nam="x"), "x.json: 'nam': expected one of the keys name, shows, .*; did you mean 'name'"),
        (scenario(phases=5), "x.json: phases: 5: expected a list"),
        (scenario(phases=[]), r"x.json: phases: \[\]: expected at least one phase"),
        (scenario(name=""), "x.json: name: '': expected a text"),
        ('{"name": "x"}', "expected the key 'shows' as well"),
        (scenario(servers=["a"]), "x.json: servers: 'a': expected an address such as"),
        (scenario(servers=["a:1", "a:1"]), "x.json: servers: 'a:1': expected each name once"),
        (scenario(users=["probe"]), "x.json: users: 'probe': expected small letters, not discovery, probe, program"),
        (scenario(healthy=["a:1 zone=x"]), "x.json: healthy: 'a:1 zone=x': expected one of the servers a:1, b:1"),
        (scenario(healthy=["c:1"]), "x.json: healthy: 'c:1': expected one of the servers a:1, b:1"),
        (scenario(config={"rize": 2}), "x.json: config: 'rize': expected .*; did you mean 'rise'"),
        (scenario(config={"rise": 0}), "x.json: config: rise 0: expected a whole number from 1 to 1000"),
        (scenario(config={"backoff": {"initial": -1}}), "x.json: config: backoff: initial -1.0: expected a number"),
        (scenario(config={"backoff": 5}), "x.json: config: backoff 5: expected a Backoff"),
        (scenario(config={"rise": float("nan")}), "x.json: 'NaN': expected a number"),
    ],
)
def test_mistakes_in_the_file(text: str, words: str) -> None:
    """A mistake outside the phases names the file, the key and what is allowed."""
    with pytest.raises(ScenarioError, match=words):
        read("x.json", text)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (5, "5: expected a line such as"),
        ("a:1", "'a:1': expected a line such as \"a:1 refuses dials\""),
        ("c:1 refuses dials", "'c:1': expected one of the actors a:1, b:1, ann, discovery, probe, program"),
        ("discovry lists a:1", "did you mean 'discovery'"),
        ("a:1 refuses dails", "expected one of 'accepts dials', .*; did you mean 'refuses dials'"),
        ("a:1 answers after soon s", "seconds: 'soon': expected a number of seconds, 0 or more"),
        ("a:1 answers after -1 s", "seconds: '-1': expected a number of seconds, 0 or more"),
        ("a:1 allows two calls at a time", "count: 'two': expected a whole number"),
        ("a:1 fails calls with INTERNALL: x", "status: 'INTERNALL': .*; did you mean 'INTERNAL'"),
        ("a:1 fails calls with OK", "status: 'OK': expected one of CANCELLED, "),
        ("a:1 fails dials with ECONREFUSED", "errno: .*; did you mean 'ECONNREFUSED'"),
        ("a:1 serves SOP from 0x0 to infinity", "encoding: 'SOP': expected one of SPO, POS; did you mean"),
        ("a:1 serves SPO from 0x0 to 99", "hash: '99': expected a hash such as"),
        ("a:1 sends bytes 0g", "hex: '0g': expected bytes such as"),
        ("a:1 sends GOAWAY NOERROR", "code: 'NOERROR': .*; did you mean 'NO_ERROR'"),
        ("discovery lists a:1, c:1", "endpoints: 'c:1': expected one of the servers a:1, b:1"),
        ("discovery lists a:1 zone", "endpoints: 'zone': expected an annotation such as"),
        ("ann waits until a:1 is helthy", "condition: .*; did you mean '{server} is healthy'"),
        ("ann waits for 5 s witout a change", "did you mean 'waits for {seconds} s without a change'"),
        ("ann waits until HashXX is served", "feature 'HashXX': expected one of Diagnostics, "),
        ("ann calls b:1", "expected discovery to have listed b:1 before it"),
        ("ann reads a change", 'expected "ann subscribes" before it'),
        ("ann gives up", "expected ann to have begun something before it"),
    ],
)
def test_mistakes_in_what_is_done(line: Any, words: str) -> None:
    """A line of `do` that cannot be done names the phase, the line and what is allowed."""
    with pytest.raises(ScenarioError, match=f"^x.json: phase 2: do: .*{words}"):
        read("x.json", scenario({}, {"do": [line]}))


@pytest.mark.parametrize(
    ("phases", "words"),
    [
        ([{"do": ["ann waits for a change", "program opens the registry"]}], '"program opens the registry" before it'),
        ([{"do": ["program leaves the block"]}, {"do": ["program opens the registry"]}], "before it"),
        ([{"do": ["program opens the registry"] * 2}], "expected it only once"),
    ],
)
def test_mistakes_about_the_opening(phases: list[Any], words: str) -> None:
    """A registry is opened once, before anybody uses it."""
    with pytest.raises(ScenarioError, match=words):
        read("x.json", scenario(*phases, healthy=[]))


def test_healthy_before_the_opening() -> None:
    """No server is healthy while the registry is not open."""
    with pytest.raises(ScenarioError, match=r"healthy: .*'a:1'.*: expected no server"):
        read("x.json", scenario({"do": ["program opens the registry"]}))


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        ({"view": {}}, "'view': expected one of the keys .*; did you mean 'views'"),
        ([], r"\[\]: expected an object"),
        ({"after": "soon"}, "after: 'soon': expected a time of 0 or more seconds such as"),
        ({"after": "-1 s"}, "after: '-1 s': expected a time of 0 or more seconds"),
        ({"after": 5}, "after: 5: expected a time"),
        ({"note": ""}, "note: '': expected a text"),
        ({"views": ["a:1"]}, "views: .*: expected an object"),
        ({"views": {"c:1": UP}}, "views: 'c:1': expected one of the keys a:1, b:1"),
        ({"views": {"b:1": UP, "a:1": UP}}, "views: .*: expected the order of a snapshot, .*: a:1, b:1"),
        ({"views": {"a:1": "READY"}}, "views: a:1: 'READY': expected a view such as"),
        ({"views": {"a:1": UP.replace("READY", "REDY")}}, "views: a:1: 'REDY': .*; did you mean 'READY'"),
        ({"views": {"a:1": UP.replace("READY", "IDLE")}}, "expected READY, for only such a view is healthy"),
        ({"views": {"a:1": UP.replace("Diagnostics", "HashSP")}}, "expected a partition, for HashSP demands one"),
        ({"views": {"a:1": UP.replace("Diagnostics", "Diag")}}, "views: a:1: feature 'Diag': expected one of"),
        ({"changes": "0 s: added a:1"}, "changes: .*: expected a list"),
        ({"changes": ["added a:1"]}, "changes: 'added a:1': expected a line that begins with its time"),
        ({"changes": ["9 s: added a:1"]}, "changes: '9 s: added a:1': expected a time from 0 s to 5 s"),
        ({"changes": ["2 s: added a:1", "1 s: removed a:1"]}, "'1 s: removed a:1': expected a time from 2 s to 5 s"),
        ({"changes": ["3 to 2 s: added a:1"]}, "expected a time from 0 s to 5 s"),
        ({"changes": ["0 s: aded a:1"]}, "'aded': expected added, removed or updated; did you mean 'added'"),
        ({"changes": ["0 s: added a:1, c:1"]}, "'c:1': expected one of the servers a:1, b:1"),
        ({"changes": ["0 s: updated a:1 REDY"]}, "'a:1 REDY': expected what is new of it"),
        ({"history": {"a:1": ["0 s: conected"]}}, "history: a:1: 'conected': .*; did you mean 'connected'"),
        ({"history": {"a:1": ["9 s: connected"]}}, "expected a time of at most 5 s, when the phase ends"),
        ({"history": {"a:1": ["1 s: connected (2 times) until 9 s"]}}, "expected a time of at most 5 s"),
        ({"history": {"c:1": []}}, "history: 'c:1': expected one of the keys a:1, b:1"),
        ({"wire": {"a:1": ["0 s: dail"]}}, "wire: a:1: .*'dail': expected one of dial, .*; did you mean 'dial'"),
        ({"wire": {"a:1": "0 s: dial"}}, "wire: a:1: '0 s: dial': expected a list"),
        ({"users": {"bob": []}}, "users: 'bob': expected one of the keys ann, program"),
        ({"users": {"ann": ["6 s: version 5"]}}, "users: ann: '6 s: version 5': expected a time from 0 s to 5 s"),
        ({"discovery": 5}, "discovery: 5: expected a text"),
    ],
)
def test_mistakes_in_what_is_expected(phase: Any, words: str) -> None:
    """An expectation that no registry can meet names the phase, the key and what is allowed."""
    if isinstance(phase, dict):
        phase = {"after": "5 s"} | phase
    with pytest.raises(ScenarioError, match=f"^x.json: phase 1: .*{words}"):
        read("x.json", scenario(phase))


def test_every_verb_can_be_done() -> None:
    """The world can do all that servers, discovery and the probe may do, and nothing else."""
    assert {*SERVER_ACTS, "sends bytes {hex}"} == set(VERBS[SERVER])
    assert set(DISCOVERY_ACTS) == set(VERBS["discovery"])
    assert set(PROBE_ACTS) == set(VERBS["probe"])


def test_every_verb_is_explained() -> None:
    """README.md has a line for every verb, every condition and every word in braces."""
    for verb in (*(verb for verbs in VERBS.values() for verb in verbs), *CONDITIONS):
        assert f"`{verb}`" in README, verb
    for word in ARGUMENTS:
        assert f"`{{{word}}}`" in README, word


def test_users_and_servers_are_apart() -> None:
    """No verb of a user is one of a server: what a line means does not depend on names."""
    assert not set(VERBS[USER]) & set(VERBS[SERVER])
