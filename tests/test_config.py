"""The promises of `Config`: defaults, ranges and errors of every knob."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest

from viewreg._backoff import Backoff
from viewreg._config import Config
from viewreg._errors import InvalidTypeError, InvalidValueError

MIB = 1024 * 1024

# name: (default, smallest, largest); None for the durations that all share one range.
DURATIONS = {
    "probe_interval": 10.0,
    "probe_timeout": 5.0,
    "probe_retry_interval": 1.0,
    "on_demand_interval": 0.5,
    "connect_timeout": 5.0,
    "connect_slot_hold": 0.25,
    "keepalive_interval": 8.0,
    "keepalive_timeout": 2.0,
}
COUNTS = {
    "rise": (1, 1, 1_000),
    "fall": (1, 1, 1_000),
    "connect_slots": (64, 1, 10_000),
    "max_message_size": (64 * MIB, 1, 1024 * MIB),
    "history_length": (32, 1, 10_000),
}
BACKOFFS = {"backoff": Backoff(), "discovery_backoff": Backoff(initial=0.5, multiplier=1.6, jitter=0.2, maximum=30.0)}
BELOW_ONE = math.nextafter(1, 0)
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(DURATIONS, (0.001, 86_400.0)),
    **{name: (smallest, largest) for name, (_, smallest, largest) in COUNTS.items()},
    "probe_jitter": (0, BELOW_ONE),
    "drain_timeout": (0, 86_400.0),
}
FLOATS = [*DURATIONS, "probe_jitter", "drain_timeout"]


def make(name: str, value: Any) -> Config:
    """A config that differs from the default in one field."""
    return Config(**{name: value})


def test_defaults() -> None:
    """The defaults are the documented ones, and every field is in this test."""
    expected = {**DURATIONS, **{name: default for name, (default, _, _) in COUNTS.items()}, **BACKOFFS}
    expected |= {"probe_jitter": 0.1, "drain_timeout": 10.0, "metadata": None, "exclude_self_port": None}
    assert attrs.asdict(Config(), recurse=False) == expected


@pytest.mark.parametrize("name", RANGES)
def test_bounds_are_allowed(name: str) -> None:
    """The smallest and the largest value of every range are taken as they are."""
    for bound in RANGES[name]:
        assert getattr(make(name, bound), name) == bound


@pytest.mark.parametrize("name", RANGES)
def test_beyond_the_bounds_is_refused(name: str) -> None:
    """One step below and above the range is refused with the field, the value and both bounds."""
    smallest, largest = RANGES[name]
    steps = (-1, 1) if name in COUNTS else (-0.0005, largest / 1e6)
    for value in (smallest + steps[0], largest + steps[1]):
        with pytest.raises(InvalidValueError, match=rf"^{name} .*: expected a (whole )?number from \S+ to ") as caught:
            make(name, value)
        assert repr(value) in str(caught.value)


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("value", [math.nan, -math.inf, math.inf])
def test_no_nan_no_infinity(name: str, value: float) -> None:
    """Not-a-number and the infinities are refused, but for infinity as the keepalive interval, which turns it off."""
    if name == "keepalive_interval" and value == math.inf:
        assert Config(keepalive_interval=math.inf).keepalive_interval == math.inf
        return
    with pytest.raises(InvalidValueError, match=rf"^{name} {value}: "):
        make(name, value)


def test_keepalive_error_tells_how_to_turn_it_off() -> None:
    """Someone who tries 0 for off learns of math.inf."""
    with pytest.raises(InvalidValueError) as caught:
        Config(keepalive_interval=0)
    assert str(caught.value) == "keepalive_interval 0.0: expected a number from 0.001 to 86400, or math.inf"


def test_full_jitter_is_refused() -> None:
    """A jitter of 1 would allow a probe at once, again and again: the bound is exclusive, and the message says so."""
    with pytest.raises(InvalidValueError) as caught:
        Config(probe_jitter=1)
    assert str(caught.value) == "probe_jitter 1.0: expected a number from 0 to 1 exclusive"


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("value", [True, "5", None, 5j, [5]], ids=str)
def test_numbers_only(name: str, value: object) -> None:
    """What is no number, a bool included, is a type error that names the field."""
    with pytest.raises(InvalidTypeError, match=rf"^{name} .*: expected a (whole )?number"):
        make(name, value)


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_whole(name: str) -> None:
    """A float is no count, even a whole one."""
    with pytest.raises(InvalidTypeError, match=rf"^{name} 1\.0: expected a whole number"):
        make(name, 1.0)


@pytest.mark.parametrize("value", [0, 65_536, -1, True, 80.0, "80"])
def test_own_port(value: Any) -> None:
    """The port to leave out is a port, or None for nothing."""
    assert [Config(exclude_self_port=port).exclude_self_port for port in (None, 1, 65_535)] == [None, 1, 65_535]
    with pytest.raises((InvalidValueError, InvalidTypeError), match=r"^exclude_self_port .*: expected a whole number"):
        make("exclude_self_port", value)


@pytest.mark.parametrize("name", [*DURATIONS, "drain_timeout"])
def test_ints_become_floats(name: str) -> None:
    """A duration given as an int is stored as a float."""
    assert type(getattr(make(name, 3), name)) is float


@pytest.mark.parametrize("name", BACKOFFS)
@pytest.mark.parametrize("value", [None, 1.0, Backoff])
def test_backoffs_only(name: str, value: object) -> None:
    """A backoff field takes a Backoff, and nothing that looks like one of its numbers."""
    with pytest.raises(InvalidTypeError, match=rf"^{name} .*: expected a Backoff$"):
        make(name, value)


def test_frozen_and_evolved() -> None:
    """A config never changes, and what evolves from it is validated as well."""
    config = Config()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        config.rise = 2  # type: ignore[misc]  # the point of the test
    assert attrs.evolve(config, rise=2) == Config(rise=2) != config
    with pytest.raises(InvalidValueError, match=r"^rise 0: "):
        attrs.evolve(config, rise=0)


def test_keywords_only() -> None:
    """Sixteen numbers in a row would be a riddle: fields are named."""
    with pytest.raises(TypeError):
        Config(10.0)  # type: ignore[call-arg]  # the point of the test


def test_unusual_combinations_are_allowed() -> None:
    """What the fields allow one by one, they allow together, such as probes that take longer than their interval."""
    Config(probe_interval=1, probe_timeout=60, probe_retry_interval=30, on_demand_interval=600)
    Config(connect_timeout=1, connect_slot_hold=60, keepalive_interval=1, keepalive_timeout=60)
