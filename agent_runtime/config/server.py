"""The section of the agent file that says where an agent listens, who may call it, and how much."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from agent_runtime.config.section import Section, is_http_url
from discovery.contract import is_loopback

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]  # signed with a private key each: who can check a token cannot make one


class OidcConfig(Section):
    """Callers that come with a token of an OpenID Connect issuer."""

    issuer: str
    """The issuer's address, as the tokens name it in `iss`; its keys are found through its discovery document."""
    audience: list[str] = Field(min_length=1)
    """What the tokens must be meant for (`aud`); one of several is enough."""
    algorithms: list[Algorithm] = Field(default=["RS256", "ES256"], min_length=1)
    """The signatures that are accepted."""
    leeway_seconds: float = Field(default=30, ge=0, le=300)
    """By how much the clocks of the issuer and of this machine may differ."""
    ca: str | None = None
    """A file with the certificates that the issuer's own is checked against; the system's where it is not given."""

    @field_validator("issuer")
    @classmethod
    def _cannot_be_overheard(cls, issuer: str) -> str:
        if not is_http_url(issuer) or not (issuer.startswith("https://") or is_loopback(issuer)):
            raise ValueError("must be an https:// address, such as https://login.example.com/realms/team")
        return issuer

    @field_validator("audience", mode="before")
    @classmethod
    def _one_or_several(cls, audience: Any) -> Any:
        return [audience] if isinstance(audience, str) else audience


class TlsConfig(Section):
    """Certificates. The paths are relative to the agent file."""

    certificate: str
    """The file with the certificate, and with the ones between it and its authority's."""
    key: str
    """The file with its private key."""
    key_password: SecretStr | None = None
    """What the key is encrypted with, if it is."""
    client_ca: str | None = None
    """A file with the certificates of authorities: only callers with a certificate of one of them get a connection."""


class ServerLimits(Section):
    """What one caller may send. A caller is a key or a token's subject; without either, the address it calls from."""

    max_body_bytes: int = Field(default=1024 * 1024, ge=1024)
    """The largest body of a request."""
    max_header_bytes: int = Field(default=64 * 1024, ge=4096, le=1024 * 1024)
    """The largest head of a request: its first line and all its headers."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """How many requests a caller may make in a minute, all at once if it likes; any number where it is not given."""
    concurrent_runs: int | None = Field(default=None, ge=1)
    """How many runs of one caller may be under way; any number where it is not given. All without a key are one."""


class ServerConfig(Section):
    """Where the agent listens and who may call it."""

    host: str = "127.0.0.1"
    """The address to listen on; anything but loopback needs `api_keys`, `oidc` or `--allow-anonymous`."""
    port: int = Field(default=8000, ge=0, le=65535)
    """The port to listen on; 0 takes a free one."""
    public_url: str | None = None
    """The address a browser reaches the agent at, where it differs from the services' one."""
    service_url: str | None = None
    """The address other services reach the agent at."""
    api_keys: list[SecretStr] = Field(default_factory=list[SecretStr])
    """Keys that callers send as `Authorization: Bearer …`; several, so that they can be rotated."""
    oidc: OidcConfig | None = None
    """Callers may come with a token of this issuer, beside those that have a key; its subject owns their sessions."""
    tls: TlsConfig | None = None
    """Certificates: the agent then answers over https only."""
    limits: ServerLimits = ServerLimits()
    """What one caller may send."""
    cors_origins: list[str] = Field(default_factory=list)
    """Origins whose pages may call the agent, such as the portal's."""
    cancel_on_disconnect: bool = False
    """Whether a run is cancelled when its client hangs up; else it goes on, and can be followed again."""

    @field_validator("api_keys")
    @classmethod
    def _can_be_sent(cls, keys: list[SecretStr]) -> list[SecretStr]:
        if not all(key.get_secret_value().strip() for key in keys):
            raise ValueError("has an empty key, which anybody could send")
        return keys

    @property
    def asks(self) -> bool:
        """Whether callers have to say who they are."""
        return bool(self.api_keys or self.oidc)


class DiscoveryConfig(Section):
    """The registry that the agent announces itself to."""

    url: str | None = None
    """The registry's address; without one the agent registers nowhere."""
    heartbeat_seconds: float | None = Field(default=None, gt=0)
    """How often the agent renews its registration; without it, it registers once and never expires."""
    token: SecretStr | None = None
    """The registry's bearer token, where it asks for one."""
    ca: str | None = None
    """A file with the certificates that the registry's own is checked against, and those of the agents that are found
    through it; the system's where it is not given."""
    certificate: str | None = None
    """The file with the certificate that this agent shows to them, where they ask for one."""
    key: str | None = Field(default=None, validate_default=True)
    """The file with its private key."""
    instance_id: str | None = Field(default=None, min_length=1, max_length=128)
    """Tells replicas of one agent apart, like `${HOSTNAME}` in a container; one process needs none."""
    owner: str | None = None
    """The team that answers for the agent."""
    tags: list[str] = Field(default_factory=list)
    """Words that the portal filters by."""

    @field_validator("key")
    @classmethod
    def _goes_with_its_certificate(cls, key: str | None, known: ValidationInfo) -> str | None:
        if bool(key) != bool(known.data.get("certificate", key)):
            raise ValueError("goes with `certificate`, and neither without the other")
        return key
