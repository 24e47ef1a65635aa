"""Plays a scenario in virtual time, and tells what is different from what it says.

Rules:
* It knows the registry by its public interface alone, and the world by `World`.
* After each line of `do`, and before anything is looked at, all tasks have done what there is to do at that moment.
* A scenario ends at the first phase that differs: what comes after that would only be confusing.
"""

from __future__ import annotations

import difflib
import math
from random import Random
from typing import TYPE_CHECKING, Final

import trio
import trio.lowlevel
from trio.testing import wait_all_tasks_blocked

import viewreg
from scenario_record import (
    Recorder,
    address,
    by_address,
    described,
    fields,
    flat,
    in_order,
    in_words_of,
    lists,
    seconds,
    seen,
    timed,
)
from scenario_words import OPENS
from scenario_world import World, open_world
from viewreg import CallError, Feature, RegistryClosedError
from viewreg.rpc import CarouselRequest, CarouselStub, LogStatusRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scenario_format import Phase, Scenario
    from scenario_words import Action
    from viewreg import Changes, Registry

_LOOK: Final = 1e-9  # seconds; each phase is looked at a little later than the last, so that no two things coincide


async def play(scenario: Scenario) -> str:
    """Play it in a fresh world. Returns what is different, for people; nothing if all is as the scenario says."""
    async with open_world(scenario.servers) as world, trio.open_nursery() as nursery:
        stage = Stage(scenario, world, nursery)
        trio.lowlevel.add_instrument(stage.recorder)
        try:
            report = await stage.play()
        finally:
            trio.lowlevel.remove_instrument(stage.recorder)
        nursery.cancel_scope.cancel()
    return report


