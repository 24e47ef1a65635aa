"""Some small worlds of the simulation, and the simulation itself: it is the same each time, and it can fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from simulation.operations import TraceError, parse
from simulation.program import main, recipe_of, run_one, tell_fault
from simulation.trace import VERSION, VIEWREG, Recipe, read
from simulation.world import run
from viewreg import Backoff

ROOT = Path(__file__).parent.parent
HEADER = f"viewreg simulation {VERSION}, viewreg {VIEWREG}, seed 17, 60 s"
END = "60.000000 the end\n"
SEED, HOURS = 7, 0.05  # of the world that is run again and again

UP = ("0 start h1:1", "0.001 list h1:1", "0.002 open")
REMOVED_WITH_A_CALL = (*UP, "1 behave h1:1 hang 0", "2 call 1 h1:1 ask inf 1 0", "3 list")
FAILING = (*UP, "1 behave h1:1 fail 13")
CALLS_FAIL = (
    *UP,
    "1 behave h1:1 fail 14",
    *(f"{10 + number / 10} call {number} h1:1 ask 9 1 0" for number in range(9)),
)
UP_AND_DOWN = (*UP, *(line for at in range(1, 40) for line in (f"{at} kill h1:1", f"{at}.5 start h1:1")))

# A field of the config that is other than the model believes, and what that then says, in random worlds or in this one.
WRONG_KNOBS: list[tuple[dict[str, Any], str, tuple[str, ...]]] = [
    ({"probe_interval": 12.0}, "not probed for", ()),
    ({"probe_interval": 8.0}, "probed again after", ()),
    ({"probe_jitter": 0.3}, "probed", ()),
    ({"probe_timeout": 6.0}, "the view is READY|a probe given up after 6", ()),
    ({"probe_timeout": 4.0}, "a probe given up after 4.000 s", ()),
    ({"probe_retry_interval": 1.5}, "not probed for", FAILING),
    ({"probe_retry_interval": 0.7}, "probed again after 0.700 s", FAILING),
    ({"rise": 3}, "the view is READY unhealthy", ()),
    ({"fall": 3}, "the view is READY healthy", ()),
    ({"connect_timeout": 7.0}, "left open|expected TRANSIENT_FAILURE", ()),
    ({"connect_timeout": 3.0}, "3.000 s|was well", ()),
    ({"backoff": Backoff(initial=0.05)}, "dialled again after", ()),
    ({"backoff": Backoff(maximum=2.0)}, "not dialled for", ()),
    ({"on_demand_interval": 0.2}, "probed again after 0.2", CALLS_FAIL),
    ({"keepalive_interval": 9.0}, "no PING after", ()),
    ({"keepalive_interval": 7.0}, "a PING after 7.000 s", ()),
    ({"keepalive_timeout": 3.0}, "left open|expected TRANSIENT_FAILURE", ()),
    ({"keepalive_timeout": 1.0}, "was well|the view is TRANSIENT_FAILURE", ()),
    ({"drain_timeout": 20.0}, "not closed", REMOVED_WITH_A_CALL),
    ({"history_length": 40}, "too long", UP_AND_DOWN),
]


@pytest.mark.parametrize("seed", range(4))
def test_all_is_well(seed: int) -> None:
    """Whatever happens in six minutes of a random world, viewreg keeps what it promises."""
    assert run(recipe_of(seed, 0.1)).wrong == ""


@pytest.mark.parametrize(("knobs", "words", "lines"), WRONG_KNOBS, ids=[str(*knobs) for knobs, _, _ in WRONG_KNOBS])
def test_what_is_wrong_is_found(knobs: dict[str, Any], words: str, lines: tuple[str, ...]) -> None:
    """Each number that viewreg promises is watched: a registry that is configured otherwise is caught."""
    scripted = [Recipe(1, 60, tuple(map(parse, lines)))]
    recipes = scripted if lines else [recipe_of(seed, 0.1) for seed in range(10)]
    found = next(filter(None, (run(recipe, **knobs).wrong for recipe in recipes)), "")
    assert any(word in found for word in words.split("|")), found
    if lines:
        assert run(scripted[0]).wrong == ""


def traced(python: str, hash_seed: str) -> bytes:
    """The trace of a world, from a process of its own."""
    program = [python, "-m", "simulation", "--trace", "--first", str(SEED), "--hours", str(HOURS)]
    paths = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": paths}
    return subprocess.run(program, env=environment, check=True, capture_output=True).stdout


def test_the_same_in_two_processes() -> None:
    """The same seed gives the same trace, byte for byte, whatever the hashes of strings are.

    That it is the same on all Pythons, too, `nox -s tests` sees: no environment has two of them.
    """
    trace = run(recipe_of(SEED, HOURS)).text.encode()
    assert len(trace.splitlines()) > 100
    assert traced(sys.executable, "1") == traced(sys.executable, "2") == trace


def test_a_trace_can_be_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A trace says all that its world is made of: replayed, it gives itself."""
    trace = run(recipe_of(SEED, HOURS)).text
    assert read(trace) == recipe_of(SEED, HOURS)
    (tmp_path / "trace").write_text(trace)
    assert main(["--replay", str(tmp_path / "trace")]) == 0
    printed = capsys.readouterr()
    assert printed.out == trace
    assert printed.err == ""


