"""What operators read when TLS fails: OpenSSL's own errors, from true handshakes, and the words they become."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
import trio

from tls import (
    AUTHORITY,
    CLIENT,
    EXPIRED,
    GOOD,
    NAME,
    NOT_YET,
    OTHER_NAME,
    STRANGER,
    TLS_1_2,
    TLS_1_3,
    UNKNOWN,
    client_context,
    files,
    server_context,
)
from viewreg._boundary import describe
from viewreg._tls_words import tls_words

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def exchange(client: ssl.SSLContext, server: ssl.SSLContext, name: str = NAME) -> ssl.SSLError:
    """Shake hands, and then read, until one side fails and its alert has arrived; what the client raises."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server, server_hostname=name)
    far = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(5):
        for step in (near.do_handshake, near.read, far.do_handshake):
            try:
                step()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError as error:
                if step != far.do_handshake:
                    return error
    raise AssertionError("all went well")


def at_most(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    """The same context, that speaks no later version."""
    context.maximum_version = version
    return context


def at_least(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    """The same context, that speaks no earlier version."""
    context.minimum_version = version
    return context


def unknown_name(context: ssl.SSLContext) -> ssl.SSLContext:
    """The same context, that knows no name."""
    context.sni_callback = lambda *_: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
    return context


DEMANDING = "demands a client certificate"
REFUSED = "the server refused the client certificate, or that there is none (TLS alert: unknown ca)"
FAILURES: dict[str, tuple[Callable[[], ssl.SSLError], str]] = {
    "wrong host": (
        lambda: exchange(client_context(), server_context(OTHER_NAME)),
        f"the server's certificate is not valid for {NAME} (wrong host name)",
    ),
    "wrong address": (
        lambda: exchange(client_context(), server_context(), "127.0.0.2"),
        "the server's certificate is not valid for 127.0.0.2 (wrong host name)",
    ),
    "expired": (
        lambda: exchange(client_context(), server_context(EXPIRED)),
        "the server's certificate, or one above it, has expired",
    ),
    "not yet valid": (
        lambda: exchange(client_context(), server_context(NOT_YET)),
        "the server's certificate is not valid yet",
    ),
    "unknown authority": (
        lambda: exchange(client_context(), server_context(UNKNOWN)),
        "the server's certificate comes from an authority that is not trusted here (unknown CA)",
    ),
    "no client certificate": (
        lambda: exchange(client_context(), server_context(demands=AUTHORITY, version=TLS_1_3)),
        "the server demands a client certificate, and got none (TLS alert)",
    ),
    "strange client certificate, TLS 1.2": (
        lambda: exchange(
            client_context(certificate=STRANGER.issue_cert("me")), server_context(demands=AUTHORITY, version=TLS_1_2)
        ),
        REFUSED,
    ),
    "strange client certificate, TLS 1.3": (
        lambda: exchange(
            client_context(certificate=STRANGER.issue_cert("me")), server_context(demands=AUTHORITY, version=TLS_1_3)
        ),
        REFUSED,
    ),
    "no common version": (
        lambda: exchange(at_least(client_context(), TLS_1_3), server_context(version=TLS_1_2)),
        "the server takes none of the TLS versions that it was offered (TLS alert)",
    ),
    "no such name": (
        lambda: exchange(client_context(), unknown_name(server_context())),
        "the server does not know the name that it was asked for (TLS alert)",
    ),
    "no client certificate, TLS 1.2": (
        lambda: exchange(client_context(), server_context(demands=AUTHORITY, version=TLS_1_2)),
        "the server takes nothing that it was offered, or demands a client certificate (TLS alert)",
    ),
}


@pytest.mark.parametrize(("fail", "words"), FAILURES.values(), ids=FAILURES)
def test_words_for_true_failures(fail: Callable[[], ssl.SSLError], words: str) -> None:
    """Each way in which a handshake fails has words of its own, which name what an operator must mend."""
    error = fail()
    assert tls_words(error) == words
    broken = trio.BrokenResourceError()
    broken.__cause__ = error
    assert describe(broken) == words


@pytest.mark.parametrize(
    "spoken", [b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes.fromhex("000000040000000000"), b"hi\r\n" * 9]
)
def test_words_for_a_server_without_tls(spoken: bytes) -> None:
    """A server that answers in HTTP/1, in HTTP/2 or in anything else is told as one that does not speak TLS."""
    incoming = ssl.MemoryBIO()
    incoming.write(spoken)
    with pytest.raises(ssl.SSLError) as caught:
        client_context().wrap_bio(incoming, ssl.MemoryBIO(), server_hostname=NAME).do_handshake()
    assert describe(caught.value) == "the server does not speak TLS here"


def test_words_for_an_end_in_the_middle() -> None:
    """A server that closes in the middle of TLS is told by that."""
    incoming = ssl.MemoryBIO()
    incoming.write_eof()
    with pytest.raises(ssl.SSLError) as caught:
        client_context().wrap_bio(incoming, ssl.MemoryBIO(), server_hostname=NAME).do_handshake()
    assert describe(caught.value) == "the server closed the connection"


def test_words_for_files(tmp_path: Path) -> None:
    """A key that does not fit, and a file without a certificate, are told without OpenSSL's source positions."""
    chain, _ = files(tmp_path, "good", GOOD)
    _, key = files(tmp_path, "client", CLIENT)
    with pytest.raises(ssl.SSLError) as caught:
        client_context().load_cert_chain(chain, key)
    assert describe(caught.value) == "the private key does not fit the certificate"
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    with pytest.raises(ssl.SSLError) as caught:
        client_context().load_cert_chain(empty)
    assert describe(caught.value) == "TLS: [SSL] PEM lib"


# OpenSSL's words for what cannot be brought about here, or differs from version to version.
SAID = {
    "[SSL: TLSV1_ALERT_NO_APPLICATION_PROTOCOL] tlsv1 alert no application protocol (_ssl.c:1006)": (
        "the server does not know ALPN h2, so it speaks no HTTP/2 here (TLS alert)"
    ),
    "[SSL] ssl/tls alert bad certificate (_ssl.c:1028)": (
        "the server refused the client certificate, or that there is none (TLS alert: bad certificate)"
    ),
    "[SSL: X] tlsv1 alert internal error (_ssl.c:1006)": "the server refused (TLS alert: internal error)",
    "[SSL] something new (_ssl.c:7)": "TLS: [SSL] something new",
}


@pytest.mark.parametrize(("said", "words"), SAID.items())
def test_words_for_other_versions(said: str, words: str) -> None:
    """Alerts are recognised by OpenSSL's words in all its versions; what is unknown is passed on."""
    assert tls_words(ssl.SSLError(1, said)) == words


def test_words_for_errors_made_by_hand() -> None:
    """An error without any of OpenSSL's attributes has words, too."""
    assert tls_words(ssl.SSLError()) == "TLS: failed"
    assert tls_words(ssl.SSLCertVerificationError("odd")) == "TLS: odd"
    assert describe(ssl.SSLError(1, "odd")) == "TLS: odd"  # its number is not EPERM
