"""The project's tasks: `nox -l` lists them, `nox -s tests` tests on every Python that is here.

1. Nothing is downloaded but packages from PyPI; never an interpreter behind your back.
2. `tests` runs on those of its interpreters that are here and skips the others, but fails when there is none. With
   `--error-on-missing-interpreters` it needs them all.
3. Arguments after `--` go to the tool: `nox -s tests-3.13 -- -k deadline`, `nox -s proto -- --check`.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from itertools import zip_longest
from pathlib import Path
from typing import Final

import nox

PYTHONS = ("3.11", "3.12", "3.13")
SOURCES = ("viewreg", "pytest_viewreg.py", "tests", "examples", "benchmarks", "proto", "noxfile.py")
# What is generated from which proto: its package's folder, below which root, where the proto is, options of our plugin,
# other plugins.
GENERATED = (
    ("viewreg/rpc", ".", "proto/views.proto", "init", ()),
    ("viewreg/_grpc_health", ".", "proto/health.proto", "", ()),
    ("nasty", "tests", "tests/proto/nasty.proto", "", ("grpc_python", "mypy_grpc")),
    ("acme", "tests", "tests/proto/search.proto", "", ("grpc_python", "mypy_grpc")),
)

# The generated code says which protobuf it needs, so what generates it is pinned.
PROTO_TOOLS = ("grpcio-tools==1.76.0", "mypy-protobuf==5.1.0", "purerpc>=0.8,<0.9")
# Types of what has none of its own.
TYPES = ("types-protobuf", "types-grpcio", "types-grpcio-health-checking")
# The h2 that purerpc's metadata forbids, and what belongs to it.
H2_4 = ("h2>=4.3", "hpack>=4.1", "hyperframe>=6.1")


def _is_installed(version: str) -> bool:
    """Tell whether a Python answers to its name; it has to run, because pyenv has names for Pythons that do not."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return True
    python = shutil.which(f"python{version}")
    return python is not None and subprocess.run([python, "-c", ""], check=False, capture_output=True).returncode == 0


nox.needs_version = ">=2026.8.10"  # earlier ones do not find the Python that they run on
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
# Of itself nox skips missing interpreters and calls that success even when none is left, but in CI it wants them all.
nox.options.error_on_missing_interpreters = not any(map(_is_installed, PYTHONS))
nox.options.sessions = ["lint", "typing", "tests"]


@nox.session
def lint(session: nox.Session) -> None:
    """Check rules and layout of the code with ruff."""
    session.install("ruff")
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")


@nox.session
def typing(session: nox.Session) -> None:
    """Check types with mypy and pyright."""
    session.install("-e", ".[test]", "mypy", "nox", "pyright", *TYPES)
    session.run("mypy", "--strict", *filter(os.path.exists, SOURCES))
    session.run("pyright")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests, in several processes; then see that a simulated world is the same as on the other Pythons."""
    session.install(".[test]")
    _test(session)
    if not session.posargs:
        _compare_worlds(session)


@nox.session
def tests_h2_4(session: nox.Session) -> None:
    """Run the tests beside h2 4."""
    session.install(".[test]")
    session.install("--no-deps", *H2_4)
    _test(session)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the tests and tell which lines and branches they do not reach: half as long again."""
    session.install(".[test]")
    _test(session, "--cov", "--cov-report=term")


@nox.session
def fuzz(session: nox.Session) -> None:
    """Search for what breaks the transport's HTTP/2: nox -s fuzz -- --minutes 5."""
    session.install(".[test]", "atheris>=3")
    session.run("python", "-W", "error", "tests/fuzz/fuzz_http2.py", *session.posargs)


def _test(session: nox.Session, *options: str) -> None:
    processes = ("--numprocesses=auto", "--dist=worksteal")
    session.run("python", "-W", "error", "-m", "pytest", *processes, *options, *session.posargs)


_WORLDS: Final[dict[str, str]] = {}  # the trace of one world, by Python; all sessions of one run share this process


def _compare_worlds(session: nox.Session) -> None:
    world = ("--trace", "--first", "7", "--hours", "0.5")
    trace = session.run(
        *("python", "-W", "error", "-m", "simulation", *world), env={"PYTHONPATH": "tests"}, silent=True
    )
    _WORLDS[str(session.python)] = trace = str(trace)
    first, other = next(iter(_WORLDS.items()))
    if trace != other:
        lines = zip_longest(trace.splitlines(), other.splitlines())
        number, (here, there) = next((n, pair) for n, pair in enumerate(lines, 1) if pair[0] != pair[1])
        session.error(f"line {number} of {' '.join(world)}: {here!r} on {session.python}, {there!r} on {first}")
    session.log("a world of %d lines is the same on Python %s", trace.count("\n"), ", ".join(_WORLDS))


