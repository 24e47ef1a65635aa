"""Which operations a seed gives: a random hour, or some.

Rules:
* All chance is one `random.Random`, seeded by a text; only methods of it whose results are the same in all versions of
  Python that viewreg supports.
* What goes wrong mostly comes with what makes it well again, so that a world is good about half of the time: else
  nothing would be promised, and nothing found.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

from simulation.calls import KINDS
from simulation.operations import HOSTS, Operation

if TYPE_CHECKING:
    from collections.abc import Callable

_EPISODE_EVERY: Final = 25.0  # seconds, in the mean; so for the others
_MOMENT_EVERY: Final = 30.0
_CALL_EVERY: Final = 12.0
_DISCOVERY_EVERY: Final = 90.0
_STALL_EVERY: Final = 200.0
_READ_EVERY: Final = 120.0
_OPEN_FOR: Final = 600.0  # how long a registry lives


def operations(seed: int, seconds: float) -> list[Operation]:
    """What happens in the world of this seed in so many seconds, in order, no two things in one millisecond."""
    draw = _Draw(Random(f"viewreg simulation {seed}"), seconds)
    for host in HOSTS:
        if draw.rng.random() < 0.8:
            draw.add(0.0, "start", host)
    draw.add(0.0, "list", *draw.some_hosts())
    draw.add(0.0, "open")
    draw.episodes()
    draw.moments()
    draw.discovery()
    draw.calls()
    draw.readers()
    draw.stalls()
    draw.registries()
    return draw.in_order()


class _Draw:
    def __init__(self, rng: Random, seconds: float) -> None:
        self.rng: Final = rng
        self._seconds: Final = seconds
        self._drawn: list[tuple[float, str, tuple[str, ...]]] = []
        self._numbers = 0  # of calls, readers and waiters

    def add(self, at: float, verb: str, *words: str) -> None:
        if 0 <= at < self._seconds:
            self._drawn.append((at, verb, words))

    def in_order(self) -> list[Operation]:
        self._drawn.sort(key=lambda item: item[0])
        found: list[Operation] = []
        last = -1
        for at, verb, words in self._drawn:
            last = max(last + 1, round(at * 1000))
            found.append(Operation(last / 1000, verb, words))
        return found

    def some_hosts(self) -> list[str]:
        count = self.rng.choice((0, 1, 3, 4, 5, 5))
        notes = ("", "", "", ";a", ";b")
        return [host + self.rng.choice(notes) for host in HOSTS if self.rng.random() < count / 5 or count == 5]

    def episodes(self) -> None:
        """Something is wrong with a server for a while."""
        for at in self._moments(_EPISODE_EVERY):
            host, lasts = self.rng.choice(HOSTS), self.rng.choice((0.5, 3.0, 12.0, 40.0, 150.0)) * self.rng.random()
            wrong, well = self.rng.choice(_EPISODES)(self.rng)
            self.add(at, wrong[0], host, *wrong[1:])
            self.add(at + lasts, well[0], host, *well[1:])
            if wrong[0] == "delay":  # stalls tell most while something is on its way
                for _ in range(2):
                    self.add(at + lasts * self.rng.random(), "stall", self.rng.choice(("0.3", "2.5", "6")))

    def moments(self) -> None:
        """Something happens to a server."""
        for at in self._moments(_MOMENT_EVERY):
            host = self.rng.choice(HOSTS)
            verb, *words = self.rng.choice(_MOMENTS)
            self.add(at, verb, host, *words)
            if verb == "goaway" and self.rng.random() < 0.5:
                self.add(at + self.rng.choice((0.02, 0.3, 1.0)), "goaway", host, "0")
            if verb == "kill":  # restarted at once, with another partition
                self.add(at + 0.002, "serve", host, self.rng.choice(("SPO", "POS")), "0", str(self.rng.randrange(1, 9)))
                self.add(at + 0.004, "start", host)

    def discovery(self) -> None:
        for at in self._moments(_DISCOVERY_EVERY):
            if self.rng.random() < 0.5:  # a call that may outlive its endpoint, for it lasts 12 s
                self.add(at - 0.5, "call", self._number(), self.rng.choice(HOSTS), "listen", "inf", "4", "4")
            self.add(at, "list", *self.some_hosts())
            if self.rng.random() < 0.3:
                self.add(at + 20 * self.rng.random(), "list", *HOSTS)
            if self.rng.random() < 0.2:
                self.add(at + 5, "discovery", self.rng.choice(("lies", "talks-nonsense")))
            if self.rng.random() < 0.2:
                begin = at + 10 * self.rng.random()
                self.add(begin, "discovery", "fails")
                self.add(begin + 30 * self.rng.random(), "discovery", "recovers")
        for at in self._moments(3 * _DISCOVERY_EVERY):
            self.add(at, "list", *HOSTS)

    def calls(self) -> None:
        for at in self._moments(_CALL_EVERY):
            for _ in range(self.rng.choice((1, 1, 1, 2, 10))):
                number = self._number()
                deadline = self.rng.choice(("0.05", "1", "6", "20", "inf"))
                count, pause = str(self.rng.randrange(1, 5)), self.rng.choice(("0", "0", "0.3", "4"))
                self.add(at, "call", number, self.rng.choice(HOSTS), self.rng.choice(KINDS), deadline, count, pause)
                if deadline == "inf" or self.rng.random() < 0.2:
                    self.add(at + self.rng.choice((0.001, 1.0, 30.0, 60.0)), "leave", number)

    def readers(self) -> None:
        for at in self._moments(_READ_EVERY):
            number = self._number()
            self.add(at, "read", number, self.rng.choice(("0", "0.5", "30")))
            self.add(at + 400 * self.rng.random(), "stop", number)
        for at in self._moments(_READ_EVERY):
            number = self._number()
            words = self.rng.choice(
                (
                    *(("stable", "0"), ("stable", "5"), ("stable", "60"), ("count", "3"), ("count", "5")),
                    *(("served", "1"), ("served", "3")),
                    *(("healthy", host) for host in HOSTS),
                    ("change", "-"),
                )
            )
            self.add(at, "wait", number, *words)
            self.add(at + 400 * self.rng.random(), "stop", number)

    def stalls(self) -> None:
        for at in self._moments(_STALL_EVERY):
            self.add(at, "stall", self.rng.choice(("0.05", "1", "2.5", "6", "13", "60")))

    def registries(self) -> None:
        for at in self._moments(_OPEN_FOR):
            self.add(at, "close-registry", self.rng.choice(("by-leaving", "by-cancelling", "by-raising", "by-listing")))
            begin = at + 0.5 + 5 * self.rng.random()
            self.add(begin, "open")
            for pause in (0.0, 0.02, 0.4, 3.0):
                self.add(begin + pause, "call", self._number(), self.rng.choice(HOSTS), "ask", "20", "1", "0")

    def _moments(self, every: float) -> list[float]:
        found, at = [], self.rng.expovariate(1 / every)
        while at < self._seconds:
            found.append(at)
            at += self.rng.expovariate(1 / every)
        return found

    def _number(self) -> str:
        self._numbers += 1
        return str(self._numbers)


_Words = tuple[str, ...]
_ANSWER: Final = ("behave", "answer", "0")
_EPISODES: Final[tuple[Callable[[Random], tuple[_Words, _Words]], ...]] = (
    lambda _: (("freeze",), ("thaw",)),
    lambda _: (("freeze",), ("thaw",)),
    lambda rng: (("cut", rng.choice(("both", "to-server", "to-client"))), ("heal",)),
    lambda rng: (("cut", "both"), ("heal",)),
    lambda rng: (("dials", rng.choice(("refuse", "black-hole"))), ("dials", "accept")),
    lambda rng: (("greet", rng.choice(("nothing", "nonsense"))), ("greet", "settings")),
    lambda rng: (("behave", "fail", rng.choice(("14", "13", "4", "1", "12"))), _ANSWER),
    lambda _: (("behave", "hang", "0"), _ANSWER),
    lambda rng: (("behave", "slow", rng.choice(("0.2", "4.9", "5.1", "20"))), _ANSWER),
    lambda rng: (("behave", rng.choice(("garble", "view-type", "encoding", "partition")), "0"), _ANSWER),
    lambda _: (("behave", "refuse", "0"), _ANSWER),
    lambda _: (("behave", "leave", "0"), _ANSWER),
    lambda rng: (("behave", "reset", rng.choice(("2", "8", "11", "12"))), _ANSWER),
    lambda _: (("kill",), ("start",)),
    lambda _: (("kill",), ("start",)),
    lambda rng: (("delay", *rng.choice((("0.01", "0"), ("0.1", "0.1"), ("0.4", "0.1")))), ("delay", "0", "0")),
    lambda _: (("pings", "ignored"), ("pings", "answered")),
)
_MOMENTS: Final = (
    ("reset",),
    ("close",),
    ("half-close",),
    ("goaway", "0"),
    ("goaway", "0"),
    ("goaway", "0"),
    ("goaway", "2"),
    ("goaway", "11"),
    ("drain",),
    ("kill",),
    ("serve", "SPO", "0", "0"),
    ("serve", "POS", "5", "9"),
)
