"""Discovery and StaticLocator, and locators by URI."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from viewreg import Discovery, Endpoint, InvalidTypeError, InvalidValueError, Locator, StaticLocator
from viewreg.locators import open_locator

if TYPE_CHECKING:
    from trio.testing import MockClock

A, B = Endpoint("a", 1), Endpoint("b", 2)


def test_static_takes_texts_and_endpoints() -> None:
    """Endpoints may be given as such or as texts; the order is kept, and annotations are."""
    zoned = Endpoint("c", 3, annotations={"zone": "x"})
    assert StaticLocator(["a:1", zoned, "[::1]:80"]).cached() == Discovery(1, (A, zoned, Endpoint("::1", 80)))
    assert StaticLocator().cached().endpoints == ()
    assert StaticLocator(iter([A])).cached().endpoints == (A,)


async def test_static_updates(autojump_clock: MockClock) -> None:
    """`set` replaces the whole list under the next version, and wakes who waits; who asks late gets the newest."""
    locator = StaticLocator([A])
    first = locator.cached()
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            found = await locator.wait_for_update(first.version)
            assert found.endpoints == (B,)
            assert found.version > first.version

        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        locator.set([B])
    locator.set([])
    with assert_checkpoints():
        assert (await locator.wait_for_update(first.version)).endpoints == ()


async def test_static_set_of_the_same(autojump_clock: MockClock) -> None:
    """Setting the same list again is a new version."""
    locator = StaticLocator([A])
    locator.set([A])
    assert locator.cached().version == 2


@pytest.mark.parametrize("bad", ["a", "a:0", "a:70000", ":1", "", "::1:80"])
def test_static_refuses_what_is_no_endpoint(bad: str) -> None:
    """One text that is no endpoint is refused by name, and the list in force stays."""
    locator = StaticLocator([A])
    with pytest.raises(InvalidValueError, match=re.escape(repr(bad))):
        locator.set(["b:1", bad])
    assert locator.cached() == Discovery(1, (A,))


@pytest.mark.parametrize("bad", [None, 5, "a:1", b"a:1", [5], [None], [("a", 1)]])
def test_static_refuses_wrong_types(bad: Any) -> None:
    """What is no iterable of endpoints, a single text included, is refused."""
    with pytest.raises(InvalidTypeError, match=r"expected an (iterable of )?Endpoint"):
        StaticLocator(bad)


def test_static_text() -> None:
    """Its text is the URI that makes it."""
    assert str(StaticLocator(["a:1", "[::1]:80"])) == "static:///a:1,[::1]:80"


def test_static_is_a_locator() -> None:
    """StaticLocator keeps the protocol."""
    assert isinstance(StaticLocator(), Locator)


@pytest.mark.parametrize("bad", [[5], ["a:1"], [None], 5, None, "a:1"])
def test_one_bad_item_makes_a_discovery_invalid(bad: Any) -> None:
    """A list with anything but endpoints in it cannot be made."""
    with pytest.raises(InvalidTypeError, match="expected an"):
        Discovery(1, bad)


@pytest.mark.parametrize("bad", [None, "1", 1.0, True])
def test_versions_are_ints(bad: Any) -> None:
    """A version is an int and nothing else."""
    with pytest.raises(InvalidTypeError, match="version"):
        Discovery(bad, ())


def test_static_by_uri() -> None:
    """`static:///` and addresses, with or without blanks, is a locator of these."""
    assert open_locator("static:///a:1, b:2").cached().endpoints == (A, B)
    assert open_locator("static:///").cached().endpoints == ()


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("consul:///x", "static://"),
        ("a:1", "static://"),
        ("", "static://"),
        ("static://a:1", "expected 'static:///' and HOST:PORT"),
        ("static:///a", "'a'"),
    ],
)
def test_other_uris(uri: str, words: str) -> None:
    """A URI that nothing can be made of is refused by name, with what is known."""
    with pytest.raises(InvalidValueError, match=words):
        open_locator(uri)
