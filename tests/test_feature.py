"""The promises of `Feature` and the text of any flag."""

from __future__ import annotations

import enum

import pytest

from viewreg._errors import InvalidTypeError, InvalidValueError
from viewreg._feature import Feature, feature_text

EVERY_SET = [Feature(bits) for bits in range(16)]


def test_texts_are_the_originals() -> None:
    """Features show in the original's order and spelling, none as nothing."""
    assert [str(feature) for feature in Feature] == ["Diagnostics", "Carousel", "HashPO", "HashSP"]
    assert str(Feature(0)) == ""
    mixed = Feature.HASH_SP | Feature.HASH_PO | Feature.CAROUSEL | Feature.DIAGNOSTICS
    assert str(mixed) == "Diagnostics,Carousel,HashPO,HashSP"
    assert f"{Feature.HASH_SP | Feature.DIAGNOSTICS}" == "Diagnostics,HashSP"


@pytest.mark.parametrize("features", EVERY_SET, ids=repr)
def test_parse_inverts_str(features: Feature) -> None:
    """Every set of features survives the way through its text."""
    assert Feature.parse(str(features)) == features


@pytest.mark.parametrize("features", EVERY_SET, ids=repr)
def test_parse_knows_the_names_in_code(features: Feature) -> None:
    """The names of the members are read as well, in any order and with spaces around them."""
    text = " , ".join(feature.name or "" for feature in reversed(list(features)))
    assert Feature.parse(f" {text} ") == features


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("hashsp", "hashsp"),
        ("Hash_SP", "Hash_SP"),
        ("Diagnostics,", ""),
        (",", ""),
        ("Diagnostics HashSP", "Diagnostics HashSP"),
        ("Diagnostics, Search", "Search"),
        ("3", "3"),
    ],
)
def test_parse_names_the_unknown_and_the_known(text: str, name: str) -> None:
    """An unknown name is refused by name, and the message lists the known ones."""
    with pytest.raises(InvalidValueError) as caught:
        Feature.parse(text)
    assert str(caught.value) == f"feature {name!r}: expected one of Diagnostics, Carousel, HashPO, HashSP"


@pytest.mark.parametrize("value", [None, 1, b"HashSP", Feature.HASH_SP])
def test_parse_takes_text_only(value: object) -> None:
    """What is no text is a type error."""
    with pytest.raises(InvalidTypeError, match=r"^feature .*: expected a str"):
        Feature.parse(value)  # type: ignore[arg-type]  # the point of the test


def test_text_of_feature_is_its_str() -> None:
    """For Feature, the generic text and str agree."""
    assert [feature_text(features) for features in EVERY_SET] == [str(features) for features in EVERY_SET]


class Search(enum.Flag):
    VECTOR = enum.auto()
    FULL_TEXT = enum.auto()
    GEO = enum.auto()


class IntSearch(enum.IntFlag):
    VECTOR = enum.auto()
    FULL_TEXT = enum.auto()
    GEO = enum.auto()


@pytest.mark.parametrize("search", [Search, IntSearch])
def test_text_of_a_plain_flag(search: type[Search | IntSearch]) -> None:
    """A user's flag without a text of its own shows the names of its members, in the order of definition."""
    assert feature_text(search(0)) == ""
    assert feature_text(search.FULL_TEXT) == "FULL_TEXT"
    assert feature_text(search(0b101)) == "VECTOR,GEO"
    assert feature_text(search(0b111)) == "VECTOR,FULL_TEXT,GEO"


def test_text_of_a_flag_with_its_own() -> None:
    """A user's flag that says its own text is not overruled."""

    class Counted(enum.Flag):
        VECTOR = enum.auto()
        GEO = enum.auto()

        def __str__(self) -> str:
            return f"<{len(self)}>"

    assert feature_text(Counted.VECTOR | Counted.GEO) == "<2>"
