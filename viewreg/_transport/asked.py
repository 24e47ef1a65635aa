"""A call whose metadata is asked for, from a function of the user's, before it begins.

Rules:
* The function runs in the task of the call, under its deadline and its cancellation; leaving the call cancels it.
* What it raises, or what may not be sent of what it returns, fails the call, which has then not begun.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final

import trio

from viewreg._boundary import describe, only_cancelled
from viewreg._errors import InvalidTypeError
from viewreg._http2.standing import FixedMetadata
from viewreg._transport.exchange import Exchange
from viewreg._transport.status import UnauthenticatedError

if TYPE_CHECKING:
    from viewreg._http2.metadata import Field
    from viewreg._http2.standing import AskedMetadata
    from viewreg._transport.subchannel import Subchannel

_NOT_YET: Final = (b"", 0)


class AskedExchange(Exchange):
    """See the module. `own` is what the call has of its own."""

    __slots__ = ("_asking", "_own", "_source")

    def __init__(
        self,
        subchannel: Subchannel,
        head: bytes,
        source: AskedMetadata,
        own: tuple[Field, ...],
        body: bytes | None,
        *,
        waits: bool,
        probe: bool,
    ) -> None:
        super().__init__(subchannel, head, _NOT_YET, body, waits=waits, probe=probe)
        self._source: Final = source
        self._own: Final = own
        self._asking: Final = trio.CancelScope()

    async def start(self) -> None:
        """Ask, then begin. Raises `UnauthenticatedError` if asking fails, and what `Exchange.start` raises."""
        await trio.lowlevel.checkpoint_if_cancelled()  # a scope that has expired asks nothing
        answered = False
        try:
            with self._asking:
                self._block, self._block_size = (await self._ask()).beneath(self._own)
                answered = True
        finally:
            if self.probe and not answered:
                self._subchannel.probes_without_metadata += 1
        if not self.ended:  # another task may have left it meanwhile: who waits for the answer is told then
            await super().start()

    def cancel(self) -> None:
        """As of any call; and the function is asked no longer."""
        self._asking.cancel()
        super().cancel()

    async def _ask(self) -> FixedMetadata:
        try:
            with only_cancelled():
                answer: object = self._source.ask()
                if not isinstance(answer, Awaitable):
                    raise InvalidTypeError(f"it returned {type(answer).__name__}: expected an async function")
                return FixedMetadata(await answer)
        except Exception as error:
            text = f"the metadata function failed: {describe(error)}"
            raise UnauthenticatedError(text, endpoint=self.endpoint) from error
