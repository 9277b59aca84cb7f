"""Several models as one: the next is asked where the one before cannot answer."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any

from agent_runtime.errors import ModelError, ModelFault
from agent_runtime.events import Message, ModelChunk, ToolSpec
from agent_runtime.models.base import Model

_log = logging.getLogger(__name__)

# Not `refused`: a wrong key or model name is the operator's to mend, and must not hide behind a model that answers.
_PASSED_ON: frozenset[ModelFault] = frozenset({"unreachable", "rate_limited", "quota", "context_overflow", "failed"})


class FallbackModel:
    """Asks its models in order. Once a model has begun its reply, that reply is whole or failed, never mixed."""

    def __init__(self, models: Sequence[Model]) -> None:
        self._models = tuple(models)
        self._stack = AsyncExitStack()
        self._answering = self._models[0]

    @property
    def label(self) -> str:
        """The first model's: the one that is meant to answer."""
        return self._models[0].label

    @property
    def answering(self) -> str:
        """The label of the model that answered last."""
        return self._answering.label

    async def __aenter__(self) -> FallbackModel:
        try:
            for model in self._models:
                await self._stack.enter_async_context(model)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def stream(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] = (),
        *,
        stop: Sequence[str] = (),
        schema: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[ModelChunk]:
        """Yield the reply of the first model that begins one; raises what the last one raised."""
        more: dict[str, Any] = {"schema": schema} if schema else {}
        reason = ""
        for model in self._models:
            begun = False
            try:
                async with aclosing(model.stream(messages, tools, stop=stop, **more)) as chunks:
                    async for chunk in chunks:
                        if not begun:
                            self._answers(model, reason)
                        begun = True
                        yield chunk
                return
            except ModelError as error:
                if begun or model is self._models[-1] or error.fault not in _PASSED_ON:
                    raise
                reason = str(error)

    def _answers(self, model: Model, reason: str) -> None:
        """Remember and log who answers; once a change, not once a reply."""
        if model is self._answering:
            return
        self._answering = model
        if reason:
            _log.warning("%s answers in place of %s: %s", model.label, self.label, reason)
        else:
            _log.info("%s answers again", model.label)
