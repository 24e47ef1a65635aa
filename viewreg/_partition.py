"""Which part of all facts a view serves: a range of hashes, of one of two kinds.

Rules:

* The hash space is 0 to 2**64 - 1. A range includes its start and excludes its end; None as its end is infinity.
* A fact's hash is XXH64 with seed 0. What is hashed depends on the encoding: subject and predicate, or predicate and
  object; a number as 8 bytes, little-endian, an object as its bytes.
* Hashes, splits and texts are those of the original to the letter: servers written in Go compute them, too.
"""

from __future__ import annotations

import enum
import struct
from typing import ClassVar, Protocol

import attrs
import xxhash

from viewreg._errors import check_int, check_type

_SPACE = 2**64  # how many hashes there are
_LARGEST = _SPACE - 1  # the largest hash, subject or predicate

_UINT64 = struct.Struct("<Q")
_TWO_UINT64 = struct.Struct("<QQ")


class Fact(Protocol):
    """What `FactPartition.has_fact` reads of a fact; the message ``Fact`` on the wire fits.

    Subject and predicate are ids, 0 to 2**64 - 1; the object is an encoded value.
    """

    @property
    def subject(self) -> int:
        """Whom it is about: 0 to 2**64 - 1."""
        ...

    @property
    def predicate(self) -> int:
        """What it says: 0 to 2**64 - 1."""
        ...

    @property
    def object(self) -> bytes:
        """The value, in the original's encoding."""
        ...


class KeyEncoding(enum.Enum):
    """By which two parts of a fact it is assigned to a partition. The values are those on the wire."""

    SPO = 1
    """By subject and predicate: `hash_sp`."""

    POS = 2
    """By predicate and object: `hash_po`."""


def hash_sp(subject: int, predicate: int) -> int:
    """Return the hash that partitions of `KeyEncoding.SPO` go by, 0 to 2**64 - 1.

    Raises `InvalidValueError` or `InvalidTypeError` unless both arguments are ints from 0 to 2**64 - 1.
    """
    check_int("subject", subject, 0, _LARGEST)
    check_int("predicate", predicate, 0, _LARGEST)
    return xxhash.xxh64_intdigest(_TWO_UINT64.pack(subject, predicate))


def hash_po(predicate: int, object: bytes) -> int:  # noqa: A002  # the field's word, as in the original and on the wire
    """Return the hash that partitions of `KeyEncoding.POS` go by, 0 to 2**64 - 1.

    Raises `InvalidValueError` or `InvalidTypeError` unless `predicate` is an int from 0 to 2**64 - 1 and `object` is
    bytes.
    """
    check_int("predicate", predicate, 0, _LARGEST)
    check_type("object", object, bytes, "bytes")
    return xxhash.xxh64_intdigest(_UINT64.pack(predicate) + object)


def _none_at_infinity(end: int | None) -> int | None:
    return None if isinstance(end, int) and end == _SPACE else end  # a float of that size is for the check to refuse


@attrs.frozen
class HashRange:
    """A non-empty range of hashes.

    Raises `InvalidValueError` or `InvalidTypeError` that names the field, its value and its range.
    """

    FULL: ClassVar[HashRange]
    """The whole hash space."""

    start: int = attrs.field()
    """The first hash: 0 to 2**64 - 1."""

    end: int | None = attrs.field(converter=_none_at_infinity)
    """The hash after the last one: above `start`, at most 2**64 - 1; None is infinity.

    2**64, which is what a sum comes to, is stored as None, so that equal ranges are equal.
    """

    def __attrs_post_init__(self) -> None:
        check_int("start", self.start, 0, _LARGEST)
        if self.end is not None:
            check_int("end", self.end, self.start + 1, _SPACE)

    @property
    def stop(self) -> int:
        """The end as a number, 2**64 for infinity: for arithmetic and comparison."""
        return _SPACE if self.end is None else self.end

    def __contains__(self, value: object) -> bool:
        """Whether `value` is a hash within the range. What is no int is in no range."""
        return isinstance(value, int) and self.start <= value < self.stop

    def __str__(self) -> str:
        end = "∞" if self.end is None else _point_text(self.end)
        return f"{_point_text(self.start)} - {end}"


HashRange.FULL = HashRange(0, None)

_SHORTEST_RUN = 5  # of equal trailing digits, for it to be cut
_SHORTEST_HEAD = 2  # digits that always stay


def _point_text(point: int) -> str:
    # The original's rule and its quirk: one digit more goes than the run has, so the text may fit several points, and
    # the last digit before the run is not to be seen (0x0564.. is 0x0564800000000000).
    digits = f"{point:016X}"
    run = len(digits) - len(digits.rstrip(digits[-1]))
    if run < _SHORTEST_RUN:
        return f"0x{digits}"
    head = max(len(digits) - run - 1, _SHORTEST_HEAD)
    return f"0x{digits[:head]}.."


@attrs.frozen
class FactPartition:
    """The facts that one view serves: those whose hash, by `encoding`, is in `hash_range`.

    Raises `InvalidTypeError` if a field is not of its type.
    """

    encoding: KeyEncoding = attrs.field()
    """Which hash of a fact counts."""

    hash_range: HashRange = attrs.field()
    """The hashes that belong to the partition."""

    def __attrs_post_init__(self) -> None:
        check_type("encoding", self.encoding, KeyEncoding, "KeyEncoding.SPO or KeyEncoding.POS")
        check_type("hash_range", self.hash_range, HashRange, "a HashRange")

    @classmethod
    def nth(cls, encoding: KeyEncoding, i: int, *, of: int) -> FactPartition:
        """Return partition `i`, counted from 0, of the `of` that split the hash space as evenly as can be.

        The first (2**64 mod `of`) partitions hold one hash more than the others. Raises `InvalidValueError` or
        `InvalidTypeError` unless `of` is an int from 1 to 2**64 and `i` one from 0 to `of` - 1.
        """
        check_int("of", of, 1, _SPACE)
        check_int("i", i, 0, of - 1)
        size, larger = divmod(_SPACE, of)
        start = i * size + min(i, larger)
        return cls(encoding, HashRange(start, start + size + (i < larger)))

    def has_fact(self, fact: Fact) -> bool:
        """Return whether `fact` belongs to the partition. Raises as `hash_sp` and `hash_po` do for its parts."""
        if self.encoding is KeyEncoding.SPO:
            return hash_sp(fact.subject, fact.predicate) in self.hash_range
        return hash_po(fact.predicate, fact.object) in self.hash_range

    def __str__(self) -> str:
        return f"{self.encoding.name}: {self.hash_range}"
