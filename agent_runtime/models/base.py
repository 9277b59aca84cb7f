"""What the engine asks of a model: one method, and it streams."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Protocol, Self

from agent_runtime.events import Message, ModelChunk, ToolSpec


class Model(Protocol):
    """One chat model behind one provider.

    Implementations are given their connection settings at construction, do no I/O there, and open what they need in
    `__aenter__`. A model may be asked by many runs at once.
    """

    @property
    def label(self) -> str:
        """Provider and model name for people (`openai/gpt-4o-mini`); never an endpoint or a key."""
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
        """Yield the reply: text deltas and whole tool calls in the order they were made, then its usage.

        `stop` are strings at which the text ends (they are not part of it). `schema` is the JSON Schema of the text:
        a wish that a provider may not know, so the text is checked by who asked; it is given only where there is one.
        Closing the iterator stops the model.

        Raises:
            ModelError: the provider gave no usable reply; `fault` says whose turn it is.
        """
        ...


class ModelAround:
    """A model that stands in front of another and is opened and closed with it; its `stream` is the subclass's."""

    def __init__(self, model: Model) -> None:
        self._model = model

    @property
    def label(self) -> str:
        """The label of the model behind it."""
        return self._model.label

    async def __aenter__(self) -> Self:
        await self._model.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._model.__aexit__(*exc_info)
