"""Every fault at every moment: what it does to its call, its view and its history, and that nothing is left of it."""

from __future__ import annotations

import gc
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock

from matrix.answers import ANSWERS
from matrix.cells import During, cells, different, senseless
from matrix.connection_frames import CONNECTION_FRAMES
from matrix.connections import CONNECTIONS
from matrix.kernel import KERNEL, KernelFault
from matrix.memory import play
from matrix.resets import RESETS
from matrix.sockets import play_row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matrix.cells import Cell, Effect

FRAMES = [*CONNECTIONS, *CONNECTION_FRAMES, *ANSWERS, *RESETS]
# gRPC's doc/negative-http2-interop-test-descriptions.md, and the case that its test server has beside them.
INTEROP = {
    "goaway", "max_streams", "ping", "rst_after_data", "rst_after_header", "rst_during_data", "data_frame_padding",
}  # fmt: skip
OF_CALLS = {"Exchange", "Stream", "ResponseStream"}


@pytest.fixture(scope="module", autouse=True)
def thawed_afterwards() -> Iterator[None]:
    """Let the collector look at everything again."""
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def only_what_is_made_here(thawed_afterwards: None) -> Iterator[None]:
    """Let the collector forget what is there already, so that what is new is found quickly; and stay away."""
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()


def remains() -> Counter[str]:
    """How many objects of viewreg's there are, by type, but for the header blocks that it remembers on purpose."""
    types = [type(found) for found in gc.get_objects()]
    ours = [kind.__qualname__ for kind in types if kind.__module__.partition(".")[0] == "viewreg"]
    return Counter(name for name in ours if name != "HeaderBlock")


def test_the_table_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """Each row has a name of its own, each cell that is not run says why, and gRPC's negative cases are all there."""
    rows = [*FRAMES, *KERNEL]
    assert len({fault.name for fault in rows}) == len(rows)
    why = senseless(rows)
    assert all(len(reason.split()) > 3 for reason in why.values())
    assert {fault.interop for fault in rows if fault.interop} == INTEROP
    skipped = [cell for cell in cells(KERNEL) if isinstance(cell.fault, KernelFault) and cell.fault.needs()]
    with capsys.disabled():
        print(  # noqa: T201 (the count is part of what the matrix says)
            f"\nfault matrix: {len(rows)} faults at {len(During)} moments; {len(cells(FRAMES))} cells in virtual time, "
            f"{len(cells(KERNEL)) - len(skipped)} on real sockets, {len(skipped)} skipped, {len(why)} senseless"
        )
    assert len(cells(FRAMES)) + len(cells(KERNEL)) + len(why) == len(rows) * len(During)


@pytest.mark.parametrize("cell", cells(FRAMES), ids=str)
def test_frames(cell: Cell) -> None:
    """In virtual time the cell is as the table says, and nothing is left."""
    found = trio.run(play, cell, clock=MockClock(autojump_threshold=0))
    assert not remains().keys() & OF_CALLS
    gc.collect()
    assert not remains()
    report(cell, found)


@cache
def found_in(fault: KernelFault) -> dict[During, Effect]:
    """What becomes of all its cells."""
    return trio.run(play_row, fault)


@pytest.mark.parametrize("cell", cells(KERNEL), ids=str)
def test_kernel(cell: Cell) -> None:
    """On real sockets the cell is as the table says, and nothing is left."""
    assert isinstance(cell.fault, KernelFault)
    if missing := cell.fault.needs():
        pytest.skip(missing)
    report(cell, found_in(cell.fault)[cell.during])
    gc.collect()
    assert not remains()


def report(cell: Cell, found: Effect) -> None:
    """Fail, if it is not as expected, with what is different and nothing else."""
    if told := different(cell.expected, found):
        pytest.fail(told, pytrace=False)
