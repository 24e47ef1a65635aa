"""One end of a connection in memory: a stream that a Trio program cannot tell from a `trio.SocketStream`.

Rules:
* TCP is the model, errors included: a closed end answers bytes with a reset; one that closes with bytes unread sends a
  reset in place of its end; what arrived before a reset can still be read; writing after both is a broken pipe.
* Whoever waits looks again at everything once woken: a wake-up may come for nothing.
* Cancelled, receiving has taken nothing, and sending has sent a part, as with sockets.
"""

from __future__ import annotations

import errno
import math
from typing import TYPE_CHECKING, Final

import trio

from viewreg._errors import check_int
from viewreg.testing._pipe import BUFFER_SIZE, broken

if TYPE_CHECKING:
    from collections.abc import Callable

    from viewreg.testing._pipe import Pipe

_NEVER: Final = math.inf


class MemoryStream(trio.abc.HalfCloseableStream):
    """One end of a connection in memory. To a Trio program it is a `trio.SocketStream`, buffers and errors included.

    `send_all` waits while 64 KiB of what it sent are not read. One task may send and one receive at a time.
    """

    def __init__(self, receives: Pipe, sends: Pipe, on_close: Callable[[], None]) -> None:
        self.closed = False
        self.killed = False  # its program died: set by `kill`
        self.frozen = False  # its program stands still: set by `set_frozen`
        self.sends: Final = sends
        self.receives: Final = receives
        self._sent_eof = False
        self._sending = False
        self._receiving = False
        self._on_close: Final = on_close

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for bytes and return some, at most so many (64 KiB by default); none at the end. See `trio.abc`."""
        if max_bytes is None:
            max_bytes = BUFFER_SIZE
        else:
            check_int("max_bytes", max_bytes, 1)
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this stream already")
        self._receiving = True
        try:
            pipe = self.receives
            if self.gone or pipe.next_at() < _NEVER:  # else it sleeps, which is a checkpoint
                await trio.lowlevel.checkpoint()
            while True:
                self._check_open()
                if self.frozen:
                    await pipe.reader.sleep()
                    continue
                data = pipe.pull(max_bytes)
                if data is not None:
                    return data
                await pipe.reader.sleep(pipe.next_at())
        finally:
            self._receiving = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all bytes: wait until the last is in the buffer. See `trio.abc`."""
        if self._sent_eof:
            raise trio.ClosedResourceError("the end has been sent on this stream already")
        await self._send(data if type(data) is bytes else bytes(memoryview(data)))

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room in the buffer, or an error to be had. See `trio.abc`."""
        await self._send(None)

    async def send_eof(self) -> None:
        """Send the end, after what was sent; receiving goes on. Idempotent. See `trio.abc`."""
        await self._send(b"")
        self._sent_eof = True
        self.sends.end()

    async def _send(self, data: bytes | None) -> None:
        """Send; or, given None, wait until that is possible."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream already")
        self._sending = True
        sends = self.sends
        try:
            if self.gone or sends.ended or self.receives.was_reset:
                await trio.lowlevel.checkpoint()  # for what is raised below
            else:
                await trio.lowlevel.checkpoint_if_cancelled()
            at = 0
            while True:
                self._check_sendable()
                if self.frozen:
                    await sends.writer.sleep()
                    continue
                if data is None:
                    if sends.size < BUFFER_SIZE:
                        break
                else:
                    if data and sends.ended and not sends.deserted:  # the network has ended it
                        raise broken(errno.EPIPE)
                    at += sends.push(data, at)
                    if at == len(data):
                        break
                await sends.writer.sleep(self.receives.reset_at)
            await trio.lowlevel.cancel_shielded_checkpoint()  # as on a socket: what was sent was sent
        finally:
            self._sending = False

    def _check_sendable(self) -> None:
        self._check_open()
        receives = self.receives
        if receives.was_reset and receives.reset_at <= trio.current_time():
            raise broken(errno.EPIPE if receives.ended else errno.ECONNRESET)

    def _check_open(self) -> None:
        if self.closed:
            raise trio.ClosedResourceError("this stream has been closed")
        if self.killed:
            raise broken(errno.ECONNABORTED)

    async def aclose(self) -> None:
        """Close this end and wake who waits on it. A checkpoint; closed also if it is cancelled. Idempotent."""
        if not self.closed:
            self.closed = True
            if not self.killed:
                self._release()
        await trio.lowlevel.checkpoint()

    @property
    def gone(self) -> bool:
        """Whether nobody holds it any more."""
        return self.closed or self.killed

    def kill(self, *, reset: bool = False) -> None:
        """Its program died: the kernel closes its socket, and nobody is there to be told. `reset`: by a reset."""
        if not self.gone:
            self.killed = True
            self._release(reset=reset)

    def _release(self, *, reset: bool = False) -> None:
        """What the kernel does with a socket that nobody holds any more."""
        if reset or self.receives.arrived():
            self.sends.reset()
        else:
            self.sends.end()
        self.receives.desert()
        self._wake()
        self._on_close()

    def set_frozen(self, frozen: bool) -> None:  # noqa: FBT001 (it is named by the method)
        """Let its program stand still, or go on."""
        self.frozen = frozen
        self._wake()

    def _wake(self) -> None:
        self.receives.reader.wake()
        self.sends.writer.wake()
