"""A network in memory: a `dial` on streams that carry real bytes, and a test decides what becomes of them.

    network = MemoryNetwork()
    nursery.start_soon(trio.serve_listeners, serve, [network.listen("a:1")])
    async with open_registry(StaticLocator(["a:1"]), dial=network.dial) as registry:
        ...
        network.link("a:1").cut()

Rules:
* A network owns no task and knows no time but Trio's: it works in virtual time (`trio.testing.MockClock`) and in real.
* The only chance in it is jitter, which is made of the network's seed, the address, the way and the moment: Trio runs
  the tasks of one moment in any order, and that must not change the times.
* No names are looked up: an address is exactly its text.
"""

from __future__ import annotations

from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Final

import trio

from viewreg._endpoint import Endpoint
from viewreg._errors import ViewregError, check_int
from viewreg.testing._link import Link
from viewreg.testing._pipe import Sleeper

if TYPE_CHECKING:
    from viewreg.testing._link import Connection
    from viewreg.testing._stream import MemoryStream

_BACKLOG: Final = 4_096  # connections that wait for `accept`; Linux' and Trio's default


class MemoryNetwork:
    """Addresses, and the ways to them. Its `dial` is for `open_registry(dial=...)`.

    `seed` (0 or more) is what the jitter of links is drawn from: the same seed gives the same times.
    """

    def __init__(self, seed: int = 0) -> None:
        check_int("seed", seed, 0)
        self._seed: Final = seed
        self._links: Final[dict[str, Link]] = {}
        self._numbers: Final = count(1)  # of new hosts

    def link(self, address: Endpoint | str) -> Link:
        """Return the way to an address (``"host:port"``), whether anybody listens there or not; always the same one.

        Raises `InvalidValueError` or `InvalidTypeError` for an address that is none, such as one without a port.
        """
        endpoint = address if isinstance(address, Endpoint) else Endpoint.parse(address)
        link = self._links.get(endpoint.host_port)
        if link is None:
            link = self._links[endpoint.host_port] = Link(endpoint, self._seed)
        return link

    def listen(self, address: Endpoint | str) -> MemoryListener:
        """Listen at an address. For `trio.serve_listeners`, or `MemoryListener.accept`.

        Raises `ViewregError` if somebody listens there already, and what `link` raises. There is no port 0 to ask for a
        free one: all of them are the test's.
        """
        link = self.link(address)
        if link.listener is not None:
            raise ViewregError(f"{link}: in use already; close the listener there first, or listen at another port")
        link.listener = MemoryListener(link)
        return link.listener

    def new_host(self) -> str:
        """Return a host name that has not been named on this network yet: "host1", "host2", ..."""
        used = {link.endpoint.host for link in self._links.values()}
        return next(host for number in self._numbers if (host := f"host{number}") not in used)

    async def dial(self, endpoint: Endpoint) -> trio.abc.HalfCloseableStream:
        """Connect to an endpoint, as its link lets: that may take time, or for ever. A checkpoint.

        Raises ConnectionRefusedError if nobody listens there, or the link refuses. Cancelled, it leaves nothing behind.
        """
        return await self.link(endpoint).dial()


class MemoryListener(trio.abc.Listener[trio.abc.HalfCloseableStream]):
    """Who listens at an address. Made by `MemoryNetwork.listen`.

    Closed, it raises `trio.ClosedResourceError` from `accept`, and so from `trio.serve_listeners`, as one of sockets.
    """

    def __init__(self, link: Link) -> None:
        self._link: Final = link
        self._closed = False
        self._frozen = False
        self._accepting = False
        self._waiting: Final[deque[MemoryStream]] = deque()  # connections not accepted yet
        self._acceptor: Final = Sleeper()

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens, for a locator."""
        return self._link.endpoint

    async def accept(self) -> trio.abc.HalfCloseableStream:
        """Wait for a connection and return its end. See `trio.abc.Listener`."""
        if self._accepting:
            raise trio.BusyResourceError("another task is accepting from this listener already")
        self._accepting = True
        try:
            await trio.lowlevel.checkpoint()
            while not self._closed:
                if self._waiting and not self._frozen:
                    return self._waiting.popleft()
                await self._acceptor.sleep()
            raise trio.ClosedResourceError("this listener has been closed")
        finally:
            self._accepting = False

    def freeze(self) -> None:
        """Let its host's program stand still, as SIGSTOP does: no accepting, receiving or sending until `thaw`.

        The host's kernel goes on: dials succeed, bytes are taken up to the buffers, and ends may be closed.
        """
        self._set_frozen(frozen=True)

    def thaw(self) -> None:
        """Let the program go on."""
        self._set_frozen(frozen=False)

    def close(self) -> None:
        """Take no more dials. Connections that were not accepted yet are reset, accepted ones live on. Idempotent."""
        if not self._closed:
            self._closed = True
            self._link.listener = None
            while self._waiting:
                self._waiting.popleft().kill(reset=True)
            self._acceptor.wake()

    async def aclose(self) -> None:
        """As `close`. A checkpoint."""
        self.close()
        await trio.lowlevel.checkpoint()

    def kill(self) -> None:
        """Close it and all its connections, as the kernel does for a process that died.

        Clients see the end; or a reset, where the server had not read all. The server's tasks, which in a test live on,
        get BrokenResourceError, from ConnectionAbortedError.
        """
        self.close()
        for connection in self._link.connections_to(self):
            connection.server.kill()

    # -- for the link --

    def is_full(self) -> bool:
        """Whether the kernel takes no notice of dials, so many wait to be accepted."""
        return len(self._waiting) >= _BACKLOG

    def add(self, connection: Connection) -> None:
        """A dial has succeeded."""
        connection.listener = self
        if self._closed:  # while the dial was on its way back
            connection.server.kill(reset=True)
        else:
            self._waiting.append(connection.server)
            self._acceptor.wake()

    def _set_frozen(self, *, frozen: bool) -> None:
        self._frozen = frozen
        for connection in self._link.connections_to(self):
            connection.server.set_frozen(frozen)
        self._acceptor.wake()
