"""A view server on grpcio, for trying things out and for tests that need a real peer.

    python examples/grpcio_view.py --port 0 --encoding SPO --partition 1 --of 3

It shares nothing with viewreg but `proto/views.proto`, which it compiles when it starts: so it shows what the wire is,
not what viewreg takes it to be. It needs the packages grpcio, grpcio-tools and xxhash.

1. It serves Diagnostics; with a view type of `diskview/...` also Carousel and the ReadFacts service of its encoding.
2. Its facts are made up, always the same ones, and cut down to its partition.
3. It prints JSON, one object a line, at once: `{"port", "pid"}` when it listens, then an event when a call starts and
   when it ends. The `reason` of an end is completed, failed, cancelled (a lost connection included) or
   deadline_exceeded; `time_remaining` is in seconds, null without a deadline. A client that keeps its deadline itself
   is often the first to notice it: that is cancelled, with next to no time remaining.
4. SIGTERM and SIGINT end it, and with `--watch-stdin` the end of standard input, so that it never outlives its parent.
"""

from __future__ import annotations

import argparse
import base64
import cProfile
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import grpc
import grpc_tools
import xxhash
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Context: TypeAlias = grpc.ServicerContext
    Message: TypeAlias = Any  # of a class that exists only once the proto is compiled
    Method: TypeAlias = Callable[[Message, Context], Any]

PROTO = Path(__file__).parent.parent / "proto" / "views.proto"
HASHES = 2**64
LOG_LEVELS = [logging.CRITICAL, logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG]
FOREVER = 1e9  # seconds; grpcio reports a call without a deadline as one with a deadline far away

# By the number of the operator; a fact's object, then the two values of the request. OpIn (10) is not served.
COMPARE: dict[int, Callable[[bytes, bytes, bytes], bool]] = {
    0: lambda fact, value, _: fact == value,
    1: lambda fact, value, _: fact < value,
    2: lambda fact, value, _: fact <= value,
    3: lambda fact, value, _: fact > value,
    4: lambda fact, value, _: fact >= value,
    5: lambda fact, low, high: low <= fact < high,
    6: lambda fact, low, high: low <= fact <= high,
    7: lambda fact, value, _: fact.startswith(value),
    8: lambda fact, low, high: low < fact <= high,
    9: lambda fact, low, high: low < fact < high,
    11: lambda fact, value, _: fact != value,
}


