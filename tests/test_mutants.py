"""The planted bugs can be planted, and the page about them is true. Whether tests find them, `nox -s mutants` sees."""

from __future__ import annotations

import ast
from collections import Counter

import pytest

from mutants.mutant import ROOT, Mutant, StaleError
from mutants.planted import PLANTED, page
from mutants.simulated import SEEN

BY_NAME = [pytest.param(mutant, id=mutant.name) for mutant in PLANTED]


def text_of(mutant: Mutant) -> str:
    """The file that it changes, as it is."""
    return (ROOT / "viewreg" / mutant.file).read_text(encoding="utf-8")


@pytest.mark.parametrize("mutant", BY_NAME)
def test_it_can_be_planted(mutant: Mutant) -> None:
    """The text that it changes is in its file exactly once, and what is there then is still Python."""
    text = text_of(mutant)
    planted = mutant.planted_in(text)
    assert planted != text
    ast.parse(planted)


@pytest.mark.parametrize("mutant", BY_NAME)
def test_its_killer_exists(mutant: Mutant) -> None:
    """The test that finds it is in the file that is named."""
    file, _, name = mutant.killer.partition("::")
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    assert name in [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_names_and_changes_are_unique() -> None:
    """No two planted bugs share their name, or are the same change."""
    names = Counter(mutant.name for mutant in PLANTED)
    changes = Counter((mutant.file, mutant.before, mutant.after) for mutant in PLANTED)
    assert not [found for found, times in (*names.items(), *changes.items()) if times > 1]


def test_what_the_simulation_sees_is_planted() -> None:
    """It is said of bugs that there are."""
    assert {mutant.name for mutant in PLANTED} >= SEEN


def test_stale_ones_say_so() -> None:
    """A planted bug whose text is gone, or is there twice, is an error that names it, the file and the count."""
    for text in ("", "x = 1\nx = 1\n"):
        with pytest.raises(StaleError, match=rf"^one: its text is {text.count('x = 1')} times in viewreg/_view.py"):
            Mutant("one", "", "_view.py", "x = 1", "x = 2", "").planted_in(text)


def test_the_page_is_fresh() -> None:
    """docs/mutants.md is what the table says; `nox -s mutants -- --table` writes it."""
    assert (ROOT / "docs" / "mutants.md").read_text(encoding="utf-8") == page()
