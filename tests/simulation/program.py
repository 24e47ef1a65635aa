"""The program: many seeds at once, or one trace again. `nox -s simulate -- --seeds 1000`."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from attrs import define

from simulation import chance
from simulation.operations import TraceError
from simulation.shrink import shrink
from simulation.trace import Recipe, read
from simulation.world import Outcome, run

if TYPE_CHECKING:
    from collections.abc import Sequence

SHRINK_FOR: Final = 60.0  # real seconds, by default
_LINES_SHOWN: Final = 60  # of the trace of a fault; its file has all
_PROGRESS_EVERY: Final = 100  # seeds
_DIGITS: Final = 18  # of a seed; more would not be read by all that reads numbers
_MOST_HOURS: Final = 1000


@define
class Report:
    """What came of one seed."""

    seed: int
    operations: int
    lines: int
    cpu: float  # real seconds
    wrong: str = ""
    trace: str = ""  # the shrunk one, if something was wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and return the status to exit with: 1 if something was wrong."""
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    parser.add_argument("--seeds", type=_some, default=10, help="how many worlds")
    parser.add_argument("--first", type=_whole, default=0, metavar="SEED", help="of the first one; the others follow")
    parser.add_argument("--hours", type=_hours, default=1.0, help="virtual ones, of each world")
    parser.add_argument("--jobs", type=_some, default=os.cpu_count() or 1, help="processes")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--trace", action="store_true", help="print what happens in the first world, and end")
    one.add_argument("--replay", type=Path, metavar="FILE", help="do what a trace says, and print what happens")
    parser.add_argument("--any-viewreg", action="store_true", help="replay a trace of another version of viewreg, too")
    parser.add_argument(
        "--patience", type=_seconds, default=900.0, metavar="SECONDS", help="real ones, for any world to end"
    )
    parser.add_argument(
        "--shrink", type=_seconds, default=SHRINK_FOR, metavar="SECONDS", help="real ones, for each fault"
    )
    parser.add_argument("--stop", action="store_true", help="end with the first fault, and do not shrink it")
    parser.add_argument("--folder", type=_folder, default=Path(tempfile.gettempdir()), help="for traces of faults")
    options = parser.parse_args(arguments)
    if options.replay is not None:
        return _replay(options.replay, any_viewreg=options.any_viewreg)
    if options.trace:
        return _print(run(recipe_of(options.first, options.hours)))
    return _run_many(options)


def recipe_of(seed: int, hours: float) -> Recipe:
    """What a seed makes."""
    seconds = round(3600 * hours, 3)
    return Recipe(seed, seconds, tuple(chance.operations(seed, seconds)))


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 0 on, of at most {_DIGITS} digits")
    return int(text)


def _some(text: str) -> int:
    count = _whole(text)
    if not count:
        raise argparse.ArgumentTypeError(f"{text!r}: expected 1 or more")
    return count


def _hours(text: str) -> float:
    return _amount(text, "hours", _MOST_HOURS)


def _seconds(text: str) -> float:
    return _amount(text, "seconds", _MOST_HOURS * 3600)


def _amount(text: str, unit: str, most: int) -> float:
    try:
        amount = float(text)
    except ValueError:
        amount = -1.0
    if not 0 < amount <= most:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of {unit} above 0, up to {most}")
    return amount


def _folder(text: str) -> Path:
    folder = Path(text)
    if not folder.is_dir():  # found now, and not when the first fault is to be written
        raise argparse.ArgumentTypeError(f"{text!r}: expected a folder that exists")
    return folder


def _replay(file: Path, *, any_viewreg: bool) -> int:
    try:
        text = file.read_text(encoding="utf-8")
        recipe = read(text, any_viewreg=any_viewreg)
    except (OSError, UnicodeDecodeError, TraceError) as error:
        sys.stderr.write(f"{file}: {error}\n")
        return 2
    outcome = run(recipe)
    if outcome.text != text:
        sys.stderr.write(f"{file}: what happened now is not what it tells\n")
    return _print(outcome)


def _print(outcome: Outcome) -> int:
    sys.stdout.write(outcome.text)
    if outcome.error is not None:
        traceback.print_exception(outcome.error)
    return 1 if outcome.wrong else 0


def _run_many(options: argparse.Namespace) -> int:
    began = time.monotonic()
    seeds = range(options.first, options.first + options.seeds)
    one = partial(run_one, hours=options.hours, patience=0.0 if options.stop else options.shrink)
    reports: dict[int, Report] = {}
    with multiprocessing.get_context("spawn").Pool(max(1, min(options.jobs, options.seeds))) as pool:
        coming = pool.imap_unordered(one, seeds)
        while len(reports) < options.seeds:
            try:
                report = coming.next(options.patience)
            except multiprocessing.TimeoutError:  # a world whose tasks wait for ever can say nothing itself
                stuck = [str(seed) for seed in seeds if seed not in reports][: options.jobs]
                _tell(
                    f"nothing has ended for {options.patience:g} s: look at seeds {', '.join(stuck)}, each with --trace"
                )
                return 1
            reports[report.seed] = report
            if report.wrong:
                tell_fault(report, options.folder)
                if options.stop:
                    return 1
            if len(reports) % _PROGRESS_EVERY == 0:
                _tell(f"{len(reports)} seeds after {time.monotonic() - began:.0f} s")
    wrong = sorted(report.seed for report in reports.values() if report.wrong)
    _tell(
        f"{len(reports)} seeds from {options.first} on, {options.hours:g} h each: "
        f"{sum(report.operations for report in reports.values())} operations, "
        f"{sum(report.lines for report in reports.values())} lines, "
        f"{sum(report.cpu for report in reports.values()):.0f} s of CPU, {time.monotonic() - began:.0f} s"
    )
    _tell(f"wrong: {len(wrong)}, seeds {', '.join(map(str, wrong))}" if wrong else "all is well")
    return 1 if wrong else 0


def run_one(seed: int, hours: float, patience: float, **knobs: Any) -> Report:
    """Run the world of a seed; of one that goes wrong, find the smallest trace, for so many real seconds, if any."""
    began = time.process_time()
    recipe = recipe_of(seed, hours)
    outcome = run(recipe, **knobs)
    report = Report(seed, len(recipe.operations), len(outcome.lines), time.process_time() - began, outcome.wrong)
    if outcome.wrong and not patience:
        report.trace = outcome.text
    elif outcome.wrong:
        smallest = shrink(recipe, outcome.wrong, outcome.at, lambda candidate: run(candidate, **knobs).wrong, patience)
        report.trace = run(smallest, **knobs).text
    return report


def _abridged(trace: str) -> str:
    """A trace for a terminal: of a long one, what was done and how it ended."""
    lines = trace.splitlines(keepends=True)
    if len(lines) <= _LINES_SHOWN:
        return trace
    last = len(lines) - _LINES_SHOWN // 2
    return "".join(
        line for number, line in enumerate(lines) if number in (0, *range(last, len(lines))) or " > " in line
    )


def _tell(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def tell_fault(report: Report, folder: Path) -> None:
    """Print what was wrong with a seed, and write its smallest trace to a file of the folder."""
    file = folder / f"viewreg-simulation-{report.seed}.trace"
    file.write_text(report.trace, encoding="utf-8")
    _tell(f"seed {report.seed}: {report.wrong}\n{_abridged(report.trace)}replay it: nox -s simulate -- --replay {file}")
