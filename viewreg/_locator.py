"""Where view servers are: what a locator promises, and the one that is simply told.

Rules:
* A locator publishes whole lists, each with a version above the last. It may fail; it must not lie about versions.
* The registry asks from one task: `cached` once, then `wait_for_update` again and again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from attrs import field, frozen

from viewreg._endpoint import Endpoint
from viewreg._errors import InvalidTypeError, check_int, check_type
from viewreg._watch import Watched

if TYPE_CHECKING:
    import attrs


def _endpoints(value: object) -> tuple[Endpoint, ...]:
    if isinstance(value, str | bytes):
        raise InvalidTypeError(f"endpoints {value!r}: expected an iterable of Endpoint, not one text")
    if not isinstance(value, Iterable):
        raise InvalidTypeError(f"endpoints {value!r}: expected an iterable of Endpoint")
    return tuple(value)


def _all_endpoints(
    _instance: object, _attribute: attrs.Attribute[tuple[Endpoint, ...]], value: tuple[Endpoint, ...]
) -> None:
    for endpoint in value:
        if not isinstance(endpoint, Endpoint):
            raise InvalidTypeError(f"endpoint {endpoint!r}: expected an Endpoint")


def _version(_instance: object, attribute: attrs.Attribute[int], value: int) -> None:
    check_int(attribute.name, value, 0)


@frozen
class Discovery:
    """One whole list of endpoints, as a locator found it. One bad item makes the whole list invalid."""

    version: int = field(validator=_version)
    """0 or more, and above the version of every earlier list of the same locator."""

    endpoints: tuple[Endpoint, ...] = field(converter=_endpoints, validator=_all_endpoints)
    """In any order. If two have the same host and port, the later one counts."""


@runtime_checkable
class Locator(Protocol):
    """Finds endpoints. `str` of it says where it looks, for people."""

    def cached(self) -> Discovery:
        """What is known now, without waiting. A locator that knows nothing yet gives an empty list."""
        ...

    async def wait_for_update(self, old_version: int) -> Discovery:
        """Wait for a list with a version above `old_version`, and return the newest. Cancellation may come any time.

        Raises anything when it cannot find out; the registry keeps what it has, and asks again after a backoff.
        """
        ...


class StaticLocator:
    """The endpoints that it is told: `Endpoint` objects, or texts such as "example.com:80" or "[::1]:80".

    `set` replaces them at any time, in the Trio thread. Raises `InvalidValueError` or `InvalidTypeError` for anything
    that is no endpoint; the list in force then stays.
    """

    def __init__(self, endpoints: Iterable[Endpoint | str] = ()) -> None:
        self._watched = Watched(_parsed(endpoints), version=1)

    def set(self, endpoints: Iterable[Endpoint | str]) -> None:
        """Replace the whole list. Registries follow at once."""
        self._watched.publish(_parsed(endpoints))

    def cached(self) -> Discovery:
        """The list in force."""
        return Discovery(self._watched.version, self._watched.value)

    async def wait_for_update(self, old_version: int) -> Discovery:
        """Wait until `set` was called since `old_version`."""
        await self._watched.wait_past(old_version)
        return self.cached()

    def __str__(self) -> str:
        return "static:///" + ",".join(endpoint.host_port for endpoint in self._watched.value)


def _parsed(endpoints: Iterable[Endpoint | str]) -> tuple[Endpoint, ...]:
    if isinstance(endpoints, str | bytes):
        raise InvalidTypeError(
            f"endpoints {endpoints!r}: expected an iterable of Endpoint or HOST:PORT texts, not one text"
        )
    try:
        items = list(endpoints)
    except TypeError:
        raise InvalidTypeError(
            f"endpoints {endpoints!r}: expected an iterable of Endpoint or HOST:PORT texts"
        ) from None
    return tuple(item if isinstance(item, Endpoint) else _parse(item) for item in items)


def _parse(text: str) -> Endpoint:
    check_type("endpoint", text, str, "an Endpoint or a HOST:PORT text")
    return Endpoint.parse(text)
