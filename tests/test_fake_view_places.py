"""A fake view behaves the same wherever it runs: in memory, on loopback in this process, in a process of its own."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

import pytest
import trio
from trio.testing import MockClock

from nasty.nasty_grpc import NastyServicer, NastyStub
from nasty.nasty_pb2 import Answer, Order
from steps import CancelAt
from viewreg import (
    CallError,
    Config,
    FactPartition,
    Feature,
    InternalError,
    InvalidTypeError,
    InvalidValueError,
    KeyEncoding,
    NotFoundError,
    StaticLocator,
    StatusCode,
    UnavailableError,
    UnknownError,
    ViewregError,
    open_registry,
)
from viewreg._transport.dial import dial_tcp
from viewreg.rpc import CarouselRequest, DiagnosticsServicer, StatsRequest, StatsResult
from viewreg.testing import FakeView, MemoryNetwork, open_fake_view
from viewreg.testing.frames import PREFACE, headers, rst_stream, settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from viewreg import Registry, View

GUARD = 10.0  # seconds; the machine may be busy
THIRD = FactPartition.nth(KeyEncoding.SPO, 1, of=3)
QUICK = Config(probe_interval=0.05, probe_timeout=0.5, probe_retry_interval=0.05)
SOCKETS = pytest.mark.parametrize("where", ["loopback", "process"])


@asynccontextmanager
async def watched(view: FakeView, network: MemoryNetwork | None = None) -> AsyncIterator[tuple[Registry, View]]:
    """A registry in which the fake view is healthy, and its view."""
    dial = None if network is None else network.dial
    async with open_registry(StaticLocator([view.endpoint]), QUICK, dial=dial) as registry:
        yield registry, await until(registry, lambda view: view.healthy)


async def until(registry: Registry, condition: Callable[[View], bool]) -> View:
    """Wait until the only view is so."""
    with trio.fail_after(GUARD):
        return (await registry.wait_until(lambda snapshot: condition(snapshot.views[0]))).views[0]


async def story(fake: FakeView, network: MemoryNetwork | None) -> None:
    """Everything that a test may make it do, and what comes of it."""
    async with watched(fake, network) as (registry, view):
        assert view.partition == fake.partition == THIRD
        stats = view.diagnostics().stats

        # What came is known: method, deadline, metadata.
        with trio.fail_after(GUARD):
            await stats(StatsRequest(), metadata=[("who", "me"), ("key-bin", b"\0\xff")])
        call = next(call for call in fake.calls if call.metadata)
        assert (call.method, call.code, call.cancelled) == ("Diagnostics.stats", StatusCode.OK, False)
        assert call.metadata[-2:] == (("who", "me"), ("key-bin", b"\0\xff"))
        assert call.timeout is not None
        assert GUARD - 5 < call.timeout <= GUARD
        assert "who" not in repr(call)

        # Garbage fails the call, and makes the view unhealthy.
        await fake.garble()
        with pytest.raises(InternalError, match="no StatsResult"):
            await stats(StatsRequest())
        await until(registry, lambda view: not view.healthy)
        await fake.answer()
        await until(registry, lambda view: view.healthy)

        # A call that was given up is known to be so, by the server.
        ride = view.carousel().ride(CarouselRequest())
        async with ride:
            await anext(ride)
            assert fake.open_calls >= 1
        with trio.fail_after(GUARD):
            await fake.wait_for_calls(lambda calls: any(call.cancelled for call in calls))
        assert [call.method for call in fake.calls if call.cancelled] == ["Carousel.ride"]

        await fake.lie(viewType="txtimeout")
        await until(registry, lambda view: view.features == Feature.DIAGNOSTICS)
        await fake.fail(StatusCode.NOT_FOUND, "nobody here")
        with pytest.raises(NotFoundError, match="nobody here"):
            await stats(StatsRequest())

        # Frozen, it only stands still: nothing is lost.
        await fake.slow(0.01)
        fake.freeze()
        with pytest.raises(ViewregError, match="is frozen already"):
            fake.freeze()
        with trio.move_on_after(0.05):
            await stats(StatsRequest())
            pytest.fail("a frozen view has answered")
        fake.thaw()
        with pytest.raises(ViewregError, match="is not frozen"):
            fake.thaw()
        with trio.fail_after(GUARD):
            assert (await stats(StatsRequest())).facts == 1000

        # Moved, it is somewhere else; killed, it is gone; restarted, it is there again and serves something else.
        before = fake.endpoint
        await fake.move()
        assert fake.endpoint != before
        await until(registry, lambda view: not view.healthy)
        fake.kill()
        with trio.fail_after(GUARD):
            await fake.wait_ended()
        assert not fake.running
        assert fake.open_calls == 0
        moved = fake.endpoint
        await fake.restart(partition=FactPartition.nth(KeyEncoding.SPO, 2, of=3))
        assert fake.endpoint == moved
        await fake.stop()
        assert not fake.running


async def test_in_memory(autojump_clock: MockClock) -> None:
    """All of it in memory, in virtual time."""
    network = MemoryNetwork()
    async with open_fake_view(where=network, partition=THIRD) as fake:
        assert fake.endpoint.host_port == "host1:8080"
        await story(fake, network)


@SOCKETS
async def test_on_sockets(where: Literal["loopback", "process"]) -> None:
    """All of it on real sockets."""
    async with open_fake_view(where=where, partition=THIRD) as fake:
        assert (fake.pid == os.getpid()) is (where == "loopback")
        await story(fake, None)


async def test_killed_in_a_stream(autojump_clock: MockClock) -> None:
    """In memory as in a process: a kill ends calls with UNAVAILABLE, on both sides."""
    network = MemoryNetwork()
    async with open_fake_view(where=network) as fake, watched(fake, network) as (registry, view):
        async with view.carousel().ride(CarouselRequest()) as ride:
            await anext(ride)
            fake.kill()
            with pytest.raises(UnavailableError):
                async for _ in ride:
                    pass
        await until(registry, lambda view: not view.healthy)
        assert next(call for call in fake.calls if call.method == "Carousel.ride").code is StatusCode.UNAVAILABLE


async def test_stopped_in_a_stream(autojump_clock: MockClock) -> None:
    """Stopped politely, it says so to those whose calls it ends."""
    network = MemoryNetwork()
    async with open_fake_view(where=network) as fake, watched(fake, network) as (_, view):
        async with view.carousel().ride(CarouselRequest()) as ride, trio.open_nursery() as nursery:
            await anext(ride)
            nursery.start_soon(fake.stop)
            with pytest.raises(UnavailableError, match="the view stops"):
                async for _ in ride:
                    pass
        with pytest.raises(ViewregError, match="has ended: restart it first"):
            fake.freeze()


async def test_frozen_is_noticed_by_keepalive(autojump_clock: MockClock) -> None:
    """A view that is frozen takes dials and bytes and says nothing: within 10 s of virtual time it is unhealthy."""
    network = MemoryNetwork()
    async with (
        open_fake_view(where=network) as fake,
        open_registry(StaticLocator([fake.endpoint]), dial=network.dial) as registry,
    ):
        await registry.wait_until(lambda snapshot: bool(snapshot.healthy_views()))
        frozen = trio.current_time()
        fake.freeze()
        await registry.wait_until(lambda snapshot: not snapshot.healthy_views())
        assert 0 < trio.current_time() - frozen <= 10.5
        await trio.sleep(20)
        assert "no SETTINGS" in str(registry.history(fake.endpoint)[-1]) or network.link(fake.endpoint).dials
        fake.thaw()
        thawed = trio.current_time()
        await registry.wait_until(lambda snapshot: bool(snapshot.healthy_views()))
        assert trio.current_time() - thawed <= 6.3


class Nasty(NastyServicer):
    """All four kinds of calls; `answers` of the request says how many answers there are."""

    async def ask(self, input_message: Order) -> Answer:
        if input_message.hang:
            raise KeyError("a bug of the test's")
        return Answer(number=input_message.answers)

    async def listen(self, input_message: Order) -> AsyncIterator[Answer]:
        for number in range(input_message.answers):
            yield Answer(number=number)
        if input_message.hang:
            raise NotFoundError("no more")

    async def tell(self, input_messages: AsyncIterator[Order]) -> Answer:
        return Answer(number=sum([order.answers async for order in input_messages]))

    async def talk(self, input_messages: AsyncIterator[Order]) -> AsyncIterator[Answer]:
        async for order in input_messages:
            yield Answer(number=order.answers)


async def orders() -> AsyncIterator[Order]:
    """Two."""
    yield Order(answers=2)
    yield Order(answers=3)


async def converse(view: View, caplog: pytest.LogCaptureFixture) -> None:
    """Call all four kinds, well and badly."""
    stub = view.stub(NastyStub)
    with trio.fail_after(GUARD):
        assert (await stub.ask(Order(answers=7))).number == 7
        assert [answer.number async for answer in stub.listen(Order(answers=3))] == [0, 1, 2]
        assert (await stub.tell(orders())).number == 5
        assert [answer.number async for answer in stub.talk(orders())] == [2, 3]
        assert [answer async for answer in stub.listen(Order())] == []
        async with stub.listen(Order(answers=1, hang=True)) as answers:
            assert (await anext(answers)).number == 0
            with pytest.raises(NotFoundError, match="no more"):
                await anext(answers)
        with pytest.raises(UnknownError, match="a bug of the test's"):
            await stub.ask(Order(hang=True))
    assert "nasty.Nasty/ask of a fake view raised" in caplog.text
    assert "KeyError" in caplog.text


async def test_services_of_ones_own(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Any purerpc servicer is served beside the four; what it raises ends its call, and a bug of it is logged."""
    network = MemoryNetwork()
    async with open_fake_view(where=network, services=[Nasty()]) as fake, watched(fake, network) as (_, view):
        await converse(view, caplog)
        assert "nasty.Nasty.ask" in [call.method for call in fake.calls]
        await fake.fail(StatusCode.UNAVAILABLE, "all of it")
        with pytest.raises(CallError, match="all of it"):
            await view.stub(NastyStub).ask(Order())


