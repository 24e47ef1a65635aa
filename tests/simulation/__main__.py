"""`python -m simulation`: see `simulation.program`."""

from __future__ import annotations

import sys

from simulation.program import main

if __name__ == "__main__":
    sys.exit(main())
