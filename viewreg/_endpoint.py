"""Where a view server listens, and what changed between two lists of them.

Rules:

* An endpoint is identified by its host and port: by `Endpoint.host_port`, a text that no two identities share. Hosts
  are compared as they are spelled; nothing is resolved, lowered or shortened.
* Annotations describe an endpoint. They count for equality, so that a change of them is noticed, and not for identity.
* The texts are those of the original, and so is the order: by host, then by port as a text.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import attrs

from viewreg._errors import InvalidValueError, check_type, whole

if TYPE_CHECKING:
    from collections.abc import Iterable

_LARGEST_PORT = 65_535
_FORMS = f"HOST:PORT or [IPv6]:PORT, with a port from 1 to {_LARGEST_PORT}"

_ADDRESS = re.compile(r"(?:\[(?P<ipv6>[^\[\]]*)\]|(?P<host>[^\[\]:]*)):(?P<port>[0-9]{1,5})")

# What may stand in a host name once it is ASCII. The idna codec itself lets anything pass that is ASCII already, and
# maps some look-alikes to it (the full-width solidus to "/"), but a host is also written into `:authority` and logs.
_HOST_NAME = re.compile(r"[A-Za-z0-9._-]+")

# The part of an IPv6 address after "%". `ipaddress` accepts anything there, line breaks included.
_SCOPE_ID = re.compile(r"[A-Za-z0-9._~-]+")


def check_host(name: str, value: str) -> None:
    """Raise unless `value`, called `name` in the message, is a host name or an IP address."""
    expected = "an IP address without brackets, or a host name of letters, digits, '.', '-' and '_'"
    check_type(name, value, str, expected)
    if not (_is_ipv6(value) or _is_host_name(value)):
        raise InvalidValueError(f"{name} {value!r}: expected {expected}")


def _check_host(_instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    check_host(attribute.name, value)


def _is_ipv6(host: str) -> bool:
    address, percent, scope_id = host.partition("%")
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return not percent or _SCOPE_ID.fullmatch(scope_id) is not None


def _is_host_name(host: str) -> bool:
    # An IPv4 address is one, too.
    try:
        ascii_host = host.encode("idna").decode("ascii")
    except UnicodeError:  # an empty or too long label, or a character that no host name has
        return False
    return _HOST_NAME.fullmatch(ascii_host) is not None


def _check_network(_instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    if value != "tcp":
        raise InvalidValueError(f"{attribute.name} {value!r}: expected 'tcp', the only network there is")


def _read_only(annotations: Mapping[str, str]) -> Mapping[str, str]:
    check_type("annotations", annotations, Mapping, "a mapping of str to str")
    copied = dict(annotations)
    for key, value in copied.items():
        check_type("annotations key", key, str, "a str")
        check_type(f"annotations[{key!r}]", value, str, "a str")
    return MappingProxyType(copied)


@attrs.frozen
class Endpoint:
    """One address at which a view server is expected to listen.

    Two endpoints are equal if all their fields are; the hash leaves the annotations out. Immutable, and safe to pickle
    and to copy. Raises `InvalidValueError` or `InvalidTypeError` that names the field, its value and what is allowed.
    """

    host: str = attrs.field(validator=_check_host)
    """A host name, ASCII or not, or an IP address; IPv6 without brackets, with a scope id (``fe80::1%eth0``) or not."""

    port: int = attrs.field(validator=whole(1, _LARGEST_PORT))
    """The TCP port: 1 to 65,535."""

    network: str = attrs.field(default="tcp", validator=_check_network)
    """Always ``"tcp"``; part of the text, as in the original."""

    annotations: Mapping[str, str] = attrs.field(
        default=MappingProxyType({}), converter=_read_only, hash=False, repr=lambda mapping: repr(dict(mapping))
    )
    """What the locator knows besides, such as a zone: a read-only copy of the mapping that was given."""

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Return the endpoint that ``HOST:PORT`` or ``[IPv6]:PORT`` names, with ``tcp://`` before it or not.

        The inverse of `str` for an endpoint without annotations. Raises `InvalidTypeError` for anything but a str, and
        `InvalidValueError`, which names the text, for any other form: a missing port, another scheme, IPv6 without
        brackets (in ``::1:80`` nothing tells the address from the port).
        """
        check_type("endpoint", text, str, _FORMS)
        match = _ADDRESS.fullmatch(text.removeprefix("tcp://"))
        if match is None:
            raise InvalidValueError(f"{text!r}: expected {_FORMS}")
        ipv6 = match["ipv6"]
        if ipv6 is not None and not _is_ipv6(ipv6):
            raise InvalidValueError(f"{text!r}: expected an IPv6 address in the brackets")
        try:
            return cls(match["host"] if ipv6 is None else ipv6, int(match["port"]))
        except InvalidValueError as error:
            raise InvalidValueError(f"{text!r}: {error}") from None

    @property
    def host_port(self) -> str:
        """The identity as a text, ready to dial and for ``:authority``: ``example.com:80`` or ``[::1]:80``."""
        return host_port_text(self.host, str(self.port))

    @property
    def sort_key(self) -> tuple[str, str]:
        """The key to sort endpoints by: the host, then the port as a text ("10" before "9"), as the original does."""
        return self.host, str(self.port)

    def __str__(self) -> str:
        return endpoint_text(self.network, self.host, str(self.port))

    def __reduce__(self) -> tuple[type[Endpoint], tuple[str, int, str, dict[str, str]]]:
        # A mappingproxy can be neither pickled nor copied, a dict can.
        return type(self), (self.host, self.port, self.network, dict(self.annotations))


def endpoint_text(network: str, host: str, port: str) -> str:
    """Return ``tcp://example.com:80``, with ``???`` for an empty network or port. Nothing is validated."""
    return f"{network or '???'}://{host_port_text(host, port or '???')}"


def host_port_text(host: str, port: str) -> str:
    """Return ``example.com:80``, or ``[::1]:80`` for a host with a colon. Nothing is validated."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@attrs.frozen
class EndpointDiff:
    """What changed from one list of endpoints to the next; each tuple is unique and sorted by `Endpoint.sort_key`."""

    added: tuple[Endpoint, ...]
    """Endpoints whose host and port are new."""

    removed: tuple[Endpoint, ...]
    """Endpoints, as they were, whose host and port are gone."""

    changed: tuple[Endpoint, ...]
    """Endpoints, as they are now, whose host and port stayed while something else, the annotations, did not."""

    def __bool__(self) -> bool:
        """Whether there is any difference."""
        return bool(self.added or self.removed or self.changed)


def diff(old: Iterable[Endpoint], new: Iterable[Endpoint]) -> EndpointDiff:
    """Return what leads from `old` to `new`. Costs O(n), and sorts only what differs.

    The order of either argument does not matter, but for this: if the same host and port are listed twice, the last
    one counts, as in a dict.
    """
    before = {endpoint.host_port: endpoint for endpoint in old}
    after = {endpoint.host_port: endpoint for endpoint in new}
    return EndpointDiff(
        added=_ordered(endpoint for key, endpoint in after.items() if key not in before),
        removed=_ordered(endpoint for key, endpoint in before.items() if key not in after),
        changed=_ordered(endpoint for key, endpoint in after.items() if before.get(key, endpoint) != endpoint),
    )


def _ordered(endpoints: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    return tuple(sorted(endpoints, key=lambda endpoint: endpoint.sort_key))
