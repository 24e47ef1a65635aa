"""The promises of hashes, ranges and partitions, against the original's vectors and by property."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from viewreg._errors import InvalidTypeError, InvalidValueError
from viewreg._partition import FactPartition, HashRange, KeyEncoding, hash_po, hash_sp

# Made by running the original. Numbers are decimal texts, an end of null is infinity.
VECTORS: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parent / "vectors" / "partitioning.json").read_text(encoding="utf-8")
)
SPACE = 2**64

uint64 = st.integers(0, SPACE - 1)
encodings = st.sampled_from(KeyEncoding)


@attrs.frozen
class SomeFact:
    """The three parts of a fact."""

    subject: int
    predicate: int
    object: bytes


facts = st.builds(SomeFact, uint64, uint64, st.binary(max_size=40))


@st.composite
def hash_ranges(draw: st.DrawFn) -> HashRange:
    """Any range, and often one that touches an end of the space."""
    start = draw(st.just(0) | uint64)
    return HashRange(start, draw(st.none() | st.integers(start + 1, SPACE)))


def partition_of(case: dict[str, Any]) -> FactPartition:
    """The partition that a vector is about."""
    end = None if case["end"] is None else int(case["end"])
    return FactPartition(KeyEncoding[case["encoding"].removeprefix("KeyEncoding")], HashRange(int(case["start"]), end))


def test_vectors_are_all_there() -> None:
    """Every list of the vectors has its test, here or with the endpoints, and none is empty."""
    assert set(VECTORS) == {"endpoint_text", "has_fact", "hash_po", "hash_sp", "partition_text", "split"}
    assert all(VECTORS.values())


@pytest.mark.parametrize("case", VECTORS["hash_sp"], ids=lambda case: case["hash"])
def test_hash_sp_is_the_originals(case: dict[str, str]) -> None:
    """Subject and predicate hash as in the original."""
    assert hash_sp(int(case["subject"]), int(case["predicate"])) == int(case["hash"])


@pytest.mark.parametrize("case", VECTORS["hash_po"], ids=lambda case: case["hash"])
def test_hash_po_is_the_originals(case: dict[str, str]) -> None:
    """Predicate and object hash as in the original."""
    assert hash_po(int(case["predicate"]), bytes.fromhex(case["object_hex"])) == int(case["hash"])


@pytest.mark.parametrize("case", VECTORS["has_fact"], ids=lambda case: case["object_hex"][:16])
def test_membership_is_the_originals(case: dict[str, Any]) -> None:
    """A fact is in the partitions that the original finds it in."""
    fact = SomeFact(int(case["subject"]), int(case["predicate"]), bytes.fromhex(case["object_hex"]))
    assert partition_of(case).has_fact(fact) is case["has"]


@pytest.mark.parametrize("case", VECTORS["partition_text"], ids=lambda case: ascii(case["text"]))
def test_texts_are_the_originals(case: dict[str, Any]) -> None:
    """A partition reads as in the original, shortened points included."""
    assert str(partition_of(case)) == case["text"]


@pytest.mark.parametrize("case", VECTORS["split"], ids=lambda case: ascii(case["text"]))
def test_splits_are_the_originals(case: dict[str, Any]) -> None:
    """The n-th part of a split is the original's, and so is its text."""
    partition = partition_of(case)
    assert FactPartition.nth(partition.encoding, case["partition"], of=case["of"]) == partition
    assert str(partition) == case["text"]


@pytest.mark.parametrize(
    ("point", "text"),
    [
        (0, "0x00.."),
        (1 << 63, "0x80.."),
        (0x10, "0x0000000000000010"),
        (0x1234567890A00000, "0x1234567890.."),  # the A goes with the zeros: the original's quirk
        (0x1234567890AB0000, "0x1234567890AB0000"),  # a run of four stays
        (SPACE - 1, "0xFF.."),
    ],
)
def test_points_are_shortened_by_the_rule(point: int, text: str) -> None:
    """A run of five or more equal trailing digits is cut, with the digit before it, down to no less than two digits."""
    assert str(HashRange(point, None)) == f"{text} - ∞"


@given(uint64, uint64)
def test_hash_sp_hashes_sixteen_bytes(subject: int, predicate: int) -> None:
    """The two hashes agree where they hash the same bytes, so both numbers are little-endian and in this order."""
    assert hash_sp(subject, predicate) == hash_po(subject, predicate.to_bytes(8, "little"))


@pytest.mark.parametrize("number", [-1, SPACE])
def test_hashes_refuse_what_does_not_fit(number: int) -> None:
    """A number outside 64 bits is refused by the name of the argument, not wrapped."""
    with pytest.raises(InvalidValueError, match=rf"^subject {number}: .* from 0 to {SPACE - 1}$"):
        hash_sp(number, 0)
    with pytest.raises(InvalidValueError, match=rf"^predicate {number}: "):
        hash_sp(0, number)
    with pytest.raises(InvalidValueError, match=rf"^predicate {number}: "):
        hash_po(number, b"")


def test_hashes_refuse_other_types() -> None:
    """A bool, a float or a text is a type error that names the argument."""
    with pytest.raises(InvalidTypeError, match=r"^subject True: "):
        hash_sp(True, 0)
    with pytest.raises(InvalidTypeError, match=r"^predicate 1\.0: "):
        hash_po(1.0, b"")  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(InvalidTypeError, match=r"^object 'a': expected bytes$"):
        hash_po(0, "a")  # type: ignore[arg-type]  # the point of the test


@given(hash_ranges(), uint64)
def test_start_is_in_and_end_is_out(hash_range: HashRange, value: int) -> None:
    """A range holds its start, not its end, and what lies between."""
    assert hash_range.start in hash_range
    assert hash_range.stop - 1 in hash_range
    assert hash_range.stop not in hash_range
    assert hash_range.start - 1 not in hash_range
    assert (value in hash_range) is (hash_range.start <= value < hash_range.stop)


