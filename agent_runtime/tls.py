"""The certificates that an agent file names: for the agent's own port, and towards the registry and other agents."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path

from agent_runtime.config import DiscoveryConfig, ServerConfig
from agent_runtime.errors import StartError
from infrastructure.tls import ServerTls, TlsError, client_tls

DISCOVERY_FILES = {
    "ca": "MYAGENT_DISCOVERY_CA",
    "certificate": "MYAGENT_DISCOVERY_CERTIFICATE",
    "key": "MYAGENT_DISCOVERY_KEY",
}


async def port_tls(server: ServerConfig, folder: Path) -> ServerTls | None:
    """What the agent answers over https with; None where it answers over http.

    Raises:
        StartError: a file of `server.tls` cannot be used.
    """
    if server.tls is None:
        return None
    named = server.tls
    tls = ServerTls(
        certificate=folder / named.certificate,
        key=folder / named.key,
        key_password=named.key_password.get_secret_value() if named.key_password else None,
        client_ca=folder / named.client_ca if named.client_ca else None,
    )
    try:
        await asyncio.to_thread(tls.check)
    except TlsError as error:
        raise StartError(f"server.tls: {error}") from None
    return tls


async def registry_tls(discovery: DiscoveryConfig, folder: Path) -> ssl.SSLContext | None:
    """What the agent trusts and shows towards the registry, and the agents that are found through it.

    Raises:
        StartError: a file of `discovery` cannot be used.
    """
    try:
        return await asyncio.to_thread(
            client_tls,
            ca=_in(folder, discovery.ca),
            certificate=_in(folder, discovery.certificate),
            key=_in(folder, discovery.key),
        )
    except TlsError as error:
        raise StartError(f"discovery: {error}") from None


def shell_tls(environment: Mapping[str, str]) -> ssl.SSLContext | None:
    """The same for a command without an agent file, from the variables; the paths are relative to where it is run.

    Raises:
        StartError: a file that a variable names cannot be used.
    """
    try:
        return client_tls(**{key: _in(Path(), environment.get(name)) for key, name in DISCOVERY_FILES.items()})
    except TlsError as error:
        raise StartError(f"MYAGENT_DISCOVERY_…: {error}") from None


async def issuer_tls(ca: str | None, folder: Path) -> ssl.SSLContext | None:
    """What the issuer of tokens is checked against.

    Raises:
        StartError: the file cannot be used.
    """
    try:
        return await asyncio.to_thread(client_tls, ca=_in(folder, ca))
    except TlsError as error:
        raise StartError(f"server.oidc: {error}") from None


def _in(folder: Path, name: str | None) -> Path | None:
    return folder / name if name else None