async def test_services_of_ones_own_on_loopback(caplog: pytest.LogCaptureFixture) -> None:
    """The same on sockets."""
    async with open_fake_view(where="loopback", services=[Nasty()]) as fake, watched(fake) as (_, view):
        await converse(view, caplog)


class Liar(DiagnosticsServicer):
    """Diagnostics of the test's own."""

    async def stats(self, input_message: StatsRequest) -> StatsResult:
        return StatsResult(viewType="txtimeout")


async def test_one_of_the_four_replaced(autojump_clock: MockClock) -> None:
    """A servicer with the name of one of the four takes its place; the others stay."""
    network = MemoryNetwork()
    async with open_fake_view(where=network, services=[Liar()]) as fake, watched(fake, network) as (_, view):
        assert view.features == Feature.DIAGNOSTICS
        async with view.carousel().ride(CarouselRequest()) as ride:
            assert (await anext(ride)).facts


async def test_a_port_and_a_host_of_ones_own(autojump_clock: MockClock) -> None:
    """In memory a view may have any name; one that is taken is refused, with what to do."""
    network = MemoryNetwork()
    async with open_fake_view(where=network, host="db.example", port=99) as fake:
        assert str(fake.endpoint) == "tcp://db.example:99"
        with pytest.raises(ViewregError, match=r"db.example:99: in use already"):
            async with open_fake_view(where=network, host="db.example", port=99):
                pass


