"""Exported names that are no classes, and objects that are made once: what they are at run time."""

from __future__ import annotations

import inspect
import typing
from types import GenericAlias, UnionType
from typing import TYPE_CHECKING, Any

import pytest

import viewreg
from fleet import all_healthy, open_fleet
from viewreg import Endpoint
from viewreg.rpc import CarouselStub

if TYPE_CHECKING:
    from trio.testing import MockClock

A = "a:1"
ALIASES = sorted(
    name
    for name in viewreg.__all__
    if not inspect.isclass(getattr(viewreg, name)) and not inspect.isfunction(getattr(viewreg, name))
)
CLASSES = sorted(name for name in viewreg.__all__ if inspect.isclass(getattr(viewreg, name)))


def test_aliases_are_found() -> None:
    """The names that the next tests are about are those of types."""
    assert set(ALIASES) >= {"Dial", "Metadata", "MetadataLike"}


@pytest.mark.parametrize("name", ALIASES)
def test_an_alias_works_at_run_time(name: str) -> None:
    """An exported alias is a type and no text: `viewreg.Dial | None` works in a module without future annotations."""
    alias: Any = getattr(viewreg, name)
    assert isinstance(alias, GenericAlias | UnionType) or typing.get_origin(alias) is not None
    assert typing.get_args(alias | None)[-1] is type(None)


@pytest.mark.parametrize("name", ALIASES)
def test_an_alias_says_nothing_that_is_not_there(name: str) -> None:
    """What an alias is made of can be looked up at run time: no text that only a type checker could read."""
    alias: Any = getattr(viewreg, name)

    def use(value: Any) -> None:
        """Take it."""

    use.__annotations__ = {"value": alias}
    assert "ForwardRef" not in repr(typing.get_type_hints(use))


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_works_in_a_union(name: str) -> None:
    """Every exported class can stand in `X | None` at run time; a generic one also as `X[Any]`."""
    found: Any = getattr(viewreg, name)
    assert found | None is not None
    if getattr(found, "__parameters__", ()):
        assert found[(Any,) * len(found.__parameters__)] | None is not None


async def test_dial_is_what_open_registry_takes(autojump_clock: MockClock) -> None:
    """An annotation with `viewreg.Dial` describes the functions that `open_registry` takes."""
    parameters, result = typing.get_args(viewreg.Dial)
    assert parameters == [Endpoint]
    assert typing.get_type_hints(viewreg.dial_tcp)["return"] is typing.get_args(result)[0]


async def test_the_waiting_channel_is_made_once(autojump_clock: MockClock) -> None:
    """`channel.waiting()` is the same object each time, so that its stubs are made once, and waits already."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        channel = (await registry.wait_until(all_healthy)).view(A).channel
        waiting = channel.waiting()
        assert waiting is not channel
        assert channel.waiting() is waiting
        assert waiting.waiting() is waiting
        assert waiting.stub(CarouselStub) is channel.waiting().stub(CarouselStub)
        assert waiting.stub(CarouselStub) is not channel.stub(CarouselStub)


async def test_a_snapshot_cannot_be_changed(autojump_clock: MockClock) -> None:
    """No attribute of a snapshot can be set, added or deleted; asking for what it computes late changes nothing."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        snapshot: Any = await registry.wait_until(all_healthy)
        for name in ("views", "version", "last_changed", "anything"):
            with pytest.raises(AttributeError):
                setattr(snapshot, name, ())
        with pytest.raises(AttributeError):
            del snapshot.views
        assert snapshot.view(A).healthy
        assert snapshot.healthy_views() == snapshot.all_views() == list(snapshot.views)
        assert snapshot.view(A) is snapshot.view(Endpoint("a", 1))
