"""How a registry begins and ends: whatever happens in the block, nothing outlives it and no error is bent."""

from __future__ import annotations

import io
import logging
import math
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import viewreg
from fleet import Does, Fleet, all_healthy, open_fleet, unhealthy
from viewreg import Discovery, Endpoint, Event, Feature, RegistryClosedError, UnavailableError
from viewreg.rpc import CarouselRequest, LogStatusRequest, LookupSRequest, StatsRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from viewreg import Change, Registry

A, B = "a:1", "b:1"
INSTANT = 0.001  # seconds; in virtual time only sleeping takes any
CLOSED = 0.11  # seconds in which a connection that is given up is closed


async def tasks() -> int:
    await wait_all_tasks_blocked()
    return trio.lowlevel.current_statistics().tasks_living


# -- entering --


async def test_entering_does_not_wait(autojump_clock: MockClock) -> None:
    """Entering takes no time, however dead the network is and however slow the locator."""

    class Slow:
        def cached(self) -> Discovery:
            return Discovery(0, ())

        async def wait_for_update(self, old_version: int) -> Discovery:
            await trio.sleep(100)
            return Discovery(old_version + 1, (Endpoint("a", 1),))

    async with open_fleet() as fleet:
        fleet[A].does = Does.BLACK_HOLE
        with trio.fail_after(INSTANT):
            async with fleet.open(A):
                pass
            async with viewreg.open_registry(Slow(), dial=fleet.dial):
                pass


async def test_entering_a_cancelled_scope(autojump_clock: MockClock) -> None:
    """A scope that is cancelled already ends the block before it begins, and nothing is left."""
    async with open_fleet() as fleet:
        before = await tasks()
        with trio.fail_after(INSTANT), trio.CancelScope() as scope:
            scope.cancel()
            async with fleet.open(A):
                pytest.fail("the block has begun")
        assert scope.cancelled_caught
        assert not fleet.streams
        assert await tasks() == before


# -- leaving --


async def test_leaving_closes_everything(autojump_clock: MockClock) -> None:
    """When the block is left, every task has ended and every stream is closed, whatever each server was about."""
    async with open_fleet() as fleet:
        before = await tasks()
        for host_port, does in zip("abcdef", Does, strict=False):
            fleet[f"{host_port}:1"].does = does
        async with fleet.open(*[f"{host}:1" for host in "abcdef"]):
            await trio.sleep(2.5)
        assert not fleet.streams
        assert await tasks() == before


async def test_leaving_is_quick(autojump_clock: MockClock) -> None:
    """Leaving waits for no call and for no server: a frozen one costs nothing."""
    async with open_fleet() as fleet:
        async with fleet.open(A, B) as registry:
            await registry.wait_until(all_healthy)
            fleet[A].freeze()
            left = trio.current_time()
        assert trio.current_time() - left <= CLOSED


async def test_empty_afterwards(autojump_clock: MockClock) -> None:
    """After the block the registry can be read and is empty, and its version and time have moved once more."""
    async with open_fleet() as fleet:
        async with fleet.open(A) as registry:
            seen = await registry.wait_until(all_healthy)
        assert registry.all_views() == registry.healthy_views() == []
        assert registry.snapshot.views == ()
        assert registry.last_changed > seen.last_changed
        assert registry.version > seen.version
        assert registry.summary()["all_views"] == 0
        file = io.StringIO()
        registry.dump(file, reasons=True)
        assert file.getvalue() == "View Registry\nLast changed: 0s ago\n"
        with pytest.raises(viewreg.UnknownViewError):
            registry.history(A)


async def test_closing_is_one_change(autojump_clock: MockClock) -> None:
    """Closing is one version, however many views there were."""
    async with open_fleet(simple=True) as fleet:
        async with fleet.open(*[f"h{number}:1" for number in range(20)]) as registry:
            await registry.wait_until(all_healthy)
            version = registry.version
        assert registry.version == version + 1


async def test_empty_after_a_last_set(autojump_clock: MockClock) -> None:
    """A list that discovery finds in the last moment of the block brings nothing back."""
    async with open_fleet() as fleet:
        async with fleet.open() as registry:
            await wait_all_tasks_blocked()
            fleet.locator.set([A])
        assert registry.all_views() == []
        assert not fleet[A].dials


