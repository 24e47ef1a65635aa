"""`python -m viewreg` is the command `viewreg`."""

import sys

from viewreg.cli import main

if __name__ == "__main__":
    sys.exit(main())
