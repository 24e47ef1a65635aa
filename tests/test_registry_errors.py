"""Errors and cancellations in the block of a registry: none is bent, and nothing outlives them."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import viewreg
from fleet import CLOSED, Fleet, all_healthy, open_fleet, tasks, unhealthy
from steps import CancelAt
from viewreg import Discovery, Feature, RegistryClosedError
from viewreg.rpc import LookupSRequest, StatsRequest
from viewreg.testing import MemoryNetwork

A, B = "a:1", "b:1"


# -- errors of the body --


BODY_ERRORS: list[BaseException] = [
    ValueError("mine"),
    KeyboardInterrupt(),
    SystemExit(3),
    ExceptionGroup("mine", [ValueError("one"), ExceptionGroup("inner", [KeyError("two")])]),
    BaseExceptionGroup("mine", [KeyboardInterrupt(), ValueError("one")]),
    RegistryClosedError("mine"),
    StopAsyncIteration(),
    GeneratorExit(),
]


@pytest.mark.parametrize("error", BODY_ERRORS, ids=lambda error: type(error).__name__)
async def test_body_errors_leave_as_themselves(error: BaseException, autojump_clock: MockClock) -> None:
    """What the body raises leaves the block as the very same object, groups included, and everything is closed."""
    async with open_fleet() as fleet:
        before = await tasks()
        caught: BaseException | None = None
        try:
            async with fleet.open(A) as registry:
                await registry.wait_until(all_healthy)
                raise error
        except BaseException as raised:  # noqa: BLE001 (any may come, that is the test)
            caught = raised
        assert caught is error
        assert not fleet.streams
        assert await tasks() == before


async def test_a_nursery_in_the_body(autojump_clock: MockClock) -> None:
    """The group that a nursery in the body raises leaves as that group, nothing wrapped around it."""
    async with open_fleet() as fleet:

        async def fails() -> None:
            await trio.sleep(1)
            raise ValueError("mine")

        with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 (the block is what raises)
            async with fleet.open(A), trio.open_nursery() as nursery:
                nursery.start_soon(fails)
                nursery.start_soon(trio.sleep_forever)
        assert [type(error) for error in caught.value.exceptions] == [ValueError]


@pytest.mark.parametrize("how", ["cancel", "timeout", "sibling"])
async def test_cancelled_from_outside(how: str, autojump_clock: MockClock) -> None:
    """Cancelling the scope around the block tears everything down, and is caught by that scope and no other."""
    async with open_fleet() as fleet:
        before = await tasks()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def cancel() -> None:
                    await trio.sleep(3)
                    (nursery.cancel_scope if how == "sibling" else scope).cancel()

                if how == "timeout":
                    scope.deadline = 3
                else:
                    nursery.start_soon(cancel)
                async with fleet.open(A):
                    await trio.sleep_forever()
        assert scope.cancelled_caught == (how != "sibling")
        assert 3 <= trio.current_time() <= 3 + CLOSED
        assert not fleet.streams
        assert await tasks() == before


async def test_an_error_while_cancelled(autojump_clock: MockClock) -> None:
    """An error that the body raises while it is cancelled is not lost to the cancellation."""
    async with open_fleet() as fleet:
        with pytest.raises(ValueError, match="mine"), trio.CancelScope() as scope:  # noqa: PT012 (the block is what raises)
            async with fleet.open(A):
                try:
                    scope.cancel()
                    await trio.sleep_forever()
                finally:
                    raise ValueError("mine")


async def test_a_scope_inside_the_block(autojump_clock: MockClock) -> None:
    """Cancelling a scope of the body's own ends what is in it and not the registry."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        with trio.move_on_after(1):
            await trio.sleep_forever()
        await registry.wait_until(all_healthy)


async def test_finally_may_call(autojump_clock: MockClock) -> None:
    """The body unwinds before the services: its `finally` may still call, under a shield, also when it is cancelled."""
    said = False
    async with open_fleet() as fleet:
        with trio.move_on_after(2) as scope:
            async with fleet.open(A) as registry:
                try:
                    await registry.wait_until(all_healthy)
                    await trio.sleep_forever()
                finally:
                    with trio.CancelScope(shield=True):
                        await registry.snapshot.view(A).diagnostics().stats(StatsRequest())
                        fleet[A].cut()
                        await registry.wait_until(unhealthy(A))
                        await registry.wait_until(all_healthy)
                        said = True
        assert scope.cancelled_caught
        assert said


async def test_an_outer_shield(autojump_clock: MockClock) -> None:
    """Cancelling from outside does not shake the services while a shielded body goes on."""
    async with open_fleet() as fleet:
        with trio.CancelScope() as scope:
            async with fleet.open(A) as registry:
                with trio.CancelScope(shield=True):
                    await registry.wait_until(all_healthy)
                    scope.cancel()
                    version = registry.version
                    await trio.sleep(60)
                    assert registry.version == version
                    assert fleet[A].probes > 4


# -- bugs of our own --


class BrokenRandom(Random):
    """A generator whose `uniform` fails: a bug in whichever service asks it first."""

    def uniform(self, a: float, b: float) -> float:
        raise ZeroDivisionError("a bug")


