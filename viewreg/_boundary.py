"""The boundary around code of users' (dial, probe, locator): what it raises is told, and never taken for a bug of ours.

Rules:
* `except Exception` stands only at this boundary, and `only_cancelled` inside it: code that fails while it is being
  cancelled raises a group of both, and the failure must not outlive the cancellation.
* Saying what happened must not fail either, whatever the exception is.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio

from viewreg._tls_words import TlsFailedError, tls_words

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_CLOSE_TIME: Final = 1.0  # seconds
_LONGEST_TEXT: Final = 1_000  # characters of an exception; some quote all that a server has sent
_DRAIN_PASSES: Final = 5  # scheduler passes: enough to poll the network, to read, and to wake whom it concerns


@contextmanager
def only_cancelled() -> Iterator[None]:
    """Let of a group of cancellations and ordinary errors only the cancellations pass."""
    try:
        yield
    except BaseExceptionGroup as group:
        cancelled, others = group.split(trio.Cancelled)
        if cancelled is None or others is None or others.split(Exception)[1] is not None:
            raise
        raise cancelled from None


def raise_exit(group: BaseExceptionGroup[BaseException]) -> None:
    """Raise what is neither an error nor a cancellation, if a group has such: Ctrl-C, or an exit."""
    for leaf in _leaves(group):
        if not isinstance(leaf, Exception | trio.Cancelled):
            raise leaf from None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


class HeldBack:
    """Keeps what its block raises from a nursery around it, which would make a group of it. `release` raises it."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> bool:
        self.error = error
        return True

    def release(self) -> None:
        """Raise it, as itself."""
        error, self.error = self.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # no cycle through this frame


async def close_iterator(iterator: object) -> None:
    """Let an iterator of a user's clean up, if it can, for a second. Shielded; what it raises comes out."""
    aclose = getattr(iterator, "aclose", None)
    if aclose is not None:
        with trio.move_on_after(_CLOSE_TIME, shield=True):
            await aclose()


async def let_readers_drain() -> None:
    """Before a server is blamed for silence: let readers take what has arrived while this process was busy."""
    for _ in range(_DRAIN_PASSES):
        await trio.lowlevel.checkpoint()


def describe(error: BaseException) -> str:
    """Why it failed, in words that an operator knows: the innermost system error's text and its name, if there is one.

    "Connection refused (ECONNREFUSED)", "Name or service not known (EAI_NONAME)", what `tls_words` says of TLS, or the
    error's type and the first thousand characters of its text.
    """
    found = _innermost(error)
    if isinstance(found, TlsFailedError):
        return str(found)
    if isinstance(found, socket.gaierror):
        names = [name for name in dir(socket) if name.startswith("EAI_") and getattr(socket, name) == found.errno]
        return f"{found.strerror} ({names[0]})" if names else str(found.strerror)
    of_tls = isinstance(found, ssl.SSLError)  # an OSError, but its number is OpenSSL's
    if isinstance(found, OSError) and not of_tls and type(found.errno) is int and found.errno in errno.errorcode:
        return f"{os.strerror(found.errno)} ({errno.errorcode[found.errno]})"
    kind = type(found).__name__
    try:
        if isinstance(found, ssl.SSLError):
            return tls_words(found)
        text = str(found)[:_LONGEST_TEXT]
    except Exception:  # noqa: BLE001 (a user's exception may have a broken __str__)
        text = ""
    return f"{kind}: {text}" if text else kind


def was_reset(error: BaseException) -> bool:
    """Whether it says that the other side has broken the connection, not why."""
    return isinstance(_innermost(error), ConnectionResetError | BrokenPipeError | ssl.SSLEOFError)


def _innermost(error: BaseException) -> BaseException:
    """The system error under Trio's and others' wrappings; of several addresses' errors, the first."""
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        elif isinstance(error, OSError) and error.errno is not None:
            break
        elif isinstance(error, OSError | trio.BrokenResourceError) and error.__cause__ is not None:
            error = error.__cause__
    return error
