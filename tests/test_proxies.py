"""Calls and registries through nginx, HAProxy and nghttpx, with a real grpcio server behind them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

import proxies
import viewreg
from fleet import events, healthy, unhealthy
from load import Ask, Load
from nasty.nasty_grpc import NastyStub
from nasty.nasty_pb2 import Order
from servers import example, part, running
from transport import KINDS, note, open_channel, orders
from viewreg import (
    CallError,
    Config,
    DeadlineExceededError,
    Endpoint,
    Event,
    FactPartition,
    KeyEncoding,
    NotFoundError,
    StaticLocator,
    UnavailableError,
)
from viewreg.rpc import StatsRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from nasty.nasty_pb2 import Answer
    from proxies import Kind, Proxy
    from servers import Server
    from viewreg import Feature, MessageStream, Registry

    CallKind = Callable[[NastyStub, Order], Coroutine[Any, Any, None]]

GUIDE = Path(__file__).parent.parent / "docs" / "proxies.md"
GUARD = 20.0  # seconds; a hung test fails by it, and no other time decides
MIB = 1024 * 1024  # bytes
RELOADS = 3
CALLERS = 4  # of unary calls
GOOD = {Event.CONNECTING, Event.CONNECTED, Event.PROBE_OK}
POLL = 0.01  # seconds

kinds = pytest.mark.parametrize("kind", proxies.ALL, ids=lambda kind: kind.program)
call_kinds = pytest.mark.parametrize("call", KINDS, ids=lambda call: call.__name__)


@pytest.fixture(scope="module", params=proxies.ALL, ids=lambda kind: kind.program)
def proxy(request: pytest.FixtureRequest, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Each of the proxies in turn, in front of the server that nobody ends."""
    with proxies.open_proxy(request.param, server.endpoint, tmp_path_factory.mktemp("proxy")) as proxy:
        yield proxy


async def listen(stub: NastyStub, order: Order, received: list[int]) -> None:
    """Note the numbers of the answers as they come, to the end."""
    async with stub.listen(order, metadata={"t-tail": "1"}) as answers:
        async for answer in answers:
            received.append(answer.number)  # noqa: PERF401 (what came before a bad end counts, too)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what tells nobody."""
    while not condition():  # noqa: ASYNC110 (nobody is told)
        await trio.sleep(POLL)


# -- calls --


async def test_calls_of_each_kind(proxy: Proxy, server: Server) -> None:
    """All kinds of calls pass. Each proxy does as our SETTINGS_HEADER_TABLE_SIZE 0 asks: no answer needs a table."""
    async with open_channel(proxy.endpoint) as line:
        for number, call in enumerate(KINDS):
            tag = f"{proxy.kind.program} {number}"
            with trio.fail_after(GUARD):
                await call(line.stub, Order(tag=tag, answers=20))
                assert not (await server.report("end", tag))["early"]
        assert line.open_streams == 0
        decoder = line.connection.http2._decoder
        assert decoder._stateless
        assert decoder._decoder is None


async def test_metadata(proxy: Proxy, server: Server) -> None:
    """Metadata passes both ways: repeated, binary, under odd names, and nearly the 8 KiB that gRPC servers take."""
    ends: list[tuple[str, str | bytes]]
    ends = [("a", "1"), ("a", "2"), ("a_b", "3"), ("a.b", "4"), ("a-bin", b"\0\xff"), ("long", "z" * 7_000)]
    initial = [(f"x-{name}", value) for name, value in ends]
    trailing = [(f"t-{name}", value) for name, value in ends[:-1]]
    async with open_channel(proxy.endpoint) as line:
        with trio.fail_after(GUARD):
            response = await line.stub.ask.with_metadata(Order(), metadata=[*initial, *trailing])
        assert [pair for pair in response.initial_metadata if pair[0].startswith("x-")] == initial
        assert [pair for pair in response.trailing_metadata if pair[0].startswith("t-")] == trailing


