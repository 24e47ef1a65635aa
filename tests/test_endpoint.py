"""The promises of `Endpoint` and `diff`: what is accepted, how it reads, and what counts as a change."""

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

from viewreg._endpoint import Endpoint, EndpointDiff, diff, endpoint_text, host_port_text
from viewreg._errors import InvalidTypeError, InvalidValueError

VECTORS: list[dict[str, str]] = json.loads(
    (Path(__file__).parent / "vectors" / "partitioning.json").read_text(encoding="utf-8")
)["endpoint_text"]

GOOD_HOSTS = [
    "example.com",
    "example.com.",
    "a",
    "my_service-1.pod",
    "127.0.0.1",
    "::1",
    "2001:0db8:85a3:0000:0000:8a2e:0370:7334",
    "fe80::1%eth0",
    "::ffff:1.2.3.4",
    "bücher.example",
]
BAD_HOSTS = [
    "",
    ".",
    "a..b",
    "x" * 64,
    "[::1]",
    "::1%",
    "::1%e\n",
    "::1%a%b",
    ":::",
    "a:80",
    "a b",
    "a\n",
    "a\x00",
    "a/b",
    "a\uff0fb",  # the full-width solidus, which IDNA maps to "/"
    "user@a",
    "\ud800",
]

addresses = st.builds(Endpoint, st.sampled_from(GOOD_HOSTS), st.integers(1, 65_535))
annotated = st.builds(
    Endpoint,
    st.sampled_from("abc"),
    st.sampled_from([9, 10]),
    annotations=st.dictionaries(st.just("zone"), st.sampled_from("xy")),
)


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["text"])
def test_texts_are_the_originals(case: dict[str, str]) -> None:
    """The texts of an endpoint are those of the original, incomplete and IPv6 ones included."""
    assert endpoint_text(case["network"], case["host"], case["port"]) == case["text"]
    if "host_port" in case:
        assert host_port_text(case["host"], case["port"]) == case["host_port"]


@pytest.mark.parametrize("case", [case for case in VECTORS if case["network"] == "tcp"], ids=lambda case: case["text"])
def test_endpoint_uses_these_texts(case: dict[str, str]) -> None:
    """An Endpoint's own str and host_port are the texts of the original."""
    endpoint = Endpoint(case["host"], int(case["port"]))
    assert str(endpoint) == case["text"]
    assert endpoint.host_port == case["host_port"]


@pytest.mark.parametrize("host", GOOD_HOSTS)
def test_hosts_are_kept_as_they_are(host: str) -> None:
    """Names, ASCII or not, and addresses of both families are hosts, and are not rewritten."""
    assert Endpoint(host, 1).host == host


@pytest.mark.parametrize("host", BAD_HOSTS, ids=ascii)
def test_bad_hosts_are_named(host: str) -> None:
    """What no resolver could take, or what would break a log line or a header, is refused by name."""
    with pytest.raises(InvalidValueError) as caught:
        Endpoint(host, 1)
    assert str(caught.value).startswith(f"host {host!r}: expected an IP address")


@pytest.mark.parametrize("port", [0, -1, 65_536])
def test_bad_ports_are_named(port: int) -> None:
    """A port outside 1 to 65535 is refused, and the message says both."""
    with pytest.raises(InvalidValueError, match=rf"^port {port}: expected a whole number from 1 to 65535$"):
        Endpoint("a", port)


@pytest.mark.parametrize(
    "fields",
    [
        {"host": None},
        {"host": b"a"},
        {"port": "80"},
        {"port": True},
        {"port": 80.0},
        {"annotations": None},
        {"annotations": [("k", "v")]},
        {"annotations": {"k": 1}},
        {"annotations": {1: "v"}},
    ],
    ids=str,
)
def test_bad_types_are_refused(fields: dict[str, Any]) -> None:
    """A field of the wrong type is a type error that names the field."""
    with pytest.raises(InvalidTypeError, match=rf"^{next(iter(fields))}\b"):
        Endpoint(**{"host": "a", "port": 1, **fields})


def test_tcp_is_the_only_network() -> None:
    """Any other network is refused and the message says which one there is."""
    with pytest.raises(InvalidValueError, match=r"^network 'udp': expected 'tcp'"):
        Endpoint("a", 1, "udp")


@given(addresses)
def test_parse_inverts_both_texts(endpoint: Endpoint) -> None:
    """What str and host_port write, parse reads."""
    assert Endpoint.parse(str(endpoint)) == endpoint
    assert Endpoint.parse(endpoint.host_port) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.com",
        "example.com:",
        ":80",
        "::1",
        "::1:80",
        "[::1]",
        "[::1]80",
        "[]:80",
        "[example.com]:80",
        "[127.0.0.1]:80",
        "[[::1]]:80",
        "a:0",
        "a:65536",
        "a:123456",
        "a:-1",
        "a:+1",
        "a: 1",
        "a:\u0661",  # a digit, but not an ASCII one
        "a:http",
        "a:80\n",
        " a:80",
        "a:80/",
        "udp://a:80",
        "TCP://a:80",
        "tcp://",
        "tcp://tcp://a:80",
        "a..b:80",
    ],
)
def test_parse_names_what_it_refuses(text: str) -> None:
    """Any other form is refused with the whole text and what is expected."""
    with pytest.raises(InvalidValueError) as caught:
        Endpoint.parse(text)
    assert str(caught.value).startswith(f"{text!r}: ")
    assert "expected" in str(caught.value)


