"""How long to wait before the next attempt, after so many failures in a row.

Rules:

* The delay grows by a factor a failure until it reaches the maximum.
* Every delay is jittered, the first included, so that a fleet that failed together does not return together.
* Pure: the generator is an argument, so the same seed gives the same delays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from viewreg._errors import InvalidValueError, as_float, check_int, number

if TYPE_CHECKING:
    from random import Random

# Growth has reached any maximum, or is no growth at all, long before this many failures. Exact as a float.
_FAILURES_THAT_COUNT = 2**53


@attrs.frozen
class Backoff:
    """A jittered exponential backoff; the defaults are those for dialing one view server.

    Growth and jitter are those of gRPC's connection backoff, but for its first delay, which is not jittered there. The
    maximum of one second is the original's: dialing one server a second costs nothing, staying away from one that is
    back costs its users. Raises `InvalidValueError` or `InvalidTypeError` for a field outside its range.
    """

    initial: float = attrs.field(default=0.1, converter=as_float, validator=number(0.001, 86_400))
    """The delay after the first failure, before jitter: 0.001 to 86,400 seconds."""

    multiplier: float = attrs.field(default=1.6, converter=as_float, validator=number(1, 100))
    """What every further failure multiplies the delay by: 1 (never grows) to 100."""

    jitter: float = attrs.field(default=0.2, converter=as_float, validator=number(0, 1, open_end=True))
    """How far a delay may stray, as a fraction of itself: 0 (not at all) up to, not including, 1."""

    maximum: float = attrs.field(default=1.0, converter=as_float, validator=number(0.001, 86_400))
    """What no delay exceeds, jitter included: `initial` to 86,400 seconds."""

    def __attrs_post_init__(self) -> None:
        if self.maximum < self.initial:
            raise InvalidValueError(f"maximum {self.maximum!r}: expected at least initial, which is {self.initial!r}")

    def delay(self, failures: int, rng: Random) -> float:
        """Return the seconds to wait after `failures` failures in a row, of which there is at least one.

        Draws exactly one number from `rng`, whatever the fields. The result is at least ``initial * (1 - jitter)`` and
        at most `maximum`. Raises `InvalidValueError` or `InvalidTypeError` if `failures` is not an int of at least 1.
        """
        check_int("failures", failures, 1)
        try:
            grown = self.initial * self.multiplier ** min(failures - 1, _FAILURES_THAT_COUNT)
        except OverflowError:
            grown = self.maximum
        stray = rng.uniform(1 - self.jitter, 1 + self.jitter)
        # Capped so that jitter still spreads what has grown to the end: else half of all delays would be the maximum.
        ceiling = max(self.initial, self.maximum / (1 + self.jitter))
        return min(min(grown, ceiling) * stray, self.maximum)
