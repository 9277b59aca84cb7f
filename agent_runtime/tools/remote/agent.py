"""Another agent as a tool: found through discovery by its name, asked over A2A.

Depth, time and tokens that are left go along, so that agents which ask each other come to an end. That an agent is
not there is the model's to read; a conversation with it lasts for one call.
"""

from __future__ import annotations

import asyncio
import importlib
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
    from agent_runtime.tools.remote.a2a import A2ACaller

_log = logging.getLogger(__name__)

MAX_DEPTH = 5
KNOWN_SECONDS = 30.0  # how long an address is used before the registry is asked for it again
_SHARE = 0.9  # of the time that is left: the other agent ends with its best answer before this one stops waiting

_PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "message": {
            "type": "string",
            "description": "The whole question with all it needs: the agent knows nothing of this conversation.",
        }
    },
    "required": ["message"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class _Known:
    record: AgentRecord
    until: float


class RemoteAgent:
    """One agent of the registry."""

    def __init__(
        self,
        config: RemoteAgentToolConfig,
        discovery: DiscoveryConfig,
        folder: Path,
        *,
        key: Credential[str | None],
        token: Credential[str | None],
    ) -> None:
        """`key` is for the other agent, `token` for the registry."""
        self._config = config
        self._folder = folder
        self._key = key
        self._token = token
        self._discovery = discovery
        self._stack = AsyncExitStack()
        self._registry: DiscoveryClient
        self._caller: A2ACaller
        self._known: _Known | None = None
        self.direct = config.answer == "direct"
        self.guarded = config.approval == "required"
        self.timeout_seconds = config.timeout_seconds

    @property
    def spec(self) -> ToolSpec:
        """The description is the other agent's own, as far as it is known."""
        record = self._known.record if self._known else None
        about = f"Ask the agent {self._config.agent}."
        if record and record.description:
            about += f" {record.description}"
        return ToolSpec(self._config.agent, about, _PARAMETERS)

    async def __aenter__(self) -> RemoteAgent:
        if not self._discovery.url:
            raise StartError(f"the agent {self._config.agent} is found through discovery, and discovery.url is not set")
        try:
            module = await asyncio.to_thread(importlib.import_module, "agent_runtime.tools.remote.a2a")
        except ModuleNotFoundError as error:
            raise StartError("`agent:` in tools needs an extra: pip install 'myagent[a2a]'") from error
        tls = await registry_tls(self._discovery, self._folder)
        registry = DiscoveryClient(self._discovery.url, token=self._token, tls=tls)
        self._registry = await self._stack.enter_async_context(registry)
        self._caller = await self._stack.enter_async_context(module.A2ACaller(self._key, tls))
        with suppress(ToolError):  # the other agent may be started later; only its description is missed until then
            await self._found()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """Ask the other agent and wait for its answer."""
        message = arguments.get("message")
        if not isinstance(message, str) or not message.strip():
            raise ToolError("`message` must be a text: the question to the agent.")
        left = self._left()
        name = self._config.agent
        record = await self._found()
        try:
            answer = await self._caller.ask(record, message, left)
        except ToolError:
            raise
        except Exception as error:  # the library raises many kinds, of its own and of its transports
            self._known = None  # it may have moved
            _log.info("the agent %s cannot be asked", name, exc_info=True)
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise ToolError(f"The agent {name} cannot be reached: {reason}") from error
        if not answer.done:
            raise ToolError(f"The agent {name} did not answer ({answer.state}): {answer.text or 'it gives no reason'}")
        return answer.text or f"The agent {name} had nothing to say."

    def _left(self) -> Budget:
        """What the other agent gets of what this one has left."""
        left = current()
        if left.depth >= MAX_DEPTH:
            raise ToolError(
                f"No further agent can be asked: {left.depth} agents are waiting for each other already. "
                "Answer with what you know."
            )
        seconds = min(self.timeout_seconds, left.seconds() or self.timeout_seconds)
        return replace(left, deadline=asyncio.get_running_loop().time() + seconds * _SHARE)

    async def _found(self) -> AgentRecord:
        name = self._config.agent
        if self._known and self._known.until > time.monotonic():
            return self._known.record
        try:
            record = await self._registry.agent(name)
        except DiscoveryError as error:
            if self._known:  # the registry is away, the agent perhaps not
                return self._known.record
            raise ToolError(f"The agent {name} cannot be found, the registry does not answer: {error}") from error
        if record is None:
            self._known = None
            raise ToolError(f"There is no agent {name} in the registry.")
        self._known = _Known(record, time.monotonic() + KNOWN_SECONDS)
        return record
