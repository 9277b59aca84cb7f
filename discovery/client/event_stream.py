"""A registry's stream of events, as its reader has it: from bytes to `RegistryEvent`. Knows nothing of connections."""

import json
import re
from collections.abc import AsyncGenerator, AsyncIterable
from typing import Any, cast

from pydantic import BaseModel, ConfigDict

from discovery.contract.fields import Moment
from discovery.contract.models import AgentRecord

LARGEST_EVENT_BYTES = 4 * 1024 * 1024
_END_OF_BLOCK = re.compile(rb"\r?\n\r?\n")
_END_OF_LINE = re.compile(r"\r?\n")


class RegistryEvent(BaseModel):
    """One thing that happened in a registry. `kind` is open: a later registry may know more.

    `registered`, `updated`, `status`, `removed` and `conflict` carry `agent`, the whole record as the list has it from
    now on, or None where the name is gone. `guard` says whether entries are held although they are silent. `reset`
    means: read the list again, and leave out events whose `revision` it has already.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    kind: str
    id: str | None = None
    """Where to go on from: `events(last_id=…)`."""
    revision: int
    at: Moment | None = None
    name: str | None = None
    instance_id: str | None = None
    status: str | None = None
    reason: str | None = None
    agent: AgentRecord | None = None
    active: bool | None = None
    until: Moment | None = None
    silent: list[str] = []


async def events_in(chunks: AsyncIterable[bytes]) -> AsyncGenerator[RegistryEvent | None]:
    """The events of a stream as they are complete; None is a comment, a sign of life.

    Raises:
        ValueError: what came is no event of a registry, or larger than one may be.
    """
    rest = b""
    async for chunk in chunks:
        *blocks, rest = _END_OF_BLOCK.split(rest + chunk)
        if len(rest) > LARGEST_EVENT_BYTES:
            raise ValueError(f"an event is larger than {LARGEST_EVENT_BYTES // 1024} KiB")
        for block in blocks:
            yield _event(block)


def _event(block: bytes) -> RegistryEvent | None:
    fields: dict[str, list[str]] = {}
    for line in _END_OF_LINE.split(block.decode()):
        name, _, value = line.partition(":")
        fields.setdefault(name, []).append(value.removeprefix(" "))
    if "data" not in fields:
        return None
    data: Any = json.loads("\n".join(fields["data"]))
    if not isinstance(data, dict):
        raise ValueError("an event's data is not an object")
    known = {"kind": fields.get("event", ["message"])[-1], "id": fields.get("id", [None])[-1]}
    return RegistryEvent.model_validate(cast("dict[str, Any]", data) | known)
