"""What the commands write: coloured where a terminal shows it, plain lines everywhere else. NO_COLOR is respected."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.text import Text

from viewreg._errors import ViewregError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

STYLES: Final = {"healthy": "green", "unhealthy": "red", "added": "cyan", "removed": "yellow"}


class _Console(Console):
    def print(self, *objects: Any, **options: Any) -> None:  # noqa: ANN401 (rich's, all of them)
        with writing():
            super().print(*objects, **options)

    def on_broken_pipe(self) -> None:
        # rich would raise SystemExit, in the middle of whatever runs.
        raise  # noqa: PLE0704 (called by rich while it handles the BrokenPipeError)


out: Final = _Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
_err: Final = _Console(highlight=False, soft_wrap=True, markup=False, emoji=False, stderr=True)


def say(*parts: str | tuple[str, str]) -> None:
    """Write one line, of texts and of (text, style) pairs. What a server said cannot break it, nor the terminal."""
    out.print(_assemble(parts))


@contextmanager
def writing() -> Iterator[None]:
    """Say in a line that standard output takes no more, a reader that has gone away excepted."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_output()
        raise ViewregError(f"cannot write to standard output: {error.strerror}") from error


def drop_output() -> None:
    """Send the rest nowhere: what is left in the buffer would raise once more when the interpreter flushes it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say_error(text: str) -> None:
    """Write one line to standard error."""
    _err.print(_assemble([("viewreg: ", "bold red"), " ".join(text.split())]))


def _assemble(parts: Iterable[str | tuple[str, str]]) -> Text:
    pairs = ((part, "") if isinstance(part, str) else part for part in parts)
    return Text.assemble(*((_printable(text), style) for text, style in pairs))


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def say_fields(fields: Iterable[tuple[str, object]], indent: str = "") -> None:
    """Write names and values, one pair a line, aligned."""
    pairs = [(f"{name}:", value) for name, value in fields]
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        say(indent, (f"{name:<{width}} ", "bold"), str(value))


def time_text(unix_seconds: float) -> str:
    """A wall time to the millisecond, such as 14:03:07.042."""
    milliseconds = int(unix_seconds * 1000)
    return f"{time.strftime('%H:%M:%S', time.localtime(milliseconds // 1000))}.{milliseconds % 1000:03}"


# Up to how many seconds, in which unit, with how many decimals.
_UNITS: Final = ((0.01, 1000, "ms", 1), (1.0, 1000, "ms", 0), (10.0, 1, "s", 2), (float("inf"), 1, "s", 1))


def seconds_text(seconds: float) -> str:
    """A duration for people: 0.4 ms, 38 ms, 1.25 s, 10.1 s."""
    _, factor, unit, decimals = next(row for row in _UNITS if seconds < row[0])
    return f"{seconds * factor:.{decimals}f} {unit}"
