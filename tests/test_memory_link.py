"""What a link does to the connections of its address, and to dials."""

from __future__ import annotations

import errno
import math
from collections import deque
from typing import Any, Literal, TypeAlias

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from memory import BUFFER, TO_CLIENT, TO_SERVER, A, Stream, arrivals, connect, is_stuck, outcome, receive_all
from viewreg.testing import Direction, MemoryNetwork

# -- time --


async def test_delay(autojump_clock: MockClock) -> None:
    """Bytes, the end and a reset arrive exactly the delay later, each way."""
    network = MemoryNetwork()
    client, server, _ = await connect(network)
    network.link(A).delay(0.25)
    await client.send_all(b"abc")
    await trio.sleep(0.125)
    await client.send_all(b"de")
    await client.send_eof()
    assert await arrivals(server) == [(0.25, 3), (0.375, 2), (0.375, 0)]
    await server.send_all(b"f")
    await client.aclose()  # at 0.375; "f" reaches nobody at 0.625, of which its sender hears at 0.875
    assert await is_stuck(trio.sleep_until, 0.874) is False
    await server.send_all(b"g")
    await trio.sleep(0.001)
    assert await outcome(server.send_all(b"h")) == errno.EPIPE


async def test_a_shorter_delay_overtakes_nothing(autojump_clock: MockClock) -> None:
    """What is under way when a delay changes is sent anew, before what is sent later."""
    network = MemoryNetwork()
    client, server, _ = await connect(network)
    network.link(A).delay(10)
    await client.send_all(b"abc")
    await trio.sleep(9)
    network.link(A).delay(2)
    await client.send_all(b"def")
    assert await server.receive_some() == b"abcdef"
    assert trio.current_time() == 11


async def test_jitter(autojump_clock: MockClock) -> None:
    """Jitter moves arrivals within its bounds, both sides of the delay, and never reorders them."""
    network = MemoryNetwork(seed=1)
    client, server, _ = await connect(network)
    network.link(A).delay(0.05, jitter=0.02)
    took: list[float] = []
    for _ in range(200):
        sent = trio.current_time()
        await client.send_all(b"x")
        await server.receive_some()
        took.append(trio.current_time() - sent)
    assert 0.03 <= min(took) < 0.035
    assert 0.065 < max(took) <= 0.0701
    for number in range(100):
        await client.send_all(bytes([number]))
        await trio.sleep(0.001)
    await client.send_eof()
    assert await receive_all(server) == bytes(range(100))


async def test_jitter_and_resets(autojump_clock: MockClock) -> None:
    """Jitter lets no reset overtake what was sent before it."""
    network = MemoryNetwork(seed=1)
    for _ in range(20):
        client, server, _ = await connect(network)
        await client.send_all(b"unread")
        network.link(A).delay(0.05, jitter=0.05)
        await server.send_all(b"x")
        await trio.sleep(0.001)
        await server.aclose()
        assert await client.receive_some() == b"x"
        assert await outcome(client.receive_some()) == errno.ECONNRESET
        network.link(A).restore()


async def test_limit(autojump_clock: MockClock) -> None:
    """A limited link delivers by packets of 1,460 bytes, each when its last byte is through; then the delay."""
    network = MemoryNetwork()
    client, server, _ = await connect(network)
    network.link(A).limit(1460)
    network.link(A).delay(10)
    await client.send_all(bytes(2 * 1460 + 730))
    await client.send_eof()
    assert await arrivals(server) == [(11, 1460), (12, 1460), (12.5, 730), (12.5, 0)]


async def test_each_connection_has_its_limit(autojump_clock: MockClock) -> None:
    """Two connections over a limited link do not slow each other, nor do the two directions."""
    network = MemoryNetwork()
    network.link(A).limit(1000)
    for _ in range(2):
        client, server, _ = await connect(network)
        await client.send_all(bytes(1000))
        await server.send_all(bytes(1000))
        await client.send_eof()
        await server.send_eof()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive_all, client)
            nursery.start_soon(receive_all, server)
    assert trio.current_time() == 2


async def test_lifting_a_limit(autojump_clock: MockClock) -> None:
    """What waits behind a limit arrives at once when that is lifted."""
    network = MemoryNetwork()
    client, server, _ = await connect(network)
    network.link(A).limit(1)
    await client.send_all(bytes(BUFFER))
    await trio.sleep(10)
    network.link(A).limit(math.inf)
    assert len(await server.receive_some()) == BUFFER
    assert trio.current_time() == 10


