"""The certificates that an agent file names: for the agent's own port, and for its connections to other services."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from pydantic import SecretStr

from agent_runtime.errors import StartError
from infrastructure.tls import ServerTls, TlsError, client_tls

DISCOVERY_FILES = {
    "ca": "MYAGENT_DISCOVERY_CA",
    "certificate": "MYAGENT_DISCOVERY_CERTIFICATE",
    "key": "MYAGENT_DISCOVERY_KEY",
}


class ClientFiles(Protocol):
    """The part of the `discovery` section that is about certificates."""

    @property
    def ca(self) -> str | None: ...
    @property
    def certificate(self) -> str | None: ...
    @property
    def key(self) -> str | None: ...


class ServerFiles(Protocol):
    """The section `server.tls`."""

    @property
    def certificate(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def key_password(self) -> SecretStr | None: ...
    @property
    def client_ca(self) -> str | None: ...


async def port_tls(files: ServerFiles | None, folder: Path) -> ServerTls | None:
    """The TLS options of the agent's port; None for plain HTTP.

    Raises:
        StartError: a file of `server.tls` is missing or invalid.
    """
    if files is None:
        return None
    tls = ServerTls(
        certificate=folder / files.certificate,
        key=folder / files.key,
        key_password=files.key_password.get_secret_value() if files.key_password else None,
        client_ca=_path(folder, files.client_ca),
    )
    try:
        await asyncio.to_thread(tls.check)
    except TlsError as error:
        raise StartError(f"server.tls: {error}") from None
    return tls


async def registry_tls(files: ClientFiles, folder: Path) -> ssl.SSLContext | None:
    """The TLS context for the registry and for agents that are found through it.

    Raises:
        StartError: a file of `discovery` is missing or invalid.
    """
    return await asyncio.to_thread(_context, "discovery", folder, files.ca, files.certificate, files.key)


async def issuer_tls(ca: str | None, folder: Path) -> ssl.SSLContext | None:
    """The TLS context for the issuer of tokens.

    Raises:
        StartError: the file is missing or invalid.
    """
    return await asyncio.to_thread(_context, "server.oidc", folder, ca)


def environment_tls(environment: Mapping[str, str]) -> ssl.SSLContext | None:
    """The TLS context for the registry in a command without an agent file. Paths are relative to the current folder.

    Raises:
        StartError: a file that a variable names is missing or invalid.
    """
    ca, certificate, key = (environment.get(variable) for variable in DISCOVERY_FILES.values())
    return _context("MYAGENT_DISCOVERY_…", Path(), ca, certificate, key)


def _context(
    section: str, folder: Path, ca: str | None, certificate: str | None = None, key: str | None = None
) -> ssl.SSLContext | None:
    try:
        return client_tls(ca=_path(folder, ca), certificate=_path(folder, certificate), key=_path(folder, key))
    except TlsError as error:
        raise StartError(f"{section}: {error}") from None


def _path(folder: Path, name: str | None) -> Path | None:
    return folder / name if name else None