async def test_large_messages(proxy: Proxy) -> None:
    """Messages of many windows' size pass in each direction, alone and streamed, and come out whole."""
    payload = bytes(range(256)) * (5 * MIB // 256)
    order = Order(payload=payload, answers=2)
    async with open_channel(proxy.endpoint) as line:
        with trio.fail_after(GUARD):
            assert (await line.stub.ask(order)).payload == payload
            answer = await line.stub.tell(orders(order, order))
            assert answer.request_bytes == 2 * len(payload)
            async with line.stub.listen(order) as answers:
                assert [answer.payload == payload async for answer in answers] == [True, True]


@pytest.mark.parametrize("proxy", [proxies.NGINX, proxies.NGHTTPX], indirect=True, ids=lambda kind: kind.program)
async def test_large_messages_both_ways_at_once(proxy: Proxy) -> None:
    """A server may answer a large message before it reads the next one. HAProxy cannot: see docs/proxies.md."""
    order = Order(payload=bytes(5 * MIB), answers=1)
    async with open_channel(proxy.endpoint) as line:
        with trio.fail_after(GUARD):
            async with line.stub.talk(orders(order, order)) as answers:
                assert [len(answer.payload) async for answer in answers] == [5 * MIB] * 2


async def test_more_calls_than_streams(proxy: Proxy) -> None:
    """Calls beyond what the proxy takes at a time wait for their turn, and are answered."""
    async with open_channel(proxy.endpoint) as line:
        with trio.fail_after(GUARD):
            await line.channel.wait_ready()
            count = int(2 * line.connection.http2.max_concurrent_streams)
            async with trio.open_nursery() as nursery:
                for _ in range(count):
                    nursery.start_soon(line.stub.ask, Order(delay=0.01))
        assert line.open_streams == 0


@pytest.mark.parametrize("answers", [0, 2])
async def test_a_bad_end(proxy: Proxy, answers: int) -> None:
    """The server's status, its words in any script and its trailers arrive, before any answer or after some."""
    order = Order(answers=answers, code=5, details="100 % lost: \N{PILE OF POO}")
    received: list[int] = []
    async with open_channel(proxy.endpoint) as line:
        with trio.fail_after(GUARD), pytest.raises(NotFoundError) as caught:
            await listen(line.stub, order, received)
        assert received == [*range(1, answers + 1)]
        assert caught.value.details == order.details
        assert ("t-tail", "1") in caught.value.trailing_metadata


@call_kinds
async def test_leaving_a_call_reaches_the_server(proxy: Proxy, server: Server, call: CallKind) -> None:
    """Whoever leaves a call ends it at the server at once; the connection goes on."""
    tag = f"{proxy.kind.program} {call.__name__} left"
    async with open_channel(proxy.endpoint) as line:
        with trio.fail_after(GUARD):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call, line.stub, Order(tag=tag, delay=GUARD))
                await server.report("start", tag)
                nursery.cancel_scope.cancel()
            assert (await server.report("end", tag))["early"]
            await line.stub.ask(Order())
        assert line.lost is None


@call_kinds
async def test_the_deadline_reaches_the_server(proxy: Proxy, server: Server, call: CallKind) -> None:
    """The server learns how much time is left; when it is up the scope speaks, and the server's call has ended."""
    tag = f"{proxy.kind.program} {call.__name__} late"
    async with open_channel(proxy.endpoint) as line:
        with trio.fail_after(GUARD):
            await line.channel.wait_ready()
            with trio.move_on_after(0.2) as scope:
                await call(line.stub, Order(tag=tag, delay=GUARD))
            assert scope.cancelled_caught
            assert 0 < (await server.report("start", tag))["time_remaining"] <= 0.2
            assert (await server.report("end", tag))["early"]


async def test_the_servers_own_deadline(proxy: Proxy) -> None:
    """A server that gives up by itself is heard: its DEADLINE_EXCEEDED is raised with its words."""
    async with open_channel(proxy.endpoint) as line:
        with trio.fail_after(GUARD), pytest.raises(DeadlineExceededError, match="gave up"):
            await line.stub.ask(Order(abort=True, code=4, details="gave up"))


# -- what happens behind the proxy --


@kinds
async def test_the_server_dies_during_calls(kind: Kind, tmp_path: Path) -> None:
    """A call in flight ends badly and at once, half answered or not, and so do later ones; the proxy's line stays."""
    received: list[int] = []
    with running() as server, proxies.open_proxy(kind, server.endpoint, tmp_path) as proxy, trio.fail_after(GUARD):
        async with open_channel(proxy.endpoint) as line:

            async def lose(error: type[CallError], answers: int) -> None:
                with pytest.raises(CallError) as caught:
                    await listen(line.stub, Order(tag="lost", answers=answers, hang=True), received)
                assert type(caught.value) is error

            async with trio.open_nursery() as nursery:
                nursery.start_soon(lose, kind.unanswered, 0)
                nursery.start_soon(lose, kind.half_answered, 1)
                await server.report("start", "lost")
                await server.report("start", "lost")
                await until(lambda: bool(received))
                server.kill()
            for _ in range(2):
                with pytest.raises((UnavailableError, kind.unanswered)):
                    await line.stub.ask(Order())
            assert line.lost is None


