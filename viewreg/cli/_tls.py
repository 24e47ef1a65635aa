"""The options of all commands that connect: TLS or not, whom to trust, and who to be."""

from __future__ import annotations

import ssl
from typing import Annotated

from attrs import frozen
from cyclopts import Parameter

from viewreg._errors import InvalidValueError


@Parameter(name="*")
@frozen(kw_only=True)
class Tls:
    """How to speak to the servers. Any of the others implies `tls`."""

    tls: Annotated[bool, Parameter(negative=())] = False
    """Speak TLS."""

    ca: str | None = None
    """A PEM file with the certificates to trust, instead of the system's. Implies --tls."""

    cert: str | None = None
    """A PEM file with a certificate to show to the servers. Implies --tls."""

    key: str | None = None
    """A PEM file with its key, if that is not in the same file."""

    server_hostname: str | None = None
    """The name that the servers' certificates must be for, instead of each server's host. Implies --tls."""

    def context(self) -> ssl.SSLContext | None:
        """For `open_registry`; None without TLS. Raises `InvalidValueError` for files that will not do."""
        if self.key is not None and self.cert is None:
            raise InvalidValueError(f"--key {self.key}: expected --cert beside it")
        if not self.tls and self.ca is None and self.cert is None and self.server_hostname is None:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except OSError as error:
            raise InvalidValueError(f"--ca {self.ca}: {_words(error, 'certificates in PEM')}") from error
        if self.cert is not None:
            try:
                context.load_cert_chain(self.cert, self.key, password=_no_password)
            except OSError as error:
                given = f"--cert {self.cert}" + (f" --key {self.key}" if self.key is not None else "")
                raise InvalidValueError(f"{given}: {_words(error, 'a certificate and its key in PEM')}") from error
        return context


def _no_password() -> str:
    """OpenSSL would ask for one on the terminal."""
    raise InvalidValueError("--key: expected a key without a password")


def _words(error: OSError, expected: str) -> str:
    if isinstance(error, ssl.SSLError):
        return f"expected {expected}" + (f" ({error.reason})" if error.reason else "")
    return error.strerror or str(error)
