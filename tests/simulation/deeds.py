"""What each verb of `operations.VERBS` does to a world.

Rules:
* A deed is one step: it never waits. The world tells the model what servers are like after each one; what leaves no
  trace in that, such as a connection that was reset, is told here, by `Model.disturbed`.
* A deed that makes no sense now, such as a call while no registry is open, does nothing: so operations can be left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from simulation.calls import Call, make
from simulation.readers import Reader, Waiter
from simulation.servers import Server, stats
from viewreg import Discovery, Endpoint, LocatorError, UnknownViewError
from viewreg.testing import Direction

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulation.world import World

_WAYS: Final = {"both": Direction.BOTH, "to-server": Direction.TO_SERVER, "to-client": Direction.TO_CLIENT}
_ENCODINGS: Final = {"SPO": 1, "POS": 2}  # on the wire


# -- to servers --


def _to(deed: Callable[..., None], *, disturbs: bool = False) -> Callable[..., None]:
    def do(world: World, host: str, *words: str) -> None:
        if host in world.servers:
            deed(world.servers[host], *words)
            if disturbs:
                world.model.disturbed(host)

    return do


def _greet(server: Server, greeting: str) -> None:
    server.greeting = greeting


def _behave(server: Server, behavior: str, amount: str) -> None:
    server.behavior, server.amount = behavior, float(amount)


def _answer_pings(server: Server, word: str) -> None:
    server.answers_pings = word == "answered"


def _serve(server: Server, encoding: str, start: str, end: str) -> None:
    server.truth = stats(_ENCODINGS[encoding], int(start), int(end))


# -- to discovery --


def _list(world: World, *items: str) -> None:
    endpoints = [_endpoint(item) for item in items]
    world.locator.lists(tuple(endpoints))
    world.model.lists({endpoint.host_port: endpoint for endpoint in endpoints})


def _endpoint(item: str) -> Endpoint:
    address, _, note = item.partition(";")
    endpoint = Endpoint.parse(address)
    return Endpoint(endpoint.host, endpoint.port, annotations={"note": note} if note else {})


def _upset_discovery(world: World, how: str) -> None:
    if how in ("fails", "recovers"):
        world.locator.fails(LocatorError("as told") if how == "fails" else None)
    else:
        world.locator.returns(5 if how == "talks-nonsense" else Discovery(0, ()))
    world.model.discovery(failing=world.locator.failing, lies=world.locator.lies)


# -- to the program --


def _stall(world: World, seconds: str) -> None:
    world.clock.jump(float(seconds))
    world.model.stalled(float(seconds))


def _call(world: World, number: str, host: str, kind: str, *amounts: str) -> None:
    if world.registry is None:
        return
    try:
        view = world.registry.snapshot.view(host)
    except UnknownViewError:
        return
    deadline, count, pause = map(float, amounts)
    call = Call(int(number), host, kind, trio.current_time() + deadline, int(count), pause)
    world.nursery.start_soon(make, call, view, world.model.ledger, world.note)


def _leave(world: World, number: str) -> None:
    call = world.model.ledger.calls.get(int(number))
    if call is not None:
        call.scope.cancel()


def _read(world: World, number: str, pause: str) -> None:
    if world.registry is not None:
        world.start_task(number, Reader(f"reader {number}", world.registry, float(pause), lambda *_: None))


def _wait(world: World, number: str, what: str, amount: str) -> None:
    if world.registry is not None:
        world.start_task(number, Waiter(f"waiter {number}", world.registry, what, amount, world.note))


def _stop(world: World, number: str) -> None:
    if number in world.tasks:
        world.tasks[number].scope.cancel()


DEEDS: Final[dict[str, Callable[..., None]]] = {
    "start": _to(Server.start),
    "kill": _to(Server.kill),
    "freeze": _to(Server.freeze),
    "thaw": _to(Server.thaw),
    "cut": _to(lambda server, way: server.set_cut(_WAYS[way], cut=True)),
    "heal": _to(lambda server: server.set_cut(Direction.BOTH, cut=False)),
    "dials": _to(Server.let_dials),
    "delay": _to(lambda server, delay, jitter: server.set_delay(float(delay), float(jitter))),
    "reset": _to(lambda server: server.link.reset(), disturbs=True),
    "close": _to(lambda server: server.link.close(), disturbs=True),
    "half-close": _to(lambda server: server.link.half_close(), disturbs=True),
    "greet": _to(_greet),
    "behave": _to(_behave),
    "pings": _to(_answer_pings),
    "serve": _to(_serve),
    "goaway": _to(lambda server, code: server.go_away(int(code)), disturbs=True),
    "drain": _to(Server.drain, disturbs=True),
    "list": _list,
    "discovery": _upset_discovery,
    "stall": _stall,
    "call": _call,
    "leave": _leave,
    "read": _read,
    "wait": _wait,
    "stop": _stop,
    "open": lambda world: world.open_registry(),
    "close-registry": lambda world, how: world.close_registry(how),
}
