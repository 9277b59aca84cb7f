"""What an agent is told about its registration. Pure."""

from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from pydantic_core import to_json

from discovery.contract import Notice, is_loopback
from discovery.decisions import Accepted
from discovery.fields import to_milliseconds
from discovery.leases import Record, interval_seconds


def acknowledgement(accepted: Accepted, caller: str | None) -> bytes:
    """The answer to `POST /register` from this address: a `Registered` as JSON, made without one."""
    record, changed, _ = accepted
    said, observed = record.registration, caller or record.observed_address
    return to_json(
        {
            "name": said.name,
            "instance_id": said.instance_id,
            "revision": record.revision,
            "changed": changed,
            "lease": _lease(record),
            "observed_address": observed,
            "warnings": _warnings(said.endpoint, observed),
        }
    )


def _lease(record: Record) -> dict[str, Any] | None:
    ttl, lease = record.registration.ttl_seconds, record.lease
    if ttl is None or lease is None:
        return None
    expires_at = to_milliseconds(record.believed_from + lease)
    return {"ttl_seconds": ttl, "interval_seconds": interval_seconds(ttl), "expires_at": expires_at}


@lru_cache(maxsize=4096)  # a heartbeat asks the same every time
def _warnings(endpoint: str, caller: str | None) -> list[Notice]:
    if urlsplit(endpoint).hostname in {"0.0.0.0", "::"}:
        message = f"{endpoint} is an address to listen on, not one to call."
        return [Notice(code="unspecified_endpoint", message=message, hint="Advertise the host's own name or address.")]
    if caller is not None and is_loopback(endpoint) and not is_loopback(caller):
        message = f"{endpoint} reaches nothing but the agent's own machine, and it registered from {caller}."
        hint = "Set server.service_url, or server.public_url, to an address that others can reach."
        return [Notice(code="loopback_endpoint", message=message, hint=hint)]
    return []
