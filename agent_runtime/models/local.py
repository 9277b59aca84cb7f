"""The local model: no key, no server to install, and with the built-in weights no download.

A small model does not call tools reliably. So the question is analysed first: which tool it is about, and which
arguments it contains. The model decodes the others under a grammar, so every call is valid.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import date, datetime
from typing import Any, cast
from uuid import uuid4

from agent_runtime.errors import ModelError
from agent_runtime.events import Message, ModelChunk, ToolCall, ToolSpec, Usage
from agent_runtime.local_model.constrained import choose, draft
from agent_runtime.local_model.llama_server import ENGINE_PARAMETERS, LlamaServer
from agent_runtime.local_model.prompts import (
    NO_TOOL,
    Prompt,
    conversation,
    current_turn,
    grounded,
    introduction,
    tool_arguments,
    tool_choice,
)
from agent_runtime.local_model.tool_schema import object_schema
from agent_runtime.local_model.weights import BUILT_IN, find_weights, label_of
from agent_runtime.local_model.wording import Question

__all__ = ["BUILT_IN", "LocalModel"]

# A small model repeats itself unless that is penalised; when it quotes from a text, it must be free to repeat.
_FREE = {"temperature": 0, "max_tokens": 300, "repeat_penalty": 1.1, "dry_multiplier": 0.8}
_FAITHFUL = {"temperature": 0, "max_tokens": 150}
_CALL_TOKENS = 400

# The number of parameters from which the model chooses tools better than the words of the question do.
_CAPABLE = 1_000_000_000
# How much of the context a conversation may fill before its beginning is dropped.
_CHARACTERS_PER_TOKEN = 1.5


class LocalModel:
    """Any GGUF model, run in this process; `find_weights` documents `name`.

    Of `parameters`, `n_ctx` (the context of one stream), `n_parallel` (streams at once), `n_threads`, `n_batch` and
    `n_gpu_layers` set up the engine; the others (`max_tokens`, `temperature`, …) go with every request for text. Calls
    of tools are always decoded at temperature 0. From `capable_from` parameters on, the model itself chooses the tool,
    and decodes the arguments that the question leaves open.
    """

    def __init__(
        self,
        name: str = BUILT_IN,
        *,
        parameters: Mapping[str, Any] | None = None,
        timeout_seconds: float = 60,
        capable_from: int = _CAPABLE,
        today: Callable[[], date] = lambda: datetime.now().astimezone().date(),
    ) -> None:
        self._name = name
        self._timeout_seconds = timeout_seconds
        self._capable_from = capable_from
        self._today = today
        given = dict(parameters or {})
        self._engine = {key: given.pop(key) for key in ENGINE_PARAMETERS & given.keys()}
        self._parameters = given
        self._server: LlamaServer | None = None

    @property
    def label(self) -> str:
        """`local/smollm2-135m`; of a path only the file's name."""
        return f"local/{label_of(self._name)}"

    async def __aenter__(self) -> LocalModel:
        weights = await asyncio.to_thread(find_weights, self._name)
        server = LlamaServer(weights, settings=self._engine, timeout_seconds=self._timeout_seconds)
        await server.open()
        self._server = server
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        server, self._server = self._server, None
        if server is not None:
            await server.close()

    async def stream(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] = (),
        *,
        stop: Sequence[str] = (),
        schema: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[ModelChunk, None]:
        """Yield a tool call if the question needs one, else the text of an answer; then the usage."""
        server = self._open_server()
        question, results = current_turn(messages)
        usage = Usage()
        if tools and question and not results:
            call, usage = await self._call(messages, question.content, tools)
            if call is not None:
                yield call
                yield usage
                return
        body = {**self._prompt_for(messages, tools), **self._parameters, "stop": list(stop)}
        if schema:
            body |= _under(schema)
        async with aclosing(server.chat(body)) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, Usage):
                    usage += chunk
                else:
                    yield chunk
        yield usage

    def _prompt_for(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> dict[str, Any]:
        """The prompt for an answer in text, with its settings."""
        question, results = current_turn(messages)
        if question and results:
            return {**_FAITHFUL, "messages": grounded(messages, question, results)}
        if question and tools and Question(question.content).is_about_assistant():
            return {**_FAITHFUL, "messages": introduction(messages, question, tools)}
        characters = int(self._open_server().context_tokens * _CHARACTERS_PER_TOKEN)
        return {**_FREE, "messages": conversation(messages, characters=characters)}

    async def _call(
        self, messages: Sequence[Message], question: str, tools: Sequence[ToolSpec]
    ) -> tuple[ToolCall | None, Usage]:
        """The call that the question needs, if any, and the usage."""
        tool, earlier, usage = await self._choose(messages, question, tools)
        if tool is None:
            return None, usage
        capable = self._is_capable()
        sketch = draft(question, tool, self._today(), generous=capable and not earlier)
        decoded: Mapping[str, Any] = {}
        still_open = [name for name in sketch.open if name not in earlier]
        if still_open:
            decoded, spent = await self._decode(tool_arguments(tool, still_open, question), object_schema(sketch.open))
            usage += spent
        arguments = {**earlier, **sketch.arguments(decoded)}
        return ToolCall(f"call_{uuid4().hex[:12]}", tool.name, json.dumps(arguments, ensure_ascii=False)), usage

    async def _choose(
        self, messages: Sequence[Message], question: str, tools: Sequence[ToolSpec]
    ) -> tuple[ToolSpec | None, Mapping[str, Any], Usage]:
        """The tool, and the arguments that a follow-up ("and this month?") keeps of the call before it."""
        candidates = choose(question, tools, self._today())
        if Question(question).is_follow_up() and (last := _last_call(messages, tools)):
            tool, arguments = last
            if tool in candidates or (not candidates and draft(question, tool, self._today()).evidence):
                return tool, arguments, Usage()
        if not Question(question).is_small_talk() and self._is_capable():
            names = {tool.name: tool for tool in tools}
            schema = object_schema({"tool": {"enum": [*names, NO_TOOL]}})
            chosen, usage = await self._decode(tool_choice(tools, question), schema)
            return names.get(str(chosen.get("tool"))), {}, usage
        return (candidates[0] if candidates else None), {}, Usage()

    async def _decode(self, prompt: Prompt, schema: Mapping[str, Any]) -> tuple[Mapping[str, Any], Usage]:
        """A JSON object that the model decodes under the schema."""
        body: dict[str, Any] = {"messages": prompt, **_under(schema)}
        text, usage = "", Usage()
        async with aclosing(self._open_server().chat(body)) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, Usage):
                    usage = chunk
                else:
                    text += chunk
        try:
            decoded: Any = json.loads(text)
        except ValueError as error:
            raise ModelError("The local model could not write the arguments of a tool call.") from error
        return cast("dict[str, Any]", decoded), usage

    def _is_capable(self) -> bool:
        return self._open_server().parameter_count >= self._capable_from

    def _open_server(self) -> LlamaServer:
        if self._server is None:
            raise ModelError("The local model is not running: it has been closed or was never opened.")
        return self._server


def _under(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a reply that is decoded under a schema."""
    # Without the extension the model may fill the reply with white space.
    compact = {**schema, "x-guidance": {"whitespace_flexible": False}}
    return {
        "temperature": 0,
        "max_tokens": _CALL_TOKENS,
        "response_format": {"type": "json_schema", "json_schema": {"name": "reply", "schema": compact}},
    }


def _last_call(messages: Sequence[Message], tools: Sequence[ToolSpec]) -> tuple[ToolSpec, Mapping[str, Any]] | None:
    """The last call in the conversation of a tool that is still offered."""
    offered = {tool.name: tool for tool in tools}
    for message in reversed(messages):
        for call in reversed(message.tool_calls):
            if call.name in offered:
                try:
                    arguments: Any = json.loads(call.arguments)
                except ValueError:
                    return None
                known = cast("dict[str, Any]", arguments) if isinstance(arguments, dict) else {}
                return offered[call.name], known
    return None
