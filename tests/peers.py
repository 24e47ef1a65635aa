"""`H2View`: a view server in memory for tests, which works by itself.

Rules:
* It lives on any Trio stream, one end of `memory_stream_pair()` for one, and uses no time but Trio's: so it works in
  virtual time. It opens no socket.
* It stands on the `h2` package, not on the code under test. Its knobs are attributes that may change at any time.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import trio
from attrs import define, field
from trio.testing import memory_stream_pair

from viewreg.testing import PeerRequest
from viewreg.testing.frames import RESPONSE, goaway, message, status_fields

if TYPE_CHECKING:
    from viewreg.rpc import StatsResult

_EVENTS: Final[Any] = h2.events  # its types say nothing, or differ from version to version

_PATIENCE: Final = 60.0  # seconds of Trio's clock that a view waits for what a test expects


class H2View:
    """A view server in memory: `stream = view.connect(nursery)`, or `nursery.start_soon(view.serve, stream)`.

    It answers `/rpc.Diagnostics/stats` with `stats` (None: status UNIMPLEMENTED), a path in `replies` with the messages
    there, and any other with an echo of the messages of the request. It answers when the request is complete.
    """

    def __init__(
        self, stats: StatsResult | None = None, *, delay: float = 0.0, hang: bool = False, status: int = 0
    ) -> None:
        # Knobs, for the test to turn. They act on the next request.
        self.stats = stats
        self.replies: dict[str, list[bytes]] = {}
        self.delay = delay  # seconds of Trio's clock between a request and its answer
        self.hang = hang  # never answer
        self.status = status  # answer with this gRPC status and no message, unless it is 0
        self.details = ""  # the words beside it
        self.max_concurrent_streams: int | None = None  # for connections made from now on
        # What happened, for the test to look at.
        self.requests: Final[list[PeerRequest]] = []  # complete ones, in order
        self.resets: Final[list[tuple[int, int]]] = []  # stream id and code of each RST_STREAM of a client
        self.abandoned: Final[list[str]] = []  # paths of requests that were open when the client closed
        self.connections_made = 0
        self._connections: Final[set[_Connection]] = set()
        self._frozen = False
        self._requested = trio.Event()  # swapped at every request

    @property
    def frozen(self) -> bool:
        """A knob: write nothing, no answers to PINGs either. What is due leaves when it is set back."""
        return self._frozen

    @frozen.setter
    def frozen(self, value: bool) -> None:
        self._frozen = value
        for connection in self._connections:
            connection.wake_writer()

    @property
    def open_streams(self) -> int:
        """Requests that have begun and are neither answered nor reset."""
        return sum(len(connection.calls) for connection in self._connections)

    @property
    def open_paths(self) -> list[str]:
        """What they ask for."""
        heads = [dict(call.head) for connection in self._connections for call in connection.calls.values()]
        return [head[b":path"].decode() for head in heads]

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._connections)

    def connect(self, nursery: trio.Nursery) -> trio.abc.Stream:
        """A client's end of a new connection, which is served in the nursery."""
        client, server = memory_stream_pair()
        nursery.start_soon(self.serve, server)
        return client

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serve one connection until either side ends it."""
        self.connections_made += 1
        connection = _Connection(self, stream)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            await trio.aclose_forcefully(stream)

    def cut(self) -> None:
        """End all connections, without a word."""
        for connection in self._connections:
            connection.scope.cancel()

    def go_away(self, code: int = 0, debug: bytes = b"") -> None:
        """Send GOAWAY on all connections: requests that have begun are still answered, later ones are ignored."""
        for connection in self._connections:
            connection.go_away(code, debug)

    async def wait_requests(self, count: int) -> None:
        """Wait until so many requests have arrived in all. Fails after a minute."""
        with trio.fail_after(_PATIENCE):
            while len(self.requests) < count:
                await self._requested.wait()

    def note(self, request: PeerRequest) -> None:
        """For the connections: a request is complete."""
        self.requests.append(request)
        old, self._requested = self._requested, trio.Event()
        old.set()


@define
class _Call:
    head: tuple[tuple[bytes, bytes], ...]
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    body: bytearray = field(factory=bytearray)


class _Connection:
    def __init__(self, view: H2View, stream: trio.abc.Stream) -> None:
        self.scope: Final = trio.CancelScope()
        self.calls: Final[dict[int, _Call]] = {}
        self._view: Final = view
        self._stream: Final = stream
        self._h2: Final[Any] = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding=None)
        )
        self._raw = b""  # frames that h2 does not know of
        self._last_stream_id: float = math.inf  # later ones are ignored
        self._writable = trio.Event()  # swapped by the writer
        self._window = trio.Event()  # swapped when the client gives window

    async def run(self) -> None:
        try:
            with self.scope, suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                async with trio.open_nursery() as nursery:
                    self._h2.initiate_connection()
                    if self._view.max_concurrent_streams is not None:
                        self._h2.update_settings({0x3: self._view.max_concurrent_streams})
                    nursery.start_soon(self._write)
                    self.wake_writer()
                    await self._read(nursery)
                    nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client has closed; a nursery says so in a group
        finally:
            self.calls.clear()

    def go_away(self, code: int, debug: bytes) -> None:
        # h2 would end its state machine, and the requests that have begun with it.
        self._last_stream_id = self._h2.highest_inbound_stream_id
        self._raw += goaway(self._h2.highest_inbound_stream_id, code, debug)
        self.wake_writer()

    def wake_writer(self) -> None:
        self._writable.set()

    async def _read(self, nursery: trio.Nursery) -> None:
        while received := await self._stream.receive_some(65_536):
            try:
                events = self._h2.receive_data(received)
            except h2.exceptions.ProtocolError as error:
                raise AssertionError(f"the client broke the protocol: {error!r}") from error
            for event in events:
                self._on_event(event, nursery)
            self.wake_writer()
        self._view.abandoned.extend(dict(call.head)[b":path"].decode() for call in self.calls.values())

    def _on_event(self, event: Any, nursery: trio.Nursery) -> None:
        if isinstance(event, _EVENTS.RequestReceived):
            if event.stream_id <= self._last_stream_id:
                head = tuple((bytes(name), bytes(value)) for name, value in event.headers)
                self.calls[event.stream_id] = _Call(head)
        elif isinstance(event, _EVENTS.DataReceived):
            if event.flow_controlled_length:
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if event.stream_id in self.calls:
                self.calls[event.stream_id].body += event.data
        elif isinstance(event, _EVENTS.StreamEnded):
            if event.stream_id in self.calls:
                nursery.start_soon(self._answer, event.stream_id, self.calls[event.stream_id])
        elif isinstance(event, _EVENTS.StreamReset):
            self._view.resets.append((event.stream_id, int(event.error_code)))
            call = self.calls.pop(event.stream_id, None)
            if call is not None:
                call.scope.cancel()
        elif isinstance(event, (_EVENTS.WindowUpdated, _EVENTS.RemoteSettingsChanged)):
            old, self._window = self._window, trio.Event()
            old.set()

    async def _answer(self, stream_id: int, call: _Call) -> None:
        view = self._view
        path = dict(call.head)[b":path"].decode()
        view.note(PeerRequest(stream_id, path, call.head, bytes(call.body)))
        with call.scope:
            if view.delay:
                await trio.sleep(view.delay)
            if view.hang:
                await trio.sleep_forever()
            if self._is_over() or stream_id not in self.calls:  # it may have been reset in the same step
                return
            status, body = self._reply(path, bytes(call.body))
            fields = status_fields(status, view.details if status else "")
            if status:
                self._h2.send_headers(stream_id, (*RESPONSE, *fields), end_stream=True)
            else:
                self._h2.send_headers(stream_id, RESPONSE)
                await self._send(stream_id, body)
                if self._is_over():
                    return
                self._h2.send_headers(stream_id, fields, end_stream=True)
            self.calls.pop(stream_id, None)
            self.wake_writer()

    def _is_over(self) -> bool:
        """The client has said GOAWAY: h2 can send nothing any more."""
        return bool(self._h2.state_machine.state is h2.connection.ConnectionState.CLOSED)

    def _reply(self, path: str, body: bytes) -> tuple[int, bytes]:
        view = self._view
        if view.status:
            return view.status, b""
        if path in view.replies:
            return 0, b"".join(message(reply) for reply in view.replies[path])
        if path != "/rpc.Diagnostics/stats":
            return 0, body
        if view.stats is None:
            return 12, b""
        return 0, message(view.stats.SerializeToString())

    async def _send(self, stream_id: int, body: bytes) -> None:
        while body and not self._is_over():
            size = min(len(body), self._h2.local_flow_control_window(stream_id), self._h2.max_outbound_frame_size)
            if size <= 0:
                self.wake_writer()
                await self._window.wait()
                continue
            self._h2.send_data(stream_id, body[:size])
            body = body[size:]

    async def _write(self) -> None:
        while True:
            await self._writable.wait()
            self._writable = trio.Event()
            if not self._view.frozen:
                due = self._h2.data_to_send() + self._raw
                self._raw = b""
                if due:
                    await self._stream.send_all(due)
