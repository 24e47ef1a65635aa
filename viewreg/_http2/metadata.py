"""Metadata: the header fields of a call that are the users' own (gRPC over HTTP/2, "Custom-Metadata").

Rules:
* A name is lower-case ASCII letters, digits, "_", "-" and "."; names that begin with "grpc-" or ":" are gRPC's own.
* A value is printable ASCII text without a space at either end; or bytes, if the name ends in "-bin": those travel as
  base64 without padding.
* What arrives is forgiving: padding or none, several values in one field; what cannot be read is left out.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias

from viewreg._errors import InvalidTypeError, InvalidValueError
from viewreg._http2.headers import literal

if TYPE_CHECKING:
    from viewreg._http2.headers import HeaderList

Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]
"""As it arrived: (name, value) in order; bytes for names that end in "-bin"."""

MetadataLike: TypeAlias = Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]]
"""As it may be given: a mapping, or (name, value) pairs where a name may come more than once."""

Field: TypeAlias = tuple[str, bytes, int]
"""An encoded field: its name, its bytes in a header block, its size in a header list."""

_NAME: Final = re.compile(r"[0-9a-z_.-]+")
_TEXT: Final = re.compile(r"(?:[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)?")
_RESERVED: Final = frozenset(
    [
        "te",
        "content-type",
        "user-agent",
        "host",
        "content-length",
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
    ]
)
_DETAILS: Final = "grpc-status-details-bin"  # where servers put a google.rpc.Status: for users, though gRPC's by name
_FIELD_OVERHEAD: Final = 32  # bytes that a field counts in a header list beside its text (RFC 9113, 6.5.2)


def encode_metadata(metadata: MetadataLike) -> tuple[bytes, int]:
    """The header fields, and their size as it counts in a header list. Raises for what may not be sent."""
    return joined(encode_fields(metadata))


def joined(fields: Iterable[Field]) -> tuple[bytes, int]:
    """The same of fields that are encoded already."""
    parts, size = [], 0
    for _, part, part_size in fields:
        parts.append(part)
        size += part_size
    return b"".join(parts), size


def encode_fields(metadata: MetadataLike) -> Iterator[Field]:
    """Each field by itself, in order. Raises for what may not be sent."""
    for name, value in _pairs(metadata):
        if not isinstance(name, str):
            raise InvalidTypeError(f"metadata name {name!r}: expected text")
        if not _NAME.fullmatch(name) or name.startswith("grpc-") or name in _RESERVED:
            expected = "expected lower-case letters, digits, '_', '-' and '.', and none of gRPC's and HTTP's own names"
            raise InvalidValueError(f"metadata name {name!r}: {expected}")
        encoded = _encode_value(name, value)
        yield name, literal(name.encode(), encoded), len(name) + len(encoded) + _FIELD_OVERHEAD


def _pairs(metadata: MetadataLike) -> Iterator[tuple[str, str | bytes]]:
    expected = "expected a mapping or (name, value) pairs"
    if isinstance(metadata, Mapping):
        yield from metadata.items()  # pyright: ignore[reportReturnType] (it takes a mapping for an iterable of pairs)
        return
    given: object = metadata
    if isinstance(given, Iterable):
        for pair in given:
            if not (isinstance(pair, tuple | list) and len(pair) == 2):  # noqa: PLR2004 (a pair)
                raise InvalidTypeError(f"metadata with an item of type {type(pair).__name__}: {expected}")
            yield pair[0], pair[1]
    else:
        raise InvalidTypeError(f"metadata of type {type(given).__name__}: {expected}")


def _encode_value(name: str, value: str | bytes) -> bytes:
    # No value stands in an error's text: it may be a secret.
    if name.endswith("-bin"):
        if not isinstance(value, bytes | bytearray):
            raise InvalidTypeError(
                f"metadata {name!r}: expected bytes, because the name ends in '-bin', not {type(value).__name__}"
            )
        return base64.b64encode(value).rstrip(b"=")
    if not isinstance(value, str):
        raise InvalidTypeError(
            f"metadata {name!r}: expected text, not {type(value).__name__}; bytes need a name that ends in '-bin'"
        )
    if not _TEXT.fullmatch(value):
        expected = (
            "expected printable ASCII without a space at either end; anything else needs a name that ends in '-bin'"
        )
        raise InvalidValueError(f"metadata {name!r}: {expected}")
    return value.encode("ascii")


def decode_metadata(headers: HeaderList | None) -> Metadata:
    """The users' fields of a response's headers or trailers, in order."""
    if not headers:
        return ()
    result: list[tuple[str, str | bytes]] = []
    for raw_name, raw_value in headers:
        name = raw_name.decode("ascii", "backslashreplace")
        if name != _DETAILS and (name.startswith((":", "grpc-")) or name in _RESERVED):
            continue
        if not name.endswith("-bin"):
            result.append((name, raw_value.decode("ascii", "backslashreplace")))
            continue
        for part in raw_value.split(b","):
            data = part.strip().rstrip(b"=")
            try:
                result.append((name, base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)))
            except binascii.Error:
                continue
    return tuple(result)
