"""Seeded random worlds against a small model of what viewreg promises. `python -m simulation --help` tells the rest."""

import viewreg._transport.purerpc  # noqa: F401  # first: purerpc cannot be imported beside h2 4 without it