@pytest.mark.parametrize("value", ["1", 1.0, None, -1, SPACE])
def test_what_is_no_hash_is_in_no_range(value: object) -> None:
    """Even the full range holds hashes only."""
    assert value not in HashRange.FULL


def test_infinity_has_one_form() -> None:
    """2**64 as an end is None, so equal ranges are equal, hash alike and read alike."""
    assert HashRange(5, SPACE) == HashRange(5, None)
    assert HashRange(5, SPACE).end is None
    assert HashRange(5, None).stop == SPACE
    assert HashRange(5, 6).stop == 6


def test_full_is_everything() -> None:
    """The full range goes from 0 to infinity."""
    assert (HashRange.FULL.start, HashRange.FULL.end) == (0, None)
    assert str(HashRange.FULL) == "0x00.. - ∞"


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (-1, None, f"start -1: expected a whole number from 0 to {SPACE - 1}"),
        (SPACE, None, f"start {SPACE}: expected a whole number from 0 to {SPACE - 1}"),
        (5, 5, f"end 5: expected a whole number from 6 to {SPACE}"),
        (5, 4, f"end 4: expected a whole number from 6 to {SPACE}"),
        (0, 0, f"end 0: expected a whole number from 1 to {SPACE}"),  # infinity on the wire, never here
        (0, SPACE + 1, f"end {SPACE + 1}: expected a whole number from 1 to {SPACE}"),
    ],
)
def test_bad_ranges_are_named(start: int, end: int | None, message: str) -> None:
    """An empty range, a reversed one or one outside the space is refused with what is allowed."""
    with pytest.raises(InvalidValueError) as caught:
        HashRange(start, end)
    assert str(caught.value) == message


@pytest.mark.parametrize(("start", "end"), [(True, None), ("0", None), (None, 1), (0.0, None), (0, True), (0, 2.0**64)])
def test_bounds_are_ints(start: Any, end: Any) -> None:
    """A bound that is no int, a bool or a float of a fitting value included, is a type error."""
    with pytest.raises(InvalidTypeError, match=r"^(start|end) "):
        HashRange(start, end)


def test_partition_checks_its_fields() -> None:
    """An encoding by name or a range as a pair is a type error that says what to give."""
    with pytest.raises(InvalidTypeError, match=r"^encoding 'SPO': expected KeyEncoding\.SPO or KeyEncoding\.POS$"):
        FactPartition("SPO", HashRange.FULL)  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(InvalidTypeError, match=r"^hash_range \(0, None\): expected a HashRange$"):
        FactPartition(KeyEncoding.SPO, (0, None))  # type: ignore[arg-type]  # the point of the test


@given(encodings, st.integers(1, 1_000))
def test_a_split_covers_the_space_once(encoding: KeyEncoding, of: int) -> None:
    """The parts follow each other without gap or overlap from 0 to infinity, the larger ones first, by one hash."""
    parts = [FactPartition.nth(encoding, i, of=of).hash_range for i in range(of)]
    bounds = [0, *(part.stop for part in parts)]
    assert [*(part.start for part in parts), SPACE] == bounds
    sizes = [part.stop - part.start for part in parts]
    larger = SPACE % of
    assert sizes == [SPACE // of + 1] * larger + [SPACE // of] * (of - larger)


@pytest.mark.parametrize(
    ("i", "of", "message"),
    [(0, 0, "of 0"), (0, SPACE + 1, f"of {SPACE + 1}"), (-1, 2, "i -1"), (2, 2, "i 2: .* from 0 to 1$")],
)
def test_bad_splits_are_named(i: int, of: int, message: str) -> None:
    """No parts, more parts than hashes, or a part that is not there is refused by name."""
    with pytest.raises(InvalidValueError, match=rf"^{message}"):
        FactPartition.nth(KeyEncoding.SPO, i, of=of)


def test_the_finest_split() -> None:
    """The hash space can be split into single hashes, and no further."""
    assert FactPartition.nth(KeyEncoding.SPO, 7, of=SPACE).hash_range == HashRange(7, 8)
    assert FactPartition.nth(KeyEncoding.SPO, SPACE - 1, of=SPACE).hash_range == HashRange(SPACE - 1, None)


@given(facts, hash_ranges())
def test_membership_is_hash_in_range(fact: SomeFact, hash_range: HashRange) -> None:
    """A fact is in a partition if and only if its hash by that encoding is in the range."""
    by_subject = hash_sp(fact.subject, fact.predicate)
    by_object = hash_po(fact.predicate, fact.object)
    assert FactPartition(KeyEncoding.SPO, hash_range).has_fact(fact) is (by_subject in hash_range)
    assert FactPartition(KeyEncoding.POS, hash_range).has_fact(fact) is (by_object in hash_range)


@given(facts, encodings, st.integers(1, 1_000))
def test_a_fact_is_in_one_part_of_a_split(fact: SomeFact, encoding: KeyEncoding, of: int) -> None:
    """Whatever the number of parts, a fact is in exactly one of them."""
    assert sum(FactPartition.nth(encoding, i, of=of).has_fact(fact) for i in range(of)) == 1


@given(encodings, hash_ranges())
def test_partitions_travel(encoding: KeyEncoding, hash_range: HashRange) -> None:
    """A partition survives pickle and deepcopy, and equal ones are interchangeable as keys."""
    partition = FactPartition(encoding, hash_range)
    for twin in (pickle.loads(pickle.dumps(partition)), copy.deepcopy(partition)):
        assert {partition: "found"}[twin] == "found"
