"""The gateway of examples/gateway keeps its promises: real HTTP, real view servers, real signals."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

import serve
from gateways import LOWER, UPPER, Gateway, known, open_gateway, open_views, subject
from viewreg import StatusCode
from viewreg.rpc import Fact, LookupChunk, LookupChunk_Fact, LookupSRequest, ReadFactsSPServicer
from viewreg.testing import FakeView, open_fake_view

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from client import Response
    from viewreg.testing import FakeCall

DRIVE = Path(__file__).parent.parent / "examples" / "gateway" / "drive.py"
FACTS = f"/facts?subject={subject()}"
LIMIT = 2.0  # seconds; enough for the first fact on a busy machine, and short of the time in which a hang is noticed


def lookups(view: FakeView) -> list[FakeCall]:
    """The lookups that it has seen."""
    return [call for call in view.calls if call.method == "ReadFactsSP.lookupS"]


async def asked(view: FakeView) -> None:
    """Wait until it has a lookup that has not ended."""
    await view.wait_for_calls(lambda _: any(call.code is None for call in lookups(view)))


async def cancelled(view: FakeView) -> FakeCall:
    """Wait until its last lookup has ended, by its client; the view itself reports that."""
    await view.wait_for_calls(lambda _: lookups(view)[-1].code is not None)
    assert lookups(view)[-1].cancelled
    return lookups(view)[-1]


async def first_asked(views: list[FakeView]) -> FakeView:
    """Wait until one of them has a lookup that has not ended."""
    found: list[FakeView] = []
    async with trio.open_nursery() as nursery:

        async def wait(view: FakeView) -> None:
            await asked(view)
            found.append(view)
            nursery.cancel_scope.cancel()

        for view in views:
            nursery.start_soon(wait, view)
    return found[0]


# -- what is asked --


async def test_each_fact_comes_once() -> None:
    """What views of overlapping ranges know comes once each, as it is, and then the marker; what they refuse is 502."""
    async with open_views() as ([lower], [upper]), open_gateway([lower, upper]) as gateway:
        await gateway.wait_ready()
        answer = await gateway.get(FACTS)
        assert (answer.status, answer.whole) == (200, True)
        assert sorted(answer.facts, key=lambda fact: int(fact["id"])) == [
            {
                **{name: str(getattr(fact, name)) for name in ("index", "id", "subject", "predicate")},
                "object": base64.b64encode(fact.object).decode(),
            }
            for fact in await known([lower, upper], subject())
        ]
        assert len(answer.facts) == 5
        assert (await gateway.get("/facts?subject=7&index=9&limit=5")).lines == [{"end": True, "facts": 0}]

        for view in (lower, upper):
            await view.fail(StatusCode.INVALID_ARGUMENT, "no such index")
        answer = await gateway.get(FACTS)
        assert answer.status == 502
        assert "no such index" in answer.lines[0]["error"]


BAD = {
    "": "subject: expected one, such as ?subject=1001",
    "subject=": "subject '': expected a whole number from 0 to 18446744073709551615",
    "subject=x": "subject 'x': expected a whole number",
    "subject=-1": "subject '-1': expected a whole number",
    "subject=%D9%A1": "subject '\u0661': expected a whole number",
    "subject=18446744073709551616": "subject '18446744073709551616': expected a whole number",
    f"subject={'9' * 5000}": f"subject '{'9' * 40}...': expected a whole number",
    "subject=1&subject=2": "subject '2': expected once, and it is '1' already",
    "subject=1&index=1.5": "index '1.5': expected a whole number",
    "subject=1&limit=0": "limit '0': expected a number of seconds above 0, up to 3",
    "subject=1&limit=3.01": "limit '3.01': expected a number of seconds above 0, up to 3",
    "subject=1&limit=nan": "limit 'nan': expected a number of seconds",
    "subject=1&sbuject=2": "parameter 'sbuject': expected one of subject, index, limit",
}


async def test_bad_requests() -> None:
    """What can never be answered is 400, with a sentence that has the value and what is allowed."""
    async with open_gateway([], "--limit", "3") as gateway:
        for query, sentence in BAD.items():
            answer = await gateway.get(f"/facts?{query}")
            assert answer.status == 400
            assert answer.lines[0]["error"].startswith(sentence)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--locator nowhere://a:1", "locator 'nowhere://a:1': expected a URI"),
        ("--locator static:///a:1 --limit 0", "--limit: '0': expected a number of seconds above 0, up to 3600"),
        ("--locator static:///a:1 --bind here", "--bind: 'here': expected HOST:PORT"),
        ("--locator static:///a:1 --bind 127.0.0.1:65536", "--bind: '127.0.0.1:65536': expected HOST:PORT"),
        ("--locator static:///a:1 --bind 192.0.2.1:80", "Cannot assign requested address"),
    ],
)
def test_bad_arguments(arguments: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A gateway that can never serve says so in one line, and ends with status 2."""
    with pytest.raises(SystemExit, match="2"):
        serve.main(arguments.split())
    assert sentence in capsys.readouterr().err.splitlines()[-1]


# -- what goes wrong --