def test_parse_tells_the_forms() -> None:
    """A text without a port is answered with the forms and the range of ports."""
    with pytest.raises(InvalidValueError) as caught:
        Endpoint.parse("example.com")
    assert str(caught.value) == "'example.com': expected HOST:PORT or [IPv6]:PORT, with a port from 1 to 65535"


def test_parse_takes_text_only() -> None:
    """Bytes are a type error, not a guess."""
    with pytest.raises(InvalidTypeError, match=r"^endpoint b'a:1': expected HOST:PORT"):
        Endpoint.parse(b"a:1")  # type: ignore[arg-type]  # the point of the test


def test_annotations_count_for_equality_only() -> None:
    """Two endpoints that differ in annotations are unequal, so a change shows, and hash alike."""
    plain, zoned = Endpoint("a", 1), Endpoint("a", 1, annotations={"zone": "x"})
    assert plain != zoned
    assert hash(plain) == hash(zoned)
    assert zoned == Endpoint("a", 1, annotations={"zone": "x"})
    assert len({plain, zoned, Endpoint("a", 1)}) == 2


def test_annotations_are_a_read_only_copy() -> None:
    """Neither the mapping that was given nor the one that is shown can change an endpoint."""
    given_ones = {"zone": "x"}
    endpoint = Endpoint("a", 1, annotations=given_ones)
    given_ones["zone"] = "y"
    assert endpoint.annotations == {"zone": "x"}
    with pytest.raises(TypeError):
        endpoint.annotations["zone"] = "y"  # type: ignore[index]  # the point of the test


def test_endpoints_are_immutable() -> None:
    """No field can be set."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Endpoint("a", 1).port = 2  # type: ignore[misc]  # the point of the test


@given(annotated)
def test_endpoints_travel(endpoint: Endpoint) -> None:
    """An endpoint survives pickle, copy and deepcopy, still read-only, and its repr makes it anew."""
    for twin in (
        pickle.loads(pickle.dumps(endpoint)),
        copy.copy(endpoint),
        copy.deepcopy(endpoint),
        eval(repr(endpoint)),
    ):
        assert twin == endpoint
        assert hash(twin) == hash(endpoint)
        assert not hasattr(twin.annotations, "__setitem__")


def test_ports_sort_as_text() -> None:
    """The order is the original's: by host, then by port as a text."""
    listed = [Endpoint("b", 1), Endpoint("a", 9), Endpoint("a", 10)]
    assert sorted(listed, key=lambda endpoint: endpoint.sort_key) == [listed[2], listed[1], listed[0]]


def test_diff_sorts_what_changed() -> None:
    """Additions, removals and changes are told apart by host and port, each in order."""
    kept, old_zone, new_zone = Endpoint("k", 1), Endpoint("z", 1), Endpoint("z", 1, annotations={"zone": "x"})
    gone = [Endpoint("g", 9), Endpoint("g", 10)]
    come = [Endpoint("b", 1), Endpoint("a", 1)]
    assert diff([*gone, kept, old_zone], [new_zone, *come, kept]) == EndpointDiff(
        added=(come[1], come[0]), removed=(gone[1], gone[0]), changed=(new_zone,)
    )


def test_diff_of_equal_lists_is_falsy() -> None:
    """Order, doubles and fresh but equal objects are no difference."""
    old = [Endpoint("a", 1, annotations={"zone": "x"}), Endpoint("b", 1)]
    new = [Endpoint("b", 1), Endpoint("a", 1, annotations={"zone": "x"}), Endpoint("b", 1)]
    assert not diff(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [([], ["a:1"]), (["a:1"], []), ([Endpoint("a", 1, annotations={"zone": "x"})], ["a:1"])],
    ids=["added", "removed", "changed"],
)
def test_any_difference_is_truthy(old: list[Endpoint | str], new: list[Endpoint | str]) -> None:
    """One addition, one removal or one change makes a diff true."""
    before, after = ([Endpoint.parse(e) if isinstance(e, str) else e for e in side] for side in (old, new))
    assert diff(before, after)


def test_last_double_wins() -> None:
    """Of two entries with one host and port the later one counts."""
    first, last = Endpoint("a", 1, annotations={"zone": "x"}), Endpoint("a", 1, annotations={"zone": "y"})
    assert diff([], [first, last]).added == (last,)
    assert diff([first], [first, last]).changed == (last,)
    assert not diff([last], [first, last])


@given(st.lists(annotated), st.lists(annotated))
def test_diff_leads_from_old_to_new(old: list[Endpoint], new: list[Endpoint]) -> None:
    """Applying a diff to the old endpoints gives the new ones, and it holds nothing superfluous."""
    before, after = ({endpoint.host_port: endpoint for endpoint in side} for side in (old, new))
    difference = diff(iter(old), iter(new))
    assert all(endpoint.host_port not in before for endpoint in difference.added)
    assert all(before[endpoint.host_port] != endpoint for endpoint in difference.changed)
    applied = dict(before)
    for endpoint in difference.removed:
        del applied[endpoint.host_port]
    applied.update((endpoint.host_port, endpoint) for endpoint in difference.added + difference.changed)
    assert applied == after
    for part in (difference.added, difference.removed, difference.changed):
        assert [endpoint.sort_key for endpoint in part] == sorted({endpoint.sort_key for endpoint in part})
