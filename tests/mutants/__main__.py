"""Plant each bug in a copy of the tree, and see that its test finds it: `nox -s mutants -- --only NAME --jobs 2`.

First all of these tests run on the tree as it is, where they have to pass. Then, for each bug: the happy path, which
has to pass, and the bug's own test, which has to fail. A test that hangs has found the bug, too. The exit code is 1 if
a bug survives, breaks the happy path, or changes a text that is no longer there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import frozen

from mutants.mutant import ROOT, Mutant, StaleError
from mutants.planted import PLANTED, page
from mutants.simulated import SEEN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HAPPY_LIMIT: Final = 40.0  # seconds
KILLER_LIMIT: Final = (
    20.0  # seconds; these tests take one or two. Before pytest's own, so that a hang is told from a failure
)
ALL_LIMIT: Final = 900.0  # seconds, for the tests of all bugs in one run
WORLDS_LIMIT: Final = 600.0  # seconds, for simulated worlds; half a minute is usual
WORLDS: Final = ("--seeds", "30", "--hours", "0.25", "--jobs", "1", "--stop")
NEEDED: Final = ("viewreg", "tests", "examples", "docs", "proto", "pyproject.toml", "pytest_viewreg.py", "README.md")
PASSED, FAILED = 0, 1  # pytest's exit codes; others say that no test ran


@frozen
class Ran:
    """How a process ended: its exit code, None if it had to be ended, and what it said."""

    code: int | None
    said: str


@frozen
class Result:
    """What became of one bug."""

    mutant: Mutant
    fault: str  # what is wrong with it as a planted bug; nothing if it was found
    happy_path: str
    outcome: str
    seconds: float

    def __str__(self) -> str:
        killer = f"{self.outcome} {self.mutant.killer}" if self.outcome else ""
        return f"{self.mutant.name:44} {self.happy_path:8} {self.seconds:5.1f} s  {self.fault or killer}\n"


def main() -> int:
    """Run what the command line says. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="mutants", description="plant bugs, and see that tests find them")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these bugs, or all whose name contains it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at once")
    parser.add_argument("--simulation", action="store_true", help="tell which ones the simulation finds, too")
    parser.add_argument("--table", action="store_true", help="write docs/mutants.md, and nothing else")
    options = parser.parse_args()
    if options.table:
        (ROOT / "docs" / "mutants.md").write_text(page(), encoding="utf-8")
        return 0
    chosen = [mutant for mutant in PLANTED if not options.only or any(part in mutant.name for part in options.only)]
    if not chosen:
        sys.stdout.write(f"no bug is called {' or '.join(options.only)}: see docs/mutants.md\n")
        return 1
    if options.simulation:
        return simulate(chosen, options.jobs)
    without = run_unbroken(chosen)
    if without.code != PASSED:
        sys.stdout.write(f"the tree is broken without any planted bug:\n{without.said}\n")
        return 1
    results = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for result in pool.map(judge, chosen):
            sys.stdout.write(str(result))
            sys.stdout.flush()
            results.append(result)
    bad = [result for result in results if result.fault]
    sys.stdout.write(f"{len(results) - len(bad)} of {len(results)} planted bugs were found\n")
    sys.stdout.writelines(f"{result.mutant.name}: {result.fault}\n" for result in bad)
    return 1 if bad else 0


def run_unbroken(chosen: Sequence[Mutant]) -> Ran:
    """Happy path and tests on a copy of the tree as it is: a test that fails there says nothing about a bug."""
    with copy_of_the_tree() as root:
        happy = run_happy_path(root)
        return happy if happy.code != 0 else run_tests(root, {mutant.killer for mutant in chosen}, ALL_LIMIT)


def simulate(chosen: Sequence[Mutant], jobs: int) -> int:
    """Run simulated worlds with each bug, and compare what is found with what is said of it. Returns the exit code."""
    wrong = 0
    with ThreadPoolExecutor(jobs) as pool:
        for mutant, (seen, said) in zip(chosen, pool.map(is_seen, chosen), strict=True):
            wrong += seen != (mutant.name in SEEN)
            unsaid = "" if seen == (mutant.name in SEEN) else "; tests/mutants/simulated.py says otherwise"
            sys.stdout.write(f"{mutant.name:44} {'seen' if seen else 'not seen'}{unsaid}  {said}\n")
            sys.stdout.flush()
    return 1 if wrong else 0


def is_seen(mutant: Mutant) -> tuple[bool, str]:
    """Whether the simulation finds a bug, and what it says then."""
    with copy_of_the_tree() as root:
        mutant.plant(root)
        found = run(root, WORLDS_LIMIT, "-m", "simulation", *WORLDS, "--folder", str(root))
    return found.code != PASSED, "it hangs" if found.code is None else found.said.partition("\n")[0]


def judge(mutant: Mutant) -> Result:
    """Plant one bug, and run both."""
    started = time.monotonic()

    def result(fault: str, happy_path: str = "", outcome: str = "") -> Result:
        return Result(mutant, fault, happy_path, outcome, time.monotonic() - started)

    with copy_of_the_tree() as root:
        try:
            mutant.plant(root)
        except StaleError as error:
            return result(f"STALE: {error}")
        happy = run_happy_path(root)
        if happy.code != 0:
            why = "it hangs" if happy.code is None else happy.said.strip().rpartition("\n")[2]
            return result(f"BREAKS THE HAPPY PATH: {why}", "broken")
        found = run_tests(root, {mutant.killer}, KILLER_LIMIT)
        if found.code == PASSED:
            return result(f"SURVIVES {mutant.killer}", "passes")
        if found.code not in (FAILED, None):
            return result(f"NO TEST RAN: {found.said[-500:]}", "passes")
        return result("", "passes", "hung in" if found.code is None else "found by")


@contextmanager
def copy_of_the_tree() -> Iterator[Path]:
    """What the tests need, in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="viewreg-mutant-") as folder:
        for name in NEEDED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, Path(folder, name), ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, folder)
        yield Path(folder)


def run_happy_path(root: Path) -> Ran:
    """Find, call and lose servers, with the copy's viewreg."""
    return run(root, HAPPY_LIMIT, "-m", "mutants.happy_path", str(root))


def run_tests(root: Path, killers: set[str], limit: float) -> Ran:
    """Run tests of the copy, until the first one fails."""
    tests = sorted(f"tests/{killer}" for killer in killers)
    return run(root, limit, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests)


def run(root: Path, limit: float, *arguments: str) -> Ran:
    """Run a Python program in the copy. When its time is over, all that it has started is ended, too."""
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}", "PYTHONDONTWRITEBYTECODE": ""}
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        return Ran(None, said)
    return Ran(process.returncode, said)


if __name__ == "__main__":
    sys.exit(main())
