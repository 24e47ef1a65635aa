"""Arguments that can never work are refused at once, by an error of ours that names the value and what is allowed."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import pytest
import trio

import viewreg
from viewreg import Config, Endpoint, InvalidTypeError, InvalidValueError, StaticLocator, StatsProbe, ViewregError

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock


@pytest.mark.parametrize(
    "uri",
    [
        "static:///a",
        "static:///a:",
        "static:///a:0",
        "static:///a:70000",
        "static:///:80",
        "static:///a:1,,b:x",
        "static:///::1:80",
    ],
)
def test_addresses(uri: str) -> None:
    """An address without a port or host, or with a port that is none, is refused by its text before anything starts."""
    bad = uri.removeprefix("static:///").split(",")[-1]
    with pytest.raises(InvalidValueError, match=re.escape(bad)) as caught:
        viewreg.open_registry(uri)
    assert "expected" in str(caught.value)


@pytest.mark.parametrize(
    ("host", "port", "kind", "words"),
    [
        ("", 80, InvalidValueError, "host ''"),
        ("a b", 80, InvalidValueError, "host 'a b'"),
        ("a/b", 80, InvalidValueError, "host 'a/b'"),
        (None, 80, InvalidTypeError, "host None"),
        ("a", 0, InvalidValueError, "port 0: expected a whole number from 1 to 65535"),
        ("a", 70000, InvalidValueError, "port 70000: expected a whole number from 1 to 65535"),
        ("a", -1, InvalidValueError, "port -1"),
        ("a", "80", InvalidTypeError, "port '80'"),
        ("a", True, InvalidTypeError, "port True"),
    ],
)
def test_endpoints(host: Any, port: Any, kind: type[ViewregError], words: str) -> None:
    """An endpoint that is none cannot be made."""
    with pytest.raises(kind, match=re.escape(words)):
        Endpoint(host, port)


@pytest.mark.parametrize("uri", ["", "a:1", "consul://x/y", "static:/a:1", "STATIC:///a:1", "://"])
def test_schemes(uri: str) -> None:
    """An unknown scheme is refused, with the known ones."""
    with pytest.raises(InvalidValueError, match=r"expected a URI that begins with one of: .*static://") as caught:
        viewreg.open_registry(uri)
    assert repr(uri) in str(caught.value)


class NoWait:
    def cached(self) -> viewreg.Discovery:
        return viewreg.Discovery(0, ())


@pytest.mark.parametrize("locator", [None, 5, b"static:///a:1", ["a:1"], NoWait(), StaticLocator, Endpoint("a", 1)])
def test_locators(locator: Any) -> None:
    """What is no locator is refused with what one is."""
    with pytest.raises(InvalidTypeError, match=r"locator .*: expected a Locator, or a URI such as"):
        viewreg.open_registry(locator)


class NoFeatures:
    async def __call__(self, channel: object) -> None:
        pass


class WrongFeatures(NoFeatures):
    no_features = 0


ARGUMENTS: list[tuple[str, Callable[[], object], str]] = [
    ("config None", lambda: viewreg.open_registry("static:///", None), "config None: expected a Config"),  # type: ignore[call-overload]
    ("config dict", lambda: viewreg.open_registry("static:///", {"rise": 1}), "config {'rise': 1}: expected a Config"),  # type: ignore[call-overload]
    ("config class", lambda: viewreg.open_registry("static:///", Config), "expected a Config"),  # type: ignore[call-overload]
    ("probe 5", lambda: viewreg.open_registry("static:///", probe=5), "probe 5: expected an async callable"),  # type: ignore[call-overload]
    ("probe class", lambda: viewreg.open_registry("static:///", probe=StatsProbe), "expected an async callable"),  # type: ignore[call-overload]
    ("probe without flag", lambda: viewreg.open_registry("static:///", probe=NoFeatures()), "no_features"),  # type: ignore[call-overload]
    ("probe with 0", lambda: viewreg.open_registry("static:///", probe=WrongFeatures()), "no_features"),  # type: ignore[call-overload]
    ("dial 5", lambda: viewreg.open_registry("static:///", dial=5), "dial 5: expected an async function"),  # type: ignore[call-overload]
    ("rng 5", lambda: viewreg.open_registry("static:///", rng=5), "rng 5: expected"),  # type: ignore[call-overload]
    ("wall_clock 5", lambda: viewreg.open_registry("static:///", wall_clock=5), "wall_clock 5: expected"),  # type: ignore[call-overload]
]


@pytest.mark.parametrize(("make", "words"), [row[1:] for row in ARGUMENTS], ids=[row[0] for row in ARGUMENTS])
def test_arguments(make: Callable[[], object], words: str) -> None:
    """Each argument of a wrong type is refused when `open_registry` is called, not when it is entered."""
    with pytest.raises(InvalidTypeError, match=re.escape(words)):
        make()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("probe_interval", 0.0),
        ("probe_interval", -1.0),
        ("probe_timeout", math.nan),
        ("probe_timeout", math.inf),
        ("probe_jitter", 1.0),
        ("probe_jitter", -0.1),
        ("rise", 0),
        ("fall", 1001),
        ("on_demand_interval", 0.0),
        ("connect_timeout", 100_000.0),
        ("connect_slots", 0),
        ("keepalive_interval", 0.0),
        ("drain_timeout", -1.0),
        ("max_message_size", 2**31),
        ("history_length", 0),
    ],
)
def test_config_values(field: str, value: Any) -> None:
    """A config value out of its range is refused by field, value and range."""
    with pytest.raises(InvalidValueError, match=rf"{field} {value!r}: expected .* from"):
        Config(**{field: value})


@pytest.mark.parametrize("field", ["probe_interval", "rise", "backoff", "history_length", "drain_timeout"])
@pytest.mark.parametrize("value", ["1", None, True, [1]])
def test_config_types(field: str, value: Any) -> None:
    """A config value of a wrong type is refused by field and value."""
    with pytest.raises(InvalidTypeError, match=re.escape(f"{field} {value!r}: expected")):
        Config(**{field: value})


async def never(_endpoint: Endpoint) -> trio.abc.Stream:
    """A dial that never ends."""
    await trio.sleep_forever()
    raise AssertionError


async def test_lookups(autojump_clock: MockClock) -> None:
    """Lookups by something that is no endpoint say so; by an unknown one they name the known."""
    async with viewreg.open_registry("static:///a:1", dial=never) as registry:
        for lookup in (registry.history, registry.snapshot.view):
            with pytest.raises(InvalidTypeError, match="endpoint 5"):
                lookup(5)  # type: ignore[arg-type]
            with pytest.raises(InvalidValueError, match="'a'"):
                lookup("a")
            with pytest.raises(viewreg.UnknownViewError, match="b:1; known endpoints: a:1"):
                lookup("b:1")
