"""What a fake view serves and how it treats its calls: as values, and as JSON for the process in which it runs.

Rules:
* Validated when made, which is in the test's process: so a mistake is raised where it was made.
* `Serving` is what the view is, `Behavior` what it does to every call that begins from now on. A behavior is replaced
  as a whole: whoever makes a view hang has made it stop lying.
"""

from __future__ import annotations

import base64
import math
from typing import Any, Final, Self

from attrs import field, frozen
from attrs.validators import optional

from viewreg._errors import InvalidTypeError, InvalidValueError, as_float, check_type, number, whole
from viewreg._partition import FactPartition, HashRange, KeyEncoding
from viewreg._transport.purerpc import StatusCode
from viewreg.rpc import StatsResult

_LONGEST: Final = 86_400.0  # seconds
_MOST: Final = 1_000_000  # facts or chunks; more is a typing mistake


def _is(kind: type, expected: str) -> Any:  # noqa: ANN401 (an attrs validator of any field)
    return lambda _instance, attribute, value: check_type(attribute.name, value, kind, expected)


_count: Final = whole(0, _MOST)


@frozen(kw_only=True)
class Serving:
    """What a view serves. See `open_fake_view`, whose arguments these are."""

    partition: FactPartition = field(validator=_is(FactPartition, "a FactPartition"))
    view_type: str = field(validator=_is(str, "a str such as 'diskview/rocksdb' or 'txtimeout'"))
    facts: int = field(validator=_count)
    ride_chunks: int | None = field(validator=optional(_count))
    ride_interval: float = field(converter=as_float, validator=number(0, _LONGEST))

    @property
    def partitioned(self) -> bool:
        """Whether a view of this type has a partition (the original's rule)."""
        return self.view_type.startswith("diskview/")

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        hashes = self.partition.hash_range
        return {
            "partition": [self.partition.encoding.name, hashes.start, hashes.end],
            "view_type": self.view_type,
            "facts": self.facts,
            "ride_chunks": self.ride_chunks,
            "ride_interval": self.ride_interval,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Make it again."""
        encoding, start, end = values["partition"]
        return cls(**{**values, "partition": FactPartition(KeyEncoding[encoding], HashRange(start, end))})


@frozen(kw_only=True)
class Behavior:
    """What happens to every call: it waits, then it fails or is answered. By default at once, and truly."""

    delay: float = field(default=0.0, converter=as_float, validator=number(0, _LONGEST, or_inf=True))
    """Seconds before anything is sent; `math.inf` is for ever."""

    code: StatusCode = field(default=StatusCode.OK, validator=_is(StatusCode, "a StatusCode"))
    """The status that the call then ends with; OK lets it be answered."""

    details: str = field(default="", validator=_is(str, "a str"))
    """The words that come with a status other than OK."""

    lie: StatsResult = field(factory=StatsResult)
    """What replaces the truth in an answer of `Diagnostics.stats`."""

    lied_about: tuple[str, ...] = ()
    """Which of its fields do."""

    garbage: bytes | None = field(default=None, validator=optional(_is(bytes, "bytes")))
    """What stands in the place of every message of an answer, whatever the message is."""

    @classmethod
    def failing(cls, code: StatusCode, details: str) -> Self:
        """Every call ends with the status. Raises `InvalidValueError` for OK, which is no failure."""
        if code is StatusCode.OK:
            raise InvalidValueError("code StatusCode.OK: expected the status of a failure")
        return cls(code=code, details=details)

    @classmethod
    def hanging(cls) -> Self:
        """No call is answered."""
        return cls(delay=math.inf)

    @classmethod
    def lying(cls, fields: dict[str, Any]) -> Self:
        """Statistics with these fields instead of the true ones. Raises for a name or a value that they cannot have."""
        known = sorted(StatsResult.DESCRIPTOR.fields_by_name)
        for name in fields:
            if name not in known:
                raise InvalidValueError(f"field {name!r}: expected one of StatsResult: {', '.join(known)}")
        try:
            return cls(lie=StatsResult(**fields), lied_about=tuple(fields))
        except TypeError as error:
            raise InvalidTypeError(f"fields {fields!r}: expected values that StatsResult takes: {error}") from None
        except ValueError as error:
            raise InvalidValueError(f"fields {fields!r}: expected values that StatsResult takes: {error}") from None

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {
            "delay": self.delay,
            "code": self.code.name,
            "details": self.details,
            "lie": base64.b64encode(self.lie.SerializeToString()).decode(),
            "lied_about": self.lied_about,
            "garbage": None if self.garbage is None else base64.b64encode(self.garbage).decode(),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Make it again."""
        lie = StatsResult.FromString(base64.b64decode(values["lie"]))
        lied_about = tuple(values["lied_about"])
        garbage = None if values["garbage"] is None else base64.b64decode(values["garbage"])
        code = StatusCode[values["code"]]
        return cls(**{**values, "code": code, "lie": lie, "lied_about": lied_about, "garbage": garbage})