async def test_waits_end_when_it_closes(autojump_clock: MockClock) -> None:
    """Closing ends every wait: by returning where what was waited for is true now, else by RegistryClosedError."""
    ended: dict[str, Any] = {}

    async def wait(name: str, what: Callable[[], Any]) -> None:
        try:
            ended[name] = await what()
        except RegistryClosedError as error:
            ended[name] = error

    async with open_fleet() as fleet, trio.open_nursery() as nursery:
        async with fleet.open(A) as registry:
            await registry.wait_until(all_healthy)
            seen = registry.last_changed
            nursery.start_soon(wait, "change", lambda: registry.wait_for_change(seen))
            nursery.start_soon(wait, "late change", lambda: registry.wait_for_change(seen + 1000))
            nursery.start_soon(wait, "stable", lambda: registry.wait_for_stable(1000))
            nursery.start_soon(wait, "empty", lambda: registry.wait_until(lambda at: not at.views))
            nursery.start_soon(wait, "more", lambda: registry.wait_until(lambda at: len(at.views) > 1))
            await wait_all_tasks_blocked()
            assert not ended
    assert all(ended[name] is registry.snapshot for name in ("change", "stable", "empty"))
    assert all(isinstance(ended[name], RegistryClosedError) for name in ("late change", "more"))


async def test_waits_after_it_is_closed(autojump_clock: MockClock) -> None:
    """Waits that begin after the closing end likewise, and are checkpoints."""
    async with open_fleet() as fleet:
        async with fleet.open(A) as registry:
            seen = registry.last_changed
    for wait in (registry.wait_for_change(seen), registry.wait_for_change(-math.inf), registry.wait_for_stable(1000)):
        with trio.testing.assert_checkpoints(), trio.fail_after(INSTANT):
            assert (await wait).views == ()
    assert (await registry.wait_until(lambda at: not at.views)) is registry.snapshot
    for never in (registry.wait_for_change(registry.last_changed), registry.wait_until(lambda at: bool(at.views))):
        with trio.testing.assert_checkpoints(), pytest.raises(RegistryClosedError):
            await never


async def test_changes_end(autojump_clock: MockClock) -> None:
    """Closing gives everyone who follows one last change with all views removed, and then the end."""
    got: list[Change[Feature]] = []

    async def follow(registry: Registry[Feature]) -> None:
        got.extend([change async for change in registry.changes()])

    async with open_fleet() as fleet, trio.open_nursery() as nursery:
        async with fleet.open(A, B) as registry:
            nursery.start_soon(follow, registry)
            await registry.wait_until(all_healthy)
            await wait_all_tasks_blocked()
    assert len(got[-1].removed) == 2
    assert got[-1].new.views == ()
    assert sum(bool(change.removed) for change in got) == 1
    with pytest.raises(StopAsyncIteration):
        await anext(registry.changes(since=registry.snapshot.version))


async def test_calls_after_the_block(autojump_clock: MockClock) -> None:
    """A view that was kept fails every call at once, also those that wait; a call in flight fails as well."""
    async with open_fleet() as fleet, trio.open_nursery() as nursery:
        async with fleet.open(A) as registry:
            view = (await registry.wait_until(all_healthy)).view(A)
            fleet[A].view.hang = True

            async def hangs() -> None:
                with pytest.raises(UnavailableError):
                    await view.diagnostics().stats(StatsRequest())

            nursery.start_soon(hangs)
            await fleet[A].view.wait_requests(2)
        for channel in (view.channel, view.channel.waiting()):
            with trio.fail_after(INSTANT), pytest.raises(UnavailableError, match="the registry was closed"):
                await channel.stub(viewreg.rpc.DiagnosticsStub).stats(StatsRequest())


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

        with pytest.raises(ExceptionGroup) as caught:
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
                async with fleet.open(A) as registry:
                    await trio.sleep_forever()
        assert scope.cancelled_caught == (how != "sibling")
        assert 3 <= trio.current_time() <= 3 + CLOSED
        assert registry.all_views() == []
        assert not fleet.streams
        assert await tasks() == before


