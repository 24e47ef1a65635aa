"""What may be done in a scenario: the verbs of servers, of discovery, of the probe, of users and of the program.

Rules:
* An action is one line, the actor and then a verb: "a:1 answers after 3 s". A verb is a template, whose words in braces
  are arguments; `ARGUMENTS` says what each of them may be, and what it becomes.
* Of several templates that fit, the first one counts: so the longer ones stand first.
* Nothing here knows how the world is made, or the registry.
"""

from __future__ import annotations

import errno
import math
import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from scenario_values import Place, ScenarioError
from viewreg import Endpoint, Feature, InvalidValueError, StatusCode
from viewreg.testing.frames import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@frozen
class Action:
    """One line of `do`, understood."""

    actor: str
    """A server, a user, or one of "discovery", "probe" and "program"."""
    verb: str
    """The template, such as "answers after {seconds} s"."""
    args: tuple[Any, ...]
    """The template's arguments, each as `ARGUMENTS` makes it."""
    text: str
    """The line as it is written."""


SERVER: Final = "a server"
USER: Final = "a user"
OPENS: Final = "opens the registry"
CALLS: Final = ("calls {server} and waits", "calls {server}", "reads a stream of {server}")
VERBS: Final[Mapping[str, tuple[str, ...]]] = {
    SERVER: (
        # what becomes of dials from now on
        "accepts dials",
        "refuses dials",
        "never answers dials",
        "accepts dials and says nothing",
        "accepts dials and closes",
        "sends SETTINGS and closes",
        "speaks HTTP/1.1",
        "fails dials with {errno}",
        # what it answers from now on
        "serves {encoding} from {hash} to {hash}",
        "serves diagnostics only",
        "says view type {words}",
        "says encoding {count}",
        "answers bytes {hex}",
        "fails calls with {status}: {words}",
        "fails calls with {status}",
        "never answers calls",
        "answers after {seconds} s",
        "answers calls",
        "allows {count} calls at a time",
        "freezes",
        "thaws",
        # what it does to the connections that are open
        "closes its connections",
        "resets its connections",
        "sends GOAWAY {code}: {words}",
        "sends GOAWAY {code}",
        "sends bytes {hex}",
    ),
    "discovery": (
        "lists {endpoints}, and at once {endpoints}",
        "lists {endpoints} as version {count}",
        "lists {endpoints}",
        "fails with {errno}",
        "fails: {words}",
        "returns nonsense",
        "recovers",
    ),
    "probe": (
        "finds {server} not serving: {words}",
        "finds {server} serving",
        "raises for {server}: {words}",
        "returns nonsense for {server}",
    ),
    USER: (
        "waits for a change since ever",
        "waits for a change",
        "waits for {seconds} s without a change",
        "waits until {condition}",
        "subscribes",
        "reads a change",
        *CALLS,
        "gives up",
    ),
    "program": (OPENS, "leaves the block", "is cancelled", "raises in the block"),
}
CONDITIONS: Final = (
    "all are healthy",
    "{count} are healthy",
    "{server} is healthy",
    "{server} is unhealthy",
    "{server} is gone",
    "{feature} is served",
)
ACTORS: Final = ("discovery", "probe", "program")


@frozen
class Names:
    """Who there is in one scenario."""

    servers: tuple[str, ...]
    users: tuple[str, ...]

    @property
    def actors(self) -> tuple[str, ...]:
        return (*self.servers, *self.users, *ACTORS)

    def kind(self, actor: str) -> str:
        """The key of an actor in `VERBS`."""
        if actor in self.servers:
            return SERVER
        return USER if actor in self.users else actor


def read_action(at: Place, line: object, names: Names) -> Action:
    """Understand one line of `do`. Raises `ScenarioError`."""
    if not isinstance(line, str) or " " not in line:
        raise at.error(line, f'a line such as "{(*names.servers, "a:1")[0]} refuses dials"')
    actor, rest = line.split(" ", 1)
    if actor not in names.actors:
        raise at.error(actor, f"one of the actors {', '.join(names.actors)}", names.actors)
    verbs = VERBS[names.kind(actor)]
    verb, texts = _match(at / repr(line), rest, verbs)
    return Action(actor, verb, _arguments(at / repr(line), verb, texts, names), line)


