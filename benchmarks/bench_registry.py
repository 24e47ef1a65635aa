"""What a large registry costs: CPU and memory for each view, reading it, and one change of it.

One grpcio server process listens on as many ports as there are views. CPU is this process's own, by getrusage; memory
is the growth of its resident set. With viewreg and its `test` extra installed:
`python benchmarks/bench_registry.py [--views N] [--rounds N] [--quick]`
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import statistics
import subprocess
import sys
import time
from concurrent import futures
from pathlib import Path
from typing import Any

import attrs
import trio
import trio.testing

from viewreg import Feature, Registry, open_registry

READS = 2000
CHANGES = 2000


def main() -> None:
    """Play the part that the command line gives."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--views", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--role", choices=("server", "client"), help=argparse.SUPPRESS)
    parser.add_argument("--uri", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="one round of few views, to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.views, options.rounds = 50, 1
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * options.views + 500
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    if options.role == "server":
        serve(options.views)
    elif options.role == "client":
        trio.run(client, options.uri, options.views)
    else:
        compare(options.views, options.rounds)


def compare(views: int, rounds: int) -> None:
    """Run the client several times, and print medians."""
    program = [sys.executable, __file__, "--views", str(views)]
    pipe = subprocess.PIPE
    with subprocess.Popen([*program, "--role", "server"], stdout=pipe, stdin=pipe, text=True) as server:
        assert server.stdout is not None
        uri = server.stdout.readline().strip()
        results = []
        for _ in range(rounds):
            run = subprocess.run([*program, "--role", "client", "--uri", uri], check=True, stdout=pipe)
            results.append(json.loads(run.stdout))
        server.kill()
    print(f"{views} views, medians of {rounds} rounds")
    for name in results[0]:
        print(f"{name:48}{statistics.median(result[name] for result in results):10.2f}")


def serve(ports: int) -> None:
    """A grpcio server on many ports; ends with its standard input."""
    import grpc

    from viewreg.rpc import CarouselHashPartitionRequest, KeyEncodingSPO, StatsResult

    partition = CarouselHashPartitionRequest(start=0, end=0, encoding=KeyEncodingSPO)
    answer = StatsResult(viewType="diskview/bench", hashPartition=partition).SerializeToString()
    handler: Any = grpc.unary_unary_rpc_method_handler(lambda _request, _context: answer)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("rpc.Diagnostics", {"stats": handler}),))
    found = [server.add_insecure_port("127.0.0.1:0") for _ in range(ports)]
    server.start()
    print("static:///" + ",".join(f"127.0.0.1:{port}" for port in found), flush=True)
    sys.stdin.read()
    server.stop(None)


async def client(uri: str, views: int) -> None:
    """Open a registry, measure, and print what was found."""
    found: dict[str, float] = {}
    await healthy("static:///" + uri.removeprefix("static:///").split(",")[0], 1)  # imports, caches
    gc.collect()
    memory = resident()
    before, began = cpu(), time.perf_counter()
    async with open_registry(uri) as registry:
        await registry.wait_until(lambda snapshot: len(snapshot.healthy_views()) == views)
        found["until all healthy: CPU per view, ms"] = 1e3 * (cpu() - before) / views
        found["until all healthy: wall, ms"] = 1e3 * (time.perf_counter() - began)
        await trio.sleep(0.5)
        gc.collect()
        found["memory per view, KB"] = (resident() - memory) / views / 1000
        before = cpu()
        for _ in range(READS):
            registry.healthy_views(Feature.HASH_SP)
        found["healthy_views, nothing changed: CPU, us"] = 1e6 * (cpu() - before) / READS
        before = cpu()
        for _ in range(READS):
            registry.pick(Feature.HASH_SP)
        found["pick, nothing changed: CPU, us"] = 1e6 * (cpu() - before) / READS
        before = cpu()
        for _ in range(READS):
            registry.pick(Feature.HASH_SP, hash=2**63)
        found["pick for a hash, nothing changed: CPU, us"] = 1e6 * (cpu() - before) / READS
        found["one change, made and seen by a waiter: CPU, us"] = await changes(registry)
        began = time.perf_counter()
    found["leaving the block: wall, ms"] = 1e3 * (time.perf_counter() - began)
    print(json.dumps(found))


async def healthy(uri: str, views: int) -> None:
    """Open a registry until all its views are healthy, and leave it."""
    async with open_registry(uri) as registry:
        await registry.wait_until(lambda snapshot: len(snapshot.healthy_views()) == views)


async def changes(registry: Registry) -> float:
    """Flip one view's health again and again, while a task waits for every change and takes the snapshot."""
    handle = next(iter(registry._handles.values()))  # noqa: SLF001 (what a supervisor does, and nothing else)
    good = handle.supervisor.record.health
    bad = attrs.evolve(good, healthy=False)

    async def wait() -> None:
        seen = registry.last_changed
        while True:
            seen = (await registry.wait_for_change(seen)).last_changed

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        before = cpu()
        for number in range(CHANGES):
            registry._apply(handle, good if number % 2 else bad)  # noqa: SLF001
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
        spent = cpu() - before
        nursery.cancel_scope.cancel()
    return 1e6 * spent / CHANGES


def cpu() -> float:
    """CPU seconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    main()
