"""Scenario files, read and checked before they are played: a scenario that exists can be played, right or wrong.

Rules:
* Strict: an unknown key, a wrong type, a name that nobody has, a time outside the phase, or a view that no registry can
  show is a `ScenarioError` that names the file, the phase, the key, what stands there and what is allowed.
* Times in `after` are seconds from phase to phase. All other times are seconds since the scenario began.
* README.md beside the scenarios says what all keys mean.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import attrs
from attrs import field, frozen

from scenario_values import Place, ScenarioError, a_duration, a_list, a_text, an_object, distinct_names, settings
from scenario_words import ACTORS, CALLS, OPENS, Action, Names, read_action
from viewreg import Config, Connectivity, Event, Feature, InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

EXACT: Final = Config(
    probe_jitter=0.0,
    backoff=attrs.evolve(Config().backoff, jitter=0.0),
    discovery_backoff=attrs.evolve(Config().discovery_backoff, jitter=0.0),
)
"""What the config of a scenario is, unless it says otherwise: the defaults, but without chance."""
WIRE: Final = ("dial", "dial given up", "probe", "call", "PING", "RST_STREAM", "closed")
_SCENARIO_KEYS: Final = ("name", "shows", "servers", "users", "config", "healthy", "phases")
_OTHERS: Final = ", ".join(ACTORS)
_PHASE_KEYS: Final = ("note", "do", "after", "views", "changes", "history", "wire", "users", "discovery")
_NEEDS_PARTITION: Final = Feature.CAROUSEL | Feature.HASH_PO | Feature.HASH_SP
_FRESH: Final = "IDLE Partition: Features: Healthy:false"  # what is known of an endpoint that was just found
_TIME: Final = r"(\d+(?:\.\d{1,6})?)"
_AT: Final = re.compile(rf"{_TIME}(?: to {_TIME})? s: (.+)")
_VIEW: Final = re.compile(
    r"(?P<connectivity>\S+) Partition:(?P<partition>|\[(?:SPO|POS): \S+ - \S+\]) Features:(?P<features>\S*) "
    r"Healthy:(?P<healthy>true|false)(?: [^\s=:]+=\S*)*"
)
_FIELDS: Final = re.compile(
    rf"(?: (?:{'|'.join(state.value for state in Connectivity)}))?(?: Partition:(?:\[[^\]]*\])?)?"
    r"(?: Features:[^\s;]*)?(?: Healthy:(?:true|false))?(?: [^\s=:]+=\S*)*"
)
_REPEATED: Final = re.compile(rf"(.*) \(\d+ times\) until {_TIME}(?: to {_TIME})? s")


@frozen
class Phase:
    """What the world does, then how long it is left alone, then all that must have happened since the last phase."""

    number: int
    note: str
    do: tuple[Action, ...]
    began: float
    until: float
    """Seconds since the scenario began; it is looked at when everything of that moment has happened."""
    views: dict[str, str] | None
    """All views, by address, in order. None: as at the end of the phase before."""
    changes: list[str]
    """One for each version."""
    history: dict[str, list[str]]
    """New entries and those that were counted up, by address."""
    wire: dict[str, list[str]]
    """What servers see, by address."""
    users: dict[str, list[str]]
    """How what they did ended, by name; the program is one of them."""
    discovery: str | None
    """Its status. None: without an error."""


@frozen
class Scenario:
    """One file."""

    file: str
    name: str
    shows: str
    servers: tuple[str, ...]
    users: tuple[str, ...]
    config: Config
    healthy: tuple[str, ...]
    """The servers that discovery lists, and that are healthy, when the first phase begins."""
    phases: tuple[Phase, ...] = field(repr=False)

    @property
    def watches_wire(self) -> bool:
        """Whether it says what servers see; if so, it says all of it."""
        return any(phase.wire for phase in self.phases)

    @property
    def opens(self) -> bool:
        """Whether an action opens the registry; if not, it is open from the beginning."""
        return any(action.verb == OPENS for phase in self.phases for action in phase.do)


def load(path: Path) -> Scenario:
    """Read one file. Raises `ScenarioError`."""
    return read(path.name, path.read_text(encoding="utf-8"))


def read(file: str, text: str) -> Scenario:
    """Read the text of a file that is called so. Raises `ScenarioError`."""
    at = Place(file)
    found = an_object(at, _parsed(at, text), _SCENARIO_KEYS, required=("name", "shows", "servers", "phases"))
    who = Names(
        distinct_names(at / "servers", found["servers"], r"[a-z0-9.]+:[1-9]\d{0,3}", 'an address such as "a:1"'),
        distinct_names(
            at / "users", found.get("users", []), "[a-z]+", f"small letters, not {_OTHERS}", reserved=ACTORS
        ),
    )
    healthy = distinct_names(at / "healthy", found.get("healthy", []), ".*", "a server")
    for server in healthy:
        if server not in who.servers:
            raise (at / "healthy").error(server, f"one of the servers {', '.join(who.servers)}", who.servers)
    phases: list[Phase] = []
    for number, phase in enumerate(a_list(at / "phases", found["phases"]), 1):
        phases.append(_phase(at / f"phase {number}", phase, who, number, phases[-1].until if phases else 0.0))
    scenario = Scenario(
        file,
        a_text(at / "name", found["name"]),
        a_text(at / "shows", found["shows"]),
        who.servers,
        who.users,
        settings(at / "config", EXACT, found.get("config", {})),
        healthy,
        tuple(phases),
    )
    _check_order(at, scenario)
    return scenario


def _parsed(at: Place, text: str) -> object:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for key, value in pairs:
            if key in seen:
                raise at.error(key, "each key once in its object")
            seen[key] = value
        return seen

    def no_constant(name: str) -> None:
        raise at.error(name, 'a number; infinity is "inf"')

    try:
        parsed: object = json.loads(text, object_pairs_hook=unique, parse_constant=no_constant)
    except json.JSONDecodeError as error:
        raise ScenarioError(f"{at.text}: line {error.lineno}: {error.msg}: expected JSON") from None
    return parsed


def _check_order(at: Place, scenario: Scenario) -> None:
    """Nobody does what cannot be done yet."""
    if not scenario.phases:
        raise (at / "phases").error([], "at least one phase")
    if scenario.healthy and scenario.opens:
        raise (at / "healthy").error(list(scenario.healthy), "no server, for the registry is opened later")
    is_open, listed = not scenario.opens, set(scenario.healthy)
    subscribed, busy = set[str](), set[str]()
    for phase in scenario.phases:
        here = at / f"phase {phase.number}" / "do"
        for action in phase.do:
            if action.verb == OPENS:
                if is_open:
                    raise here.error(action.text, "it only once")
                is_open = True
            elif action.actor in ("program", *scenario.users) and not is_open:
                raise here.error(action.text, f'"program {OPENS}" before it')
            elif action.actor == "discovery":
                lists = [arg for arg in action.args if isinstance(arg, tuple)]
                listed |= {endpoint.host_port for endpoints in lists for endpoint in endpoints}
            elif action.verb == "gives up" and action.actor not in busy:
                raise here.error(action.text, f"{action.actor} to have begun something before it")
            elif action.verb == "subscribes":
                subscribed.add(action.actor)
            elif action.verb == "reads a change" and action.actor not in subscribed:
                raise here.error(action.text, f'"{action.actor} subscribes" before it')
            elif action.verb in CALLS and action.args[0] not in listed:
                raise here.error(action.text, f"discovery to have listed {action.args[0]} before it")
            busy.add(action.actor)


def _phase(at: Place, value: object, who: Names, number: int, began: float) -> Phase:
    found = an_object(at, value, _PHASE_KEYS)
    until = round(began + a_duration(at / "after", found.get("after", "0 s")), 9)
    do = [read_action(at / "do", line, who) for line in a_list(at / "do", found.get("do", []))]
    span = _Span(began, until)

    def each(key: str, allowed: Iterable[str], check: Callable[[Place, str], None]) -> dict[str, list[str]]:
        listed = an_object(at / key, found.get(key, {}), tuple(allowed))
        for name, lines in listed.items():
            span.check(at / key / name, lines, check)
        return listed

    changes = found.get("changes", [])
    span.check(at / "changes", changes, lambda here, text: _check_change(here, text, who))
    return Phase(
        number,
        a_text(at / "note", found["note"]) if "note" in found else "",
        tuple(do),
        began,
        until,
        _views(at / "views", found["views"], who) if "views" in found else None,
        changes,
        _history(at / "history", found.get("history", {}), who, until),
        each("wire", who.servers, _check_wire),
        each("users", (*who.users, "program"), lambda _at, _text: None),
        a_text(at / "discovery", found["discovery"]) if "discovery" in found else None,
    )


@frozen
class _Span:
    """The time of one phase."""

    began: float
    until: float

    def check(self, at: Place, lines: object, check: Callable[[Place, str], None]) -> None:
        """Lines that begin with their time, in order, within the phase."""
        last = self.began
        for line in a_list(at, lines):
            when, latest, text = _timed(at, line)
            if not last <= when <= latest <= self.until:
                raise at.error(line, f"a time from {last:g} s to {self.until:g} s: it is in this phase, and in order")
            last = when
            check(at / repr(line), text)


# -- expectations --


def _timed(at: Place, line: object) -> tuple[float, float, str]:
    """The earliest time, the latest, and what there is then."""
    found = _AT.fullmatch(line) if isinstance(line, str) else None
    if found is None:
        raise at.error(line, 'a line that begins with its time in seconds, such as "1.3 s: " or "9 to 11 s: "')
    return float(found[1]), float(found[2] or found[1]), found[3]


def _views(at: Place, value: object, who: Names) -> dict[str, str]:
    views = an_object(at, value, who.servers)
    ordered = sorted(views, key=_sort_key)
    if list(views) != ordered:
        raise at.error(list(views), f"the order of a snapshot, by host and then port as a text: {', '.join(ordered)}")
    for host_port, text in views.items():
        _check_view(at / host_port, text)
    return views


def _sort_key(host_port: str) -> tuple[str, str]:
    host, _, port = host_port.rpartition(":")
    return host, port


def _check_view(at: Place, text: object) -> None:
    found = _VIEW.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise at.error(text, f'a view such as "{_FRESH}", with annotations behind it')
    states = [state.value for state in Connectivity]
    if found["connectivity"] not in states:
        raise at.error(found["connectivity"], f"one of {', '.join(states)}", states)
    if found["healthy"] == "true" and found["connectivity"] != Connectivity.READY.value:
        raise at.error(text, "READY, for only such a view is healthy")
    try:
        features = Feature.parse(found["features"])
    except InvalidValueError as error:
        raise ScenarioError(f"{at.text}: {error}") from None
    if features & _NEEDS_PARTITION and not found["partition"]:
        raise at.error(text, f"a partition, for {features & _NEEDS_PARTITION} demands one")


def _check_change(at: Place, text: str, who: Names) -> None:
    for part in text.split("; "):
        verb, _, rest = part.partition(" ")
        if verb not in ("added", "removed", "updated"):
            raise at.error(verb, "added, removed or updated", ("added", "removed", "updated"))
        for item in rest.split(", "):
            host_port = item.split(" ", 1)[0]
            if host_port not in who.servers:
                raise at.error(host_port, f"one of the servers {', '.join(who.servers)}", who.servers)
            if not _FIELDS.fullmatch(item[len(host_port) :]):
                raise at.error(item, f'what is new of it, in the order of "{_FRESH} zone=x"')


def _history(at: Place, value: object, who: Names, until: float) -> dict[str, list[str]]:
    found = an_object(at, value, who.servers)
    for host_port, lines in found.items():
        for line in a_list(at / host_port, lines):
            _, latest, text = _timed(at / host_port, line)
            repeated = _REPEATED.fullmatch(text)
            if max(latest, float(repeated[3] or repeated[2]) if repeated else 0.0) > until:
                raise (at / host_port).error(line, f"a time of at most {until:g} s, when the phase ends")
            what = (repeated[1] if repeated else text).split(": ", 1)[0]
            events = [event.value for event in Event]
            if what not in events:
                raise (at / host_port).error(what, f"one of {', '.join(events)}", events)
    return found


def _check_wire(at: Place, text: str) -> None:
    if text not in WIRE and not re.fullmatch(r"RST_STREAM \w+", text):
        raise at.error(text, f"one of {', '.join(WIRE)}", WIRE)
