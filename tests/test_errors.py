"""The promises of the errors and the checks: one `except` is enough, and a message says what is allowed."""

from __future__ import annotations

import copy
import math
import pickle

import attrs
import pytest

from viewreg import _errors
from viewreg._errors import (
    InvalidTypeError,
    InvalidValueError,
    LocatorError,
    NotServedError,
    ProbeAnswerError,
    RegistryClosedError,
    UnknownViewError,
    ViewregError,
    as_float,
    check_int,
    check_type,
    number,
    whole,
)

KINDS = [
    InvalidValueError, InvalidTypeError, UnknownViewError, LocatorError, RegistryClosedError, ProbeAnswerError,
    NotServedError,
]  # fmt: skip


def test_one_except_catches_every_kind() -> None:
    """Every error class of the module is listed in this test and is a ViewregError."""
    found = {kind for kind in vars(_errors).values() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert found == {ViewregError, *KINDS}
    assert all(issubclass(kind, ViewregError) for kind in KINDS)


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [(InvalidValueError, ValueError), (InvalidTypeError, TypeError), (UnknownViewError, KeyError)],
)
def test_python_has_a_word_for_some(kind: type[Exception], builtin: type[Exception]) -> None:
    """Code that knows nothing of viewreg catches a wrong value, type or key as it always did."""
    assert issubclass(kind, builtin)


@pytest.mark.parametrize("kind", KINDS)
def test_str_is_the_sentence(kind: type[Exception]) -> None:
    """The text of an error is its message as written, without the quotes that KeyError adds."""
    sentence = "no view of 'b:1': known are\na:1"
    assert str(kind(sentence)) == sentence


@pytest.mark.parametrize("kind", KINDS)
def test_errors_travel(kind: type[Exception]) -> None:
    """An error can be pickled and copied, and says the same afterwards."""
    error = kind("no view of 'b:1'")
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is kind
        assert str(twin) == str(error)


@pytest.mark.parametrize("value", [1, 2, 3])
def test_check_int_includes_both_bounds(value: int) -> None:
    """An int on or between the bounds passes."""
    check_int("n", value, 1, 3)


@pytest.mark.parametrize("value", [0, 4, -1, 10**400])
def test_check_int_names_value_and_bounds(value: int) -> None:
    """An int outside the bounds is refused by name, value and bounds."""
    with pytest.raises(InvalidValueError) as caught:
        check_int("n", value, 1, 3)
    assert str(caught.value) == f"n {value}: expected a whole number from 1 to 3"


def test_check_int_may_have_no_upper_bound() -> None:
    """Without an upper bound the largest int passes, and the message does not make one up."""
    check_int("n", 10**400, 1)
    with pytest.raises(InvalidValueError, match=r"^n 0: expected a whole number of at least 1$"):
        check_int("n", 0, 1)


@pytest.mark.parametrize("value", [True, 1.0, "1", None, b"1"])
def test_check_int_refuses_other_types(value: object) -> None:
    """What is no int, a bool included, is a type error even where its value would fit."""
    with pytest.raises(InvalidTypeError, match=r"^n .*: expected a whole number from 0 to 3$"):
        check_int("n", value, 0, 3)


def test_check_type_says_what_is_expected() -> None:
    """An instance passes, anything else is refused by name, value and what was expected."""
    check_type("name", "a", str, "a str")
    with pytest.raises(InvalidTypeError, match=r"^name b'a': expected a str$"):
        check_type("name", b"a", str, "a str")


@attrs.frozen
class Knobs:
    """One field for each form of the validators."""

    count: int = attrs.field(default=1, validator=whole(1, 3))
    closed: float = attrs.field(default=1.0, converter=as_float, validator=number(0.5, 2))
    half_open: float = attrs.field(default=0.0, converter=as_float, validator=number(0, 1, open_end=True))
    or_inf: float = attrs.field(default=1.0, converter=as_float, validator=number(1, 2, or_inf=True))


@pytest.mark.parametrize(
    "fields",
    [
        {"count": 1},
        {"count": 3},
        {"closed": 0.5},
        {"closed": 2},
        {"half_open": 0},
        {"half_open": math.nextafter(1, 0)},
        {"or_inf": math.inf},
        {"or_inf": 2.0},
    ],
)
def test_validators_accept_their_range(fields: dict[str, float]) -> None:
    """Every bound that is said to be allowed is allowed."""
    made = attrs.asdict(Knobs(**fields))  # type: ignore[arg-type]  # a mixed bag of ints and floats
    assert made == attrs.asdict(Knobs()) | fields


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"count": 0}, "count 0: expected a whole number from 1 to 3"),
        ({"count": 4}, "count 4: expected a whole number from 1 to 3"),
        ({"closed": 0.4}, "closed 0.4: expected a number from 0.5 to 2"),
        ({"closed": math.inf}, "closed inf: expected a number from 0.5 to 2"),
        ({"closed": math.nan}, "closed nan: expected a number from 0.5 to 2"),
        ({"closed": 10**400}, f"closed {10**400}: expected a number from 0.5 to 2"),
        ({"half_open": 1}, "half_open 1.0: expected a number from 0 to 1 exclusive"),
        ({"half_open": math.nan}, "half_open nan: expected a number from 0 to 1 exclusive"),
        ({"or_inf": -math.inf}, "or_inf -inf: expected a number from 1 to 2, or math.inf"),
        ({"or_inf": math.nan}, "or_inf nan: expected a number from 1 to 2, or math.inf"),
        ({"or_inf": 3}, "or_inf 3.0: expected a number from 1 to 2, or math.inf"),
    ],
)
def test_validators_name_field_value_and_range(fields: dict[str, float], message: str) -> None:
    """What is outside the range is refused in one sentence that tells what to write instead."""
    with pytest.raises(InvalidValueError) as caught:
        Knobs(**fields)  # type: ignore[arg-type]  # a mixed bag of ints and floats
    assert str(caught.value) == message


@pytest.mark.parametrize("field", ["count", "closed", "half_open", "or_inf"])
@pytest.mark.parametrize("value", [True, "1", None, 1j])
def test_validators_refuse_other_types(field: str, value: object) -> None:
    """What is no number, a bool included, is a type error that names the field."""
    with pytest.raises(InvalidTypeError, match=f"^{field} "):
        Knobs(**{field: value})  # type: ignore[arg-type]  # the point of the test


def test_ints_become_floats() -> None:
    """A float field given an int holds a float, so that its repr and type never vary."""
    assert type(Knobs(closed=1).closed) is float