@kinds
async def test_the_server_comes_back_as_another(kind: Kind, tmp_path: Path) -> None:
    """A view behind a proxy is what its server says; it is unhealthy while that is away, and then what it is now."""
    config = Config(probe_interval=0.1)
    with example(*part("SPO", 1, 2)) as (process, backend), proxies.open_proxy(kind, backend, tmp_path) as proxy:
        address = proxy.endpoint.host_port
        async with viewreg.open_registry(StaticLocator([proxy.endpoint]), config) as registry:
            with trio.fail_after(GUARD):
                view = (await registry.wait_until(healthy(address))).view(address)
                assert view.partition == FactPartition.nth(KeyEncoding.SPO, 1, of=2)
                process.kill()
                await registry.wait_until(unhealthy(address))
                assert registry.history(address)[-1].what is Event.PROBE_FAILED
                with example(*part("POS", 2, 3), port=backend.port):
                    view = (await registry.wait_until(healthy(address))).view(address)
                    assert view.partition == FactPartition.nth(KeyEncoding.POS, 2, of=3)
                    assert (await view.diagnostics().stats(StatsRequest())).facts
                assert Event.LOST not in events(registry, address)


# -- graceful reloads --


@kinds
async def test_reloads_under_load(kind: Kind, server: Server, tmp_path: Path) -> None:
    """While the proxy is reloaded again and again the view stays healthy, and no call is lost."""
    with proxies.open_proxy(kind, server.endpoint, tmp_path) as proxy, trio.fail_after(GUARD):
        async with viewreg.open_registry(StaticLocator([proxy.endpoint]), probe=Ask()) as registry:
            address = proxy.endpoint.host_port
            view = (await registry.wait_until(healthy(address))).view(address)
            version, reloaded = registry.version, False

            def over() -> bool:
                return reloaded and load.ended["unary"] >= 100 and load.ended["stream"] >= 2

            load = Load(view.stub(NastyStub), over)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(load.stream)
                for _ in range(CALLERS):
                    nursery.start_soon(load.unary)
                for count in range(1, RELOADS + 1):
                    async with open_talk(view.stub(NastyStub)) as talk:  # begun before, it goes on after
                        await proxy.reload()
                        await until(partial(replaced, registry, address, count))
                        await say(talk)
                reloaded = True
            assert registry.version == version
            assert registry.healthy_views() == [view]
            assert {*events(registry, address)} == {*GOOD, Event.REPLACING}
            note(f"{kind.program}: {dict(load.ended)}")


def replaced(registry: Registry[Feature], address: str, count: int) -> bool:
    """The connection to the proxy has been replaced so many times, and the last one has answered a probe."""
    happened = events(registry, address)
    return happened.count(Event.REPLACING) == count and happened[-1] is Event.PROBE_OK


@asynccontextmanager
async def open_talk(stub: NastyStub) -> AsyncIterator[MessageStream[Order, Answer]]:
    """A bidirectional call that has begun, and must end well."""
    async with await stub.talk() as talk:
        await say(talk)
        yield talk
        await talk.close()
        assert await talk.receive_message() is None


async def say(talk: MessageStream[Order, Answer]) -> None:
    """One request, one answer."""
    await talk.send_message(Order(answers=1))
    assert await talk.receive_message() is not None


# -- the guide --


@kinds
def test_the_guide_shows_what_is_tested(kind: Kind) -> None:
    """Each line of the configurations in docs/proxies.md is one that these tests run on."""
    (_, _, rest) = GUIDE.read_text().partition(f"```{kind.program}\n")
    shown = {line.strip() for line in rest.partition("```")[0].splitlines()}
    tested = kind.configure(Endpoint("127.0.0.1", 8080), Endpoint("127.0.0.1", 9090), Path("/tmp"))
    assert shown
    assert shown <= {line.strip() for line in tested.splitlines()}
