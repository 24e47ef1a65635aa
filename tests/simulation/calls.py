"""Calls of the simulation: what each may end with, by what passed on the wire, and the tasks that make them.

Rules:
* Each call has a number, which it carries as metadata: so it is known on the wire, and to the server.
* A call always ends: by its deadline, with the answer that was read, in the moment in which its connection is lost.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Final

import trio
from attrs import define, field

from nasty.nasty_grpc import NastyStub
from nasty.nasty_pb2 import Order
from simulation.line import Line
from simulation.rules import EPSILON
from simulation.wire import REFUSED_STREAM, Answer
from viewreg import CallError, Connectivity, StatusCode, UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from viewreg import View

KINDS: Final = ("ask", "listen", "tell", "talk")

# What a reset is for the caller, by gRPC's table; any other code is INTERNAL.
_RESETS: Final = {
    REFUSED_STREAM: StatusCode.UNAVAILABLE,
    8: StatusCode.CANCELLED,
    11: StatusCode.RESOURCE_EXHAUSTED,
    12: StatusCode.PERMISSION_DENIED,
}


@define(eq=False)
class Call:
    """One call, and what is known of it."""

    number: int
    address: str
    kind: str
    deadline: float
    count: int  # answers of `listen`, requests of `tell` and `talk`
    pause: float  # seconds between them
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    sent: bool = False  # it is on a connection now
    line: Line | None = None  # which it was on last
    lost: bool = False  # its connection was lost
    unprocessed: bool = False  # the server has promised that it did nothing with it
    reset: bool = False  # by the client
    answer: Answer | None = None


class Ledger:
    """All calls in flight. `taken` is written by servers, the rest by lines and by the tasks of the calls."""

    def __init__(self, complain: Callable[[str], None]) -> None:
        self.taken: Final[Counter[int]] = Counter()
        self.calls: Final[dict[int, Call]] = {}
        self.refused: Final[dict[str, float]] = {}  # when a call last failed for want of a connection, by address
        self._unexplained: Final[
            dict[int, Line]
        ] = {}  # calls that say that their connection was lost, which is to be seen
        self._untold: Final[dict[int, None]] = {}  # calls that were left, of which the server has to be told
        self._wanted: Final[dict[str, float]] = {}  # when a call last asked for a dial or a probe, by address
        self._complain: Final = complain

    # -- for the model --

    def wants(self, address: str, since: float) -> bool:
        """Whether calls may have asked for a dial or a probe of this endpoint since then."""
        waiting = any(call.address == address and not call.sent for call in self.calls.values())
        return waiting or self._wanted.get(address, -math.inf) >= since

    def settle(self, state: Callable[[str], Connectivity]) -> None:
        """All tasks are at rest. `state` tells how an endpoint is seen, SHUTDOWN if it is not."""
        for call in self.calls.values():
            if trio.current_time() >= call.deadline:
                self._complain(f"call {call.number} goes on after its deadline")
            elif call.answer is not None:
                self._complain(f"call {call.number} goes on after its answer")
            elif call.lost:
                self._complain(f"call {call.number} goes on after its connection was lost")
            elif not call.sent and not call.unprocessed:
                connectivity = state(call.address)
                if connectivity in (Connectivity.TRANSIENT_FAILURE, Connectivity.SHUTDOWN):
                    self._complain(f"call {call.number} waits for an endpoint that is {connectivity.name}")

        for number, line in self._unexplained.items():
            if not line.explains_losses:
                self._complain(f"call {number} ended UNAVAILABLE, and its connection is well")
        self._unexplained.clear()
        for number in self._untold:
            self._complain(f"call {number} was left, and the server was not told")
        self._untold.clear()

    def idle(self) -> None:
        """The registry was closed: nothing goes on."""
        self._unexplained.clear()
        self._untold.clear()
        for number in self.calls:
            self._complain(f"call {number} goes on after the registry was closed")

    # -- for lines --

    def sent(self, number: int, line: Line) -> None:
        """It was sent."""
        if number in self.calls:
            call = self.calls[number]
            call.line, call.sent, call.lost, call.unprocessed = line, True, False, False

    def answered(self, number: int, answer: Answer) -> bool:
        """Its end was read. Returns whether its caller still waited for that, for sure."""
        self._untold.pop(number, None)
        if number in self.calls:
            call = self.calls[number]
            if answer.reset == REFUSED_STREAM:
                call.sent, call.unprocessed = False, True
            else:
                call.answer = answer
            return trio.current_time() < call.deadline
        return False

    def unprocessed(self, number: int) -> None:
        """It lies beyond a GOAWAY."""
        self._untold.pop(number, None)
        if number in self.calls:
            call = self.calls[number]
            call.sent, call.unprocessed = False, True
            self._wanted[call.address] = trio.current_time()

    def lost(self, number: int) -> None:
        """Its connection was lost."""
        self._untold.pop(number, None)
        if number in self.calls:
            self.calls[number].lost = True

    def reset(self, number: int) -> None:
        """It was reset by the client."""
        self._untold.pop(number, None)
        if number in self.calls:
            self.calls[number].reset = True

    # -- for the tasks of calls --

    def begins(self, call: Call) -> None:
        """It begins."""
        self.calls[call.number] = call
        self._wanted[call.address] = trio.current_time()

    def ends(self, call: Call, code: StatusCode | None, started: bool | None, payload: bytes) -> None:
        """It has ended with that status; None means that it was left. `payload` is what its answers carry."""
        del self.calls[call.number]
        taken = self.taken.pop(call.number, 0)
        if taken > 1:
            self._complain(f"call {call.number} was made {taken} times")
        if code is StatusCode.UNAVAILABLE:
            self._wanted[call.address] = trio.current_time()
            if call.answer is None and not call.sent:
                self.refused[call.address] = trio.current_time()
        if started is False and taken:
            self._complain(f"call {call.number} says that it has not started, and it has")
        if code is None:
            if call.sent and call.answer is None and not call.lost and not call.reset:
                self._untold[call.number] = None
            return
        if code is StatusCode.UNAVAILABLE and call.sent and call.line is not None and call.answer is None:
            self._unexplained[call.number] = call.line
            return
        expected = _expected(call)
        if code not in expected:
            self._complain(
                f"call {call.number} ended {code.name}, expected {' or '.join(one.name for one in expected)}"
            )
        if code is StatusCode.OK and payload != b"%d" % call.number * _answers(call):
            self._complain(f"call {call.number} was answered {payload!r}")


def _answers(call: Call) -> int:
    return call.count if call.kind in ("listen", "talk") else 1


def _expected(call: Call) -> tuple[StatusCode, ...]:
    answer = call.answer
    if answer is None:
        return (StatusCode.UNAVAILABLE,) if not call.sent else ()
    if answer.reset is not None:
        return (_RESETS.get(answer.reset, StatusCode.INTERNAL),)
    if answer.status != 0:
        return (StatusCode(answer.status),)
    garbled = any(message == b"\xff\xff\xff" for message in answer.messages)
    return (StatusCode.INTERNAL,) if garbled else (StatusCode.OK,)


async def make(call: Call, view: View, ledger: Ledger, note: Callable[[str], None]) -> None:
    """Make one call, and tell how it ended."""
    ledger.begins(call)
    code: StatusCode | None = None
    started: bool | None = None
    got: list[bytes] = []
    try:
        with call.scope:
            call.scope.deadline = call.deadline
            try:
                await _make(call, view.stub(NastyStub), got)
                code = StatusCode.OK
            except UnavailableError as error:
                code, started = error.code, error.started
            except CallError as error:
                code = error.code
        if call.scope.cancelled_caught and trio.current_time() > call.deadline + EPSILON:
            note(f"call {call.number} was late")
    finally:
        ledger.ends(call, code, started, b"".join(got))
    word = "was left" if code is None else f"ended {code.name}"
    note(f"call {call.number} {word}" + ("" if started is None else f" started={started}"))


async def _make(call: Call, stub: NastyStub, got: list[bytes]) -> None:
    metadata = {"x-call": str(call.number)}
    order = Order(payload=b"%d" % call.number, answers=call.count, pause=call.pause)
    if call.kind == "ask":
        got.append((await stub.ask(order, metadata=metadata)).payload)
    elif call.kind == "tell":
        got.append((await stub.tell(_orders(call, order), metadata=metadata)).payload)
    else:
        answers = (
            stub.listen(order, metadata=metadata)
            if call.kind == "listen"
            else stub.talk(_orders(call, order), metadata=metadata)
        )
        async with answers:
            async for answer in answers:
                got.append(answer.payload)  # noqa: PERF401 (what came before an error counts, too)


async def _orders(call: Call, order: Order) -> AsyncIterator[Order]:
    for _ in range(call.count):
        yield order
        await trio.sleep(call.pause)