class Fact(NamedTuple):
    """A fact; every fact has a log index of its own, which is also its id."""

    id: int
    subject: int
    predicate: int
    object: bytes

    @classmethod
    def nth(cls, number: int) -> Fact:
        """Make up a fact: each subject has eight predicates, each object many facts."""
        return cls(number, 1000 + number // 8, 1 + number % 8, b"object %d" % (number % 100))

    def hash(self, encoding: str) -> int:
        """Give the point of the hash space at which the fact lies."""
        predicate = self.predicate.to_bytes(8, "little")
        key = self.subject.to_bytes(8, "little") + predicate if encoding == "SPO" else predicate + self.object
        return xxhash.xxh64_intdigest(key)

    def fields(self) -> dict[str, Any]:
        """Give the fields of the message."""
        return {"index": self.id, **self._asdict()}


class ViewServer:
    """The methods of the services, and the facts that they answer from."""

    def __init__(self, args: argparse.Namespace, rpc: dict[str, Any]) -> None:
        """Make up the facts of the partition that `args` name; `rpc` has the message classes by name."""
        self.args, self.rpc = args, rpc
        self.started = time.monotonic()
        self.partitioned = args.view_type.startswith("diskview/")
        size, longer = divmod(HASHES, args.of)  # the first `longer` parts hold one hash more
        self.start, self.end = (n * size + min(n, longer) for n in (args.partition, args.partition + 1))
        mine = (fact for fact in map(Fact.nth, count(1)) if self.start <= fact.hash(args.encoding) < self.end)
        self.facts = list(islice(mine, args.facts)) if self.partitioned else []
        self.last_index = self.facts[-1].id if self.facts else 0

    def services(self) -> dict[str, dict[str, Method]]:
        """Give the methods of each service that is served."""
        everywhere: dict[str, Method] = {
            "stats": self.stats,
            "profile": self.profile,
            "setLogLevel": self.set_log_level,
            "updateStats": lambda _request, _context: self.rpc["UpdateStatsResult"](),
        }
        if not self.partitioned:
            return {"Diagnostics": everywhere}
        by_subject = self.args.encoding == "SPO"
        lookups = ("lookupS", "lookupSP", "lookupSPO") if by_subject else ("lookupPO", "lookupPOCmp")
        return {
            "Diagnostics": everywhere,
            "Carousel": {"logStatus": self.log_status, "ride": self.ride},
            f"ReadFacts{'SP' if by_subject else 'PO'}": {
                "factStats": self.fact_stats,
                **dict.fromkeys(lookups, self.lookup),
            },
        }

    def stats(self, _request: Message, _context: Context) -> Message:
        """Tell what is served."""
        result = self.rpc["StatsResult"](
            lastIndex=self.last_index,
            facts=len(self.facts),
            factVersions=len(self.facts),
            viewType=self.args.view_type,
            hostname=socket.gethostname(),
            hashPartition={},  # present even without a partition, as from a Go server
        )
        result.upTime.FromNanoseconds(int((time.monotonic() - self.started) * 1e9))
        if self.partitioned:
            result.partition = f"{self.args.encoding} {self.args.partition + 1}/{self.args.of}"
            result.hashPartition.start = self.start
            result.hashPartition.end = self.end % HASHES  # 0 is infinity
            result.hashPartition.encoding = f"KeyEncoding{self.args.encoding}"
        return result

    def profile(self, request: Message, context: Context) -> Message:
        """Profile the counting of facts, over and over, for as long as was asked."""
        if not request.filename:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "filename '': expected a path")
        until = time.monotonic() + request.duration.ToNanoseconds() / 1e9
        with cProfile.Profile() as profile:
            while time.monotonic() < until and context.is_active():
                self.fact_stats(request, context)
        profile.dump_stats(request.filename)
        return self.rpc["ProfileResult"]()

    def set_log_level(self, request: Message, context: Context) -> Message:
        """Change the level of the root logger."""
        if request.newLevel not in range(len(LOG_LEVELS)):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"newLevel {request.newLevel}: expected 0 to 5")
        logging.getLogger().setLevel(LOG_LEVELS[request.newLevel])
        return self.rpc["LogLevelResult"]()

    def log_status(self, _request: Message, _context: Context) -> Message:
        """Tell how much of the log went into the facts."""
        after = {"index": self.last_index + 1, "version": 1}
        encoding = f"KeyEncoding{self.args.encoding}"
        return self.rpc["LogStatusResult"](
            replayPosition=after, nextPosition=after, keyEncoding=encoding, maxVersionSupported=1
        )

    def ride(self, request: Message, context: Context) -> Iterator[Message]:
        """Go round the facts `--ride-turns` times; a ride that finds nothing still sends a message each turn."""
        wanted = request.hashPartition
        encoding = {1: "SPO", 2: "POS"}.get(wanted.encoding) or self.args.encoding
        facts = [
            fact.fields()
            for fact in self.facts
            if wanted.start <= fact.hash(encoding) < (wanted.end or HASHES)
            if request.minIndex <= fact.id <= (request.maxIndex or HASHES)
        ]
        ended = threading.Event()
        context.add_callback(ended.set)
        for _turn in range(self.args.ride_turns) if self.args.ride_turns else count():
            for start in range(0, len(facts) or 1, self.args.chunk):
                yield self.rpc["CarouselResult"](facts=facts[start : start + self.args.chunk])
                if ended.wait(self.args.ride_interval):
                    return

    def lookup(self, request: Message, context: Context) -> Iterator[Message]:
        """Answer any of the five lookups: only LookupSRequest has plain subjects, all others have items."""
        found: list[dict[str, Any]] = []
        for position, item in enumerate(request.subjects if hasattr(request, "subjects") else request.lookups):
            matches = self._matcher(item, context)
            found += ({"lookup": position, "fact": fact.fields()} for fact in self.facts if matches(fact))
        for start in range(0, len(found), self.args.chunk):
            yield self.rpc["LookupChunk"](facts=found[start : start + self.args.chunk])

    def _matcher(self, item: Message, context: Context) -> Callable[[Fact], bool]:
        if isinstance(item, int):
            return lambda fact: fact.subject == item
        if hasattr(item, "operator"):
            if item.operator not in COMPARE:
                context.abort(grpc.StatusCode.UNIMPLEMENTED, f"operator {item.operator}: not served here")
            compare = COMPARE[item.operator]
            return lambda fact: fact.predicate == item.predicate and compare(fact.object, item.object, item.end_object)
        asked = [name for name in ("subject", "predicate", "object") if hasattr(item, name)]
        return lambda fact: all(getattr(fact, name) == getattr(item, name) for name in asked)

    def fact_stats(self, _request: Message, _context: Context) -> Message:
        """Count the facts; the lists leave nothing out."""
        result = self.rpc["FactStatsResult"](NumFacts=len(self.facts))
        for kind, names in {
            "Predicates": ["predicate"],
            "PredicateObjects": ["predicate", "object"],
            "Subjects": ["subject"],
            "SubjectPredicates": ["subject", "predicate"],
        }.items():
            counts = Counter(tuple(getattr(fact, name) for name in names) for fact in self.facts)
            setattr(result, f"Distinct{kind}", len(counts))
            for values, number in counts.items():
                getattr(result, kind[0].lower() + kind[1:]).add(**dict(zip(names, values, strict=True)), count=number)
        return result