def read_endpoint(at: Place, text: str, servers: Sequence[str]) -> Endpoint:
    """An address, and annotations: "a:1 zone=x"."""
    host_port, *annotations = text.split(" ")
    if host_port not in servers:
        raise at.error(host_port, f"one of the servers {', '.join(servers)}", servers)
    noted: dict[str, str] = {}
    for annotation in annotations:
        key, equals, value = annotation.partition("=")
        if not (key.isidentifier() and equals):
            raise at.error(annotation, 'an annotation such as "zone=x"')
        noted[key] = value
    found = Endpoint.parse(host_port)
    return Endpoint(found.host, found.port, annotations=noted)


def _match(at: Place, text: str, templates: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    for template in templates:
        found = _pattern(template).fullmatch(text)
        if found is not None:
            return template, found.groups()
    like = re.sub(r"\S+:\d+", "{server}", re.sub(r"[\d.]+ s\b", "{seconds} s", text))
    raise at.error(text, f"one of {', '.join(map(repr, templates))}", templates, like=like)


@cache
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile("".join("(.+?)" if part[:1] == "{" else re.escape(part) for part in _parts(template)))


def _parts(template: str) -> list[str]:
    return re.split(r"(\{\w+\})", template)


def _arguments(at: Place, template: str, texts: Sequence[str], names: Names) -> tuple[Any, ...]:
    kinds = [part[1:-1] for part in _parts(template) if part[:1] == "{"]
    return tuple(ARGUMENTS[kind](at / kind, text, names) for kind, text in zip(kinds, texts, strict=True))


# -- arguments --


def _seconds(at: Place, text: str, _names: Names) -> float:
    if not re.fullmatch(r"\d+(\.\d+)?", text):
        raise at.error(text, "a number of seconds, 0 or more")
    return float(text)


def _count(at: Place, text: str, _names: Names) -> int:
    if not re.fullmatch(r"\d+", text):
        raise at.error(text, "a whole number, 0 or more")
    return int(text)


def _hash(at: Place, text: str, _names: Names) -> float:
    if text == "infinity":
        return math.inf
    if not re.fullmatch(r"0x[0-9A-Fa-f]{1,16}", text):
        raise at.error(text, 'a hash such as "0x80", of up to 16 digits, or "infinity"', ("infinity",))
    return int(text, 16)


def _hex(at: Place, text: str, _names: Names) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise at.error(text, 'bytes such as "ff 00"') from None


def _words(_at: Place, text: str, _names: Names) -> str:
    return text


def _endpoints(at: Place, text: str, names: Names) -> tuple[Endpoint, ...]:
    if text == "nothing":
        return ()
    return tuple(read_endpoint(at, part, names.servers) for part in text.split(", "))


def _server(at: Place, text: str, names: Names) -> str:
    return read_endpoint(at, text, names.servers).host_port


def _feature(at: Place, text: str, _names: Names) -> Feature:
    try:
        return Feature.parse(text)
    except InvalidValueError as error:
        raise ScenarioError(f"{at.text}: {error}") from None


def _condition(at: Place, text: str, names: Names) -> tuple[str, tuple[Any, ...]]:
    template, texts = _match(at, text, CONDITIONS)
    return template, _arguments(at, template, texts, names)


def _one_of(values: Mapping[str, Any]) -> Callable[[Place, str, Names], Any]:
    def read(at: Place, text: str, _names: Names) -> object:
        if text not in values:
            raise at.error(text, f"one of {', '.join(values)}", values)
        return values[text]

    return read


ARGUMENTS: Final[Mapping[str, Callable[[Place, str, Names], Any]]] = {
    "code": _one_of({code.name: int(code) for code in ErrorCode}),
    "condition": _condition,
    "count": _count,
    "encoding": _one_of({"SPO": "SPO", "POS": "POS"}),
    "endpoints": _endpoints,
    "errno": _one_of({name: code for code, name in errno.errorcode.items()}),
    "feature": _feature,
    "hash": _hash,
    "hex": _hex,
    "seconds": _seconds,
    "server": _server,
    "status": _one_of({status.name: int(status.value) for status in StatusCode if status.name != "OK"}),
    "words": _words,
}
"""What each word in braces becomes; raises `ScenarioError` for what it may not be."""
