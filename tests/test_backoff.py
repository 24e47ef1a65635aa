"""The promises of `Backoff`: its growth, its jitter and its bounds."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from viewreg._backoff import Backoff
from viewreg._errors import InvalidTypeError, InvalidValueError


class FixedRandom(Random):
    """Always draws the same point of the interval: 0 its lower end, 1 its upper end. Counts the draws."""

    def __init__(self, point: float) -> None:
        super().__init__(0)
        self.point = point
        self.draws = 0

    def random(self) -> float:
        self.draws += 1
        return self.point


@st.composite
def backoffs(draw: st.DrawFn) -> Backoff:
    """Any backoff that can be made."""
    initial = draw(st.floats(0.001, 86_400))
    return Backoff(
        initial=initial,
        multiplier=draw(st.floats(1, 100)),
        jitter=draw(st.floats(0, 1, exclude_max=True)),
        maximum=draw(st.floats(initial, 86_400)),
    )


def test_defaults() -> None:
    """The defaults are those for dialing one view server."""
    assert Backoff() == Backoff(initial=0.1, multiplier=1.6, jitter=0.2, maximum=1.0)


def test_delays_grow_to_the_maximum() -> None:
    """In the middle of the jitter the delay is multiplied with each failure until the maximum is reached."""
    middle = [Backoff().delay(failures, FixedRandom(0.5)) for failures in range(1, 8)]
    assert middle == pytest.approx([0.1, 0.16, 0.256, 0.4096, 0.65536, 1 / 1.2, 1 / 1.2])


@pytest.mark.parametrize(("point", "factor"), [(0.0, 0.8), (1.0, 1.2)])
def test_jitter_spans_a_fifth_to_either_side(point: float, factor: float) -> None:
    """Every delay, the first included, strays by up to the jitter in both directions."""
    for failures, middle in enumerate([0.1, 0.16, 0.256, 0.4096, 0.65536], start=1):
        assert Backoff().delay(failures, FixedRandom(point)) == pytest.approx(middle * factor)


def test_jitter_never_passes_the_maximum() -> None:
    """What has grown to the end strays as far as anything else, up to the maximum and not past it."""
    assert Backoff().delay(100, FixedRandom(1.0)) == pytest.approx(1.0)
    assert Backoff().delay(100, FixedRandom(0.0)) == pytest.approx(0.8 / 1.2)


@given(backoffs(), st.integers(1, 10**6), st.integers())
def test_every_delay_is_in_bounds(backoff: Backoff, failures: int, seed: int) -> None:
    """For any fields and any number of failures a delay is a finite number between its documented bounds."""
    delay = backoff.delay(failures, Random(seed))
    assert backoff.initial * (1 - backoff.jitter) <= delay * (1 + 1e-12)
    assert delay <= backoff.maximum


@pytest.mark.parametrize("failures", [10**3, 10**6, 2**53 + 1, 10**400])
def test_huge_failures_do_not_overflow(failures: int) -> None:
    """However long a server is away, the delay is the maximum; one that does not grow stays what it was."""
    assert Backoff(jitter=0).delay(failures, Random(0)) == 1.0
    assert Backoff(jitter=0, multiplier=1).delay(failures, Random(0)) == 0.1


def test_same_seed_same_delays() -> None:
    """The generator that is given is the only source of chance."""
    runs = [[Backoff().delay(failures, rng) for failures in range(1, 50)] for rng in (Random(7), Random(7))]
    assert runs[0] == runs[1]
    assert len(set(runs[0])) > 20


@pytest.mark.parametrize("jitter", [0, 0.2])
def test_one_draw_a_delay(jitter: float) -> None:
    """Each delay draws one number, so that a change of fields does not shift what else is drawn."""
    rng = FixedRandom(0.5)
    Backoff(jitter=jitter).delay(1, rng)
    assert rng.draws == 1


@pytest.mark.parametrize("failures", [0, -1])
def test_no_failure_no_delay(failures: int) -> None:
    """Asking for a delay without a failure is a mistake."""
    with pytest.raises(InvalidValueError, match=rf"^failures {failures}: expected a whole number of at least 1$"):
        Backoff().delay(failures, Random(0))


@pytest.mark.parametrize("failures", [True, 1.0, None])
def test_failures_are_counted_in_ints(failures: Any) -> None:
    """What is no int is a type error."""
    with pytest.raises(InvalidTypeError, match=r"^failures "):
        Backoff().delay(failures, Random(0))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"initial": 0}, "initial 0.0: expected a number from 0.001 to 86400"),
        ({"initial": math.nan}, "initial nan: expected a number from 0.001 to 86400"),
        ({"multiplier": 0.99}, "multiplier 0.99: expected a number from 1 to 100"),
        ({"multiplier": 101}, "multiplier 101.0: expected a number from 1 to 100"),
        ({"jitter": 1}, "jitter 1.0: expected a number from 0 to 1 exclusive"),
        ({"jitter": -0.1}, "jitter -0.1: expected a number from 0 to 1 exclusive"),
        ({"maximum": math.inf}, "maximum inf: expected a number from 0.001 to 86400"),
        ({"maximum": 0.05}, "maximum 0.05: expected at least initial, which is 0.1"),
    ],
)
def test_bad_fields_are_named(fields: dict[str, float], message: str) -> None:
    """A field outside its range is refused with its name, its value and its range."""
    with pytest.raises(InvalidValueError) as caught:
        Backoff(**fields)
    assert str(caught.value) == message


@pytest.mark.parametrize("field", ["initial", "multiplier", "jitter", "maximum"])
@pytest.mark.parametrize("value", [True, "1", None])
def test_fields_are_numbers(field: str, value: Any) -> None:
    """What is no number, a bool included, is a type error that names the field."""
    with pytest.raises(InvalidTypeError, match=rf"^{field} "):
        Backoff(**{field: value})


def test_frozen() -> None:
    """A backoff never changes, so it can be shared by all endpoints."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Backoff().initial = 1  # type: ignore[misc]  # the point of the test