async def test_an_error_while_cancelled(autojump_clock: MockClock) -> None:
    """An error that the body raises while it is cancelled is not lost to the cancellation."""
    async with open_fleet() as fleet:
        with pytest.raises(ValueError, match="mine"), trio.CancelScope() as scope:
            async with fleet.open(A):
                try:
                    scope.cancel()
                    await trio.sleep_forever()
                finally:
                    raise ValueError("mine")  # noqa: B012 (that is the fault)


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
        with pytest.raises(ExceptionGroup, match="which is a bug") as caught:
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
                raise ValueError("mine")  # noqa: B012 (that is the fault)

        with pytest.raises(ExceptionGroup, match="which is a bug") as caught:
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
        with pytest.raises(BaseException) as caught:  # noqa: PT011 (what it is, is the question)
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
            raise ValueError("failed to clean up")  # noqa: B012 (that is the fault)

    class Untidy:
        def cached(self) -> Discovery:
            return Discovery(1, ())

        async def wait_for_update(self, old_version: int) -> Discovery:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fails)
                nursery.start_soon(trio.sleep_forever)
            raise AssertionError

    async with viewreg.open_registry(Untidy()):
        await wait_all_tasks_blocked()


# -- cancellation at every checkpoint --


class CancelAt(trio.abc.Instrument):
    """Cancels a scope when a task is about to make its k-th step."""

    def __init__(self, task: trio.lowlevel.Task, k: int, scope: trio.CancelScope) -> None:
        self.task, self.left, self.scope = task, k, scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.left -= 1
            if self.left == 0:
                self.scope.cancel()


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


# -- the log --


def lines(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level and record.name == "viewreg"]


async def test_log_of_transitions(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Each transition is one line at INFO that names endpoint, state and reason; repetitions are at DEBUG."""
    caplog.set_level(logging.DEBUG, logger="viewreg")
    async with open_fleet() as fleet, fleet.open(A) as registry:
        await registry.wait_until(all_healthy)
        fleet[A].does = Does.REFUSE
        fleet[A].cut()
        await trio.sleep(30)
        fleet[A].does = Does.SERVE
        await registry.wait_until(all_healthy)
        await trio.sleep(60)
    info = lines(caplog, logging.INFO)
    good = "tcp://a:1 is healthy: probe answered: serves Diagnostics,Carousel,HashSP [SPO: 0x00.. - ∞]"
    assert info == [good, "tcp://a:1 is unhealthy: connection lost: the server closed the connection", good]
    assert any("ECONNREFUSED" in line for line in lines(caplog, logging.DEBUG))
    assert {record.name for record in caplog.records} == {"viewreg"}


async def test_log_of_a_dead_endpoint(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """An endpoint that refuses for an hour is one line at INFO, with the reason."""
    caplog.set_level(logging.INFO, logger="viewreg")
    async with open_fleet() as fleet:
        fleet[A].does = Does.REFUSE
        async with fleet.open(A):
            await trio.sleep(3600)
    assert lines(caplog, logging.INFO) == [
        "tcp://a:1 is unhealthy: connecting failed: Connection refused (ECONNREFUSED)"
    ]


async def test_calls_are_not_logged(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is logged for a call above DEBUG, well or badly ended, and its metadata at no level."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        view = (await registry.wait_until(all_healthy)).view(A)
        caplog.set_level(logging.DEBUG, logger="viewreg")
        caplog.clear()
        secret = {"authorization": "Bearer hunter2"}
        await view.carousel().logStatus(LogStatusRequest(), metadata=secret)
        fleet[A].view.status = 13
        with pytest.raises(viewreg.InternalError):
            await view.carousel().logStatus(LogStatusRequest(), metadata=secret)
        async with view.carousel().ride(CarouselRequest()) as ride:
            with pytest.raises(viewreg.InternalError):
                await anext(ride)
    ours = [record for record in caplog.records if record.name == "viewreg"]
    assert [record for record in ours if record.levelno > logging.DEBUG] == []
    assert not any("hunter2" in record.getMessage() for record in ours)


async def test_a_probe_with_a_bug_is_logged_once(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """A probe that raises what it should not is logged with its traceback once, not every second."""
    caplog.set_level(logging.INFO, logger="viewreg")

    class Buggy:
        no_features = Feature(0)
        fails = False

        async def __call__(self, channel: object) -> viewreg.ProbeResult[Feature]:
            if self.fails:
                raise ZeroDivisionError("bug of the probe's")
            return viewreg.ProbeResult(Feature.DIAGNOSTICS)

    async with open_fleet() as fleet:
        probe = Buggy()
        async with viewreg.open_registry("static:///a:1", dial=fleet.dial, probe=probe) as registry:
            await registry.wait_until(all_healthy)
            probe.fails = True
            await trio.sleep(100)
            assert registry.history(A)[-1].what is Event.PROBE_FAILED
    with_traceback = [record for record in caplog.records if record.exc_info]
    assert len(with_traceback) == 1
    assert "ZeroDivisionError: bug of the probe's" in with_traceback[0].getMessage()
