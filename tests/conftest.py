"""What several test modules share: one real server for all that do not end it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

# First, because purerpc, and with it every generated module, cannot be imported beside h2 4 without it.
import viewreg._transport.purerpc  # noqa: F401
from servers import Server, running

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A grpcio server that nobody ends."""
    with running() as server:
        yield server


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What was logged of a nasty text may hold half a surrogate pair, which cannot travel from a worker process."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report
