"""Search for programs that break a promise, guided by coverage: `nox -s fuzz -- --minutes 5`.

Rules:
* A fifth of the time goes to random sessions with h2 (`h2_session`), the rest to atheris and the programs of
  `http2_program`, which begin with its `SEEDS` and `EDGES`, the programs in corpus/ and some random ones.
* The first thing found ends the search. A program is told step by step and kept in corpus/, where a test replays it
  from then on; a session with h2 has its seed told.
* A program that takes longer than `PATIENCE` counts as a hang.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

atheris: Final[Any] = importlib.import_module("atheris")  # without types, and no dependency of the tests

with atheris.instrument_imports(include=["viewreg._http2", "hpack"]):
    from h2_session import play
    from http2_program import CODES, EDGES, HOLD, SEEDS, Program, read_hex

if TYPE_CHECKING:
    from types import FrameType

CORPUS = Path(__file__).parent / "corpus"
PATIENCE = 20  # seconds; an ordinary program takes milliseconds
LONGEST = 1000  # bytes of a program
RANDOM_PROGRAMS = 200


class HangError(AssertionError):
    """A program takes too long."""


def main() -> None:
    """Search until the time is over, or something is found."""
    parser = argparse.ArgumentParser(description="Fuzz viewreg's HTTP/2 with h2 as its server and with atheris.")
    parser.add_argument("--minutes", type=float, default=5.0, help="how long to search (%(default)s)")
    parser.add_argument(
        "--found", type=Path, help="a folder for the programs that reached something new, to go on from"
    )
    arguments = parser.parse_args()
    seconds = arguments.minutes * 60
    _sessions(seconds / 5)
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.found or Path(scratch)
        folder.mkdir(exist_ok=True)
        _seed(folder)
        _search(folder, seconds * 4 / 5)


def _search(folder: Path, seconds: float) -> None:
    child = os.fork()  # atheris ends its process, and would leave the folder behind
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    options = f"-max_total_time={seconds:.0f}", f"-max_len={LONGEST}", "-timeout=0", "-print_final_stats=1"
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={folder}/", str(folder)], _try)
    atheris.Fuzz()  # ends the process


def _sessions(seconds: float) -> None:
    seed, until = random.randrange(2**32), time.monotonic() + seconds
    first = seed
    while time.monotonic() < until:
        play(seed)
        seed += 1
    print(f"{seed - first} sessions with h2, from seed {first}", flush=True)


def _seed(folder: Path) -> None:
    """Programs from which atheris begins."""
    rng = random.Random(1)
    programs = [*SEEDS, *EDGES, *(read_hex(path) for path in CORPUS.glob("*.hex"))]
    for _ in range(RANDOM_PROGRAMS):
        steps = (bytes((rng.randrange(CODES) | rng.choice((0, HOLD)), *rng.choices(range(10), k=3))) for _ in range(20))
        programs.append(rng.choice(SEEDS) + b"".join(steps))
    for number, program in enumerate(programs):
        (folder / f"{number}").write_bytes(program)


def _try(data: bytes) -> None:
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(PATIENCE)
    try:
        Program(data).run()
    except Exception as error:
        signal.alarm(0)
        _keep(data, error)
        raise
    finally:
        signal.alarm(0)


def _keep(data: bytes, error: Exception) -> None:
    """Tell what was done, and keep it for the tests: as little of it as still fails in the same place."""
    where = _place(error)
    size = 0 if isinstance(error, HangError) else len(data)
    while size > 0:
        at = 0
        while at < len(data):
            less = data[:at] + data[at + size :]
            at, data = (at, less) if _fails(less, where) else (at + size, data)
        size //= 2
    program = Program(data)
    with suppress(Exception):
        program.run()
    CORPUS.mkdir(exist_ok=True)
    path = CORPUS / f"{hashlib.sha256(data).hexdigest()[:12]}.hex"
    words = str(error).partition("\n")[0]
    path.write_text(f"# {type(error).__name__}: {words}\n# {where}\n{data.hex()}\n")
    print(*program.trace, f"{where}\n-- kept as {path}", sep="\n", flush=True)


def _fails(data: bytes, where: str) -> bool:
    try:
        Program(data).run()
    except Exception as error:  # noqa: BLE001 (whatever it was)
        return _place(error) == where
    return False


def _place(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}, {frame.name}: {frame.line}"


def _too_long(_number: int, _frame: FrameType | None) -> NoReturn:
    raise HangError(f"a program takes longer than {PATIENCE} s")


if __name__ == "__main__":
    main()
