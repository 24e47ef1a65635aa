"""One planted bug, as data."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from attrs import frozen

ROOT: Final = Path(__file__).parents[2]


class StaleError(Exception):
    """The text that a mutant changes is not in its file, or not only once."""


@frozen
class Mutant:
    """A change of one text in one file. It leaves the happy path whole; `killer` fails with it, and passes without."""

    name: str
    breaks: str  # what is wrong then, in words
    file: str  # below viewreg/
    before: str  # occurs exactly once
    after: str
    killer: str  # file below tests/, and the test in it

    def plant(self, root: Path) -> None:
        """Break the tree below `root`. Raises `StaleError`."""
        path = root / "viewreg" / self.file
        path.write_text(self.planted_in(path.read_text(encoding="utf-8")), encoding="utf-8")

    def planted_in(self, text: str) -> str:
        """The file's text with the bug. Raises `StaleError`."""
        found = text.count(self.before)
        if found != 1:
            raise StaleError(f"{self.name}: its text is {found} times in viewreg/{self.file}, expected once")
        return text.replace(self.before, self.after)
