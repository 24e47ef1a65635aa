from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent

PROJECT: dict[str, Any] = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text())


def _python(program: str) -> str:
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT)
    return run.stdout


def test_wheel_has_every_top_level_name() -> None:
    """The wheel gets every module and package at the top of the tree that is there to be imported by users."""
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    modules = {path.name for path in ROOT.glob("*.py")}
    assert set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]) == (
        (packages | modules) - {"noxfile.py", "tests"}
    )


@pytest.mark.parametrize("path", ["README.md", "LICENSE", "NOTICE", "viewreg/py.typed"])
def test_files_of_the_distribution_exist(path: str) -> None:
    """What the metadata names, and what says that viewreg is typed, is there."""
    assert ROOT.joinpath(path).is_file()


def test_programs_are_executable() -> None:
    """The scripts that others start by path can be started."""
    scripts = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-scripts"]
    for path in [".ci/run", *scripts]:
        assert os.access(ROOT / path, os.X_OK)
        assert ROOT.joinpath(path).read_text().startswith("#!/usr/bin/env ")


def test_console_scripts_can_be_called() -> None:
    """Each console script names a function that exists."""
    for target in PROJECT["project"]["scripts"].values():
        module, _, function = target.partition(":")
        assert _python(f"import {module} as module; print(callable(module.{function}))") == "True\n"


def _normal(name: str) -> str:
    return name.lower().replace("_", "-")


def test_every_import_is_declared() -> None:
    """Each package that viewreg or its plugin imports is a dependency or belongs to an extra."""
    extras = PROJECT["project"]["optional-dependencies"]
    declared = {
        _normal(re.split(r"[^\w-]", text)[0])
        for text in [*PROJECT["project"]["dependencies"], *(text for texts in extras.values() for text in texts)]
    }
    files = [*ROOT.joinpath("viewreg").rglob("*.py"), ROOT / "pytest_viewreg.py"]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in files]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    modules = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    modules += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    # h2 is not ours to declare: it is patched for purerpc, which brings it.
    imported = {name.partition(".")[0] for name in modules} - sys.stdlib_module_names - {"viewreg", "h2"}
    installed = packages_distributions()
    undeclared = {name for name in imported if not declared & set(map(_normal, installed.get(name, [name])))}
    assert undeclared == set()


def test_import_is_light() -> None:
    """`import viewreg` registers no messages of package rpc, so that a program with a copy of its own still starts."""
    assert _python("import sys, viewreg; print('viewreg.rpc' in sys.modules)") == "False\n"
