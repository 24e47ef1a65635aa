"""The way to one address of a network in memory: what becomes of dials, of what is sent, and of open connections.

Rules:
* Whatever is set acts at once, on what is under way too: that is sent anew, in order.
* A link does not wait; only its dials do. They ask for what is set when they reach the server.
* What dies with a host is the listener's (`MemoryListener`); what happens on the way is the link's.
"""

from __future__ import annotations

import enum
import errno
import os
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio
from attrs import evolve

from viewreg._errors import InvalidTypeError, InvalidValueError
from viewreg.testing._pipe import Pace, Pipe, Way
from viewreg.testing._stream import MemoryStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from viewreg._endpoint import Endpoint
    from viewreg.testing._network import MemoryListener

_DIALS_KEPT: Final = 10_000


class Direction(enum.Flag):
    """Which way something goes on a `Link`."""

    TO_SERVER = enum.auto()
    """From who dials to who listens."""

    TO_CLIENT = enum.auto()
    """From who listens to who dials."""

    BOTH = TO_SERVER | TO_CLIENT
    """Both ways."""


class Link:
    """The way to one address. Made by `MemoryNetwork.link`; at first it accepts dials, and nothing takes time.

    Its methods act at once. Whatever they do, what arrives arrives whole and in order.
    """

    def __init__(self, endpoint: Endpoint, seed: int) -> None:
        self.endpoint: Final = endpoint
        self.listener: MemoryListener | None = None  # who listens; set by `MemoryNetwork.listen` and the listener
        self._answer = _Answer.ACCEPT
        self._dials: Final[deque[float]] = deque(maxlen=_DIALS_KEPT)
        self._ways: Final = {
            direction: Way(f"{seed} {endpoint.host_port} {direction.name}")
            for direction in (Direction.TO_SERVER, Direction.TO_CLIENT)
        }
        # Until both ends are closed; in the order of their making.
        self._connections: Final[dict[Connection, None]] = {}

    # -- what is to be seen --

    @property
    def dials(self) -> tuple[float, ...]:
        """When each dial began, by Trio's clock: the last 10,000, oldest first, failed ones included."""
        return tuple(self._dials)

    @property
    def connections(self) -> int:
        """How many connections are open: their client has not closed its end."""
        return sum(not connection.client.closed for connection in self._connections)

    @property
    def bytes_to_server(self) -> int:
        """How many bytes clients have sent, arrived or not."""
        return self._ways[Direction.TO_SERVER].passed

    @property
    def bytes_to_client(self) -> int:
        """How many bytes servers have sent, arrived or not."""
        return self._ways[Direction.TO_CLIENT].passed

    # -- what becomes of dials: of each one as it is set when the dial reaches the server --

    def accept(self) -> None:
        """Let dials reach who listens; they are refused if nobody does. As at first."""
        self._answer = _Answer.ACCEPT

    def refuse(self) -> None:
        """Refuse dials, as a host does on whose port nobody listens. Open connections stay."""
        self._answer = _Answer.REFUSE

    def black_hole(self) -> None:
        """Lose dials: those never end, whatever is set later. Open connections stay."""
        self._answer = _Answer.LOSE

    # -- what becomes of what is sent --

    def delay(self, seconds: float, *, jitter: float = 0.0) -> None:
        """Let bytes, ends and resets take so many seconds each way, and a dial a round trip; 0 to 86,400.

        With `jitter`, 0 to `seconds`, each takes up to so much less or more, drawn evenly, but overtakes nothing. What
        is under way is sent anew.
        """
        self._set(evolve(self._pace, delay=seconds, jitter=jitter))

    def limit(self, rate: float) -> None:
        """Let each connection carry so many bytes a second each way: 1 to 1e12, or `math.inf` for no limit.

        They arrive by packets of 1,460 bytes. What is under way is sent anew.
        """
        self._set(evolve(self._pace, rate=rate))

    def cut(self, direction: Direction = Direction.BOTH) -> None:
        """Let nothing pass: no dial, no byte, no end, no reset. Nothing is lost: it waits until `heal`.

        What has arrived can be read, and senders fill their buffers.
        """
        self._cut(direction, cut=True)

    def heal(self, direction: Direction = Direction.BOTH) -> None:
        """Undo `cut`: what waits is sent now, in order."""
        self._cut(direction, cut=False)

    def restore(self) -> None:
        """Let all be as at first: dials accepted, no delay, no limit, nothing cut. What is under way arrives now.

        Open connections stay, and so does a listener that is frozen or closed: it is no part of the way.
        """
        self._answer = _Answer.ACCEPT
        with self._changing(Direction.BOTH):
            for way in self._ways.values():
                way.pace, way.cut = Pace(), False

    # -- what becomes of open connections --

    def reset(self) -> None:
        """Break all connections: both ends get BrokenResourceError, from ConnectionResetError.

        It takes no time, but does not pass where the link is cut, before `heal`. What is under way is lost; what has
        arrived can be read.
        """
        for connection in self._connections:
            connection.to_server.snap()
            connection.to_client.snap()

    def half_close(self) -> None:
        """End what servers send, after what they have sent. Clients may go on sending, and servers receiving."""
        for connection in self._connections:
            connection.to_client.end()

    def close(self) -> None:
        """End all connections, both ways, after what was sent: each end sees the other one close, without a word."""
        for connection in self._connections:
            connection.to_server.close()
            connection.to_client.close()

    # -- for the network --

    async def dial(self) -> MemoryStream:
        """`MemoryNetwork.dial`, for this address."""
        self._dials.append(trio.current_time())
        await self._ways[Direction.TO_SERVER].cross()
        listener = self.listener if self._answer is not _Answer.REFUSE else None
        if self._answer is _Answer.LOSE or (listener is not None and listener.is_full()):
            await trio.sleep_forever()
        await self._ways[Direction.TO_CLIENT].cross()
        if listener is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        connection = Connection(self._ways[Direction.TO_SERVER], self._ways[Direction.TO_CLIENT], self._closed)
        self._connections[connection] = None
        listener.add(connection)
        return connection.client

    def connections_to(self, listener: MemoryListener) -> list[Connection]:
        """Those that it has accepted or will."""
        return [connection for connection in self._connections if connection.listener is listener]

    def _closed(self, connection: Connection) -> None:
        if connection.client.gone and connection.server.gone:
            self._connections.pop(connection, None)

    @property
    def _pace(self) -> Pace:
        return self._ways[Direction.TO_SERVER].pace  # the same each way

    def _set(self, pace: Pace) -> None:
        with self._changing(Direction.BOTH):
            for way in self._ways.values():
                way.pace = pace

    def _cut(self, direction: Direction, *, cut: bool) -> None:
        if not isinstance(direction, Direction):
            raise InvalidTypeError(f"direction {direction!r}: expected a Direction")
        if not direction:
            raise InvalidValueError(f"direction {direction!r}: expected Direction.TO_SERVER, TO_CLIENT or BOTH")
        for one, way in self._ways.items():
            if one in direction and way.cut is not cut:
                with self._changing(one):
                    way.cut = cut

    @contextmanager
    def _changing(self, direction: Direction) -> Iterator[None]:
        """The block changes ways: what is under way on them is sent anew."""
        pipes = [pipe for connection in self._connections for pipe in connection.pipes(direction)]
        for pipe in pipes:
            pipe.hold()
        yield
        for pipe in pipes:
            pipe.release()
        for one, way in self._ways.items():
            if one in direction:
                way.change()

    def __str__(self) -> str:
        return self.endpoint.host_port


class _Answer(enum.Enum):
    """What becomes of a dial."""

    ACCEPT = enum.auto()
    REFUSE = enum.auto()
    LOSE = enum.auto()


class Connection:
    """Two ends and two pipes."""

    def __init__(self, to_server: Way, to_client: Way, on_close: Callable[[Connection], None]) -> None:
        self.listener: MemoryListener | None = None  # by `MemoryListener.add`
        self.to_server: Final = Pipe(to_server)
        self.to_client: Final = Pipe(to_client)
        self.to_server.back, self.to_client.back = self.to_client, self.to_server
        self.client: Final = MemoryStream(self.to_client, self.to_server, lambda: on_close(self))
        self.server: Final = MemoryStream(self.to_server, self.to_client, lambda: on_close(self))

    def pipes(self, direction: Direction) -> Iterator[Pipe]:
        """Those of a direction."""
        if Direction.TO_SERVER in direction:
            yield self.to_server
        if Direction.TO_CLIENT in direction:
            yield self.to_client
