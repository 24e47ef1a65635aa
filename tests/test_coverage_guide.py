"""What docs/coverage.md shows works as it is shown."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

import viewreg
from fleet import all_healthy, open_fleet, stats
from viewreg.rpc import LookupSRequest

if TYPE_CHECKING:
    import pytest
    from trio.testing import MockClock

GUIDE = Path(__file__).parent.parent / "docs" / "coverage.md"


async def test_what_is_shown_runs(autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]) -> None:
    """All that is shown, one after the other, in a registry of two servers for each of two partitions and encodings."""
    shown = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(shown) == 6
    names: dict[str, Any] = {**vars(viewreg), "trio": trio, "LookupSRequest": LookupSRequest}
    arguments = "registry, snapshot"
    exec(f"async def guide({arguments}):\n" + textwrap.indent("\n".join(shown), "    "), names)
    async with open_fleet() as fleet:
        for number, host in enumerate("abcdefgh"):
            lower = (0, 2**63) if number < 4 else (2**63, 0)
            fleet[f"{host}:1"].view.stats = stats("SPO" if number % 2 else "POS", *lower)
        async with fleet.open(*[f"{host}:1" for host in "abcdefgh"]) as registry:
            snapshot = await registry.wait_until(all_healthy)
            await names["guide"](registry, snapshot)
    assert f"print(coverage)  # {capsys.readouterr().out.splitlines()[0]}\n" in shown[0]
