"""Load on the gateway while views die under it: `python drive.py --seconds 60`.

View servers and the gateway run in processes, and live through three times: all is well; one replica after the other is
killed and started again; all replicas of one partition after the other are.

Rules:
* Loss is counted by what an answer says, not by its status: clients of our own know the facts of each subject, look for
  the marker and compare. A marker over wrong facts is the one thing that must never be: it is exit status 1.
* Beside them wrk, if it is on PATH, makes load, and counts what it can see, which is statuses.
* Everything shares one machine: the figures say what the gateway bears, not how fast it could be.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
from collections import Counter
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

import trio

from client import get
from launch import open_gateway
from viewreg import open_registry
from viewreg.rpc import LookupSRequest
from viewreg.testing import open_fake_cluster

if TYPE_CHECKING:
    from client import Answer
    from viewreg.testing import FakeCluster, FakeView

_REPLICAS: Final = 2
_SUBJECTS: Final = range(101, 141)  # of whose made-up facts none are left out
_PAUSE: Final = 0.1  # seconds of a client that did not get all
_AWAY: Final = 1.0  # seconds, beside what it takes to start
_WRK: Final = {
    "requests": r"(\d+) requests in",
    "not 2xx": r"Non-2xx or 3xx responses: (\d+)",
    "p50": r" 50% +(\S+)",
    "p99": r" 99% +(\S+)",
}


async def main() -> int:
    """Drive, and print a table. Returns the exit status."""
    options = _arguments()
    wrk = shutil.which("wrk")
    if wrk is None:
        print("wrk is not on PATH (Debian: apt-get install wrk): the clients that count are all the load")
    rng = Random(options.seed)
    wrong = 0
    async with open_fake_cluster(partitions=options.partitions, replicas=_REPLICAS, where="process") as cluster:
        facts = await _facts(cluster)
        locator = "static:///" + ",".join(view.endpoint.host_port for view in cluster.views)
        async with open_gateway(locator) as (process, address):
            print(_line("killed", [*Clients.ENDINGS, "p50", "p99", *(f"wrk {name}" for name in _WRK), "CPU"]))
            for name, victims in _times(cluster).items():
                await _wait_all_healthy(cluster, address)
                clients = Clients(address, facts, rng)
                spent = -_cpu_time(process.pid)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_kill_and_restart, victims, rng)
                    for _ in range(options.clients):
                        nursery.start_soon(clients.ask)
                    seen = await _load(wrk, address, options)
                    nursery.cancel_scope.cancel()
                spent += _cpu_time(process.pid)
                requests = sum(clients.ended.values()) + int(seen.get("requests", 0))
                cpu = f"{1000 * spent / max(requests, 1):.1f}ms"
                print(_line(name, [*clients.figures(), *(seen.get(name, "-") for name in _WRK), cpu]), flush=True)
                wrong += clients.ended["wrong"]
            process.send_signal(signal.SIGTERM)
            await process.wait()
    return 1 if wrong else 0


def _line(name: str, values: list[str]) -> str:
    return f"{name:14}" + "".join(f"{value:>13}" for value in values)


# -- what happens --


def _times(cluster: FakeCluster) -> dict[str, list[list[FakeView]]]:
    """The three times: which views may be killed together."""
    partitions: dict[object, list[FakeView]] = {}
    for view in cluster.views:
        partitions.setdefault(view.partition, []).append(view)
    return {"nothing": [], "replicas": [[view] for view in cluster.views], "partitions": [*partitions.values()]}


async def _kill_and_restart(victims: list[list[FakeView]], rng: Random) -> None:
    while victims:
        views = rng.choice(victims)
        for view in views:
            view.kill()
        await trio.sleep(_AWAY)
        for view in views:
            await view.restart()
        await trio.sleep(_AWAY)


async def _wait_all_healthy(cluster: FakeCluster, address: tuple[str, int]) -> None:
    for view in cluster.views:
        if not view.running:
            await view.restart()
    while (await get(address, "/readyz")).lines[0].get("replicas") != _REPLICAS:  # noqa: ASYNC110 (of another process)
        await trio.sleep(_PAUSE)


async def _facts(cluster: FakeCluster) -> dict[int, set[int]]:
    """The ids of all facts of each subject, as the views tell them when they are asked one by one."""
    found: dict[int, set[int]] = {subject: set() for subject in _SUBJECTS}
    async with open_registry(**cluster.connect) as registry:
        snapshot = await registry.wait_until(lambda snapshot: all(view.healthy for view in snapshot.views))
        for view in snapshot.views:
            async with view.hash_sp().lookupS(LookupSRequest(subjects=_SUBJECTS)) as chunks:
                async for chunk in chunks:
                    for each in chunk.facts:
                        found[each.fact.subject].add(each.fact.id)
    return found


# -- who asks --


class Clients:
    """Clients that know what they should be told, and count what became of their requests."""

    ENDINGS: Final = ("whole", "cut", "503", "504", "else", "wrong")

    def __init__(self, address: tuple[str, int], facts: dict[int, set[int]], rng: Random) -> None:
        self.ended: Final[Counter[str]] = Counter()
        self._address: Final = address
        self._facts: Final = facts
        self._rng: Final = rng
        self._took: Final[list[float]] = []  # seconds of whole answers

    async def ask(self) -> None:
        """Ask without a pause, but after less than a whole answer, until cancelled."""
        while True:
            subject = self._rng.choice(_SUBJECTS)
            began = trio.current_time()
            try:
                ending = self._judge(await get(self._address, f"/facts?subject={subject}"), self._facts[subject])
            except (OSError, trio.BrokenResourceError):
                ending = "else"
            self.ended[ending] += 1
            if ending == "whole":
                self._took.append(trio.current_time() - began)
            else:
                await trio.sleep(_PAUSE)

    def _judge(self, answer: Answer, expected: set[int]) -> str:
        if answer.marked:
            ids = sorted(int(fact["id"]) for fact in answer.facts)
            return "whole" if answer.whole and ids == sorted(expected) else "wrong"
        if answer.facts:
            return "cut"
        return str(answer.status) if str(answer.status) in self.ENDINGS else "else"

    def figures(self) -> list[str]:
        """How many requests ended how, and how long whole answers took."""
        took = sorted(self._took) or [0.0]
        times = [f"{1000 * took[len(took) * percent // 100]:.1f}ms" for percent in (50, 99)]
        return [*(str(self.ended[ending]) for ending in self.ENDINGS), *times]


async def _load(wrk: str | None, address: tuple[str, int], options: argparse.Namespace) -> dict[str, str]:
    """Wait until the time is over; with wrk, make load meanwhile. Returns what it has seen."""
    seconds = max(1, round(options.seconds / 3))
    if wrk is None:
        await trio.sleep(seconds)
        return {}
    url = f"http://{address[0]}:{address[1]}/facts?subject={_SUBJECTS[0]}"
    command = [wrk, "--latency", "-t1", f"-c{options.connections}", f"-d{seconds}s", url]
    said = (await trio.run_process(command, capture_stdout=True)).stdout.decode()
    return {name: found[1] if (found := re.search(pattern, said)) else "0" for name, pattern in _WRK.items()}


def _cpu_time(pid: int) -> float:
    """Seconds that a process has computed."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Load on the gateway while views die.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=60, help="of load, a third for each of the three times")
    parser.add_argument("--partitions", type=int, default=3, help="each is served by two views")
    parser.add_argument("--clients", type=int, default=4, help="that count, beside wrk")
    parser.add_argument("--connections", type=int, default=8, help="of wrk")
    parser.add_argument("--seed", type=int, default=0, help="of whom is killed, and what is asked for")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(trio.run(main))
