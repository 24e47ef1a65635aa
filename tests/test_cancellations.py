"""Calls and waits, cancelled at every step that any task makes meanwhile, in every state of the server.

Afterwards nothing is left: no task, no connection, no call that the server believes in, no place in a queue; what the
registry says is consistent, and the next call works. In virtual time, so a state is a matter of milliseconds.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import pytest
import trio

from nasty.nasty_pb2 import Order
from states import (
    STATES,
    World,
    answers,
    answers_later,
    changes,
    comes_back,
    does_not_read,
    is_away,
    is_dialled_first,
    is_full,
    is_lost,
    is_replaced,
    open_world,
)
from steps import at_every_step, covers
from transport import note, orders
from viewreg import CallError, Feature, StatsProbe

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from states import Act

# -- calls --


@covers("UnaryUnary.__call__")
async def unary_unary(world: World) -> None:
    """One request, one answer."""
    await world.stub.ask(world.order)


@covers("UnaryUnary.with_metadata")
async def unary_unary_with_metadata(world: World) -> None:
    """The same, and the metadata."""
    await world.stub.ask.with_metadata(world.order)


@covers("StreamUnary.__call__")
async def stream_unary(world: World) -> None:
    """Many requests, one answer."""
    await world.stub.tell(orders(Order(), world.order))


@covers("StreamUnary.with_metadata")
async def stream_unary_with_metadata(world: World) -> None:
    """The same, and the metadata."""
    await world.stub.tell.with_metadata(orders(world.order))


@covers("UnaryStream.__call__", "ResponseStream.__aenter__", "ResponseStream.__anext__", "ResponseStream.__aexit__")
async def unary_stream(world: World) -> None:
    """One request, and the answers to the last."""
    async with world.stub.listen(world.order) as found:
        async for _ in found:
            await trio.lowlevel.checkpoint()


@covers("StreamStream.__call__")
async def stream_stream(world: World) -> None:
    """Many requests, and the answers to the last."""
    async with world.stub.talk(orders(Order(), world.order)) as found:
        async for _ in found:
            await trio.lowlevel.checkpoint()


async def unfinished(world: World) -> None:
    """Many requests, of which the last never comes."""

    async def requests() -> AsyncIterator[Order]:
        yield world.order
        await trio.sleep_forever()

    async with world.stub.talk(requests()) as found:
        await anext(found)


@covers("ResponseStream.aclose")
async def left_early(world: World) -> None:
    """The first answer of many."""
    found = world.stub.listen(world.order)
    try:
        await anext(found)
    finally:
        await found.aclose()


@covers(
    "Channel.open_message_stream",
    "MessageStream.__aenter__",
    "MessageStream.send_message",
    "MessageStream.close",
    "MessageStream.receive_message",
    "MessageStream.__aexit__",
)
async def by_hand(world: World) -> None:
    """Both directions by hand, to the end."""
    async with await world.stub.talk() as talk:
        await talk.send_message(world.order)
        await talk.close()
        while await talk.receive_message() is not None:
            pass


@covers("MessageStream.aclose")
async def by_hand_and_left(world: World) -> None:
    """The same, left in the middle."""
    talk = await world.stub.talk()
    try:
        await talk.send_message(world.order)
    finally:
        await talk.aclose()


@covers("Channel.wait_ready")
async def wait_ready(world: World) -> None:
    """No call yet."""
    await world.channel.wait_ready()


@covers("StatsProbe.__call__")
async def probe(world: World) -> None:
    """The probe that registries make by themselves."""
    await StatsProbe()(world.channel)


@covers("Registry.wait_for_change")
async def wait_for_change(world: World) -> None:
    """Any change from now on; and any at all, which has been."""
    registry = world.registry
    await registry.wait_for_change(-math.inf)
    await registry.wait_for_change(registry.last_changed)


@covers("Registry.wait_until")
async def wait_until(world: World) -> None:
    """Something that is the case, and something that will be."""
    snapshot = await world.registry.wait_until(lambda _: True)
    await world.registry.wait_until(lambda at: at.version > snapshot.version)


@covers("Registry.wait_for_coverage")
async def wait_for_coverage(world: World) -> None:
    """Every hash is served once, and not twice."""
    await world.registry.wait_for_coverage(Feature.HASH_SP)
    await world.registry.wait_for_coverage(Feature.HASH_SP, replicas=2)


@covers("Registry.wait_for_stable")
async def wait_for_stable(world: World) -> None:
    """It is stable, and has been for no time; then it must be for longer than it can."""
    for duration in (0.0, 0.1, 0.5):
        await world.registry.wait_for_stable(world.since_change + duration)


@covers("Registry.changes", "Changes.__anext__")
async def read_changes(world: World) -> None:
    """What is there, and what is new."""
    found = world.registry.changes()
    await anext(found)
    await anext(found)


@covers("StaticLocator.wait_for_update")
async def wait_for_update(world: World) -> None:
    """What is there, and what is new."""
    locator = world.fleet.locator
    await locator.wait_for_update((await locator.wait_for_update(-1)).version)


CALLS: Final = [
    *((call, state) for call in (unary_unary, stream_unary, unary_stream, stream_stream, by_hand) for state in STATES),
    (unary_unary_with_metadata, answers_later),
    (stream_unary_with_metadata, answers_later),
    *((left_early, state) for state in (answers, answers_later, is_lost, is_full)),
    *((unfinished, state) for state in (answers, is_lost, comes_back)),
    *((by_hand_and_left, state) for state in (answers, does_not_read, is_replaced)),
    *((wait_ready, state) for state in (answers, is_away, comes_back, is_dialled_first, is_replaced)),
    *((probe, state) for state in (answers, answers_later, is_lost)),
    *((wait, changes) for wait in (wait_for_change, wait_until, wait_for_coverage, wait_for_stable, read_changes)),
    (wait_for_update, changes),
]


@pytest.mark.parametrize(("call", "state"), CALLS, ids=[f"{call.__name__}-{state.__name__}" for call, state in CALLS])
async def test_calls(call: Act, state: Act, autojump_clock: object) -> None:
    """A call that is cancelled at any step leaves nothing, whatever the server was about to do."""
    async with open_world() as world:

        async def act() -> None:
            with suppress(CallError), trio.move_on_after(1):
                await call(world)

        steps = await at_every_step(lambda: state(world), act, world.check)
    note(f"{call.__name__}, {state.__name__}: {steps}")
    assert steps