async def test_a_loopback_port_in_use() -> None:
    """As in a process of its own: the error says why."""
    async with open_fake_view(where="loopback") as fake:
        with pytest.raises(ViewregError, match=f"port {fake.endpoint.port}: cannot listen: .*EADDRINUSE"):
            async with open_fake_view(where="loopback", port=fake.endpoint.port):
                pass


@SOCKETS
async def test_virtual_time_and_real_sockets(autojump_clock: MockClock, where: Literal["loopback", "process"]) -> None:
    """They do not mix: the error says what to do."""
    with pytest.raises(ViewregError, match=r"a fake view on a socket under a MockClock.*where=MemoryNetwork\(\)"):
        async with open_fake_view(where=where):
            pass


async def test_virtual_time_and_a_registry_on_real_sockets(autojump_clock: MockClock) -> None:
    """Nor does a registry that would dial them."""
    with pytest.raises(ViewregError, match=r"a registry that dials real sockets under a MockClock.*MemoryNetwork"):
        async with open_registry("static:///127.0.0.1:1"):
            pass


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"where": "cloud"}, InvalidTypeError, "where 'cloud': expected 'process', 'loopback' or a MemoryNetwork"),
        ({"where": None}, InvalidTypeError, "where None"),
        ({"host": "a"}, InvalidValueError, "host 'a': expected none"),
        ({"services": [Nasty()]}, InvalidValueError, "expected none for a view in a process of its own"),
        ({"services": [Nasty]}, InvalidTypeError, "expected a servicer"),
        ({"services": [object()]}, InvalidTypeError, "expected a servicer"),
    ],
)
async def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], match: str) -> None:
    """What cannot be is refused, with the value and what is allowed."""
    with pytest.raises(error, match=match):
        async with open_fake_view(**arguments):
            pass


