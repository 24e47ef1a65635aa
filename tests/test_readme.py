"""What README shows works as it is shown."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import trio

from viewreg.testing import open_fake_view

README = Path(__file__).parent.parent / "README.md"
ADDRESSES = "127.0.0.1:9980,127.0.0.1:9981"
GUARD = 30.0  # seconds; the program gives up after 10


def program() -> str:
    """The first program of README."""
    found = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def test_the_program_is_short() -> None:
    """It has 15 lines at most, and waits for what it needs."""
    assert len(program().splitlines()) <= 15
    assert "wait_until" in program()


async def test_the_program_runs() -> None:
    """Pasted, it finds the server that is there, calls it, and says why the other one is not there."""
    async with open_fake_view() as here, open_fake_view() as away:
        await away.stop()
        text = program().replace(ADDRESSES, f"{here.endpoint.host_port},{away.endpoint.host_port}")
        with trio.fail_after(GUARD):
            done = await trio.run_process([sys.executable, "-W", "error", "-c", text], capture_stdout=True, stderr=None)
    printed = done.stdout.decode()
    assert "viewType:" in printed
    assert f'Endpoint:"{here.endpoint}"' in printed
    assert "Healthy:true" in printed
    assert "ECONNREFUSED" in printed


def test_links_lead_somewhere() -> None:
    """Files that README and the pages of docs link to are there."""
    for page in [README, *README.parent.glob("docs/*.md")]:
        for link in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link}"


def test_commands_exist() -> None:
    """The commands that README names are there, and say what they do."""
    for command in ("demo", "fake-view"):
        assert f"viewreg {command}" in README.read_text(encoding="utf-8")
        run = [sys.executable, "-m", "viewreg", command, "--help"]
        assert subprocess.run(run, check=True, capture_output=True).stdout
