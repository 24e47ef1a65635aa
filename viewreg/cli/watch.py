"""`viewreg watch`: what becomes of servers that exist, one line for each change."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import trio

from viewreg._errors import InvalidValueError, UnknownViewError
from viewreg._health import Event
from viewreg._locator import StaticLocator
from viewreg._open import open_registry
from viewreg.cli._output import STYLES, say, time_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ssl import SSLContext

    from viewreg._health import HistoryEntry
    from viewreg._registry import Registry
    from viewreg._snapshot import Change
    from viewreg._view import View

# A view may change in between, but nothing has been found out yet that would be worth a line.
_NO_NEWS = frozenset({Event.CONNECTING, Event.CONNECTED, Event.REPLACING})


async def watch(
    targets: Sequence[str], seconds: float | None, ssl_context: SSLContext | None, server_hostname: str | None
) -> int:
    """Print changes until cancelled, or for so many seconds. Returns 0 if there are views and all are healthy."""
    async with open_registry(_locator(targets), ssl_context=ssl_context, server_hostname=server_hostname) as registry:
        with trio.move_on_after(float("inf") if seconds is None else seconds):
            async for change in registry.changes():
                _tell(registry, change)
        views = registry.all_views()
        return 0 if views and all(view.healthy for view in views) else 1


def _locator(targets: Sequence[str]) -> StaticLocator | str:
    uris = [target for target in targets if "://" in target and not target.startswith("tcp://")]
    if not uris:
        return StaticLocator(targets)
    if len(targets) > 1:
        raise InvalidValueError(f"{' '.join(targets)}: expected addresses, or one locator URI alone")
    return uris[0]


def _tell(registry: Registry, change: Change) -> None:
    now = time.time()
    for view in change.removed:
        _line(now, view, "removed", "the locator no longer lists it")
    for view in change.added:
        _line(now, view, "added", "connecting")
    for view in (*change.added, *change.updated):
        entry = _last(registry, view)
        if entry is None or entry.what in _NO_NEWS:
            continue
        if view.healthy:
            partition = f" [{view.partition}]" if view.partition else ""
            _line(entry.wall, view, "healthy", f"{view.features or 'no features'}{partition}", entry.what.value)
        else:
            _line(entry.wall, view, "unhealthy", str(entry))


def _last(registry: Registry, view: View) -> HistoryEntry | None:
    try:
        return registry.history(view.endpoint)[-1] if view.endpoint else None
    except (UnknownViewError, IndexError):  # removed meanwhile, which the next change tells; or not tried yet
        return None


def _line(wall: float, view: View, state: str, *texts: str) -> None:
    host_port = view.endpoint.host_port if view.endpoint else ""
    say((time_text(wall), "dim"), f"  {host_port:<21}  ", (f"{state:<9}  ", STYLES[state]), "  ".join(texts))
