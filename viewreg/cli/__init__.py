"""The command `viewreg`: see a registry at work, watch real servers, ask one of them, run a fake one.

This module imports nothing that the extra `cli` brings, so that it can say in one line what is missing.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_NEEDED = ("cyclopts", "rich")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default `sys.argv`, and return the exit status.

    0 is success; 1: what was asked about is not well; 2: it cannot be done as it was asked; 130: Ctrl-C ended it.
    """
    try:
        from viewreg.cli._app import run
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _NEEDED:
            raise
        print(f"viewreg: needs the package {missing}: pip install 'viewreg[cli]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return run(sys.argv[1:] if arguments is None else arguments)
