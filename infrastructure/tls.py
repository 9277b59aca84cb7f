"""TLS contexts of servers and clients, and clear messages for certificate files that cannot be used.

Every function reads files: call it in a thread while an event loop runs.
"""

import logging
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

CERTIFICATE, KEY = "-----BEGIN CERTIFICATE-----", "PRIVATE KEY-----"


class TlsError(ValueError):
    """A certificate or key file is missing, invalid, or does not match the other one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """The files of an HTTPS server. With `client_ca`, clients need a certificate issued by it."""

    certificate: Path
    key: Path
    key_password: str | None = field(default=None, repr=False)
    client_ca: Path | None = None

    def check(self) -> None:
        """Load the files as the server will.

        Raises:
            TlsError: A file cannot be used; the message says which and why.
        """
        self.context()

    def context(self) -> ssl.SSLContext:
        """A context of the files as they are now.

        Raises:
            TlsError: As `check`.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _load_pair(context, self.certificate, self.key, self.key_password)
        if self.client_ca is not None:
            _load_authorities(context, self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    @property
    def options(self) -> dict[str, Any]:
        """Options for uvicorn; a renewed certificate is used from the next handshake."""
        return {"ssl_context_factory": self._reloaded}

    def _reloaded(self, *_: object) -> ssl.SSLContext:
        return _ReloadedContext(self).context


class _ReloadedContext:
    """A server's context that checks at every handshake whether the certificate was renewed."""

    def __init__(self, tls: ServerTls) -> None:
        self._tls = tls
        self._loaded = self._file_times()
        self.context = self._latest = tls.context()
        self.context.sni_callback = self._use_latest  # also called for clients that send no server name

    def _use_latest(self, handshake: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        # On the event loop: two calls of stat, and a small file is read when it changed.
        if (now := self._file_times()) != self._loaded:
            self._loaded = now
            try:
                self._latest = self._tls.context()
                logger.info("%s was renewed and is used from now on", self._tls.certificate)
            except TlsError as error:  # it may be half written: the next handshake tries again
                logger.error("the previous certificate stays in use: %s", error)
        handshake.context = self._latest

    def _file_times(self) -> tuple[tuple[int, int] | None, ...]:
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
    """The context of a client, or None without options: the system's authorities and no client certificate.

    With `ca`, the system's authorities are not trusted.

    Raises:
        TlsError: A file cannot be used; the message says which and why.
    """
    if ca is None and certificate is None:
        return None
    context = ssl.create_default_context() if ca is None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is not None:
        _load_authorities(context, ca)
    if certificate is not None:
        if key is None:
            raise TlsError(f"{certificate} needs the file with its private key")
        _load_pair(context, certificate, key, None)
    return context


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path, password: str | None) -> None:
    _read(certificate, CERTIFICATE, "certificate")
    _read(key, KEY, "private key")
    try:
        # An empty password, because with None the library asks for one at the terminal.
        context.load_cert_chain(certificate, key, password or "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsError(f"{key} is not the private key of {certificate}") from None
        if "ENCRYPTED" in _read(key, KEY, "private key") or error.reason == "BAD_DECRYPT":
            problem = "the password is wrong" if password else "it needs a password"
            raise TlsError(f"{key} is encrypted: {problem}") from None
        why = error.reason or "it cannot be parsed"
        raise TlsError(f"{certificate} and {key} cannot be used as a certificate and its key: {why}") from None


def _load_authorities(context: ssl.SSLContext, ca: Path) -> None:
    _read(ca, CERTIFICATE, "certificate")
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise TlsError(f"{ca} contains an invalid certificate: {error.reason or 'it is damaged'}") from None


def _read(path: Path, mark: str, what: str) -> str:
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise TlsError(f"{path} cannot be read: {error.strerror}") from None
    if mark not in text:
        raise TlsError(f"{path} contains no {what} in PEM format (-----BEGIN …)")
    return text
