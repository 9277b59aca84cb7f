"""What an agent is told about its registration. Pure."""

from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from msgspec.json import encode

from discovery.contract import Notice, format_timestamp, is_loopback
from discovery.registry.leases import interval_seconds
from discovery.registry.rules import Accepted


def acknowledgement(accepted: Accepted, caller: str | None) -> bytes:
    """The answer to `POST /register` from this address: a `Registered` as JSON, made without one."""
    record, changed, _ = accepted
    said, observed = record.registration, caller or record.observed_address
    return encode(
        {
            "name": said.name,
            "instance_id": said.instance_id,
            "revision": record.revision,
            "changed": changed,
            "lease": _lease(said.ttl_seconds, record.believed_from),
            "observed_address": observed,
            "warnings": _warnings(said.endpoint, observed),
        }
    )


@lru_cache(maxsize=64)  # what is decided together is believed from the same moment
def _lease(ttl_seconds: float | None, believed_from: datetime) -> dict[str, Any] | None:
    if ttl_seconds is None:
        return None
    expires_at = format_timestamp(believed_from + timedelta(seconds=ttl_seconds))
    return {"ttl_seconds": ttl_seconds, "interval_seconds": interval_seconds(ttl_seconds), "expires_at": expires_at}


@lru_cache(maxsize=4096)  # a heartbeat asks the same every time
def _warnings(endpoint: str, caller: str | None) -> list[dict[str, Any]]:
    if urlsplit(endpoint).hostname in {"0.0.0.0", "::"}:
        message = f"{endpoint} is an address to listen on, not one to call."
        hint = "Advertise the host's own name or address."
        return [Notice(code="unspecified_endpoint", message=message, hint=hint).model_dump()]
    if caller is not None and is_loopback(endpoint) and not is_loopback(caller):
        message = f"{endpoint} reaches nothing but the agent's own machine, and it registered from {caller}."
        hint = "Set server.service_url, or server.public_url, to an address that others can reach."
        return [Notice(code="loopback_endpoint", message=message, hint=hint).model_dump()]
    return []
