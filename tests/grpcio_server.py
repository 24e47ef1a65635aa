"""A grpcio server that does what its calls ask for, nasty things included. For tests, in a process of its own.

1. It prints JSON, one object a line, at once: `{"event": "listening", "port"}`, then for each call `start` (with
   `time_remaining` in seconds, null without a deadline, and the `metadata`) and `end`, by the call's tag. `early` says
   that the call ended before its method did: the client left, or the deadline fired.
2. Metadata that begins with `x-` comes back ahead of the answer, metadata that begins with `t-` with the status.
3. It ends when its standard input does, so it never outlives its parent. A line of input, a number of seconds, stops
   it with that much grace: GOAWAY now, the end when the calls have ended.
4. With `--certificate` and `--key`, files, it speaks TLS; with `--client-ca` it demands certificates of its clients.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from nasty.nasty_pb2 import Answer, Order

if TYPE_CHECKING:
    from collections.abc import Iterator

FOREVER = 1e9  # seconds; grpcio reports a call without a deadline as one with a deadline far away
CODES = {code.value[0]: code for code in grpc.StatusCode}


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--option", action="append", default=[], metavar="NAME=NUMBER", help="of the grpcio server")
    parser.add_argument("--certificate", type=Path)
    parser.add_argument("--key", type=Path)
    parser.add_argument("--client-ca", type=Path)
    args = parser.parse_args()
    options = [(name, int(value)) for name, _, value in (option.partition("=") for option in args.option)]
    server = grpc.server(
        ThreadPoolExecutor(64),
        options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1), *options],
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("nasty.Nasty", handlers()),))
    address = "127.0.0.1:0"
    if args.certificate is None:
        port = server.add_insecure_port(address)
    else:
        port = server.add_secure_port(address, credentials(args.certificate, args.key, args.client_ca))
    server.start()
    report("listening", port=port)
    line = sys.stdin.readline()
    if line.strip():
        threading.Thread(target=end_with_stdin, daemon=True).start()
        server.stop(float(line)).wait()
    os._exit(0)


def credentials(certificate: Path, key: Path, client_ca: Path | None) -> grpc.ServerCredentials:
    """What the server shows, and what it demands."""
    return grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())],
        root_certificates=None if client_ca is None else client_ca.read_bytes(),
        require_client_auth=client_ca is not None,
    )


def end_with_stdin() -> None:
    """Wait for the parent to close standard input, or to die."""
    sys.stdin.read()
    os._exit(0)


def report(event: str, **fields: object) -> None:
    """Print one line."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def handlers() -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    """Give the methods of the service."""
    codec: dict[str, Any] = {"request_deserializer": Order.FromString, "response_serializer": encode}
    return {
        "ask": grpc.unary_unary_rpc_method_handler(ask, **codec),
        "listen": grpc.unary_stream_rpc_method_handler(listen, **codec),
        "tell": grpc.stream_unary_rpc_method_handler(tell, **codec),
        "talk": grpc.stream_stream_rpc_method_handler(talk, **codec),
    }


def encode(answer: Answer | bytes) -> bytes:
    """Serialise an answer; bytes pass as they are, so that answers can be garbage."""
    return answer if isinstance(answer, bytes) else answer.SerializeToString()


class Call:
    """One call, from its start to its end as the client sees it."""

    def __init__(self, tag: str, context: grpc.ServicerContext) -> None:
        """Report the start, and prepare to report the end; send back metadata."""
        self.tag, self.context = tag, context
        self.over = threading.Event()
        self.returned = False
        metadata = [(str(name), value) for name, value in context.invocation_metadata()]
        remaining: float | None = context.time_remaining()  # its types know nothing of None
        report(
            "start",
            tag=tag,
            time_remaining=None if remaining is None or remaining > FOREVER else remaining,
            metadata=[(name, value.hex() if isinstance(value, bytes) else value) for name, value in metadata],
        )
        if not context.add_callback(self.end):
            self.end()
        initial = [(name, value) for name, value in metadata if name.startswith("x-")]
        if initial:
            context.send_initial_metadata(tuple(initial))
        context.set_trailing_metadata(tuple((name, value) for name, value in metadata if name.startswith("t-")))

    def end(self) -> None:
        """Report the end."""
        report("end", tag=self.tag, early=not self.returned)
        self.over.set()

    def sleep(self, seconds: float) -> None:
        """Wait for a time, or until the call is over."""
        if seconds:
            self.over.wait(seconds)

    def answers(self, order: Order, requests: int, request_bytes: int) -> Iterator[Answer | bytes]:
        """Give what the order asks for, then set the status."""
        self.sleep(order.delay)
        if order.abort:
            self.returned = True
            self.context.abort(CODES[order.code], order.details)
        payload = bytes(order.answer_size) or order.payload
        for number in range(1, order.answers + 1):
            if number > 1:
                self.sleep(order.pause)
            if self.over.is_set():
                return
            if number == 1 and order.garbage:
                yield order.garbage
            else:
                yield Answer(number=number, payload=payload, requests=requests, request_bytes=request_bytes)
        if order.hang:
            self.over.wait()
        if order.code:
            self.context.set_code(CODES[order.code])
            self.context.set_details(order.details)
        self.returned = True

    def answer(self, order: Order, requests: int, request_bytes: int) -> Answer | bytes:
        """Give the one answer that the order asks for."""
        order.answers = 1
        (answer,) = list(self.answers(order, requests, request_bytes)) or [b""]
        return answer


def ask(order: Order, context: grpc.ServicerContext) -> Answer | bytes:
    """Answer once."""
    return Call(order.tag, context).answer(order, 1, len(order.payload))


def listen(order: Order, context: grpc.ServicerContext) -> Iterator[Answer | bytes]:
    """Answer as often as is asked for."""
    yield from Call(order.tag, context).answers(order, 1, len(order.payload))


def tell(orders: Iterator[Order], context: grpc.ServicerContext) -> Answer | bytes:
    """Read requests until the last, or one that says that it is enough; obey that one."""
    call, order = None, Order()
    requests = request_bytes = 0
    for requests, order in enumerate(orders, 1):  # noqa: B007 (the last ones are used)
        call = call or Call(order.tag, context)
        request_bytes += len(order.payload)
        if order.enough:
            break
    return (call or Call("", context)).answer(order, requests, request_bytes)


def talk(orders: Iterator[Order], context: grpc.ServicerContext) -> Iterator[Any]:
    """Obey each request in turn; the status is that of the last."""
    call = None
    request_bytes = 0
    for requests, order in enumerate(orders, 1):
        call = call or Call(order.tag, context)
        request_bytes += len(order.payload)
        yield from call.answers(order, requests, request_bytes)
        call.returned = False
        if order.enough:
            break
    if call is not None:
        call.returned = True


if __name__ == "__main__":
    main()
