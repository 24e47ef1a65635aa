"""What went wrong in TLS, in words that an operator knows.

Rules:
* OpenSSL's own words are kept wherever they say enough; only its source positions are left out.
* An alert is the other side's verdict. That it concerns the client's certificate is certain only where TLS says so.
* `errno` of these errors is OpenSSL's number and no system's: 1 is not EPERM.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from viewreg._errors import ViewregError

if TYPE_CHECKING:
    import ssl

# OpenSSL's X509_V_ERR_ numbers (openssl/x509_vfy.h).
_VERDICTS: Final = {
    9: "the server's certificate is not valid yet",
    10: "the server's certificate, or one above it, has expired",
    18: "the server's certificate is self-signed, and not trusted here (unknown CA)",
    19: "the server's certificate comes from an authority that is not trusted here (unknown CA)",
    20: "the server's certificate comes from an authority that is not trusted here (unknown CA)",
    21: "the server's certificate comes from an authority that is not trusted here (unknown CA)",
    23: "the server's certificate has been revoked",
}
_WRONG_NAME: Final = frozenset({62, 63, 64})  # host, email, IP address
_NAMES: Final = re.compile(r"not valid for '(.*)'")

# By OpenSSL's words for the alert (RFC 8446, 6.2; RFC 7301).
_ALERTS: Final = {
    "certificate required": "the server demands a client certificate, and got none",
    "handshake failure": "the server takes nothing that it was offered, or demands a client certificate",
    "no application protocol": "the server does not know ALPN h2, so it speaks no HTTP/2 here",
    "protocol version": "the server takes none of the TLS versions that it was offered",
    "unrecognized name": "the server does not know the name that it was asked for",
}
_ABOUT_CERTIFICATE: Final = frozenset({
    "access denied", "bad certificate", "certificate expired", "certificate revoked", "certificate unknown",
    "decrypt error", "unknown ca", "unsupported certificate",
})  # fmt: skip
_ALERT: Final = re.compile(r"\balert ([a-z ]+[a-z])|\b(unrecognized name)")

_REASONS: Final = {
    "KEY_VALUES_MISMATCH": "the private key does not fit the certificate",
    "WRONG_VERSION_NUMBER": "the server does not speak TLS here",
    "RECORD_LAYER_FAILURE": "the server does not speak TLS here",  # OpenSSL 3.2 and later
    "PACKET_LENGTH_TOO_LONG": "the server does not speak TLS here",
    "UNEXPECTED_EOF_WHILE_READING": "the server closed the connection",
}
_POSITION: Final = re.compile(r" \(_ssl\.c:\d+\)$")


class TlsFailedError(ViewregError):
    """TLS with a server failed. Its text is the whole reason; only the supervisor sees it."""


def tls_words(error: ssl.SSLError) -> str:
    """Why TLS failed: "the server's certificate, or one above it, has expired", or OpenSSL's words."""
    text = _POSITION.sub("", str(error.args[-1]) if error.args else "failed")
    code = getattr(error, "verify_code", None)
    if code is not None:
        return _verdict(code, str(getattr(error, "verify_message", text)))
    reason = getattr(error, "reason", None)
    if reason in _REASONS:
        return _REASONS[reason]
    alert = _ALERT.search(text)
    if alert is None:
        return f"TLS: {text}"
    name = alert[1] or alert[2]
    if name in _ABOUT_CERTIFICATE:
        return f"the server refused the client certificate, or that there is none (TLS alert: {name})"
    return f"{_ALERTS[name]} (TLS alert)" if name in _ALERTS else f"the server refused (TLS alert: {name})"


def _verdict(code: int, message: str) -> str:
    if code in _WRONG_NAME:
        name = _NAMES.search(message)
        return f"the server's certificate is not valid for {name[1] if name else 'its name'} (wrong host name)"
    return _VERDICTS.get(code) or f"the server's certificate is refused: {message}"