class Stage:
    """One performance: the registry, the program that has it, and its users."""

    def __init__(self, scenario: Scenario, world: World, nursery: trio.Nursery) -> None:
        self.recorder: Final = Recorder()
        self._scenario: Final = scenario
        self._world: Final = world
        self._nursery: Final = nursery
        self._ended: Final[dict[str, list[str]]] = {}  # how what users did ended, since the last phase
        self._scopes: Final[dict[str, trio.CancelScope]] = {}  # of what they do, and of the program's block
        self._subscriptions: Final[dict[str, Changes[Feature]]] = {}
        self._order: Final = trio.Event()  # the program is to leave the block
        self._raises = False
        self._registry: Registry[Feature] | None = None
        self._expected: dict[str, str] = {}  # the views that the last phase ended with

    async def play(self) -> str:
        """All phases, up to the first that is different. Then nothing may be left open."""
        scenario = self._scenario
        if scenario.healthy:
            self._world.locator.lists(tuple(map(viewreg.Endpoint.parse, scenario.healthy)))
        if not scenario.opens:
            await self._open()
            self._look()
            self._expected = dict(self._found_views())
        if not all(line.endswith("Healthy:true") for line in self._expected.values()):
            return f"{scenario.file}: not all are healthy at first: {self._expected}"
        for phase in scenario.phases:
            for action in phase.do:
                self.recorder.step += 1
                await self._act(action)
                await wait_all_tasks_blocked()
            self.recorder.step += 1
            await trio.sleep_until(phase.until + phase.number * _LOOK)
            await wait_all_tasks_blocked()
            if report := self._compare(phase):
                return report
        self._order.set()
        await trio.sleep(1)
        left = self._world.open_streams
        return f"{scenario.file}: {left} connections are open after the block" if left else ""

    # -- doing --

    async def _act(self, action: Action) -> None:
        if action.actor in self._scenario.users:
            self._nursery.start_soon(self._use, action)
        elif action.actor != "program":
            self._world.act(action)
        elif action.verb == OPENS:
            await self._open()
        elif action.verb == "is cancelled":
            self._scopes["program"].cancel()
        else:
            self._raises = action.verb == "raises in the block"
            self._order.set()

    async def _open(self) -> None:
        registry: Registry[Feature] = await self._nursery.start(self._program)
        self._registry = registry
        # The program and the registry's own tasks race for the first step: what came before is seen as one change.
        await wait_all_tasks_blocked()
        self.recorder.follow(registry)

    async def _program(self, task_status: trio.TaskStatus[Registry[Feature]]) -> None:
        world, scenario = self._world, self._scenario
        with trio.CancelScope() as self._scopes["program"]:
            try:
                async with viewreg.open_registry(
                    world.locator,
                    scenario.config,
                    probe=world.probe,
                    dial=world.dial,
                    rng=Random(1),
                    wall_clock=lambda: 1e9,
                ) as registry:
                    task_status.started(registry)
                    await self._order.wait()
                    if self._raises:
                        raise RuntimeError("as the scenario says")
            except RuntimeError as error:
                self._note("program", f"the block raised {type(error).__name__}: {error}")
            else:
                self._note("program", "the block was left")
        if self._scopes["program"].cancelled_caught:
            self._note("program", "the block was cancelled")

    async def _use(self, action: Action) -> None:
        user = action.actor
        if action.verb == "gives up":
            self._scopes[user].cancel()
            return
        with trio.CancelScope() as self._scopes[user]:
            try:
                self._note(user, await self._deed(action))
            except CallError as error:
                self._note(user, error.reason)
            except RegistryClosedError as error:
                self._note(user, type(error).__name__)
        if self._scopes[user].cancelled_caught:
            self._note(user, "cancelled")

    async def _deed(self, action: Action) -> str:
        """Do it, and tell what came of it."""
        assert self._registry is not None, f"{action.text}: the registry is not open yet"
        registry, verb, args = self._registry, action.verb, action.args
        if verb.startswith("waits for a change"):
            since = -math.inf if verb.endswith("since ever") else registry.last_changed
            return seen(await registry.wait_for_change(since))
        if verb == "waits for {seconds} s without a change":
            return seen(await registry.wait_for_stable(*args))
        if verb == "waits until {condition}":
            template, rest = args[0]
            return seen(await registry.wait_until(lambda snapshot: CONDITIONS[template](snapshot, *rest)))
        if verb == "subscribes":
            self._subscriptions[action.actor] = registry.changes()
            return "subscribed"
        if verb == "reads a change":
            try:
                change = await anext(self._subscriptions[action.actor])
            except StopAsyncIteration:
                return "no more changes"
            before = by_address(change.old.views)
            return f"{described(before, change.added, change.removed, change.updated)}; {seen(change.new)}"
        return await self._call(verb, *args)

    async def _call(self, verb: str, server: str) -> str:
        """Call by the last view of the server that there was, also after it has gone."""
        view = self.recorder.known[server]
        if verb == "reads a stream of {server}":
            async with view.carousel().ride(CarouselRequest()) as stream:
                count = len([result async for result in stream])
            return f"the stream ended after {count} messages"
        channel = view.channel.waiting() if verb.endswith("and waits") else view.channel
        await channel.stub(CarouselStub).logStatus(LogStatusRequest())
        return "answered"

    def _note(self, user: str, what: str) -> None:
        self._ended.setdefault(user, []).append(timed(trio.current_time(), what))

    # -- looking --

    def _compare(self, phase: Phase) -> str:
        changes, history, wire, ended = self._look()
        expected = self._expected = self._expected if phase.views is None else phase.views
        parts = {
            "views": (flat(expected.items()), flat(self._found_views())),
            "changes": (phase.changes, changes),
            "history": (lists(phase.history), history),
            "users": (lists(phase.users), ended),
            "discovery": self._discovery(phase),
        }
        if self._scenario.watches_wire:
            parts["wire"] = (lists(phase.wire), wire)
        parts = {name: (said, in_words_of(said, found)) for name, (said, found) in parts.items()}
        if all(said == found for said, found in parts.values()):
            return ""
        lines = [f"{self._scenario.file}: phase {phase.number}, from {phase.began:g} s to {phase.until:g} s"]
        lines += [f"    {action.text}" for action in phase.do]
        lines += [f"    ({phase.note})"] if phase.note else []
        lines += ["  - is expected, + is found:"]
        for name, (said, found) in parts.items():
            if said != found:
                compared = (line.rstrip() for line in difflib.ndiff(said, found) if line[0] != "?")
                lines += [f"  {name}", *(f"    {line}" for line in compared)]
        return "\n".join(lines)

    def _look(self) -> tuple[list[str], list[str], list[str], list[str]]:
        """What happened since it was last looked at."""
        wire = {key: [timed(*item) for item in in_order(items)] for key, items in self._world.wire.items()}
        for items in self._world.wire.values():
            items.clear()
        ended = {user: self._ended[user] for user in sorted(self._ended)}
        self._ended.clear()
        return self.recorder.changes(), lists(self.recorder.history()), lists(wire), lists(ended)

    def _found_views(self) -> list[tuple[str, str]]:
        views = () if self._registry is None else self._registry.snapshot.views
        return [(address(view), " ".join(key + value for key, value in fields(view).items())) for view in views]

    def _discovery(self, phase: Phase) -> tuple[list[str], list[str]]:
        if self._registry is None:
            return [], []
        status = self._registry.discovery
        since = "" if math.isinf(status.updated_at) else f" since {seconds(status.updated_at)} s"
        failing = "" if status.error is None else f", failing: {status.error}"
        found = f"version {status.version}{since}{failing}"
        if phase.discovery is None:
            return [], [found] if failing else []
        return [phase.discovery], [found]


CONDITIONS: Final[Mapping[str, Callable[..., bool]]] = {
    "all are healthy": lambda at: bool(at.views) and all(view.healthy for view in at.views),
    "{count} are healthy": lambda at, count: len(at.healthy_views()) == count,
    "{server} is healthy": lambda at, server: server in by_address(at.healthy_views()),
    "{server} is unhealthy": lambda at, server: server in by_address(at.views) and not at.view(server).healthy,
    "{server} is gone": lambda at, server: server not in by_address(at.views),
    "{feature} is served": lambda at, feature: bool(at.healthy_views(feature)),
}