def test_a_fault_is_shrunk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a world that goes wrong, what is left goes wrong in the same way, by a few operations; it is told."""
    report = run_one(1, 0.1, 60.0, keepalive_interval=9.0)
    smallest = read(report.trace)
    assert "no PING after" in report.wrong
    assert "no PING after" in report.trace.splitlines()[-1]
    assert {operation.verb for operation in smallest.operations} == {"start", "list", "open"}
    assert len(smallest.operations) == 3
    tell_fault(report, tmp_path)
    (file,) = tmp_path.iterdir()
    printed = capsys.readouterr().out
    assert printed.startswith(f"seed 1: {report.wrong}\n{smallest.header}\n")
    assert printed.endswith(f"replay it: nox -s simulate -- --replay {file}\n")
    assert all(f" > {operation}\n" in printed for operation in smallest.operations)
    assert file.read_text() == report.trace


def test_without_patience_nothing_is_shrunk() -> None:
    """Who only wants to know whether something is wrong does not wait for a shrunk trace."""
    report = run_one(1, 0.1, 0.0, keepalive_interval=9.0)
    assert report.trace == run(recipe_of(1, 0.1), keepalive_interval=9.0).text


def test_a_bug_is_told() -> None:
    """An exception that comes out of viewreg is a fault like any other, and ends in the trace."""
    outcome = run(recipe_of(SEED, HOURS), probe_interval=BadNumber(10.0))
    assert outcome.wrong == "raised ZeroDivisionError('as told')"
    assert outcome.lines[-1].endswith(outcome.wrong)


class BadNumber(float):
    """A number with which nobody can work."""

    def __mul__(self, other: object) -> float:
        raise ZeroDivisionError("as told")


def test_many_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    """Many seeds are run at the same time; a line tells of them all."""
    assert main(["--seeds", "3", "--first", "5", "--hours", "0.01", "--jobs", "2"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("3 seeds from 5 on, 0.01 h each: ")
    assert printed.endswith("all is well\n")


def test_a_world_that_does_not_end(capsys: pytest.CaptureFixture[str]) -> None:
    """When nothing ends for so long, the seeds that may be stuck are named."""
    assert main(["--seeds", "3", "--first", "5", "--jobs", "1", "--patience", "0.01"]) == 1
    assert capsys.readouterr().out == "nothing has ended for 0.01 s: look at seeds 5, each with --trace\n"


def test_a_trace_that_is_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Operations may be taken out of a trace; a replay then says that it is another one."""
    lines = run(recipe_of(SEED, HOURS)).text.splitlines(keepends=True)
    (tmp_path / "trace").write_text("".join(line for line in lines if " kill " not in line and " open" not in line))
    assert main(["--replay", str(tmp_path / "trace")]) == 0
    assert "what happened now is not what it tells" in capsys.readouterr().err


