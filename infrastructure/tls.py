"""Certificates: of a server, of a client, and what is wrong with the files that hold them, in words for an operator.

Every function reads files, and so belongs into a thread once an event loop runs.
"""

import logging
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

CERTIFICATE, KEY = "-----BEGIN CERTIFICATE-----", "PRIVATE KEY-----"


class TlsError(ValueError):
    """A file is missing, is something else, or does not go with the other one; the operator has to act."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """What a server needs to answer over https. With a `client_ca`, only who has a certificate of it gets in."""

    certificate: Path
    key: Path
    key_password: str | None = field(default=None, repr=False)
    client_ca: Path | None = None

    def check(self) -> None:
        """Try the files as the server will.

        Raises:
            TlsError: saying which file, and what is the matter with it.
        """
        self.context()

    def context(self) -> ssl.SSLContext:
        """The files as they are now.

        Raises:
            TlsError: as `check` does.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _load_pair(context, self.certificate, self.key, self.key_password)
        if self.client_ca is not None:
            _load_authorities(context, self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    @property
    def options(self) -> dict[str, Any]:
        """The same for uvicorn; a certificate that is renewed is shown from the next handshake on."""
        return {"ssl_context_factory": self._renewed}

    def _renewed(self, *_: object) -> ssl.SSLContext:
        return _Renewed(self).context


class _Renewed:
    """The context of a server, which looks at every handshake whether its certificate was renewed."""

    def __init__(self, tls: ServerTls) -> None:
        self._tls = tls
        self._seen = self._signature()
        self.context = self._latest = tls.context()
        self.context.sni_callback = self._look  # called for clients that name no server, too

    def _look(self, handshake: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        # On the event loop: two looks at a file's time, and once in its life the reading of a page of text.
        if (now := self._signature()) != self._seen:
            self._seen = now
            try:
                self._latest = self._tls.context()
                logger.info("%s was renewed, and is shown from now on", self._tls.certificate)
            except TlsError as error:  # half written, perhaps: the rest of it is seen at the next handshake
                logger.error("the certificate before it is shown on: %s", error)
        handshake.context = self._latest

    def _signature(self) -> tuple[tuple[int, int] | None, ...]:
        return tuple(_times(file) for file in (self._tls.certificate, self._tls.key))


def _times(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def client_tls(
    *, ca: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext | None:
    """What a client trusts and shows; None where nothing is said, which is the system's authorities and no certificate.

    With a `ca` the system's authorities are not trusted.

    Raises:
        TlsError: saying which file, and what is the matter with it.
    """
    if ca is None and certificate is None:
        return None
    context = ssl.create_default_context() if ca is None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is not None:
        _load_authorities(context, ca)
    if certificate is not None:
        if key is None:
            raise TlsError(f"{certificate} is of no use without the file with its private key")
        _load_pair(context, certificate, key, None)
    return context


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path, password: str | None) -> None:
    _read(certificate, CERTIFICATE, "certificate")
    _read(key, KEY, "private key")
    try:
        # A password in any case, or the library would ask for one at the terminal.
        context.load_cert_chain(certificate, key, password or "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsError(f"{key} holds the private key of another certificate than {certificate}") from None
        if "ENCRYPTED" in _read(key, KEY, "private key") or error.reason == "BAD_DECRYPT":
            what = "another password" if password else "a password"
            raise TlsError(f"{key} is encrypted, and needs {what}") from None
        why = error.reason or "it cannot be parsed"
        raise TlsError(f"{certificate} and {key} cannot be used as a certificate and its key: {why}") from None


def _load_authorities(context: ssl.SSLContext, ca: Path) -> None:
    _read(ca, CERTIFICATE, "certificate")
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise TlsError(f"{ca} holds a certificate that cannot be used: {error.reason or 'it is damaged'}") from None


def _read(path: Path, mark: str, what: str) -> str:
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise TlsError(f"{path} cannot be read: {error.strerror}") from None
    if mark not in text:
        raise TlsError(f"{path} holds no {what} in PEM format (-----BEGIN …)")
    return text
