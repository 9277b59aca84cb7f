"""What an agent is told about its registration. Pure."""

from datetime import timedelta
from functools import lru_cache
from urllib.parse import urlsplit

from discovery.contract import Lease, Notice, Registered, is_loopback
from discovery.leases import Record, interval_seconds


def answer_to(record: Record, caller: str | None, *, changed: bool) -> Registered:
    """The answer to `POST /register` from this address."""
    ttl = record.registration.ttl_seconds
    lease = None
    if ttl is not None:
        expires_at = record.believed_from + timedelta(seconds=ttl)
        lease = Lease(ttl_seconds=ttl, interval_seconds=interval_seconds(ttl), expires_at=expires_at)
    return Registered(
        name=record.registration.name,
        instance_id=record.registration.instance_id,
        revision=record.revision,
        changed=changed,
        lease=lease,
        observed_address=caller or record.observed_address,
        warnings=_warnings(record.registration.endpoint, caller or record.observed_address),
    )


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
