"""One HTTP/2 connection over one Trio stream: a reader, a writer, and a watch that notices silence.

Rules:
* Whoever has something to say appends whole frames to the protocol's outbox, synchronously, and the `Writer` sees to it
  that they leave: so a cancelled caller never tears a frame, and resetting a stream needs no await.
* Whoever finds out that the connection is lost, which is mostly the reader, tells everyone in the same step.
* Silence is blamed on the server only after the reader has had its turn: a stalled client never blames the server.
* Leaving `run`, for any reason, closes the stream. The outbox gets `CLOSE_GRACE` to empty; then it is closed by force.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

import trio

from viewreg._boundary import describe, let_readers_drain, only_cancelled, was_reset
from viewreg._http2.errors import ConnectionFailedError
from viewreg._http2.frames import ErrorCode, error_name
from viewreg._http2.protocol import GoAway, PingAnswered, SettingsReceived, WindowOpened
from viewreg._http2.protocol import Protocol as Http2
from viewreg._http2.stream import Stream
from viewreg._transport.plain import receiver
from viewreg._transport.writer import Writer

if TYPE_CHECKING:
    from viewreg._config import Config

CLOSE_GRACE: Final = 0.1  # seconds for the last frames of a connection that is being left
OUTBOX_LIMIT: Final = 64 * 1024  # bytes; past it whoever sends DATA waits
PINGS_BETWEEN_ANSWERS: Final = 2  # servers count PINGs as strikes until they next send something (gRPC A8)
_UNHEARD: Final = " before it said anything: it may expect TLS"
_PAUSE: Final = 1.0  # seconds of silence after which what comes is no part of a flood: servers ask by PING, too
PING_WITHOUT_STRIKE: Final = 300.0  # seconds after the last PING that cost no strike in any case: grpc core's default
ROUND_TRIPS_KEPT: Final = 4  # with probes each 10 s, what is known of a server is less than a minute old


class Owner(Protocol):
    """Who is told what becomes of a connection. All of it is called synchronously, from the connection's tasks."""

    def connection_ready(self, connection: Connection) -> None:
        """The server's first SETTINGS are here: calls may be made."""

    def connection_draining(self, connection: Connection, reason: str) -> None:
        """The server takes no new calls and finishes those it has."""

    def connection_lost(self, connection: Connection, reason: str) -> None:
        """It is gone. Every call on it has failed already. Told once."""

    def slots_freed(self, connection: Connection) -> None:
        """Calls that wait for a free stream may look again."""


class Sender(Protocol):
    """Whoever has DATA left that the windows or the outbox did not take."""

    def wake_sender(self) -> None:
        """Try again."""