def leaves(group: BaseException) -> list[type[BaseException]]:
    """The types of the errors in groups in groups."""
    if not isinstance(group, BaseExceptionGroup):
        return [type(group)]
    return [leaf for error in group.exceptions for leaf in leaves(error)]


async def test_a_bug_cancels_the_body(autojump_clock: MockClock) -> None:
    """A bug in a service cancels the body and leaves in a group that says that it is one."""
    async with open_fleet() as fleet:
        before = await tasks()
        with pytest.raises(ExceptionGroup, match="which is a bug") as caught:
            async with fleet.open(A, rng=BrokenRandom()):
                await trio.sleep_forever()
        assert leaves(caught.value) == [ZeroDivisionError]
        assert not fleet.streams
        assert await tasks() == before


async def test_bug_and_body(autojump_clock: MockClock) -> None:
    """When a bug cancels the body and the body raises an error of its own, one group has both."""
    async with open_fleet() as fleet:
        mine = ValueError("mine")
        with pytest.raises(ExceptionGroup, match="which is a bug") as caught:  # noqa: PT012 (the block is what raises)
            async with fleet.open(A, rng=BrokenRandom()):
                try:
                    await trio.sleep_forever()
                finally:
                    raise mine
        assert leaves(caught.value) == [ZeroDivisionError, ValueError]
        assert mine in caught.value.exceptions


async def test_bug_and_body_in_groups(autojump_clock: MockClock) -> None:
    """Of what a nursery in the body raises when a bug cancels it, errors stay and cancellations do not."""
    async with open_fleet() as fleet:

        async def fails() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("mine")

        with pytest.raises(ExceptionGroup, match="which is a bug") as caught:  # noqa: PT012 (the block is what raises)
            async with fleet.open(A, rng=BrokenRandom()), trio.open_nursery() as nursery:
                nursery.start_soon(fails)
                nursery.start_soon(trio.sleep_forever)
        assert sorted(leaves(caught.value), key=str) == [ValueError, ZeroDivisionError]


async def test_ctrl_c_in_a_service(autojump_clock: MockClock) -> None:
    """A KeyboardInterrupt that strikes while a user's probe runs leaves as one, and is called no bug."""

    class Interrupted:
        no_features = Feature(0)

        async def __call__(self, channel: object) -> Any:
            raise KeyboardInterrupt

    async with open_fleet() as fleet:
        with pytest.raises(BaseException) as caught:
            async with viewreg.open_registry("static:///a:1", dial=fleet.dial, probe=Interrupted()):
                await trio.sleep_forever()
        assert leaves(caught.value) == [KeyboardInterrupt]
        assert "bug" not in str(caught.value)


async def test_a_locator_that_fails_when_it_is_cancelled(autojump_clock: MockClock) -> None:
    """A locator whose own nursery fails while the registry closes does not spoil the closing."""

    async def fails() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("failed to clean up")

    class Untidy:
        def cached(self) -> Discovery:
            return Discovery(1, ())

        async def wait_for_update(self, old_version: int) -> Discovery:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fails)
                nursery.start_soon(trio.sleep_forever)
            raise AssertionError

    async with viewreg.open_registry(Untidy(), dial=MemoryNetwork().dial):
        await wait_all_tasks_blocked()


# -- cancellation at every checkpoint --


async def small_body(fleet: Fleet) -> None:
    """What a small program does: wait, call, stream, and leave."""
    async with fleet.open(A, B) as registry:
        view = (await registry.wait_until(all_healthy)).view(A)
        await view.diagnostics().stats(StatsRequest())
        async with view.hash_sp().lookupS(LookupSRequest(index=1)) as chunks:
            async for _chunk in chunks:
                pass
        await registry.wait_for_stable(0.5)


async def test_cancelled_at_every_checkpoint(autojump_clock: MockClock) -> None:
    """Wherever a program is cancelled, nothing is left of it, and the next one works."""
    k, finished = 0, False
    async with open_fleet() as fleet:
        fleet[A].view.replies["/rpc.ReadFactsSP/lookupS"] = [b"", b""]
        before = await tasks()
        while not finished:
            k += 1
            with trio.CancelScope() as scope:
                instrument = CancelAt(trio.lowlevel.current_task(), k, scope)
                trio.lowlevel.add_instrument(instrument)
                try:
                    await small_body(fleet)
                    finished = True
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            assert not fleet.streams, f"cancelled at step {k}"
            assert await tasks() == before, f"cancelled at step {k}"
            assert k < 200
        with trio.fail_after(1):
            await small_body(fleet)
    assert k > 8


def test_ctrl_c_while_it_closes() -> None:
    """Ctrl-C that strikes in the middle of closing comes out, and everything is closed all the same."""
    closing = False

    def wall_clock() -> float:
        if closing:
            raise KeyboardInterrupt
        return 1e9

    async def main() -> bool:
        nonlocal closing
        async with open_fleet() as fleet:
            locator = viewreg.StaticLocator([A])
            try:
                with trio.fail_after(60):
                    async with viewreg.open_registry(locator, dial=fleet.dial, wall_clock=wall_clock) as registry:
                        await registry.wait_until(all_healthy)
                        closing = True
            except KeyboardInterrupt:
                await trio.sleep(CLOSED)
                return not fleet.streams
        return False

    assert trio.run(main, clock=MockClock(autojump_threshold=0))
