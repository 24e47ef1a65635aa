"""What a unary call costs the client, beside grpcio's asyncio client and plain purerpc: CPU by getrusage, as ratios.

Every client runs in a process of its own, against one server, in turn; after a warm-up each measures itself. Medians of
several rounds are printed, and the medians of each round's ratios: the speed of a machine drifts. With viewreg and its
`test` extra installed: `python benchmarks/bench_calls.py [--rounds N] [--calls N] [--quick]`
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Awaitable, Callable
from concurrent import futures
from typing import Any

METHOD = "/rpc.Diagnostics/stats"
CLIENTS = ("viewreg", "grpcio", "purerpc")
CONCURRENT = 50

Call = Callable[[], Awaitable[object]]


def main() -> None:
    """Play the part that the command line gives."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it runs")
    parser.add_argument("--role", choices=("server", *CLIENTS), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "server":
        serve()
    elif options.role:
        print(json.dumps(CLIENT[options.role](options.port, options.calls)))
    elif options.quick:
        compare(1, 200)
    else:
        compare(options.rounds, options.calls)


def compare(rounds: int, calls: int) -> None:
    """Run the clients in turn, and print the table."""
    program = [sys.executable, __file__]
    pipe = subprocess.PIPE
    with subprocess.Popen([*program, "--role", "server"], stdout=pipe, stdin=pipe, text=True) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        found: dict[str, list[dict[str, float]]] = {client: [] for client in CLIENTS}
        for _ in range(rounds):
            for client in CLIENTS:
                command = [*program, "--role", client, "--port", port, "--calls", str(calls)]
                found[client].append(json.loads(subprocess.run(command, check=True, stdout=pipe).stdout))
        server.kill()
    print(f"client CPU per unary call, microseconds, medians of {rounds} rounds of {calls} calls")
    print(f"{'':12}{'sequential':>12}{f'{CONCURRENT} at once':>14}")
    medians = {
        client: {key: statistics.median(result[key] for result in results) for key in ("sequential", "concurrent")}
        for client, results in found.items()
    }
    for client, median in medians.items():
        print(f"{client:12}{median['sequential']:12.1f}{median['concurrent']:14.1f}")
    for client in CLIENTS[1:]:
        rounds_of_both = list(zip(found["viewreg"], found[client], strict=True))
        ratios = {
            key: statistics.median(ours[key] / theirs[key] for ours, theirs in rounds_of_both)
            for key in ("sequential", "concurrent")
        }
        print(f"{'/ ' + client:12}{ratios['sequential']:12.2f}{ratios['concurrent']:14.2f}")


def serve() -> None:
    """A grpcio server whose answer is ready-made; ends with its standard input."""
    import grpc

    from viewreg.rpc import StatsResult

    answer = StatsResult(viewType="diskview/rocksdb", hostname="bench", facts=1000).SerializeToString()
    handler: Any = grpc.unary_unary_rpc_method_handler(lambda _request, _context: answer)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("rpc.Diagnostics", {"stats": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(None)


def cpu() -> float:
    """CPU seconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure_trio(
    call_with: Callable[[Callable[[Call], Awaitable[None]]], Awaitable[None]], calls: int
) -> dict[str, float]:
    """Measure calls in a Trio program."""
    import trio

    found: dict[str, float] = {}

    async def measure(call: Call) -> None:
        async def some(count: int) -> None:
            for _ in range(count):
                await call()

        await some(calls // 10)
        before = cpu()
        await some(calls)
        found["sequential"] = 1e6 * (cpu() - before) / calls
        before = cpu()
        async with trio.open_nursery() as nursery:
            for _ in range(CONCURRENT):
                nursery.start_soon(some, calls // CONCURRENT)
        found["concurrent"] = 1e6 * (cpu() - before) / (calls // CONCURRENT * CONCURRENT)

    trio.run(call_with, measure)
    return found


def viewreg_client(port: int, calls: int) -> dict[str, float]:
    """Our channel, under purerpc's generated stub."""
    from viewreg import Feature, ProbeResult, open_registry
    from viewreg.rpc import StatsRequest

    class Nothing:
        no_features = Feature(0)

        async def __call__(self, channel: object) -> ProbeResult[Feature]:  # noqa: ARG002 (it asks nothing)
            return ProbeResult(Feature.DIAGNOSTICS)

    async def call_with(measure: Callable[[Call], Awaitable[None]]) -> None:
        async with open_registry(f"static:///127.0.0.1:{port}", probe=Nothing()) as registry:
            await registry.wait_until(lambda snapshot: bool(snapshot.healthy_views()))
            stub = registry.all_views()[0].diagnostics()
            await measure(lambda: stub.stats(StatsRequest()))

    return measure_trio(call_with, calls)


def purerpc_client(port: int, calls: int) -> dict[str, float]:
    """Plain purerpc: its own channel under the same stub."""
    import purerpc

    from viewreg.rpc import DiagnosticsStub, StatsRequest

    async def call_with(measure: Callable[[Call], Awaitable[None]]) -> None:
        async with purerpc.insecure_channel("127.0.0.1", port) as channel:
            its_own: Any = channel
            stub = DiagnosticsStub(its_own)
            await measure(lambda: stub.stats(StatsRequest()))

    return measure_trio(call_with, calls)


def grpcio_client(port: int, calls: int) -> dict[str, float]:
    """The asyncio client of grpcio, on the C core."""
    import grpc.aio

    from viewreg.rpc.views_pb2 import StatsRequest, StatsResult

    async def run() -> dict[str, float]:
        found: dict[str, float] = {}
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stats: Any = channel.unary_unary(
                METHOD, request_serializer=StatsRequest.SerializeToString, response_deserializer=StatsResult.FromString
            )

            async def some(count: int) -> None:
                for _ in range(count):
                    await stats(StatsRequest())

            await some(calls // 10)
            before = cpu()
            await some(calls)
            found["sequential"] = 1e6 * (cpu() - before) / calls
            before = cpu()
            await asyncio.gather(*(some(calls // CONCURRENT) for _ in range(CONCURRENT)))
            found["concurrent"] = 1e6 * (cpu() - before) / (calls // CONCURRENT * CONCURRENT)
        return found

    return asyncio.run(run())


CLIENT: dict[str, Callable[[int, int], dict[str, float]]] = {
    "viewreg": viewreg_client,
    "purerpc": purerpc_client,
    "grpcio": grpcio_client,
}

if __name__ == "__main__":
    main()
