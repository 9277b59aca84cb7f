"""The settings of the registry, read from `DISCOVERY_*` variables. No other module reads the environment."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from discovery.contract import is_loopback
from discovery.stores import open_store, sqlite_path
from discovery.tokens import Tokens, read_tokens
from infrastructure.tls import ServerTls, TlsError

Network = IPv4Network | IPv6Network

TEXTS = ("host", "database_url", "domain", "tls_certificate", "tls_key", "tls_key_password", "tls_client_ca")
SWITCHES = ("allow_anonymous", "ard", "probe")
SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
PRIVATE_DOMAIN = "myagent.internal"  # .internal is reserved for private use (ICANN)
_HOST_PATTERN = re.compile(r"[a-z0-9*?][a-z0-9._*?-]*")


class SettingsError(ValueError):
    """The settings are invalid; `problems` has one sentence for each of them."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(" ".join(problems))
        self.problems = problems


def version() -> str:
    """The installed version of myagent."""
    try:
        return installed_version("myagent")
    except PackageNotFoundError:  # run from a source tree
        return "0.0.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one registry, validated.

    Raises:
        SettingsError: Lists all invalid settings.
    """

    host: str = "127.0.0.1"
    port: int = 9000
    database_url: str = "sqlite:///registry.db"
    allow_anonymous: bool = False
    cors_origins: tuple[str, ...] = ()
    tokens: Tokens | None = field(default=None, repr=False)
    probe: bool = False
    probe_seconds: float = 30
    probe_allow: tuple[str, ...] = ()
    ard: bool = True
    domain: str = PRIVATE_DOMAIN
    tls_certificate: str | None = None
    tls_key: str | None = None
    tls_key_password: str | None = field(default=None, repr=False)
    tls_client_ca: str | None = None

    def __post_init__(self) -> None:
        is_protected = self.allow_anonymous or self.tokens is not None
        problems = [*_host(self.host, is_protected), *_port(self.port), *_database(self.database_url)]
        problems += [problem for origin in self.cors_origins for problem in _origin(origin)]
        problems += [*_probe(self.probe_seconds, self.probe_allow), *_domain(self.domain)]
        problems += _tls(self)
        if problems:
            raise SettingsError(problems)

    @property
    def open_to_network(self) -> bool:
        """Whether other machines can read and change the registry without a token."""
        return self.tokens is None and not is_loopback(self.host)

    @property
    def tls(self) -> ServerTls | None:
        """The certificate of the server; None where it serves plain HTTP."""
        if self.tls_certificate is None or self.tls_key is None:
            return None
        return ServerTls(
            certificate=Path(self.tls_certificate),
            key=Path(self.tls_key),
            key_password=self.tls_key_password,
            client_ca=Path(self.tls_client_ca) if self.tls_client_ca else None,
        )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ, **flags: Any) -> Self:
        """Read the `DISCOVERY_*` variables; a flag that is not None overrides its variable."""
        problems: list[str] = []
        values: dict[str, Any] = {}

        def text(name: str) -> str | None:
            return environment.get(name, "").strip() or None

        try:
            values["tokens"] = read_tokens(text("DISCOVERY_TOKENS"))
        except ValueError as error:
            problems.append(f"DISCOVERY_TOKENS {error}.")
            values["tokens"] = Tokens()  # otherwise the open network would be reported as well
        values |= {name: text(f"DISCOVERY_{name.upper()}") for name in TEXTS}
        port = text("DISCOVERY_PORT")
        # Kubernetes sets DISCOVERY_PORT=tcp://… in every pod of a namespace with a service named "discovery".
        if port is not None and flags.get("port") is None and not port.startswith("tcp://"):
            if port.isascii() and port.isdigit():
                values["port"] = int(port)
            else:
                problems.append(f"DISCOVERY_PORT must be a number from 0 to 65535, not {port!r}.")
        for name in SWITCHES:
            switch = (text(f"DISCOVERY_{name.upper()}") or "").lower()
            values[name] = SWITCH.get(switch)
            if switch and switch not in SWITCH:
                problems.append(f"DISCOVERY_{name.upper()} must be on or off (1 or 0), not {switch!r}.")
        seconds = text("DISCOVERY_PROBE_SECONDS")
        try:
            values["probe_seconds"] = None if seconds is None else float(seconds)
        except ValueError:
            problems.append(f"DISCOVERY_PROBE_SECONDS must be a number of seconds, not {seconds!r}.")
        values["probe_allow"] = _split(environment, "DISCOVERY_PROBE_ALLOW")
        values["cors_origins"] = tuple(one.rstrip("/") for one in _split(environment, "DISCOVERY_CORS_ORIGINS"))
        values |= {name: value for name, value in flags.items() if value is not None}
        try:
            settings = cls(**{name: value for name, value in values.items() if value is not None})
        except SettingsError as error:
            raise SettingsError(problems + error.problems) from None
        if problems:
            raise SettingsError(problems)
        return settings


def parse_allowed(entries: Iterable[str]) -> tuple[tuple[str, ...], tuple[Network, ...]]:
    """Parse host patterns (`*.agents.example`), addresses and networks (`10.0.0.0/8`) into hosts and networks.

    Raises:
        ValueError: The entry that is none of these.
    """
    hosts: list[str] = []
    networks: list[Network] = []
    for entry in entries:
        try:
            networks.append(ip_network(entry.strip("[]"), strict=False))
        except ValueError:
            if not _HOST_PATTERN.fullmatch(entry.lower()):
                raise ValueError(entry) from None
            hosts.append(entry.lower())
    return tuple(hosts), tuple(networks)


def _split(environment: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in environment.get(name, "").split(",") if part.strip())


def _host(host: str, is_protected: bool) -> list[str]:
    if is_loopback(host) or is_protected:
        return []
    return [
        f"DISCOVERY_HOST (--host) {host} is reachable from other machines, and anyone there could change the registry: "
        "set DISCOVERY_TOKENS, or DISCOVERY_ALLOW_ANONYMOUS=1 to allow it, or listen on 127.0.0.1."
    ]


def _port(port: int) -> list[str]:
    return [] if 0 <= port <= 65535 else [f"DISCOVERY_PORT (--port) must be a number from 0 to 65535, not {port}."]


def _database(url: str) -> list[str]:
    try:
        open_store(url)
    except ValueError as error:
        return [f"DISCOVERY_DATABASE_URL (--database-url) {error}."]
    name = sqlite_path(url)
    if name is not None:
        path = Path(name)
        if path.is_dir():
            return [f"DISCOVERY_DATABASE_URL (--database-url) {path} is a directory: name a file in it."]
        if not path.parent.is_dir():
            return [
                f"DISCOVERY_DATABASE_URL (--database-url) is in a directory that does not exist: create {path.parent}."
            ]
    return []


def _origin(origin: str) -> list[str]:
    if origin == "*":
        return []
    parts = urlsplit(origin)
    if parts.scheme in {"http", "https"} and parts.hostname and f"{parts.scheme}://{parts.netloc}" == origin:
        return []
    return [f"DISCOVERY_CORS_ORIGINS must list origins like https://portal.example:8443, not {origin!r}."]


def _probe(seconds: float, allowed: tuple[str, ...]) -> list[str]:
    problems: list[str] = []
    if not 0 < seconds < float("inf"):
        problems.append(f"DISCOVERY_PROBE_SECONDS must be a number of seconds above 0, not {seconds:g}.")
    try:
        parse_allowed(allowed)
    except ValueError as error:
        problems.append(
            "DISCOVERY_PROBE_ALLOW must list hosts, addresses and networks, like *.agents.example, 10.1.2.3 and "
            f"10.0.0.0/8, not {str(error)!r}."
        )
    return problems


def _domain(domain: str) -> list[str]:
    if re.fullmatch(r"([a-z0-9-]{1,63}\.)+[a-z0-9-]{1,63}", domain, re.IGNORECASE):
        return []
    return [f"DISCOVERY_DOMAIN must be a domain name, like agents.example.com, not {domain!r}."]


def _tls(settings: Settings) -> list[str]:
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        return ["DISCOVERY_TLS_CERTIFICATE and DISCOVERY_TLS_KEY (--tls-certificate, --tls-key) must be set together."]
    if settings.tls is None:
        problem = "DISCOVERY_TLS_CLIENT_CA (--tls-client-ca) requires DISCOVERY_TLS_CERTIFICATE and DISCOVERY_TLS_KEY."
        return [problem] if settings.tls_client_ca else []
    try:
        settings.tls.check()
    except TlsError as error:
        return [f"DISCOVERY_TLS_…: {error}."]
    return []
