"""Calls that fail while a message is taken, because what lies behind it is bad: everybody who is concerned is told."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from nasty.nasty_pb2 import Answer, Order
from sockets import GUARD, stream_of, tcp_pair
from transport import open_channel, open_scripted
from viewreg import InternalError
from viewreg.testing import ScriptedPeer
from viewreg.testing.frames import data, goaway, headers, message

GOOD = message(Answer(number=1).SerializeToString())
GOOD_AND_BAD = GOOD + message(b"x", compressed=True)


async def test_a_sender_is_told(autojump_clock: object) -> None:
    """A sender that waits for a window ends with its call, also if what ended it lay behind a good message."""
    ended: list[str] = []
    with trio.fail_after(GUARD):
        async with open_scripted() as (line, peer):
            talk = await line.stub.talk()

            async def send() -> None:
                try:
                    await talk.send_message(Order(payload=bytes(1024 * 1024)))
                except InternalError as error:
                    ended.append(error.details)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                head = await peer.expect("HEADERS")
                await peer.send(headers(head.stream_id), data(head.stream_id, GOOD_AND_BAD))
                await talk.receive_message()
                with pytest.raises(InternalError):
                    await talk.receive_message()
    assert len(ended) == 1


async def test_the_next_call_begins() -> None:
    """A stream that is freed so goes to the call that waits for one, on a plain socket too."""
    with trio.fail_after(GUARD), tcp_pair() as (near, far):
        peer = ScriptedPeer(stream_of(far), patience=GUARD)
        async with open_channel(stream=stream_of(near)) as line, trio.open_nursery() as nursery:
            nursery.start_soon(peer.handshake, {0x3: 1})
            await line.channel.wait_ready()
            await wait_all_tasks_blocked()
            answers = line.stub.listen(Order())
            nursery.start_soon(anext, answers)
            head = await peer.expect("HEADERS")
            nursery.start_soon(line.stub.ask, Order())  # waits for the stream
            await peer.send(headers(head.stream_id), data(head.stream_id, GOOD_AND_BAD))
            await peer.expect("RST_STREAM", stream_id=1)
            await peer.expect("HEADERS", stream_id=3)
            await answers.aclose()
            nursery.cancel_scope.cancel()


async def test_a_drained_connection_is_closed() -> None:
    """A connection that is to end with its last call ends with one that fails so, too."""
    with trio.fail_after(GUARD), tcp_pair() as (near, far):
        peer = ScriptedPeer(stream_of(far), patience=GUARD)
        async with open_channel(stream=stream_of(near)) as line, trio.open_nursery() as nursery:
            nursery.start_soon(peer.handshake)
            await line.channel.wait_ready()
            await wait_all_tasks_blocked()
            answers = line.stub.listen(Order())
            arrived = trio.Event()

            async def take_two() -> None:
                await anext(answers)
                await arrived.wait()
                await anext(answers)

            nursery.start_soon(take_two)
            head = await peer.expect("HEADERS")
            await peer.send(headers(head.stream_id), data(head.stream_id, GOOD), goaway(1))
            while not line.connection.http2.going_away:
                await trio.lowlevel.checkpoint()
            await peer.send(data(head.stream_id, GOOD_AND_BAD))
            arrived.set()
            await peer.expect_end()
            await answers.aclose()
            nursery.cancel_scope.cancel()
