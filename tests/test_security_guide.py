"""What docs/security.md shows works as it is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from test_testing_guide import PLUGINS, ROOT, shown_in

if TYPE_CHECKING:
    import pytest

pytest_plugins = "pytester"

PAGE = "docs/security.md"


def test_every_program_passes(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each program of the page is a test, and pasted into a file it passes, warnings counting as errors."""
    programs = shown_in(PAGE)
    assert ROOT.joinpath(PAGE).read_text(encoding="utf-8").count("```") == 2 * len(programs)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeini("[pytest]\ntrio_mode = true\n")
    pytester.makepyfile(**{f"test_{number}": program for number, program in enumerate(programs)})
    done = pytester.runpytest_subprocess(*PLUGINS, "-W", "error", "--strict-markers")
    done.assert_outcomes(passed=len(programs))