@pytest.mark.parametrize("state", ["running", "frozen", "ended", "hanging"])
async def test_cancelled(autojump_clock: MockClock, state: str) -> None:
    """A block that is cancelled ends its view, whatever that is doing, and leaves nothing behind."""
    network = MemoryNetwork()
    endpoint = None
    before = trio.lowlevel.current_statistics().tasks_living
    with trio.move_on_after(5) as scope:
        async with open_fake_view(where=network) as fake, watched(fake, network) as (_, view):
            endpoint = fake.endpoint
            if state == "frozen":
                fake.freeze()
            elif state == "ended":
                fake.kill()
            elif state == "hanging":
                await fake.hang()
                await view.diagnostics().stats(StatsRequest())
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.lowlevel.current_statistics().tasks_living == before
    assert endpoint is not None
    assert network.link(endpoint).connections == 0


@pytest.mark.parametrize("memory", [True, False], ids=["memory", "loopback"])
def test_killed_while_frozen(memory: bool) -> None:
    """Who dialled a view while it was frozen learns that it died: no connection is forgotten, accepted or not."""

    async def main() -> None:
        network = MemoryNetwork()
        async with open_fake_view(where=network if memory else "loopback") as fake:
            fake.freeze()
            dial = network.dial if memory else dial_tcp
            stream = await dial(fake.endpoint)
            with trio.move_on_after(0.1):
                await stream.receive_some()
                pytest.fail("a frozen view has spoken")
            fake.kill()
            with trio.fail_after(GUARD):
                assert await stream.receive_some() == b""
            await stream.aclose()

    trio.run(main, clock=MockClock(autojump_threshold=0) if memory else None)


async def small_program(network: MemoryNetwork) -> None:
    """What a small test does: serve, watch, call, stream, freeze, restart, and leave."""
    async with open_fake_view(where=network, services=[Nasty()]) as fake, watched(fake, network) as (registry, view):
        await view.diagnostics().stats(StatsRequest())
        async with view.carousel().ride(CarouselRequest()) as ride:
            await anext(ride)
        fake.freeze()
        await trio.sleep(0.1)
        fake.thaw()
        await fake.restart()
        await until(registry, lambda view: view.healthy)
        await fake.stop()


async def test_cancelled_at_every_step(autojump_clock: MockClock) -> None:
    """Wherever a test is cancelled, no task and no connection is left of its views, and the next one works."""
    before = trio.lowlevel.current_statistics().tasks_living
    step, finished = 0, False
    while not finished:
        step += 1
        assert step < 300
        network = MemoryNetwork()
        with trio.CancelScope() as scope:
            instrument = CancelAt(trio.lowlevel.current_task(), step, scope)
            trio.lowlevel.add_instrument(instrument)
            try:
                await small_program(network)
                finished = True
            finally:
                trio.lowlevel.remove_instrument(instrument)
        assert trio.lowlevel.current_statistics().tasks_living == before, f"cancelled at step {step}"
        assert network.link("host1:8080").connections == 0, f"cancelled at step {step}"
    assert step > 10


async def test_begun_and_reset_in_one(autojump_clock: MockClock) -> None:
    """A call whose RST_STREAM comes in the same bytes as its beginning was cancelled, and is not open for ever."""
    network = MemoryNetwork()
    fields = {":method": "POST", ":scheme": "http", ":authority": "a:1", ":path": "/rpc.Diagnostics/stats"}
    fields |= {"te": "trailers", "content-type": "application/grpc"}
    head = headers(1, [(name.encode(), value.encode()) for name, value in fields.items()])
    async with open_fake_view(where=network) as fake:
        client = await network.dial(fake.endpoint)
        async with client:
            await client.send_all(PREFACE + settings() + head + rst_stream(1, 8))
            with trio.fail_after(5):
                await fake.wait_for_calls(lambda calls: bool(calls) and calls[-1].cancelled)
            assert fake.open_calls == 0
            assert len(fake.calls) == 1
