"""The example of an application under test works, with nothing but what users have."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "app_under_test"


def test_its_suite_passes() -> None:
    """Its tests pass with the plugin of this tree; the report says how long its ten virtual minutes took in reality."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:viewreg", "-p", "pytest_viewreg"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--durations=1", str(EXAMPLE)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        check=False,
    )
    sys.stdout.write(done.stdout + done.stderr)
    assert done.returncode == 0
    assert "test_ten_bad_minutes" in done.stdout


@pytest.mark.parametrize("path", sorted(EXAMPLE.glob("*.py")), ids=lambda path: path.name)
def test_it_is_made_of_public_things(path: Path) -> None:
    """Of viewreg it imports only what is public, and it has no use for real time."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name for name in modules if name.startswith("viewreg")} <= {"viewreg", "viewreg.rpc", "viewreg.testing"}
    assert "time" not in modules
