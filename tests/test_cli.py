from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest
import trio

from tls import AUTHORITY, CLIENT, server_context
from viewreg import FactPartition, KeyEncoding
from viewreg.testing import open_fake_view

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from viewreg.testing import FakeView

ROOT = Path(__file__).parent.parent
GUARD = 20.0  # seconds; the machine may be busy
VIEWREG = [sys.executable, "-m", "viewreg"]


def _run(*arguments: str, guard: float = GUARD, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*VIEWREG, *arguments],
        capture_output=True,
        text=True,
        timeout=guard,
        cwd=ROOT,
        check=False,
        env=_env(environment),
    )


def _env(more: dict[str, str]) -> dict[str, str]:
    return {**os.environ, "COLUMNS": "120", **more}


@contextmanager
def _started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """Start a command; give its process and its output. It never outlives the block."""
    with subprocess.Popen(
        [*VIEWREG, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=_env({})
    ) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout
        finally:
            process.kill()


def _read_until(output: IO[str], text: str) -> str:
    """Read up to the line with the text. The timeout of the test is its guard."""
    for line in output:
        if text in line:
            return line
    raise AssertionError(f"the output ended without {text!r}")


def _refused(*arguments: str) -> str:
    """Run what cannot work; check that it says so as it should, and return what it says."""
    run = _run(*arguments)
    assert (run.returncode, run.stdout) == (2, "")
    assert re.fullmatch(r"viewreg: .+\n", run.stderr), run.stderr
    return run.stderr


def _servers(parent: int) -> list[int]:
    """The processes of fake views that a command has started."""
    by_thread = Path(f"/proc/{parent}/task").glob("*/children")
    return [int(pid) for children in by_thread for pid in children.read_text().split()]


def _wait_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + GUARD
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, f"still there: {pids}"
        time.sleep(0.01)


@pytest.fixture
async def fake() -> AsyncIterator[FakeView]:
    """A fake view."""
    async with open_fake_view(partition=FactPartition.nth(KeyEncoding.SPO, 0, of=2)) as fake:
        yield fake


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address at which nobody listens, and nobody will."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


STORY = [
    r"They listen, ",
    r"All 4 are healthy, \d.* after the registry was opened",
    r"A  127\.0\.0\.1:\d+  process \d+  Diagnostics,Carousel,HashSP  \[SPO: 0x00\.\. - 0x80\.\.\]",
    r"D  127\.0\.0\.1:\d+  process \d+  Diagnostics,Carousel,HashPO  \[POS: 0x80\.\. - ∞\]",
    r"D is frozen",
    r"A is killed .* after 25 messages",
    r"The stream ended with UNAVAILABLE after \d+ messages, [\d.]+ m?s after the kill",
    r"A is unhealthy, which was noticed after [\d.]+ m?s",
    r"connection lost: ",
    r"A is started again",
    r"A is healthy [\d.]+ m?s after it listened",
    r"B is restarted",
    r"B is healthy [\d.]+ m?s after it listened",
    r"It was \[SPO: 0x80\.\. - ∞\], and is \[SPO: 0x00\.\. - ∞\]",
    r"E is added",
    r"E is healthy [\d.]+ m?s after it was listed",
    r"C is removed",
    r"It has left the registry [\d.]+ m?s later",
    r"D is unhealthy, which was noticed after [\d.]+ s",
    r"connection lost: no answer to a keepalive PING",
    r"D is thawed",
    r"D is healthy [\d.]+ m?s after that",
    r"Everything was noticed\. The registry changed \d+ times",
    r"healthy_views: +4",
    r"View Registry",
]


@pytest.mark.timeout(120)
def test_demo() -> None:
    """The demo tells every step in its order, says that all was noticed, and succeeds."""
    run = _run("demo", guard=100)
    assert (run.returncode, run.stderr) == (0, "")
    rest = run.stdout
    for step in STORY:
        found = re.search(step, rest)
        assert found, f"{step!r} is missing in: {rest}"
        rest = rest[found.end() :]
    assert "\x1b" not in run.stdout


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_demo_interrupted(number: signal.Signals, code: int) -> None:
    """A signal in the middle of the demo, with one server frozen, ends it quietly and leaves no process."""
    with _started("demo") as (process, output):
        _read_until(output, "D is frozen")
        servers = _servers(process.pid)
        assert len(servers) == 4
        process.send_signal(number)
        rest = output.read()
        assert process.wait(GUARD) == code
    assert "Traceback" not in rest
    _wait_gone(servers)


def test_demo_killed() -> None:
    """Even SIGKILL in the middle of the demo leaves no process."""
    with _started("demo") as (process, output):
        _read_until(output, "D is frozen")
        servers = _servers(process.pid)
        assert len(servers) == 4
        process.kill()
        process.wait(GUARD)
        _wait_gone(servers)


async def test_watch(fake: FakeView) -> None:
    """Watching prints a line with time, address, state and reason for each change, until Ctrl-C."""
    address = fake.endpoint.host_port
    with _started("watch", address) as (process, output):
        line = _read_until(output, "healthy")
        assert re.fullmatch(
            rf"\d\d:\d\d:\d\d\.\d\d\d  {address} +healthy +Diagnostics,Carousel,HashSP \[SPO: 0x00.. - 0x80..\]  .*\n",
            line,
        )
        fake.kill()
        assert re.search(rf"{address} +unhealthy  connection lost: ", _read_until(output, "unhealthy"))
        await fake.restart(partition=FactPartition.nth(KeyEncoding.POS, 0, of=2))
        assert "HashPO [POS: 0x00.. - 0x80..]" in _read_until(output, " healthy ")
        process.send_signal(signal.SIGINT)
        assert "Traceback" not in output.read()
        assert process.wait(GUARD) == 130


async def test_watch_for_a_time(fake: FakeView, nobody: str) -> None:
    """Watching for some seconds says by its exit status whether all servers were healthy at the end."""
    address = fake.endpoint.host_port
    assert _run("watch", address, "--for", "1").returncode == 0
    run = _run("watch", f"static:///{address},{nobody}", "--for", "1")
    assert run.returncode == 1
    assert re.search(rf"{nobody} +unhealthy +connecting failed: Connection refused \(ECONNREFUSED\)", run.stdout)


async def test_watch_into_a_broken_pipe(fake: FakeView) -> None:
    """A reader that goes away ends the watching quietly."""
    with _started("watch", fake.endpoint.host_port) as (process, output):
        _read_until(output, "healthy")
        output.close()
        fake.kill()
        assert process.wait(GUARD) == 0


async def test_call(fake: FakeView) -> None:
    """A call prints the statistics, and what a registry makes of them."""
    run = _run("call", fake.endpoint.host_port)
    assert (run.returncode, run.stderr) == (0, "")
    fields = dict(re.split(r": +", line, maxsplit=1) for line in run.stdout.splitlines())
    assert fields["server"] == fake.endpoint.host_port
    assert fields["features"] == "Diagnostics,Carousel,HashSP"
    assert fields["partition"] == "SPO: 0x00.. - 0x80.."
    assert fields["view type"] == "diskview/rocksdb"
    assert fields["facts"] == "1,000"
    assert re.fullmatch(r"[\d.]+ s", fields["up for"])


async def test_call_of_a_liar(fake: FakeView) -> None:
    """What a server says can neither be misread as understood, nor reach the terminal as a control sequence."""
    await fake.lie(viewType="mega\x1b[31mview\nview")
    run = _run("call", fake.endpoint.host_port)
    assert run.returncode == 0
    assert "features:        not understood: unsupported view type: mega\\x1b[31mview" in run.stdout
    assert "\x1b" not in run.stdout


async def test_call_in_vain(fake: FakeView, nobody: str) -> None:
    """A call that fails is one line with status and reason, and exit status 1."""
    run = _run("call", nobody)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == f"viewreg: {nobody}: UNAVAILABLE: Connection refused (ECONNREFUSED)\n"
    await fake.hang()
    run = _run("call", fake.endpoint.host_port, "--timeout", "0.5")
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == f"viewreg: {fake.endpoint.host_port}: no answer within 0.5 s\n"


def test_fake_view() -> None:
    """A fake view in the foreground says where it listens and what it serves, can be called, and ends at Ctrl-C."""
    with _started("fake-view", "--partition", "1", "--of", "2", "--encoding", "POS") as (process, output):
        address = _read_until(output, "listening on").split()[2].rstrip(",")
        assert "serving diskview/rocksdb [POS: 0x80.. - ∞]" in output.readline()
        assert "HashPO" in _run("call", address).stdout
        servers = _servers(process.pid)
        assert len(servers) == 1
        process.send_signal(signal.SIGINT)
        assert output.read() == ""
        assert process.wait(GUARD) == 130
    _wait_gone(servers)


async def test_fake_view_on_a_port_in_use(fake: FakeView) -> None:
    """A port that is in use is one line."""
    assert "EADDRINUSE" in _refused("fake-view", "--port", str(fake.endpoint.port))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["call", "localhost"], "'localhost': expected HOST:PORT"),
        (["call", "localhost:70000"], "port 70000"),
        (["call"], "HOST:PORT"),
        (["call", "localhost:1", "--timeout", "0"], "--timeout"),
        (["watch"], "HOST:PORT"),
        (["watch", "::1:80"], "'::1:80'"),
        (["watch", "a:1", "static:///b:2"], "one locator URI alone"),
        (["watch", "carrier-pigeon://a"], "static://"),
        (["watch", "a:1", "--for", "soon"], "--for"),
        (["fake-view", "--port", "70000"], "port 70000"),
        (["fake-view", "--partition", "2", "--of", "2"], "--partition 2: expected a whole number from 0 to 1"),
        (["fake-view", "--of", "0"], "--of 0"),
        (["fake-view", "--encoding", "OPS"], "OPS"),
        (["demo", "again"], "again"),
        (["nonsense"], "nonsense"),
    ],
)
def test_mistakes(arguments: list[str], said: str) -> None:
    """A mistake on the command line is one line that names it, and exit status 2."""
    assert said in _refused(*arguments)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["watch", "127.0.0.1:1", "--for", "0.1"]], ids=["help", "watch"])
