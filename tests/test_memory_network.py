"""A network in memory: addresses, dials, bad input, and the same times for the same seed."""

from __future__ import annotations

import errno
import math
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from memory import TO_CLIENT, TO_SERVER, A, Stream, arrivals, connect, outcome
from viewreg import InvalidTypeError, InvalidValueError
from viewreg.testing import Direction, MemoryNetwork

if TYPE_CHECKING:
    from collections.abc import Callable


# -- dials --


async def test_dials(autojump_clock: MockClock) -> None:
    """A dial is refused where nobody listens, and by a link that refuses; `accept` undoes that."""
    network = MemoryNetwork()
    link = network.link("a:1")
    with pytest.raises(ConnectionRefusedError, match=r"^\[Errno 111\] Connection refused$"):
        await network.dial(A)
    network.listen("a:1")
    link.refuse()
    with pytest.raises(ConnectionRefusedError):
        await network.dial(A)
    link.accept()
    await network.dial(A)
    assert link.connections == 1


async def test_black_hole(autojump_clock: MockClock) -> None:
    """A dial into a black hole never ends, also if the link accepts later; open connections go on."""
    network = MemoryNetwork()
    client, server, _ = await connect(network)
    link = network.link(A)
    link.black_hole()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(network.dial, A)
        await wait_all_tasks_blocked()
        link.accept()
        await client.send_all(b"abc")
        assert await server.receive_some() == b"abc"
        await trio.sleep(10_000)
        assert len(nursery.child_tasks) == 1
        nursery.cancel_scope.cancel()


async def test_a_dial_takes_a_round_trip(autojump_clock: MockClock) -> None:
    """A dial takes twice the delay, refused or not, and is judged when it reaches the server."""
    network = MemoryNetwork()
    network.listen(A)
    link = network.link(A)
    link.delay(0.25)
    await network.dial(A)
    assert trio.current_time() == 0.5
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 0.2)

        async def refused() -> None:
            with pytest.raises(ConnectionRefusedError):
                await network.dial(A)
            assert trio.current_time() == 1.0

        nursery.start_soon(refused)
        await trio.sleep(0.1)
        link.refuse()


async def test_a_dial_waits_at_a_cut(autojump_clock: MockClock) -> None:
    """A dial waits while either direction is cut, and sets out again when that is healed."""
    network = MemoryNetwork()
    network.listen(A)
    link = network.link(A)
    link.delay(1)
    for direction in (TO_SERVER, TO_CLIENT):
        started = trio.current_time()
        link.cut(direction)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(network.dial, A)
            await trio.sleep(10)
            assert len(nursery.child_tasks) == 1
            link.heal()
        assert trio.current_time() == started + (12 if direction is TO_SERVER else 11)


async def test_a_dial_whose_listener_closes_meanwhile(autojump_clock: MockClock) -> None:
    """A dial whose listener closes while the answer is under way succeeds, and its connection is reset."""
    network = MemoryNetwork()
    listener = network.listen(A)
    network.link(A).delay(1)
    async with trio.open_nursery() as nursery:

        async def dial() -> None:
            client = await network.dial(A)
            assert await outcome(client.receive_some()) == errno.ECONNRESET

        nursery.start_soon(dial)
        await trio.sleep(1.5)
        listener.close()


async def test_what_a_link_tells(autojump_clock: MockClock) -> None:
    """A link tells when the last 10,000 dials began, how many clients are open, and how many bytes were sent."""
    network = MemoryNetwork()
    link = network.link(A)
    with suppress(ConnectionRefusedError):
        await network.dial(A)
    await trio.sleep(2)
    client, server, _ = await connect(network)
    assert link.dials == (0.0, 2.0)
    await client.send_all(bytes(3))
    await server.send_all(bytes(5))
    assert (link.bytes_to_server, link.bytes_to_client, link.connections) == (3, 5, 1)
    await server.aclose()
    assert link.connections == 1
    await client.aclose()
    assert link.connections == 0
    link.refuse()
    for _ in range(10_000):
        with suppress(ConnectionRefusedError):
            await network.dial(A)
    assert len(link.dials) == 10_000
    assert link.dials[0] == 2.0


# -- chance --


Trace: TypeAlias = "dict[tuple[str, str], list[tuple[float, int]]]"


