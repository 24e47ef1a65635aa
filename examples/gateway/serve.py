"""Serve the gateway with hypercorn on Trio: `python serve.py --locator static:///HOST:PORT,HOST:PORT`.

Rules:
* SIGTERM and SIGINT drain: no new connections, requests in flight may end within `--grace` seconds, then their calls
  are cancelled. The exit status is then 0.
* A client that takes nothing for `--limit` seconds is cut off by the kernel: hypercorn would wait for it for ever, also
  when the program is to end.
"""

from __future__ import annotations

import argparse
import signal
import socket
from typing import TYPE_CHECKING, Final, cast

import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from app import create_app
from viewreg import ViewregError
from viewreg.locators import open_locator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypercorn.typing import ASGIFramework

    from viewreg import Locator

_LAST_PORT: Final = 65_535
_LONGEST: Final = 3_600  # seconds


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until told to stop. `arguments` are by default those of the command line."""
    parser = _parser()
    options = parser.parse_args(arguments)
    host, port = options.bind
    try:
        locator = open_locator(options.locator)
        listener = _listen(host, port, options.limit)
    except (ViewregError, OSError) as error:
        parser.error(str(error))
    trio.run(_serve, listener, locator, options.limit, options.grace or options.limit)


async def _serve(listener: socket.socket, locator: Locator, limit: float, grace: float) -> None:
    config = Config()
    config.loglevel = "WARNING"
    config.graceful_timeout = grace
    host, port = listener.getsockname()[:2]
    config.bind = [f"fd://{listener.detach()}"]  # which hypercorn closes
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        print(f"serving http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)

        async def told_to_end() -> None:
            await anext(signals)

        app = cast("ASGIFramework", create_app(locator, limit))  # the two have different types for one thing
        await serve(app, config, shutdown_trigger=told_to_end)


def _listen(host: str, port: int, limit: float) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=1024)
    # Its connections inherit both.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * limit))
    return listener


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="An HTTP gateway to a fleet of view servers.")
    parser.add_argument(
        "--locator", required=True, metavar="URI", help="where the servers are, such as static:///HOST:PORT,HOST:PORT"
    )
    parser.add_argument(
        "--bind",
        type=_address,
        default="127.0.0.1:8000",
        metavar="HOST:PORT",
        help="where to serve; port 0 is any free one (default: %(default)s)",
    )
    parser.add_argument(
        "--limit",
        type=_seconds,
        default=5.0,
        metavar="SECONDS",
        help="how long a request may take at most (default: %(default)s)",
    )
    parser.add_argument(
        "--grace",
        type=_seconds,
        metavar="SECONDS",
        help="how long requests in flight may take at the end (default: as long as --limit)",
    )
    return parser


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > _LAST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r}: expected HOST:PORT, with a port from 0 to {_LAST_PORT}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of seconds above 0, up to {_LONGEST}")
    return seconds


if __name__ == "__main__":
    main()
