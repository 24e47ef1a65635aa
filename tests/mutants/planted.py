"""All planted bugs, and the page of docs that lists them."""

from __future__ import annotations

from typing import Final

from mutants.planted_in_choice import IN_CHOICE
from mutants.planted_in_http2 import IN_HTTP2
from mutants.planted_in_probes import IN_PROBES
from mutants.planted_in_registry import IN_REGISTRY
from mutants.planted_in_transport import IN_TRANSPORT
from mutants.simulated import SEEN

PLANTED: Final = (*IN_REGISTRY, *IN_PROBES, *IN_CHOICE, *IN_TRANSPORT, *IN_HTTP2)

_HEAD: Final = """\
# Planted bugs

What would the tests notice? Below are {count} ways to break viewreg that a person could really choose. With each of
them three servers are still discovered, found healthy, called, and one of them removed: nobody who only tries it out
would see a thing. For each there is a test that does. `nox -s mutants` plants one after the other in a copy of the tree
and runs both; it fails if a bug survives, if one breaks the happy path, and if the text that it changes is gone.

This page is written by that program (`nox -s mutants -- --table`), and the tests compare.

The [simulation](simulation.md), which knows of none of them, sees {seen}, too, in thirty worlds of a quarter of an
hour: they are marked. `nox -s mutants -- --simulation` runs it with each. The others are of what its worlds do not have
(probes that watch, fan-outs, TLS, servers that bound their streams, all of HTTP/2 that its own servers do not speak),
or of what it does not ask for (what is logged, what is cheap).

| bug | what is wrong then | where | found by | simulation |
|---|---|---|---|---|
"""


def page() -> str:
    """The text of docs/mutants.md."""
    rows = [
        f"| {mutant.name} | {mutant.breaks} | `{mutant.file}` | `{mutant.killer.replace('.py::', '::')}` |"
        f" {'sees it' if mutant.name in SEEN else ''} |\n"
        for mutant in PLANTED
    ]
    return _HEAD.format(count=len(PLANTED), seen=len(SEEN)) + "".join(rows)