async def test_senders_wait_for_a_slow_link(autojump_clock: MockClock) -> None:
    """A sender gets as far as the buffer goes, then only as fast as the link is."""
    network = MemoryNetwork()
    client, server, _ = await connect(network)
    network.link(A).limit(1024)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive_all, server)
        await client.send_all(bytes(BUFFER + 10 * 1460))
        assert trio.current_time() == pytest.approx(10 * 1460 / 1024)
        await client.send_eof()
    assert trio.current_time() == pytest.approx((BUFFER + 10 * 1460) / 1024)


# -- cut and heal --


async def test_cut(autojump_clock: MockClock) -> None:
    """Through a cut nothing passes, and what was sent before or meanwhile comes after it is healed, in order."""
    network = MemoryNetwork()
    client, server, _ = await connect(network)
    link = network.link(A)
    link.delay(1)
    await client.send_all(b"arrived")
    await trio.sleep(1)
    await client.send_all(b"under way, ")
    await trio.sleep(0.5)
    link.cut()
    await client.send_all(b"meanwhile")
    await client.aclose()
    assert await server.receive_some() == b"arrived"
    assert await is_stuck(server.receive_some)
    link.heal()
    healed = trio.current_time()
    assert await receive_all(server) == b"under way, meanwhile"
    assert trio.current_time() == healed + 1


async def test_a_cut_in_one_direction(autojump_clock: MockClock) -> None:
    """The other direction goes on; healing that one heals nothing."""
    network = MemoryNetwork()
    client, server, _ = await connect(network)
    network.link(A).cut(TO_CLIENT)
    await server.send_all(b"held")
    await client.send_all(b"passes")
    assert await server.receive_some() == b"passes"
    network.link(A).heal(TO_SERVER)
    assert await is_stuck(client.receive_some)
    network.link(A).heal(TO_CLIENT)
    assert await client.receive_some() == b"held"


async def test_a_cut_fills_the_buffer(autojump_clock: MockClock) -> None:
    """Into a cut direction 64 KiB can be sent, to an end that is closed as well."""
    network = MemoryNetwork()
    client, server, _ = await connect(network)
    other, gone, _ = await connect(network)
    await gone.aclose()
    network.link(A).cut(TO_SERVER)
    for end in (client, other):
        await end.send_all(bytes(BUFFER))
        assert await is_stuck(end.send_all, b"x")
    network.link(A).heal()
    assert len(await server.receive_some()) == BUFFER
    assert await outcome(other.send_all(b"x")) == errno.EPIPE


async def test_resets_wait_at_a_cut(autojump_clock: MockClock) -> None:
    """A reset reaches only the ends that are not behind a cut, and those when that is healed."""
    network = MemoryNetwork()
    client, server, _ = await connect(network)
    network.link(A).cut(TO_CLIENT)
    network.link(A).reset()
    assert await outcome(server.receive_some()) == errno.ECONNRESET
    await client.send_all(b"x")
    assert await is_stuck(client.receive_some)
    network.link(A).heal()
    assert await outcome(client.receive_some()) == errno.ECONNRESET


async def test_a_reset_under_way_waits_at_a_cut(autojump_clock: MockClock) -> None:
    """A reset that is under way when the link is cut arrives when it is healed."""
    network = MemoryNetwork()
    client, server, _ = await connect(network)
    await client.send_all(b"unread")
    network.link(A).delay(1)
    await server.aclose()
    network.link(A).cut(TO_CLIENT)
    assert await is_stuck(client.receive_some)
    network.link(A).heal()
    assert await outcome(client.receive_some()) == errno.ECONNRESET


async def test_healing_what_is_not_cut(autojump_clock: MockClock) -> None:
    """Healing a link that is not cut, or cutting one that is, changes nothing: what is under way keeps its time."""
    network = MemoryNetwork()
    client, server, _ = await connect(network)
    network.link(A).delay(10)
    await client.send_all(b"x")
    await trio.sleep(9)
    network.link(A).heal()
    await server.receive_some()
    assert trio.current_time() == 10


async def test_restore(autojump_clock: MockClock) -> None:
    """`restore` undoes all that was set; connections are still open, and what was under way has arrived."""
    network = MemoryNetwork()
    client, server, _ = await connect(network)
    link = network.link(A)
    link.refuse()
    link.delay(5, jitter=1)
    link.limit(1)
    await client.send_all(b"abc")
    link.cut()
    await client.send_all(b"def")
    link.restore()
    assert await server.receive_some() == b"abcdef"
    await network.dial(A)
    await server.send_all(b"x")
    await client.receive_some()
    assert trio.current_time() == 0


# -- connections that end --