def test_a_full_disk(arguments: list[str]) -> None:
    """Where no more can be written, a command says so in a line, and ends."""
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(
            [*VIEWREG, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=GUARD, cwd=ROOT, check=False
        )
    assert (run.returncode, run.stderr) == (2, "viewreg: cannot write to standard output: No space left on device\n")


@pytest.fixture
def certificates(tmp_path: Path) -> dict[str, str]:
    """Files for `--ca`, `--cert` and `--key`."""
    names = {"ca": tmp_path / "ca.pem", "cert": tmp_path / "cert.pem", "key": tmp_path / "key.pem"}
    AUTHORITY.cert_pem.write_to_path(names["ca"])
    CLIENT.cert_chain_pems[0].write_to_path(names["cert"])
    CLIENT.private_key_pem.write_to_path(names["key"])
    return {f"--{name}": str(path) for name, path in names.items()}


async def test_tls(certificates: dict[str, str]) -> None:
    """`call` and `watch` speak TLS with whom they are to trust, by the name they are told, and show who they are."""
    options = [text for pair in certificates.items() for text in pair]
    async with open_fake_view(where="loopback", ssl_context=server_context(demands=AUTHORITY)) as fake:
        address = fake.endpoint.host_port
        run = await _run_beside("call", address, *options)
        assert (run.returncode, run.stderr) == (0, "")
        assert "diskview/rocksdb" in run.stdout
        run = await _run_beside("watch", address, *options, "--for", "2")
        assert run.returncode == 0, run.stdout
        run = await _run_beside("call", address, *options, "--server-hostname", "other.example")
        assert (run.returncode, "other.example" in run.stderr) == (1, True), run.stderr
        run = await _run_beside("call", address, "--tls")
        assert (run.returncode, "certificate" in run.stderr) == (1, True), run.stderr


async def _run_beside(*arguments: str) -> subprocess.CompletedProcess[str]:
    return await trio.to_thread.run_sync(lambda: _run(*arguments))


def test_tls_mistakes(certificates: dict[str, str]) -> None:
    """Files that will not do are named, with what is expected."""
    ca, cert, key = certificates.values()
    assert _refused("call", "127.0.0.1:1", "--key", key) == f"viewreg: --key {key}: expected --cert beside it\n"
    assert _refused("call", "127.0.0.1:1", "--ca", f"{ca}x") == f"viewreg: --ca {ca}x: No such file or directory\n"
    assert f"--ca {key}: expected certificates in PEM" in _refused("watch", "127.0.0.1:1", "--ca", key)
    said = _refused("call", "127.0.0.1:1", "--cert", cert)
    assert f"--cert {cert}: expected a certificate and its key in PEM" in said
    said = _refused("call", "127.0.0.1:1", "--cert", cert, "--key", ca)
    assert f"--cert {cert} --key {ca}: expected a certificate and its key in PEM" in said


@pytest.mark.parametrize("command", [[], ["demo"], ["watch"], ["call"], ["fake-view"]])
def test_help(command: list[str]) -> None:
    """Every command explains itself."""
    run = _run(*command, "--help")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith(" ".join(["Usage: viewreg", *command]))


def test_version() -> None:
    """The version is one line."""
    run = _run("--version")
    assert run.returncode == 0
    assert re.fullmatch(r"viewreg \S.*\n", run.stdout)


def test_colours(nobody: str) -> None:
    """A terminal gets colours, unless NO_COLOR is set."""
    command = ["watch", nobody, "--for", "0.5"]
    assert "\x1b[31m" in _run(*command, FORCE_COLOR="1", TERM="xterm-256color").stdout
    assert "\x1b[31m" not in _run(*command, FORCE_COLOR="1", TERM="xterm-256color", NO_COLOR="1").stdout


@pytest.mark.parametrize("missing", ["cyclopts", "rich"])
def test_missing_extra(missing: str) -> None:
    """Without the extra, one line says how to install it."""
    program = f"import sys; sys.modules[{missing!r}] = None; from viewreg.cli import main; sys.exit(main(['demo']))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == f"viewreg: needs the package {missing}: pip install 'viewreg[cli]'\n"


def test_import_is_light() -> None:
    """`import viewreg` brings neither the command line nor the fake views."""
    program = "import sys, viewreg; print([name for name in ('viewreg.cli', 'viewreg.testing') if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout == "[]\n"