async def test_the_loss_of_replicas() -> None:
    """One replica may die under a call; without the last all is 503, with the gap, until it is back."""
    async with open_views(replicas=2) as (lower, upper), open_gateway(lower + upper, "--limit", "30") as gateway:
        await gateway.wait_ready(replicas=2)
        for view in lower:
            await view.hang()
        async with gateway.open(FACTS) as response:
            victim = await first_asked(lower)
            spare = lower[1 - lower.index(victim)]
            await spare.answer()
            victim.kill()
            answer = await response.rest()
        assert (answer.status, answer.whole, len(answer.facts)) == (200, True, 5)

        spare.kill()
        gap = "0x00.. - 0x40.."
        assert await gateway.wait_unready() == [gap]
        async with gateway.open(FACTS) as response:
            assert (response.status, response.headers["retry-after"]) == (503, "1")
            assert await response.line() == {"error": f"nobody serves SPO: {gap}", "gaps": [gap]}
        assert (await gateway.get("/healthz")).status == 200

        await spare.restart()
        await gateway.wait_ready()
        assert (await gateway.get(FACTS)).whole

        await spare.hang()
        async with gateway.open(FACTS) as response:
            await asked(spare)
            spare.kill()
            answer = await response.rest()
        assert (answer.status, answer.marked) == (200, False)  # it had begun, and can only end without the marker
        assert f"nobody serves SPO: {gap} any more" in answer.lines[-1]["error"]


# -- whose time is over --


async def test_calls_end_with_the_request() -> None:
    """The limit is the deadline of the calls, and 504; a client that leaves cancels them. The views report both."""
    async with open_views() as ([lower], [upper]), open_gateway([lower, upper]) as gateway:
        await gateway.wait_ready()
        await lower.hang()
        answer = await gateway.get(f"{FACTS}&limit={LIMIT}")
        assert (answer.status, answer.marked) == (200, False)
        assert answer.lines[-1] == {"error": f"no whole answer within {LIMIT:g} s"}
        late = await cancelled(lower)
        assert late.timeout is not None
        assert LIMIT / 2 < late.timeout <= LIMIT

        async with gateway.open(FACTS) as response:
            assert response.status == 200  # the other view has answered
            await asked(lower)
        await cancelled(lower)

        await upper.hang()
        answer = await gateway.get(f"{FACTS}&limit=0.5")
        assert (answer.status, answer.lines) == (504, [{"error": "no whole answer within 0.5 s"}])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(gateway.get, FACTS)
            await asked(lower)
            await asked(upper)
            nursery.cancel_scope.cancel()
        await cancelled(lower)
        await cancelled(upper)


# -- the end --


class Held(ReadFactsSPServicer):
    """Answers lookups, with no facts, when it is released."""

    def __init__(self) -> None:
        self.released = trio.Event()

    async def lookupS(self, input_message: LookupSRequest) -> AsyncIterator[LookupChunk]:
        await self.released.wait()
        yield LookupChunk()


@asynccontextmanager
async def open_held(*arguments: str) -> AsyncIterator[tuple[Gateway, Response, FakeView, Held]]:
    """A gateway with a request in flight: the upper view has answered, the lower one waits for its release."""
    held = Held()
    async with (
        open_fake_view(where="loopback", partition=LOWER, services=[held]) as lower,
        open_fake_view(where="loopback", partition=UPPER) as upper,
        open_gateway([lower, upper], *arguments) as gateway,
    ):
        await gateway.wait_ready()
        async with gateway.open(FACTS) as response:
            await asked(lower)
            yield gateway, response, lower, held


async def test_it_drains() -> None:
    """After SIGTERM new connections are refused, a request in flight is answered whole, and the program ends well."""
    async with open_held() as (gateway, response, _, held):
        gateway.terminate()
        await gateway.wait_refusing()
        held.released.set()
        assert (await response.rest()).whole
        await gateway.ended()


async def test_it_does_not_wait_for_ever() -> None:
    """A request that takes longer than `--grace` is cut, its calls are cancelled, and the program ends as well."""
    async with open_held("--grace", "0.2") as (gateway, response, lower, _):
        gateway.terminate()
        assert not (await response.rest()).marked
        await cancelled(lower)
        await gateway.ended()


class Flood(ReadFactsSPServicer):
    """Finds more facts than fit between a view and a client that does not read."""

    async def lookupS(self, input_message: LookupSRequest) -> AsyncIterator[LookupChunk]:
        fact = Fact(subject=1, predicate=1, object=bytes(50_000))
        while True:
            yield LookupChunk(facts=[LookupChunk_Fact(fact=fact)])


async def test_a_client_that_does_not_read() -> None:
    """A client that takes nothing cannot hold up the end."""
    async with (
        open_fake_view(where="loopback", services=[Flood()]) as view,
        open_gateway([view], "--limit", "0.5", "--grace", "0.1") as gateway,
    ):
        await gateway.wait_ready()
        async with gateway.open("/facts?subject=1"):
            await cancelled(view)  # by the limit: all buffers in between are full
            gateway.terminate()
            await gateway.ended()


# -- under load --


def test_the_load_runs() -> None:
    """The program that makes the figures of the README runs, sees whole answers, and none that is wrong."""
    command = [sys.executable, str(DRIVE), "--seconds", "3", "--partitions", "1", "--clients", "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    table = [line.split() for line in done.stdout.splitlines() if not line.startswith("wrk")]
    assert [row[0] for row in table] == ["killed", "nothing", "replicas", "partitions"]
    assert int(table[1][1]) > 0
