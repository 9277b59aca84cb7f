"""The interface of a model, and the models that wrap others."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any, Protocol, Self

from agent_runtime.errors import ModelError, ModelFault
from agent_runtime.events import Message, ModelChunk, ToolSpec

_log = logging.getLogger(__name__)

# Not `auth` and `not_found`: a working fallback must not hide a wrong key or model name from the operator.
_PASSED_ON: frozenset[ModelFault] = frozenset(
    {"unreachable", "invalid_request", "rate_limited", "quota", "context_overflow", "failed"}
)


class Model(Protocol):
    """One chat model.

    Constructors do no I/O: a model opens what it needs in `__aenter__`. Many runs may use it at once.
    """

    @property
    def label(self) -> str:
        """Provider and model name (`openai/gpt-4o-mini`), without the endpoint or the key."""
        ...

    async def __aenter__(self) -> Model: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    def stream(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] = (),
        *,
        stop: Sequence[str] = (),
        schema: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[ModelChunk]:
        """Yield the reply: text deltas and complete tool calls in their order, then the usage.

        Closing the iterator stops the model.

        Args:
            messages: the conversation.
            tools: the tools that the model may call.
            stop: strings that end the text, and are not part of it.
            schema: the JSON Schema that the text should have. Not every provider supports it, so the caller validates
                the text.

        Raises:
            ModelError: the provider gave no usable reply; `fault` says who must act.
        """
        ...


class InvalidReply(ValueError):
    """The reply is not a complete one; the message says why."""


class ModelWrapper:
    """A wrapper that opens and closes the model it wraps; a subclass has the `stream`."""

    def __init__(self, model: Model) -> None:
        self._model = model

    @property
    def label(self) -> str:
        """The label of the wrapped model."""
        return self._model.label

    async def __aenter__(self) -> Self:
        await self._model.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._model.__aexit__(*exc_info)


class FallbackModel:
    """Tries its models in order. Once a model has started its reply, no other continues it."""

    def __init__(self, models: Sequence[Model]) -> None:
        self._models = tuple(models)
        self._stack = AsyncExitStack()
        self._answering = self._models[0]

    @property
    def label(self) -> str:
        """The label of the first model."""
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
        """Yield the reply of the first model that starts one; raises the error of the last one."""
        more: dict[str, Any] = {"schema": schema} if schema else {}
        reason = ""
        for model in self._models:
            has_started = False
            try:
                async with aclosing(model.stream(messages, tools, stop=stop, **more)) as chunks:
                    async for chunk in chunks:
                        if not has_started:
                            self._set_answering(model, reason)
                            has_started = True
                        yield chunk
                return
            except ModelError as error:
                if has_started or model is self._models[-1] or error.fault not in _PASSED_ON:
                    raise
                reason = str(error)

    def _set_answering(self, model: Model, reason: str) -> None:
        """Log a change of the model that answers."""
        if model is self._answering:
            return
        self._answering = model
        if reason:
            _log.warning("%s answers in place of %s: %s", model.label, self.label, reason)
        else:
            _log.info("%s answers again", model.label)
