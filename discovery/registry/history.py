"""Changes as readers of `/history` and `/events` see them: pydantic models of the wire."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from discovery.contract import AgentRecord, Timestamp

Kind = Literal["registered", "updated", "status", "removed", "conflict", "guard", "reset"]


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ToolChange(_Wire):
    """What changed about a tool that existed before and after."""

    name: str
    breaking: bool
    what: list[str]


class ContractDiff(_Wire):
    """How the tools of an agent changed. Breaking: a call that was valid before may be invalid now."""

    added: list[str] = []
    removed: list[str] = []
    changed: list[ToolChange] = []
    breaking: bool = False


class HistoryEntry(_Wire):
    """One change of one instance, with its state afterwards."""

    revision: int
    at: Timestamp
    kind: Kind
    instance_id: str
    status: str
    reason: str
    version: str
    endpoint: str
    boot_id: str | None = None
    fields: list[str] = Field(default=[], description="Which fields of the registration changed")
    tools: ContractDiff | None = None


class GuardState(_Wire):
    """Mass silence: many agents fell silent at once, which is more likely one fault than many. Nothing is removed."""

    since: Timestamp
    until: Timestamp
    silent: list[str]


class AgentEvent(_Wire):
    """`data` of `registered`, `updated`, `status`, `removed` and `conflict`.

    Replace the entry of `name` by `agent`, or remove it where that is null: this keeps a list equal to `GET /agents`.
    """

    revision: int
    at: Timestamp
    name: str
    instance_id: str
    status: str
    reason: str
    agent: AgentRecord | None


class GuardEvent(_Wire):
    """`data` of `guard`."""

    revision: int
    at: Timestamp
    active: bool
    until: Timestamp | None = None
    silent: list[str] = []


class ResetEvent(_Wire):
    """`data` of `reset`: read `GET /agents` again, and ignore events up to its `X-Registry-Revision`."""

    revision: int
    at: Timestamp
    reason: str
