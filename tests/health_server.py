"""A grpcio server with grpcio's own health service, and acme.Search. For tests, in a process of its own.

It prints its port, then obeys lines of input: `NAME STATUS` sets the status of a service ("." is the server as a
whole), and is answered by `ok`; `stop SECONDS` ends it with that much grace. It ends when its standard input does. With
`--no-watch` it only has Check, with `--nothing` no health service at all.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped, unused-ignore]

from acme.search_pb2 import Found, Query
from acme.search_pb2_grpc import SearchServicer, add_SearchServicer_to_server

if TYPE_CHECKING:
    from collections.abc import Iterator


class Search(SearchServicer):
    """It finds what it is asked for."""

    def find(self, request: Query, context: object) -> Found:
        return Found(text=f"a {request.text}")

    def list(self, request: Query, context: object) -> Iterator[Found]:
        return (Found(text=f"{request.text} {number}") for number in range(3))

    def collect(self, request_iterator: Iterator[Query], context: object) -> Found:
        return Found(text=", ".join(query.text for query in request_iterator))

    def talk(self, request_iterator: Iterator[Query], context: object) -> Iterator[Found]:
        return (Found(text=query.text) for query in request_iterator)


class NoWatch(health.HealthServicer):  # type: ignore[misc, unused-ignore]
    def Watch(self, request: Any, context: grpc.ServicerContext, send_response_callback: Any = None) -> Any:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "there is no Watch here")


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--no-watch", action="store_true")
    parser.add_argument("--nothing", action="store_true")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--option", action="append", default=[], metavar="NAME=NUMBER", help="of the grpcio server")
    options = parser.parse_args()
    numbers = [(name, int(value)) for name, _, value in (option.partition("=") for option in options.option)]
    server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0), *numbers])
    servicer = (NoWatch if options.no_watch else health.HealthServicer)()
    if not options.nothing:
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    add_SearchServicer_to_server(Search(), server)
    port = server.add_insecure_port(f"127.0.0.1:{options.port}")
    server.start()
    say(str(port))
    for line in sys.stdin:
        name, status = line.split()
        if name == "stop":
            server.stop(float(status)).wait()
            break
        servicer.set("" if name == "." else name, health_pb2.HealthCheckResponse.ServingStatus.Value(status))
        say("ok")
    os._exit(0)


def say(text: str) -> None:
    """Print one line."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