HEADER_FORM = "expected 'viewreg simulation VERSION, viewreg VERSION, seed SEED, SECONDS s'"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", f"first line '': {HEADER_FORM}"),
        ("\0\n\n", f"first line '\\x00': {HEADER_FORM}"),
        (HEADER.replace("17", "x"), HEADER_FORM),
        (HEADER.replace("17", "9" * 5000), HEADER_FORM),
        (HEADER.replace("60", "9" * 400), HEADER_FORM),
        (HEADER.replace(f"{VERSION},", "2,", 1), f"a trace of version 2: expected version {VERSION}"),
        (HEADER.replace(VIEWREG, "0.0.9"), f"a trace of viewreg 0.0.9: expected {VIEWREG}, or --any-viewreg"),
        (HEADER, f"cut short: last line {HEADER!r}: expected 'SECONDS the end' or 'SECONDS wrong: WHAT'"),
        (f"{HEADER}\n1.0 > 1.0 kill h1:1\n1.0 h1:1 is di", "cut short: last line '1.0 h1:1 is di'"),
    ],
)
def test_no_trace(text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A text that is no trace, a part of one, or one of another version, is refused with what was expected."""
    (tmp_path / "trace").write_text(text)
    assert main(["--replay", str(tmp_path / "trace")]) == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert printed.out == ""


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        ("1.0 explode h1:1", "verb 'explode': expected one of start, kill"),
        ("soon kill h1:1", "expected a number of seconds first"),
        ("inf kill h1:1", "expected a number of seconds first"),
        ("1.0 kill", "0 words after kill: expected 1"),
        ("1.0 kill h9:1", "'h9:1': expected one of h1:1, h2:1, h3:1, h4:10, h4:9"),
        ("1.0 list h1:1 h2", "'h2': expected one of h1:1, h2:1, h3:1, h4:10, h4:9, or one with ;NOTE"),
        ("1.0 stall -1", "'-1': expected a number from 0 on"),
        ("1.0 stall inf", "'inf': expected a number from 0 on"),
        ("1.0 call 1 h1:1 ask nan 1 0", "'nan': expected a number from 0 on, or inf"),
        ("1.0 goaway h1:1 x", "'x': expected a whole number from 0 to 4294967295"),
        ("1.0 goaway h1:1 4294967296", "'4294967296': expected a whole number from 0 to 4294967295"),
        ("1.0 behave h1:1 fail 17", "'17': expected a whole number from 1 to 16"),
        ("1.0 behave h1:1 slow long", "'long': expected a number from 0 on"),
        ("1.0 wait 1 stable -", "'-': expected a number from 0 on"),
        ("1.0 cut h1:1 up", "'up': expected one of both, to-server, to-client"),
    ],
)
def test_no_operation(operation: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be done is refused before anything is, with what can be."""
    (tmp_path / "trace").write_text(f"{HEADER}\n1.0 > {operation}\n{END}")
    assert main(["--replay", str(tmp_path / "trace")]) == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert printed.out == ""


def test_a_trace_of_another_viewreg(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is replayed if that is meant: so it can be seen whether a later version has mended what it tells of."""
    (tmp_path / "trace").write_text(f"{HEADER.replace(VIEWREG, '0.0.9')}\n0.0 > 0.0 start h1:1\n{END}")
    assert main(["--any-viewreg", "--replay", str(tmp_path / "trace")]) == 0
    assert capsys.readouterr().out == f"{HEADER}\n0.000000 > 0.000 start h1:1\n{END}"


@pytest.mark.parametrize("seconds", [0.001, 59.5, 999.999, 12345.678, 3_600_000.0])
def test_a_header_says_the_time(seconds: float) -> None:
    """Whatever time a world may last, its trace says it so that it can be read again."""
    recipe = Recipe(3, seconds, ())
    assert read(f"{recipe.header}\n{END}") == recipe


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--first", "x1"], "'x1': expected a whole number from 0 on"),
        (["--first", "0x10"], "'0x10': expected a whole number from 0 on"),
        (["--first", "1_000"], "'1_000': expected a whole number from 0 on"),
        (["--first", "9" * 19], "expected a whole number from 0 on, of at most 18 digits"),
        (["--first", ""], "'': expected a whole number from 0 on"),
        (["--seeds", "-1"], "'-1': expected a whole number from 0 on"),
        (["--seeds", "0"], "'0': expected 1 or more"),
        (["--hours", "0"], "'0': expected a number of hours above 0, up to 1000"),
        (["--hours", "nan"], "'nan': expected a number of hours above 0, up to 1000"),
        (["--jobs", "two"], "'two': expected a whole number from 0 on"),
        (["--patience", "-1"], "'-1': expected a number of seconds above 0, up to 3600000"),
        (["--folder", "/nowhere/at/all"], "'/nowhere/at/all': expected a folder that exists"),
        (["--trace", "--replay", "x"], "argument --replay: not allowed with argument --trace"),
    ],
)
def test_bad_arguments(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An argument that is none is refused with what was expected."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that cannot be read is named."""
    assert main(["--replay", str(tmp_path / "nothing")]) == 2
    assert "nothing" in capsys.readouterr().err


def test_operations_are_text() -> None:
    """An operation is its line."""
    line = "12.345 call 3 h1:1 ask inf 1 0.5"
    assert str(parse(line)) == line
    with pytest.raises(TraceError):
        parse("12.345")