async def test_reset(autojump_clock: MockClock) -> None:
    """A reset wakes both ends whatever they wait for, and loses what is under way; later connections live."""
    network = MemoryNetwork()
    client, server, _ = await connect(network)
    await server.send_all(bytes(BUFFER))
    network.link(A).delay(1)
    await client.send_all(b"lost")
    await client.send_eof()
    async with trio.open_nursery() as nursery:

        async def receive() -> None:
            assert await outcome(server.receive_some()) == errno.ECONNRESET
            assert trio.current_time() == 0

        async def send() -> None:
            assert await outcome(server.send_all(b"x")) == errno.ECONNRESET

        nursery.start_soon(receive)
        nursery.start_soon(send)
        await wait_all_tasks_blocked()
        network.link(A).reset()
    assert await outcome(client.wait_send_all_might_not_block()) == errno.ECONNRESET
    await trio.sleep(10)
    assert await outcome(server.receive_some()) == errno.ECONNRESET  # not what was under way, nor the end
    client, server, _ = await connect(network)
    await client.send_all(b"new")
    assert await server.receive_some() == b"new"


async def test_link_half_close(autojump_clock: MockClock) -> None:
    """After `half_close` clients read what was sent and the end; servers still receive, but their pipe is broken."""
    network = MemoryNetwork()
    client, server, _ = await connect(network)
    await server.send_all(b"abc")
    network.link(A).half_close()
    assert await receive_all(client) == b"abc"
    await client.send_all(b"def")
    assert await server.receive_some() == b"def"
    assert await outcome(server.send_all(b"x")) == errno.EPIPE
    await server.send_eof()


async def test_link_close(autojump_clock: MockClock) -> None:
    """After `close` both ends read what was sent and the end; what they still send is answered with a reset."""
    network = MemoryNetwork()
    ends = (await connect(network))[:2]
    network.link(A).delay(1)
    for end in ends:
        await end.send_all(b"abc")
    network.link(A).close()
    for end in ends:
        assert await receive_all(end) == b"abc"
    for end in ends:
        await end.send_all(bytes(BUFFER))
        started = trio.current_time()
        assert await outcome(end.send_all(b"x")) == errno.EPIPE
        assert trio.current_time() == started + 2


# -- all at once --

Step: TypeAlias = "tuple[Literal['send', 'delay', 'limit', 'cut', 'heal', 'sleep'], Any]"
directions = st.sampled_from([TO_SERVER, TO_CLIENT, Direction.BOTH])
steps: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.tuples(st.sampled_from([TO_SERVER, TO_CLIENT]), st.integers(0, 200_000))),
        st.tuples(st.just("delay"), st.floats(0, 10)),
        st.tuples(st.just("limit"), st.floats(100, 1e6) | st.just(math.inf)),
        st.tuples(st.just("cut"), directions),
        st.tuples(st.just("heal"), directions),
        st.tuples(st.just("sleep"), st.floats(0, 10)),
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=60)
@given(steps, st.integers(1000, 2 * BUFFER))
def test_bytes_arrive_whole_and_in_order(script: list[Step], most: int) -> None:
    """Whatever is sent in whatever pieces, over whatever the link does meanwhile, arrives whole and in order."""
    trio.run(play, script, most, clock=MockClock(autojump_threshold=0))


async def play(script: list[Step], most: int) -> None:
    """Do all that, then heal the link, and compare."""
    network = MemoryNetwork(seed=1)
    link = network.link(A)
    client, server, _ = await connect(network)
    sent = {TO_SERVER: b"", TO_CLIENT: b""}
    to_send: dict[Direction, deque[bytes]] = {TO_SERVER: deque(), TO_CLIENT: deque()}
    done = trio.Event()

    async def send(stream: Stream, direction: Direction) -> None:
        while to_send[direction] or not done.is_set():
            if to_send[direction]:
                await stream.send_all(to_send[direction].popleft())
            else:
                await trio.sleep(0.1)
        await stream.send_eof()

    async def receive(stream: Stream, direction: Direction) -> None:
        assert await receive_all(stream, most) == sent[direction]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, client, TO_SERVER)
        nursery.start_soon(send, server, TO_CLIENT)
        nursery.start_soon(receive, server, TO_SERVER)
        nursery.start_soon(receive, client, TO_CLIENT)
        for what, argument in script:
            if what == "send":
                direction, size = argument
                data = bytes(number % 251 for number in range(len(sent[direction]), len(sent[direction]) + size))
                sent[direction] += data
                to_send[direction].append(data)
            elif what == "delay":
                link.delay(argument, jitter=argument / 2)
            elif what == "sleep":
                await trio.sleep(argument)
            else:
                getattr(link, what)(argument)
        done.set()
        link.heal()
    assert (link.bytes_to_server, link.bytes_to_client) == (len(sent[TO_SERVER]), len(sent[TO_CLIENT]))
