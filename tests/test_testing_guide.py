"""What docs/testing.md and README show of tests works as it is shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

pytest_plugins = "pytester"

ROOT = Path(__file__).parent.parent
PLUGINS = ("-p", "no:asyncio", "-p", "no:viewreg", "-p", "pytest_viewreg")


def shown_in(page: str) -> list[str]:
    """The programs of a page that are tests."""
    programs = re.findall(r"```python\n(.*?)```", ROOT.joinpath(page).read_text(encoding="utf-8"), re.DOTALL)
    return [program for program in programs if "def test_" in program]


def test_every_test_that_is_shown_passes(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pasted into a file, each program that has a test in it passes, warnings counting as errors."""
    guide, readme = shown_in("docs/testing.md"), shown_in("README.md")
    assert len(guide) >= 8
    assert len(readme) == 1
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeini("[pytest]\ntrio_mode = true\n")
    pytester.makepyfile(**{f"test_{number}": program for number, program in enumerate([*guide, *readme])})
    done = pytester.runpytest_subprocess(*PLUGINS, "-W", "error", "--strict-markers")
    done.assert_outcomes(passed=len(guide) + len(readme))


def test_every_program_of_the_guide_is_a_test() -> None:
    """The guide shows no program that is not run."""
    fences = ROOT.joinpath("docs/testing.md").read_text(encoding="utf-8").count("```")
    assert fences == 2 * len(shown_in("docs/testing.md"))
