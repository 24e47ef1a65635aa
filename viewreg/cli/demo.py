"""`viewreg demo`: a small cluster of real processes, what happens to it, and what the registry makes of that.

Rules:
* Nothing is staged: every time that is told was measured, and what does not happen in time is told and ends the demo.
* Freezing is noticed last, after ten seconds, so it is done first and the other things happen meanwhile.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from statistics import median
from typing import TYPE_CHECKING, Final

import trio

from viewreg._partition import FactPartition, KeyEncoding
from viewreg._transport.status import UnavailableError
from viewreg.cli._output import say, say_fields, seconds_text
from viewreg.cli._story import Story, TooLateError
from viewreg.rpc import CarouselRequest

if TYPE_CHECKING:
    from viewreg._view import View

_SOON: Final = 10.0  # seconds in which everything but freezing is noticed, on a busy machine too
_FROZEN: Final = 20.0  # seconds; at most 10.5 by the defaults of Config
_CHUNKS: Final = 25  # messages of a stream after which its server is killed

_CLUSTER: Final = {
    "A": FactPartition.nth(KeyEncoding.SPO, 0, of=2),
    "B": FactPartition.nth(KeyEncoding.SPO, 1, of=2),
    "C": FactPartition.nth(KeyEncoding.POS, 0, of=2),
    "D": FactPartition.nth(KeyEncoding.POS, 1, of=2),
}
_OTHER: Final = FactPartition.nth(KeyEncoding.SPO, 0, of=1)  # of B, when it comes back


async def demo() -> int:
    """Tell the story. Returns 0, or 1 if something did not happen in time."""
    async with AsyncExitStack() as stack:
        story = Story(stack)
        try:
            await _begin(story)
            await _freeze(story)
            await _kill_in_a_stream(story)
            await _start_again(story)
            await _serve_something_else(story)
            await _add(story)
            await _remove(story)
            await _notice_the_frozen_one(story)
            await _thaw(story)
            _sum_up(story)
        except TooLateError as error:
            story.tell((f"FAILED: {error}", "bold red"))
            return 1
    return 0


async def _begin(story: Story) -> None:
    say("A cluster of 4 view servers, each a process of its own that serves half of all facts: A and B split them by")
    say("subject and predicate (SPO), C and D by predicate and object (POS). A registry watches them over gRPC.")
    say()
    story.tell("Starting the 4 servers, one after the other ...")
    started = trio.current_time()
    for name, partition in _CLUSTER.items():
        await story.start(name, partition)
    story.tell(f"They listen, {story.since(started)} later.")
    opened_at = trio.current_time()
    await story.open_registry()
    await story.wait("all 4 servers healthy", _SOON, lambda snapshot: len(snapshot.healthy_views()) == len(_CLUSTER))
    story.tell(("All 4 are healthy", "green"), f", {story.since(opened_at)} after the registry was opened:")
    story.show()


async def _freeze(story: Story) -> None:
    await story.pause()
    story.fakes["D"].freeze()
    story.frozen_at = trio.current_time()
    story.tell(("D is frozen", "bold"), " (SIGSTOP). Its connection stays open, and is as silent as one that is idle.")
    story.more("After 8 s of silence the registry sends it a PING, and waits 2 s for the answer. Meanwhile:")


async def _kill_in_a_stream(story: Story) -> None:
    await story.pause()
    fake, view = story.fakes["A"], story.view("A")
    chunks, killed_at, error = 0, 0.0, None
    with story.guard("the end of the stream from A", _SOON):
        try:
            async with view.carousel().ride(CarouselRequest()) as ride:
                async for _chunk in ride:
                    chunks += 1
                    if chunks == _CHUNKS:
                        killed_at = trio.current_time()
                        fake.kill()
        except UnavailableError as caught:
            error = caught
    ended = story.since(killed_at)
    if error is None or not killed_at:
        raise TooLateError(f"the stream from A: ended after {chunks} messages, which the kill did not cause")
    story.tell(("A is killed", "bold"), f" (SIGKILL) in the middle of a stream of its facts, after {_CHUNKS} messages.")
    story.more(f"The stream ended with {error.code.name} after {chunks} messages, {ended} after the kill:")
    story.more(f"{error.details}.")
    await story.wait("A unhealthy", _SOON, lambda snapshot: not story.view("A", snapshot).healthy)
    story.noticed("A", killed_at)


async def _start_again(story: Story) -> None:
    await story.pause()
    fake = story.fakes["A"]
    await fake.restart()
    listens_at = trio.current_time()
    story.tell(("A is started again", "bold"), f" at the same address, as process {fake.pid}.")
    await story.wait("A healthy again", _SOON, lambda snapshot: story.view("A", snapshot).healthy)
    story.healthy("A", listens_at, "it listened")
    story.more("A server that is away is dialled about once a second.")


async def _serve_something_else(story: Story) -> None:
    await story.pause()
    fake, was = story.fakes["B"], story.view("B").partition
    await fake.restart(partition=_OTHER)
    listens_at = trio.current_time()
    story.tell(("B is restarted", "bold"), " with another partition: all of SPO instead of half of it.")
    await story.wait("B healthy again", _SOON, lambda snapshot: _serves_other(story.view("B", snapshot)))
    story.healthy("B", listens_at, "it listened")
    story.more(f"It was [{was}], and is [{story.view('B').partition}].")


def _serves_other(view: View) -> bool:
    return view.healthy and view.partition == _OTHER


async def _add(story: Story) -> None:
    await story.pause()
    await story.start("E", _CLUSTER["C"])
    added_at = trio.current_time()
    story.list_all()
    story.tell(
        ("E is added", "bold"), " to the list of servers that the registry follows. It serves the same half as C."
    )
    await story.wait(
        "E healthy", _SOON, lambda snapshot: story.has("E", snapshot) and story.view("E", snapshot).healthy
    )
    story.healthy("E", added_at, "it was listed")


async def _remove(story: Story) -> None:
    await story.pause()
    removed_at = trio.current_time()
    story.list_all(but="C")
    story.tell(("C is removed", "bold"), " from the list. Its process lives on, but no new call goes to it.")
    await story.wait("C gone", _SOON, lambda snapshot: not story.has("C", snapshot))
    story.more(("It has left the registry", "yellow"), f" {story.took(removed_at)} later.")


async def _notice_the_frozen_one(story: Story) -> None:
    await story.pause()
    if story.view("D").healthy:
        story.tell("Waiting for the registry to notice that D is frozen ...")
    await story.wait("D unhealthy", _FROZEN, lambda snapshot: not story.view("D", snapshot).healthy)
    story.tell("D is still frozen.")
    story.noticed("D", story.frozen_at)


async def _thaw(story: Story) -> None:
    await story.pause()
    thawed_at = trio.current_time()
    story.fakes["D"].thaw()
    story.tell(("D is thawed", "bold"), " (SIGCONT).")
    await story.wait("D healthy again", _SOON, lambda snapshot: story.view("D", snapshot).healthy)
    story.healthy("D", thawed_at, "that")


def _sum_up(story: Story) -> None:
    registry = story.registry
    say()
    story.tell(("Everything was noticed.", "bold green"), f" The registry changed {registry.version} times.")
    middle, most = seconds_text(median(story.times)), seconds_text(max(story.times))
    story.more(f"Noticing took {middle} in the median, and {most} at most.")
    say()
    say("registry.summary() is:")
    numbers = ((name, f"{n:.3f}" if isinstance(n, float) else n) for name, n in registry.summary().items())
    say_fields(numbers, "  ")
    say()
    say("registry.dump(reasons=True) prints:")
    registry.dump(reasons=True)