_printing = threading.Lock()


def _print(**values: object) -> None:
    with _printing:
        sys.stdout.write(json.dumps(values) + "\n")
        sys.stdout.flush()


@contextmanager
def _reported(method: str, context: Context) -> Iterator[None]:
    """Print the start and the end of the call that the block serves."""
    reason = ""  # written once, when the block is left; a call that ends before was ended by the client or the deadline
    metadata = [
        (key, value if isinstance(value, str) else base64.b64encode(value).decode())
        for key, value in context.invocation_metadata()
    ]

    def report(event: str, left: float | None, **more: str) -> None:
        left = None if left is None or left > FOREVER else left
        _print(event=event, method=method, time_remaining=left, metadata=metadata, **more)

    def ended() -> None:
        left = context.time_remaining()
        report("rpc_ended", left, reason=reason or ("deadline_exceeded" if left == 0 else "cancelled"))

    report("rpc_started", context.time_remaining())
    if not context.add_callback(ended):
        ended()
    try:
        yield
    except Exception:
        reason = "failed"
        raise
    else:
        reason = "completed"


def _handler(path: str, method: Any, run: Method) -> grpc.RpcMethodHandler[Any, Any]:  # noqa: ANN401  descriptors have no types
    request, result = (message_factory.GetMessageClass(kind) for kind in (method.input_type, method.output_type))

    def unary(message: Message, context: Context) -> Message:
        with _reported(path, context):
            return run(message, context)

    def stream(message: Message, context: Context) -> Iterator[Message]:
        with _reported(path, context):
            yield from run(message, context)

    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(stream, request.FromString, result.SerializeToString)
    return grpc.unary_unary_rpc_method_handler(unary, request.FromString, result.SerializeToString)


def _compile(proto: Path) -> Any:  # noqa: ANN401  descriptors have no types
    """Give the descriptor of `proto`, in a pool of its own."""
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        options = [f"-I{proto.parent}", f"-I{well_known}", "--include_imports", f"--descriptor_set_out={out}"]
        if protoc.main(["protoc", *options, proto.name]):
            sys.exit(f"cannot compile {proto}")
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return pool.FindFileByName(proto.name)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="A view server with made-up facts.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port to listen on, 0 for any free one")
    parser.add_argument("--view-type", default="diskview/rocksdb", help="what to be: diskview/..., txtimeout, or a lie")
    parser.add_argument("--encoding", choices=["SPO", "POS"], default="SPO", help="what the partition is made of")
    parser.add_argument("--partition", type=int, default=0, help="which part to hold, counted from 0")
    parser.add_argument("--of", type=int, default=1, help="how many equal parts there are")
    parser.add_argument("--facts", type=int, default=1000, help="how many facts to hold")
    parser.add_argument("--chunk", type=int, default=100, help="facts in a streamed message")
    parser.add_argument("--ride-interval", type=float, default=0.0, help="seconds between the messages of a ride")
    parser.add_argument("--ride-turns", type=int, default=1, help="turns of a ride, 0 for ever")
    parser.add_argument("--threads", type=int, default=64, help="calls to serve at a time")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=NUMBER", help="option of the gRPC core")
    parser.add_argument("--grace", type=float, default=0.0, help="seconds that calls may still take when it ends")
    parser.add_argument("--watch-stdin", action="store_true", help="exit when standard input ends")
    args = parser.parse_args()
    if not 0 <= args.partition < args.of:
        parser.error(f"--partition {args.partition}: expected 0 or more, and less than --of {args.of}")
    return args


def _watch_stdin(stop: threading.Event) -> None:
    # Not through sys.stdin: the interpreter cannot shut down while a thread holds its lock.
    while os.read(0, 4096):
        pass
    stop.set()


def main() -> None:
    """Serve until told to stop."""
    args = _arguments()
    proto = _compile(PROTO)
    rpc = {name: message_factory.GetMessageClass(kind) for name, kind in proto.message_types_by_name.items()}

    options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
    options += [(key, int(value)) for key, _, value in (text.partition("=") for text in args.option)]
    server = grpc.server(ThreadPoolExecutor(args.threads), options=options)
    for name, methods in ViewServer(args, rpc).services().items():
        service = proto.services_by_name[name]
        handlers = {
            method: _handler(f"/{service.full_name}/{method}", service.methods_by_name[method], run)
            for method, run in methods.items()
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
    port = server.add_insecure_port(f"[{args.host}]:{args.port}" if ":" in args.host else f"{args.host}:{args.port}")

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    if args.watch_stdin:
        threading.Thread(target=_watch_stdin, args=[stop], daemon=True).start()
    server.start()
    _print(port=port, pid=os.getpid())
    stop.wait()
    server.stop(args.grace or None).wait()


if __name__ == "__main__":
    main()
