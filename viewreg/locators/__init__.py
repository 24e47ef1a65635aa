"""Locators by URI: what `open_registry("static:///a:1,b:2")` makes of its text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from viewreg._errors import InvalidTypeError, InvalidValueError
from viewreg._locator import StaticLocator

if TYPE_CHECKING:
    from collections.abc import Callable

    from viewreg._locator import Locator


def open_locator(uri: str) -> Locator:
    """The locator that a URI names. Raises `InvalidValueError` for an unknown scheme, and names the known ones."""
    if not isinstance(uri, str):
        raise InvalidTypeError(f"locator {uri!r}: expected a URI such as 'static:///a:1,b:2'")
    scheme, separator, rest = uri.partition("://")
    opener = _SCHEMES.get(scheme)
    if not separator or opener is None:
        known = ", ".join(f"{name}://" for name in _SCHEMES)
        raise InvalidValueError(f"locator {uri!r}: expected a URI that begins with one of: {known}")
    return opener(rest)


def _static(rest: str) -> Locator:
    """`static:///a:1,b:2`: an empty authority, then the addresses."""
    authority, slash, addresses = rest.partition("/")
    if authority or not slash:
        raise InvalidValueError(f"locator 'static://{rest}': expected 'static:///' and HOST:PORT, separated by commas")
    return StaticLocator(text.strip() for text in addresses.split(",") if text.strip())


_SCHEMES: dict[str, Callable[[str], Locator]] = {"static": _static}
