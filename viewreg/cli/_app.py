"""The commands and their options, and what becomes of their errors.

Rules:
* A command is an async function that returns an exit status. It runs until it is done or a signal ends it; then it is
  cancelled, so that all it has started is ended before the program is.
* What the user can mend is one line on standard error and exit status 2. A traceback is a bug.
* A reader that has gone away (`viewreg ... | head`) is no error to speak of.
"""

from __future__ import annotations

import signal
import sys
from importlib.metadata import PackageNotFoundError, version
from io import TextIOWrapper
from typing import TYPE_CHECKING, Annotated, Final, Literal

import trio
from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number

from viewreg._endpoint import Endpoint
from viewreg._errors import ViewregError, check_int
from viewreg._partition import FactPartition, KeyEncoding
from viewreg.cli._output import drop_output, out, say_error, writing
from viewreg.cli._tls import Tls

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

app = App(
    name="viewreg",
    help="A live health registry for fleets of gRPC servers.",
    version=lambda: f"viewreg {_version()}",
    help_format="plaintext",
    result_action="return_value",
    console=out,
)


def _version() -> str:
    try:
        return version("viewreg")
    except PackageNotFoundError:  # run from a source tree
        return "of a source tree, not installed"


@app.command
def demo() -> int:
    """Start a small cluster, let things happen to it, and tell what a registry makes of them. Takes about 15 seconds.

    Exits with 0 if everything was noticed in time, else with 1.
    """
    from viewreg.cli.demo import demo

    return _run(demo)


@app.command
def watch(
    *targets: Annotated[str, Parameter(name="HOST:PORT", required=True)],
    for_: Annotated[float | None, Parameter(name="--for", validator=Number(gte=0, lte=1e9))] = None,
    tls: Tls = Tls(),  # noqa: B008 (frozen)
) -> int:
    """Print every change of the servers' health as it happens, until Ctrl-C.

    Parameters
    ----------
    targets
        The servers, or one locator URI in their place, such as static:///a:1,b:2.
    for_
        Seconds after which to end: with 0 if all servers are healthy then, else with 1.
    """
    from viewreg.cli.watch import watch

    context = tls.context()
    return _run(lambda: watch(targets, for_, context, tls.server_hostname))


@app.command
def call(
    target: Annotated[str, Parameter(name="HOST:PORT")],
    /,
    *,
    timeout: Annotated[float, Parameter(validator=Number(gt=0, lte=1e6))] = 5.0,
    tls: Tls = Tls(),  # noqa: B008 (frozen)
) -> int:
    """Ask a server for its statistics, and print them. Exits with 1 if there is no answer.

    Parameters
    ----------
    target
        The server.
    timeout
        Seconds to wait for the answer, the connection included.
    """
    from viewreg.cli.call import call

    endpoint = Endpoint.parse(target)
    context = tls.context()
    return _run(lambda: call(endpoint, timeout, context, tls.server_hostname))


@app.command
def fake_view(
    *,
    port: int = 0,
    partition: int = 0,
    of: int = 1,
    encoding: Literal["SPO", "POS"] = "SPO",
    view_type: str = "diskview/rocksdb",
) -> int:
    """Run a view server with made-up facts on 127.0.0.1, until Ctrl-C.

    Parameters
    ----------
    port
        The port to listen on; 0 is any free one.
    partition
        Which part of the facts to serve, counted from 0.
    of
        How many parts there are.
    encoding
        What decides to which part a fact belongs: its subject and predicate (SPO), or its predicate and object (POS).
    view_type
        The view type to report: diskview/... or txtimeout, which has no facts.
    """
    from viewreg.cli.fake_view import fake_view

    check_int("--of", of, 1)
    check_int("--partition", partition, 0, of - 1)
    served = FactPartition.nth(KeyEncoding[encoding], partition, of=of)
    return _run(lambda: fake_view(port, served, view_type))


def run(arguments: Sequence[str]) -> int:
    """Run a command line. Returns its exit status."""
    code = 0
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a partition may end in ∞, which not every encoding has
    try:
        result = app(list(arguments) or ["--help"], exit_on_error=False, print_error=False)
        code = result if isinstance(result, int) else 0
        with writing():
            sys.stdout.flush()
    except* (CycloptsError, ViewregError) as group:
        say_error(_innermost(group))
        code = 2
    except* KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except* BrokenPipeError:
        drop_output()
    return code


def _innermost(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)


def _run(command: Callable[[], Awaitable[int]]) -> int:
    return trio.run(_until_signal, command)


async def _until_signal(command: Callable[[], Awaitable[int]]) -> int:
    """Run a command; on a signal cancel it, and return what shells return for that signal."""
    code = 0
    with trio.open_signal_receiver(*_SIGNALS) as signals:
        async with trio.open_nursery() as nursery:

            async def hear() -> None:
                nonlocal code
                async for number in signals:
                    code = 128 + number
                    nursery.cancel_scope.cancel()

            nursery.start_soon(hear)
            code = await command()
            nursery.cancel_scope.cancel()
    return code
