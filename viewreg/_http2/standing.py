"""Metadata that every call of a registry carries: tokens, mostly.

Rules:
* It is validated when it is given, or when a function of the user's has given it, like the metadata of one call.
* A value is shown by nothing: texts of these objects have names at most.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, TypeAlias

from viewreg._http2.metadata import Field, MetadataLike, encode_fields, joined

MetadataFunction: TypeAlias = Callable[[], Awaitable[MetadataLike]]
"""An async function without arguments, asked for the metadata of each call before that begins."""


class FixedMetadata:
    """The same for all calls, encoded once. Immutable; equal to one with the same fields in the same order."""

    __slots__ = ("_fields", "encoded")

    def __init__(self, metadata: MetadataLike) -> None:
        self._fields: Final = tuple(encode_fields(metadata))
        self.encoded: Final = joined(self._fields)

    def beneath(self, own: Iterable[Field]) -> tuple[bytes, int]:
        """Encoded together with what a call has of its own, which replaces fields of the same name."""
        own = tuple(own)
        names = {name for name, _, _ in own}
        return joined([*(field for field in self._fields if field[0] not in names), *own])

    def __eq__(self, other: object) -> bool:
        return self._fields == other._fields if isinstance(other, FixedMetadata) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._fields)

    def __repr__(self) -> str:
        return f"<metadata: {', '.join(name for name, _, _ in self._fields) or 'none'}>"


class AskedMetadata:
    """What the user's function says when it is asked. Equal to one with the same function."""

    __slots__ = ("ask",)

    def __init__(self, ask: MetadataFunction) -> None:
        self.ask: Final = ask

    def __eq__(self, other: object) -> bool:
        return self.ask == other.ask if isinstance(other, AskedMetadata) else NotImplemented

    def __hash__(self) -> int:
        return hash(type(self))  # a function may be any callable, and not every one has a hash

    def __repr__(self) -> str:
        return "<metadata from a function>"  # whose own text may show its arguments


StandingMetadata: TypeAlias = FixedMetadata | AskedMetadata


def standing_metadata(given: MetadataLike | MetadataFunction | StandingMetadata | None) -> StandingMetadata | None:
    """What a user gives, as one of the two; None for nothing. Raises, without a value, for what may not be sent."""
    if given is None or isinstance(given, FixedMetadata | AskedMetadata):
        return given
    if callable(given) and not isinstance(given, Mapping):
        return AskedMetadata(given)
    return FixedMetadata(given)
