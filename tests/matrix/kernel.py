"""What the kernel, or the network, does to a connection: the rows that need real sockets.

A row says for each moment what has become of all; the times are at least these, because sockets live in real time.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Final

import attrs
from attrs import evolve

from matrix import namespaces, places
from matrix.cells import AWAY, Effect, Fault, Senseless
from matrix.places import CONNECT_TIMEOUT, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, Place
from matrix.rows import CLOSED, MUTE, lost

if TYPE_CHECKING:
    from matrix.rows import Columns


@attrs.frozen(kw_only=True)
class KernelFault(Fault):
    """A row whose fault happens at a place."""

    place: Callable[[], AbstractAsyncContextManager[Place]]
    needs: Callable[[], str] = lambda: ""
    """What is missing for it on this machine."""


def only_dials(why: str) -> Columns:
    """The columns of a row that concerns nothing but dials."""
    columns = ("idle", "unary", "stream", "probe", "close")
    return dict.fromkeys(columns, Senseless(why))


def not_connected(why: str, within: float = 0.0) -> Effect:
    """The dial comes to nothing."""
    return Effect(view=AWAY, history=(f"connecting failed: {why}",), within=within)


def left(why: str) -> Columns:
    """The columns of a row in which the server ends the connection."""
    return {**lost(why), "connect": not_connected(f"{why} {MUTE}"), "close": evolve(CLOSED, within=0.0)}


def noticed_by_keepalive(connect: str) -> Columns:
    """The columns of a row in which the server does not say a word any more."""
    within = KEEPALIVE_INTERVAL + KEEPALIVE_TIMEOUT
    columns = lost(f"no answer to a keepalive PING within {KEEPALIVE_TIMEOUT:g} s")
    silent = {name: evolve(effect, within=within) for name, effect in columns.items()}
    return {**silent, "connect": not_connected(connect, CONNECT_TIMEOUT), "close": evolve(CLOSED, within=0.0)}


NO_SETTINGS: Final = f"no SETTINGS from the server within {CONNECT_TIMEOUT:g} s"
NO_DIAL: Final = f"no answer to the connection within {CONNECT_TIMEOUT:g} s"
RESET: Final = "Connection reset by peer (ECONNRESET)"
END: Final = "the server closed the connection"

KERNEL: Final = [
    KernelFault(
        name="refuse",
        place=places.open_unlistened,
        connect=not_connected("Connection refused (ECONNREFUSED)"),
        **only_dials("only a dial can be refused"),
    ),
    KernelFault(
        name="black-hole SYN",
        place=places.open_full,
        connect=not_connected(NO_DIAL, CONNECT_TIMEOUT),
        **only_dials("only a dial sends a SYN"),
    ),
    KernelFault(
        name="accept and stay mute",
        place=places.open_mute,
        connect=not_connected(NO_SETTINGS, CONNECT_TIMEOUT),
        **only_dials("a server that falls silent later is the row SIGSTOP"),
    ),
    KernelFault(name="RST", place=places.open_resetting, **left(RESET)),
    KernelFault(name="EOF", place=places.open_ending, **left(END)),
    KernelFault(name="SIGSTOP", place=places.open_frozen, **noticed_by_keepalive(NO_SETTINGS)),
    KernelFault(
        name="network cut",
        place=places.open_cut,
        needs=namespaces.missing,
        **noticed_by_keepalive(NO_DIAL),
    ),
]