class Connection:
    """See the module. Made by the supervisor, which starts `run` in its nursery and is told by `Owner`'s methods."""

    def __init__(self, stream: trio.abc.Stream, config: Config, owner: Owner, keepalive_interval: float) -> None:
        self.http2: Final = Http2()
        self.told_to_calm_down = False  # by GOAWAY ENHANCE_YOUR_CALM: too many PINGs, most likely
        self._keepalive_interval: Final = keepalive_interval
        self.ready = False  # the server's SETTINGS are here; also after it was lost
        self.lost: str | None = None  # why; written by `_lose`, once
        self._stream: Final = stream
        self._config: Final = config
        self._owner: Final = owner
        self._writer: Final = Writer(stream, self.http2, self._outbox_emptied)
        # Who has DATA left, in the order in which they began to wait: for a window, or for room in the outbox.
        self._without_window: dict[Sender, None] = {}
        self._without_room: dict[Sender, None] = {}
        self._write_error = ""
        self._leaving = "the connection was closed by this side"
        self._now: Final = trio.lowlevel.current_clock().current_time  # asked at every read: not by way of the run
        self.heard = self._now()  # when the server last said something; written by the reader
        self.round_trips: tuple[float, ...] = ()  # the last few, in seconds; written by `measured`
        self._pinged: float | None = None  # when the PING left that has not been answered yet
        self._scope: Final = trio.CancelScope()
        self._crowd = 0  # calls that were open when the server was last heard
        self._silent = False  # set when a PING is queued; unset by the reader
        self._pings = 0  # since the server last sent something of its own accord
        self.answered = self._now()  # when that was, or when this began; written by the reader

    # -- for calls --

    @property
    def has_room(self) -> bool:
        """Whether the outbox takes more. If it does not, the server does not read."""
        return self.http2.outbox_size < OUTBOX_LIMIT

    @property
    def free_streams(self) -> int:
        """How many calls may begin now."""
        # In full, and not by `has_room`: it is asked for every call. So is `Subchannel.start_queued`.
        return self.http2.free_streams if self.http2.outbox_size < OUTBOX_LIMIT else 0

    def open_stream(self, stream: Stream, block: bytes, body: bytes | None, sender: Sender) -> memoryview | None:
        """Begin a call. Returns what of the body has still to be sent by `send`; see `Protocol.open_stream`."""
        room = max(0, OUTBOX_LIMIT - self.http2.outbox_size)
        rest = self.http2.open_stream(stream, block, body, room)
        if rest is not None:
            self._block(sender)
        self._flush()
        return rest

    def send(self, stream: Stream, data: memoryview, sender: Sender, *, end_stream: bool) -> memoryview | None:
        """Queue what windows and outbox take. Returns the rest; `sender` is woken when it is worth trying again."""
        room = max(0, OUTBOX_LIMIT - self.http2.outbox_size)
        rest = self.http2.send_data(stream, data, end_stream=end_stream, limit=room)
        if rest is not None:
            self._block(sender)
        self._flush()
        return rest

    def end_request(self, stream: Stream) -> None:
        """Half-close a call."""
        self.http2.end_request(stream)
        self._flush()

    def reset(self, stream: Stream, code: ErrorCode = ErrorCode.CANCEL) -> None:
        """End a call from this side. Does nothing if it is over."""
        if stream.id in self.http2.streams:
            self.http2.reset_stream(stream, code)
            self._flush()
            self._stream_left()

    def forget(self, sender: Sender) -> None:
        """The sender has gone; do not wake it any more."""
        self._without_window.pop(sender, None)
        self._without_room.pop(sender, None)

    def take_message(self, stream: Stream) -> bytes:
        """The message at the stream's head; its bytes are given back to the server as window."""
        message = self.http2.take_message(stream)
        if self.http2.outbox_size:
            self._flush()
        if stream.failure is not None:  # found behind it, just now: nobody else tells
            stream.wake()
            self._stream_left()
        return message

    def measured(self, seconds: float) -> None:
        """A round trip took so long."""
        self.round_trips = (*self.round_trips[1 - ROUND_TRIPS_KEPT :], seconds)

    # -- life --

    async def run(self) -> None:
        """Read and write until the connection is lost, drained or cancelled. Raises nothing that the peer causes."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._writer.begin(lambda: nursery.start_soon(self._write))
                    self._flush()  # the preface
                    nursery.start_soon(self._keep_alive)
                    try:
                        await self._read()
                    finally:
                        # Cancelled from outside, or by the writer: then nobody has said why yet.
                        self.close(self._write_error or self._leaving)
        finally:
            with suppress(Exception), only_cancelled():  # the stream is the user's, and may raise anything
                await trio.aclose_forcefully(self._stream)

    def drain(self, reason: str) -> None:
        """End as soon as no call is left; no new one may begin. Those that are cut short after all get `reason`."""
        self.http2.going_away = True
        self._leaving = reason
        if not self.http2.streams:
            self.close(reason)

    def close(self, reason: str) -> None:
        """End it now: every call fails with `reason`, what lies in the outbox may leave within `CLOSE_GRACE`."""
        self._lose(reason)
        self.http2.close()
        self._writer.close(trio.current_time() + CLOSE_GRACE)
        self._scope.cancel()

    async def _read(self) -> None:  # noqa: C901 (the one loop of a connection: calls out of it cost every call)
        receive_some, http2, unheard = receiver(self._stream), self.http2, _UNHEARD
        while True:
            try:
                data = await receive_some()
            except Exception as error:  # noqa: BLE001 (the stream is the user's, and may raise anything)
                self._lose(describe(error) + (unheard if was_reset(error) else ""))
                return
            if self.lost is not None:  # closed in the step in which this arrived: GOAWAY was the last word
                return
            if not data:
                self._lose("the server closed the connection" + unheard)
                return
            unheard = ""
            now = self._now()
            if now >= self.heard + _PAUSE:
                http2.pause()
            self.heard = now
            self._silent = False
            self._crowd = len(http2.streams)
            try:
                events = http2.receive(data)
            except ConnectionFailedError as error:
                self._lose(f"the server broke the protocol: {error}")
                return
            for event in events:
                if isinstance(event, Stream):
                    self._pings = 0
                    self.answered = now
                    event.wake()
                elif isinstance(event, WindowOpened):
                    senders, self._without_window = self._without_window, {}
                    _wake(senders)
                elif isinstance(event, SettingsReceived):
                    self.ready = True
                    self._owner.connection_ready(self)
                elif isinstance(event, PingAnswered):
                    self._ping_answered()
                elif not self._go_away(event):
                    return
            if http2.outbox_size:
                self._flush()
            if events:
                self._owner.slots_freed(self)
            if http2.going_away and not http2.streams:
                self._lose("the connection was drained")
                return

    def _ping_answered(self) -> None:
        if self._pinged is not None:
            self.measured(self.heard - self._pinged)
            self._pinged = None

    def _go_away(self, event: GoAway) -> bool:
        """Whether the connection goes on, for the calls that it still has."""
        reason = f"the server sent GOAWAY {error_name(event.code)}" + (f": {event.debug}" if event.debug else "")
        if event.code != ErrorCode.NO_ERROR:
            self.told_to_calm_down = event.code == ErrorCode.ENHANCE_YOUR_CALM
            self._lose(reason)
            return False
        self._owner.connection_draining(self, reason)
        return True

    async def _write(self) -> None:
        error = await self._writer.run()
        if error:
            # The reader may still find a better reason in what has arrived: a GOAWAY with words, for one.
            self._write_error = error
            self._scope.deadline = trio.current_time() + CLOSE_GRACE

    async def _keep_alive(self) -> None:
        """Ask after silence; end the connection if there is no answer."""
        asked = -PING_WITHOUT_STRIKE
        interval, timeout = self._keepalive_interval, self._config.keepalive_timeout
        while True:
            await trio.sleep_until(self.heard + interval)
            await let_readers_drain()
            if trio.current_time() < self.heard + interval:
                continue
            if self._pings >= PINGS_BETWEEN_ANSWERS and trio.current_time() < asked + PING_WITHOUT_STRIKE:
                await trio.sleep(interval)
                continue
            self._pings += 1
            self._silent = True
            asked, emptied = trio.current_time(), self._writer.emptied
            self._pinged = asked
            self.http2.ping(b"viewreg\0")
            self._flush()
            await trio.sleep(timeout)
            if self._writer.emptied == emptied:
                await trio.sleep(timeout)  # the PING could not leave: the time for its answer has hardly begun
            if self._silent:
                await let_readers_drain()
            if self._silent:
                self.close(f"no answer to a keepalive PING within {timeout:g} s")
                return

    def _stream_left(self) -> None:
        """This side has ended a stream: it was the last one, or another call may begin."""
        if self.http2.going_away and not self.http2.streams:
            self.close("the connection was drained")
        else:
            self._owner.slots_freed(self)

    def _flush(self) -> None:
        """Have sent what is in the outbox: at once, unless others have something to send that can leave together."""
        self._writer.flush(at_once=self._crowd <= 1 and len(self.http2.streams) <= 1 and not self._without_room)

    def _block(self, sender: Sender) -> None:
        blocked = self._without_window if self.has_room else self._without_room
        blocked[sender] = None

    def _outbox_emptied(self) -> None:
        senders, self._without_room = self._without_room, {}
        _wake(senders)
        self._owner.slots_freed(self)

    def _lose(self, reason: str) -> None:
        """Tell every call and the owner, once, in this very step."""
        if self.lost is not None:
            return
        self.lost = reason
        for stream in self.http2.lose(reason):
            stream.wake()
        _wake(self._without_window | self._without_room)
        self._owner.connection_lost(self, reason)


def _wake(senders: dict[Sender, None]) -> None:
    for sender in senders:
        sender.wake_sender()
