"""Another agent as a tool: found through discovery by its name, called over A2A.

The remaining depth, time and tokens are passed on, so that agents which call each other terminate. If the other agent
is not available, the model gets an error. A conversation with it lasts for one call.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_runtime.budget import Budget, current
from agent_runtime.config import DiscoveryConfig, RemoteAgentToolConfig
from agent_runtime.errors import StartError, ToolError
from agent_runtime.events import ToolSpec
from agent_runtime.secrets import Credential
from agent_runtime.tls import registry_tls
from discovery.client import DiscoveryClient, DiscoveryError
from discovery.contract import AgentRecord

if TYPE_CHECKING:
    from agent_runtime.tools.remote.a2a import A2AClient

__all__ = ["MAX_DEPTH", "RemoteAgent"]

_log = logging.getLogger(__name__)

MAX_DEPTH = 5
CACHE_SECONDS = 30.0  # how long the record of an agent is used before it is fetched again
_TIME_SHARE = 0.9  # of the remaining time: the other agent ends with its best answer before this one times out

_PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "message": {
            "type": "string",
            "description": "The complete question with all details: the agent does not see this conversation.",
        }
    },
    "required": ["message"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class _CachedRecord:
    record: AgentRecord
    expires_at: float


class RemoteAgent:
    """A tool that asks one agent of the registry."""

    def __init__(
        self,
        config: RemoteAgentToolConfig,
        discovery: DiscoveryConfig,
        folder: Path,
        *,
        key: Credential[str | None],
        token: Credential[str | None],
    ) -> None:
        """`key` is the API key of the other agent, `token` that of the registry."""
        self._config = config
        self._folder = folder
        self._key = key
        self._token = token
        self._discovery = discovery
        self._stack = AsyncExitStack()
        self._registry: DiscoveryClient
        self._client: A2AClient
        self._cached: _CachedRecord | None = None
        self.direct = config.answer == "direct"
        self.guarded = config.approval == "required"
        self.timeout_seconds = config.timeout_seconds

    @property
    def spec(self) -> ToolSpec:
        """Contains the description of the other agent, once its record is known."""
        record = self._cached.record if self._cached else None
        description = f"Ask the agent {self._config.agent}."
        if record and record.description:
            description += f" {record.description}"
        return ToolSpec(self._config.agent, description, _PARAMETERS)

    async def __aenter__(self) -> RemoteAgent:
        if not self._discovery.url:
            raise StartError(f"set discovery.url: the agent {self._config.agent} is found through it")
        try:
            client_class = await asyncio.to_thread(_import_client)
        except ModuleNotFoundError as error:
            raise StartError("`agent:` in tools needs an extra: pip install 'myagent[a2a]'") from error
        tls = await registry_tls(self._discovery, self._folder)
        registry = DiscoveryClient(self._discovery.url, token=self._token, tls=tls)
        self._registry = await self._stack.enter_async_context(registry)
        self._client = await self._stack.enter_async_context(client_class(self._key, tls))
        with suppress(ToolError):  # the other agent may start later; until then its description is missing
            await self._lookup()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def call(self, arguments: Mapping[str, Any]) -> str:
        message = arguments.get("message")
        if not isinstance(message, str) or not message.strip():
            raise ToolError("`message` must be a string: the question to the agent.")
        budget = self._budget()
        name = self._config.agent
        record = await self._lookup()
        try:
            answer = await self._client.ask(record, message, budget)
        except ToolError:
            raise
        except Exception as error:  # the SDK raises many types, its own and those of its transports
            self._cached = None  # the agent may have moved
            _log.info("the call of agent %s failed", name, exc_info=True)
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise ToolError(f"The agent {name} cannot be reached: {reason}") from error
        if not answer.done:
            raise ToolError(f"The agent {name} did not answer ({answer.state}): {answer.text or 'no reason given'}")
        return answer.text or f"The agent {name} returned an empty answer."

    def _budget(self) -> Budget:
        """The share of the remaining budget that the other agent gets."""
        budget = current()
        if budget.depth >= MAX_DEPTH:
            raise ToolError(
                f"No further agent can be called: {budget.depth} agents are waiting for each other already. "
                "Answer with what you know."
            )
        seconds = min(self.timeout_seconds, budget.seconds() or self.timeout_seconds)
        return replace(budget, deadline=asyncio.get_running_loop().time() + seconds * _TIME_SHARE)

    async def _lookup(self) -> AgentRecord:
        name = self._config.agent
        if self._cached and self._cached.expires_at > time.monotonic():
            return self._cached.record
        try:
            record = await self._registry.agent(name)
        except DiscoveryError as error:
            if self._cached:  # the agent may be available although the registry is not
                return self._cached.record
            raise ToolError(f"The agent {name} cannot be looked up, the registry does not answer: {error}") from error
        if record is None:
            self._cached = None
            raise ToolError(f"There is no agent {name} in the registry.")
        self._cached = _CachedRecord(record, time.monotonic() + CACHE_SECONDS)
        return record


def _import_client() -> type[A2AClient]:
    # In a thread: the import of the SDK takes a second, and the loop may be serving other agents.
    from agent_runtime.tools.remote.a2a import A2AClient

    return A2AClient