async def trace(seed: int) -> Trace:
    """What arrives when, at both ends of two links with jitter and a limit, while all four send at the same moments."""
    network = MemoryNetwork(seed)
    found: Trace = {}

    async def run(address: str) -> None:
        network.link(address).delay(0.1, jitter=0.05)
        network.link(address).limit(50_000)
        listener = network.listen(address)
        client = await network.dial(listener.endpoint)
        server = await listener.accept()
        found[address, "dialled"] = [(trio.current_time(), 0)]
        for end, stream in (("client", client), ("server", server)):
            nursery.start_soon(receive, stream, found.setdefault((address, end), []))
            nursery.start_soon(send, stream)

    async def receive(stream: Stream, into: list[tuple[float, int]]) -> None:
        into += await arrivals(stream)

    async def send(stream: Stream) -> None:
        await trio.sleep_until(10)
        for _ in range(20):
            await stream.send_all(bytes(2000))
            await trio.sleep(0.01)
        await stream.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, "a:1")
        nursery.start_soon(run, "b:1")
    return found


def test_seeds() -> None:
    """One seed gives the same times in every run, whatever order Trio runs tasks in; another seed gives others."""

    def run(seed: int) -> Trace:
        return trio.run(trace, seed, clock=MockClock(autojump_threshold=0))

    first = run(7)
    assert all(run(7) == first for _ in range(5))
    other = run(8)
    assert other.keys() == first.keys()
    assert all(other[what] != times for what, times in first.items())
    assert len({str(times) for times in first.values()}) == len(first)  # each link and direction has its own


# -- bad input --


@pytest.mark.parametrize(
    ("do", "kind", "says"),
    [
        (lambda link: link.delay(-1), InvalidValueError, "delay -1.0: expected a number from 0 to 86400"),
        (lambda link: link.delay(math.nan), InvalidValueError, "delay nan: expected a number from 0 to 86400"),
        (lambda link: link.delay(math.inf), InvalidValueError, "delay inf: expected a number from 0 to 86400"),
        (lambda link: link.delay("1"), InvalidTypeError, "delay '1': expected a number from 0 to 86400"),
        (
            lambda link: link.delay(1, jitter=2),
            InvalidValueError,
            "jitter 2.0: expected a number from 0 to the delay, 1",
        ),
        (lambda link: link.delay(1, jitter=-1), InvalidValueError, "jitter -1.0: expected a number from 0"),
        (lambda link: link.limit(0), InvalidValueError, "rate 0.0: expected a number from 1 to 1e+12, or math.inf"),
        (lambda link: link.limit(math.nan), InvalidValueError, "rate nan: expected a number from 1"),
        (lambda link: link.limit(True), InvalidTypeError, "rate True: expected a number from 1"),
        (lambda link: link.cut(Direction(0)), InvalidValueError, "direction <Direction: 0>: expected Direction.TO_"),
        (lambda link: link.heal("both"), InvalidTypeError, "direction 'both': expected a Direction"),
        (lambda _: MemoryNetwork().link("a"), InvalidValueError, "'a': expected HOST:PORT"),
        (lambda _: MemoryNetwork().link(1), InvalidTypeError, "endpoint 1: expected HOST:PORT"),  # type: ignore[arg-type]
        (lambda _: MemoryNetwork().listen("a:0"), InvalidValueError, "'a:0': port 0: expected a whole number from 1"),
        (lambda _: MemoryNetwork(-1), InvalidValueError, "seed -1: expected a whole number of at least 0"),
        (lambda _: MemoryNetwork(None), InvalidTypeError, "seed None: expected a whole number"),  # type: ignore[arg-type]
    ],
)
async def test_bad_input(
    do: Callable[[Any], object], kind: type[Exception], says: str, autojump_clock: MockClock
) -> None:
    """What is out of range or of a wrong type is refused, named with what is allowed, and changes nothing."""
    network = MemoryNetwork()
    network.link("a:1").delay(2)
    with pytest.raises(kind, match="^" + re.escape(says)):
        do(network.link(A))
    client, server, _ = await connect(network)
    await client.send_all(b"x")
    await server.receive_some()
    assert trio.current_time() == 6


def test_new_hosts() -> None:
    """A new host is one that nobody has named on this network."""
    network = MemoryNetwork()
    network.link("host2:1")
    assert [network.new_host(), network.new_host()] == ["host1", "host3"]