@nox.session
def simulate(session: nox.Session) -> None:
    """Run random worlds against a model of what viewreg promises: `-- --seeds 1000`, `-- --replay FILE`."""
    session.install(".[test]")
    session.run("python", "-W", "error", "-m", "simulation", *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session
def proto(session: nox.Session) -> None:
    """Generate code anew from all protos; with --check, only tell whether it is what they give."""
    session.install(*PROTO_TOOLS)
    stale: list[Path] = []
    for package, root, source, options, others in GENERATED:
        with tempfile.TemporaryDirectory() as folder:
            _generate(session, package, Path(source), Path(folder), options=options, others=others)
            fresh, old = Path(folder, package), Path(root, package)
            names = {path.name for pattern in ("*_pb2.py*", "*_grpc.py*") for path in old.glob(pattern)}
            names.update(path.name for path in fresh.iterdir())
            same, _, _ = filecmp.cmpfiles(old, fresh, names, shallow=False)
            for name in sorted(names.difference(same)):
                stale.append(old / name)
                if session.posargs != ["--check"]:
                    (old / name).unlink(missing_ok=True)
                    if (fresh / name).exists():
                        shutil.copyfile(fresh / name, old / name)
    found = ", ".join(map(str, stale)) or "nothing"
    if stale and session.posargs == ["--check"]:
        session.error(f"not what the protos give: {found}; run nox -s proto")
    session.log("changed: %s", found)


def _generate(
    session: nox.Session, package: str, source: Path, out: Path, *, options: str, others: tuple[str, ...]
) -> None:
    # protoc is shown the proto in the folder of the package, so that generated imports need no mending.
    session.run(
        *("python", "-m", "grpc_tools.protoc", f"-I{package}={source.parent}"),
        *(f"--{plugin}_out={out}" for plugin in ("python", "purerpc", "mypy", "viewreg_pyi", *others)),
        *("--plugin=protoc-gen-viewreg_pyi=proto/protoc_gen_viewreg_pyi.py", f"--viewreg_pyi_opt={options}"),
        f"{package}/{source.name}",
    )
    for empty in out.glob(f"{package}/*_grpc.py"):  # of a proto without a service
        if "class " not in empty.read_text(encoding="utf-8"):
            empty.unlink()


@nox.session
def build(session: nox.Session) -> None:
    """Build sdist and wheel, and try the wheel away from the tree."""
    session.install("build")
    with tempfile.TemporaryDirectory() as folder:
        session.run("python", "-m", "build", "--outdir", folder)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            packed = set(archive.namelist())
        tree = {str(path) for path in Path("viewreg").rglob("*.*") if "__pycache__" not in path.parts}
        tree.add("pytest_viewreg.py")
        if missing := sorted(tree - packed):
            session.error(f"not in the wheel: {', '.join(missing)}")
        session.run("python", "-m", "venv", f"{folder}/clean")
        clean = f"{folder}/clean/bin/python"
        session.run(clean, "-m", "pip", "install", "--quiet", str(wheel), external=True)
        with session.chdir(folder):
            session.run(clean, "-W", "error", "-c", "import viewreg; print(viewreg.__file__)", external=True)
            session.run(clean, "-W", "error", "-c", "from viewreg.rpc import StatsRequest", external=True)


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks."""
    programs = sorted(Path("benchmarks").glob("bench_*.py"))
    if not programs:
        session.error("benchmarks/ has no bench_*.py")
    session.install(".[test]")
    for program in programs:
        session.run("python", str(program), *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Let everything happen to fifty servers for minutes: `nox -s soak -- --minutes 3 --seed 7`."""
    session.install(".[test]")
    session.run("python", "tests/soak.py", *session.posargs)


@nox.session
def mutants(session: nox.Session) -> None:
    """Plant bugs and see that tests find them: `nox -s mutants -- --only padding --jobs 2`."""
    session.install(".[test]")
    session.run("python", "-m", "mutants", *session.posargs, env={"PYTHONPATH": "tests"})
