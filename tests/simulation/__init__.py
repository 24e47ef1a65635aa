"""Seeded random worlds against a small model of what viewreg promises. `python -m simulation --help` tells the rest."""
