"""Which module may import which: the house's order, as a table."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOUSE = ROOT / "viewreg"

PURE = ["_errors", "_endpoint", "_feature", "_partition", "_coverage", "_backoff", "_config", "_health", "_http2"]
# From the top down: a module imports modules that stand above it, in a line above its own or in its own line.
ORDER = [
    ["_errors"],
    ["_endpoint"],
    ["_feature"],
    ["_partition"],
    ["_coverage"],
    ["_backoff"],
    ["_http2"],
    ["_config"],
    ["_health"],
    ["_tls_words"],
    ["_boundary"],
    ["_transport"],
    ["rpc", "_grpc_health"],
    ["_watch"],
    ["_view"],
    ["_snapshot"],
    ["_pick", "_changes"],
    ["_locator"],
    ["_probe", "_health_probe", "_prober"],
    ["_pacer", "_record"],
    ["_supervisor"],
    ["locators"],
    ["_registry", "_open"],
    ["_fan_out"],
    ["", "testing"],
    ["metrics"],
    ["status"],
    ["cli"],
    ["__main__"],
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
PURERPC = {"_transport/purerpc.py", "_transport/status.py"}


def files() -> list[Path]:
    """What is written by hand."""
    return sorted(path for path in HOUSE.rglob("*.py") if path.relative_to(HOUSE).parts[0] != "rpc")


def part(path: Path) -> str:
    """The top-level part of the house that a file belongs to; "" is the package itself."""
    name = path.relative_to(HOUSE).parts[0].removesuffix(".py")
    return "" if name == "__init__" else name


def imports(path: Path) -> list[str]:
    """The modules that a file imports, wherever in it, types included."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: a relative import"
            found.append(node.module or "")
            if node.module == "viewreg":
                found += [f"viewreg.{alias.name}" for alias in node.names if RANK.get(alias.name) is not None]
    return found


def imported_at_run_time(path: Path) -> list[str]:
    """The modules that a file imports when it is imported or used: what stands under TYPE_CHECKING is left out."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found: list[str] = []
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(node.module or "")
    return found


def test_every_part_has_a_place() -> None:
    """Every module and package of the house stands in the table."""
    assert {part(path) for path in files()} <= RANK.keys()


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(HOUSE)))
def test_imports_point_up(path: Path) -> None:
    """A module imports only from parts that stand above its own; locators by URI are the one exception."""
    own = part(path)
    for module in imported_at_run_time(path):
        if module.partition(".")[0] == "viewreg":
            other = [*module.split("."), ""][1]
            assert RANK[other] <= RANK[own], f"{own or 'viewreg'} imports {module}, which stands below it"


@pytest.mark.parametrize("path", [path for path in files() if part(path) in PURE], ids=lambda path: path.name)
def test_the_pure_half(path: Path) -> None:
    """The pure half knows neither Trio nor purerpc nor anything of the other half, and has no clock and no I/O."""
    banned = {"trio", "purerpc", "anyio", "socket", "time", "asyncio", "ssl", "h2"}
    for module in imports(path):
        top, _, rest = module.partition(".")
        assert top not in banned
        if top == "viewreg":
            assert rest.partition(".")[0] in PURE


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(HOUSE)))
def test_who_touches_purerpc(path: Path) -> None:
    """Only two modules of the transport import purerpc; the testing package may, for its servers."""
    name = str(path.relative_to(HOUSE))
    if name not in PURERPC and part(path) != "testing":
        assert not [module for module in imports(path) if module.partition(".")[0] == "purerpc"]


def test_the_plugin_stands_apart() -> None:
    """The pytest plugin knows only what users know, and nothing of the house knows pytest."""
    known = {module for module in imports(ROOT / "pytest_viewreg.py") if module.partition(".")[0] == "viewreg"}
    assert known == {"viewreg", "viewreg.testing"}
    banned = {"pytest", "_pytest", "pytest_viewreg"}
    assert not [path for path in files() if banned & {module.partition(".")[0] for module in imports(path)}]


def python(program: str) -> str:
    """What the program prints, in a process of its own."""
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT)
    return run.stdout.strip()


def test_import_is_light() -> None:
    """`import viewreg` loads nothing that only some programs need."""
    late = ["viewreg.rpc", "google.protobuf", "viewreg.testing", "viewreg.cli", "viewreg.locators"]
    assert python(f"import sys, viewreg; print([name for name in {late} if name in sys.modules])") == "[]"


CUSTOM_PROBE = """
import sys, trio, viewreg

class Probe:
    no_features = viewreg.Feature(0)
    async def __call__(self, channel):
        return viewreg.ProbeResult(viewreg.Feature.DIAGNOSTICS)

async def dial(endpoint):
    client, server = trio.testing.memory_stream_pair()
    await server.send_all(bytes.fromhex("000000040000000000"))  # SETTINGS
    return client

async def main():
    locator = viewreg.StaticLocator(["a:1"])
    async with viewreg.open_registry(locator, probe=Probe(), dial=dial) as registry:
        with trio.fail_after(5):
            await registry.wait_until(lambda snapshot: len(snapshot.healthy_views()) == 1)
    print("viewreg.rpc" in sys.modules)

import trio.testing
trio.run(main)
"""


def test_a_probe_of_ones_own_loads_no_rpc() -> None:
    """A registry with a probe of the user's own never loads `viewreg.rpc`, so that a second copy of it does no harm."""
    assert python(CUSTOM_PROBE) == "False"
