"""Reads a reply of OpenAI's chat completions, in the forms in which compatible servers send it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, cast

from agent_runtime.events import ModelChunk, ToolCall, Usage
from agent_runtime.models.base import InvalidReply

LONGEST_EVENT_BYTES = 8 * 1024 * 1024

_BLANK = b"\xef\xbb\xbf \t\r\n"  # with the byte order mark
_LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")  # a CR at the end may be half of a CRLF


class ReportedError(Exception):
    """The provider reports an error within a reply; `body` is what it sent."""

    def __init__(self, body: object) -> None:
        super().__init__("the provider reports an error")
        self.body = body


class Reply:
    """Assembles one reply from its body: a stream of `chat.completion.chunk`, or one `chat.completion`."""

    def __init__(self) -> None:
        self._events = EventDecoder()
        self._calls: list[dict[str, str]] = []
        self._call_at: dict[int, dict[str, str]] = {}  # by index
        self._usage = Usage()
        self._finish_reason: str | None = None
        self._has_choice = False

    @property
    def is_done(self) -> bool:
        """Whether the provider marked the end of the reply."""
        return self._events.is_done

    def feed(self, piece: bytes) -> Iterator[str]:
        """The texts in a piece of the body, which may begin and end anywhere; tool calls and usage are kept.

        Raises:
            ReportedError: the provider reports an error.
            ValueError: the body is not a reply; an InvalidReply says why.
        """
        for chunk in self._events.feed(piece):
            if text := self._add(chunk):
                yield text

    def end(self) -> Iterator[ModelChunk]:
        """At the end of the body: its last text, the tool calls, then the usage. Raises as `feed`."""
        for chunk in self._events.finish():
            if text := self._add(chunk):
                yield text
        # Some servers give no `finish_reason`.
        if self._finish_reason is None and not (self.is_done and self._has_choice):
            raise InvalidReply("the model's reply ended before it was complete")
        if self._finish_reason == "content_filter":
            raise InvalidReply("the provider's content filter stopped the reply")
        for index, call in enumerate(self._calls):
            # Groq sends `null` as the arguments of a tool without parameters.
            arguments = "{}" if call["arguments"].strip() == "null" else call["arguments"]
            yield ToolCall(call["id"] or f"call_{index}", call["name"], arguments)
        yield self._usage

    def _add(self, chunk: Any) -> str:
        """The text of a chunk."""
        try:
            if usage := chunk.get("usage"):
                self._usage = Usage(int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))
            if not (choices := chunk.get("choices")):
                return ""
            self._has_choice = True
            choice = choices[0]
            delta: dict[str, Any] = choice.get("delta") or choice.get("message") or {}
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
            for call in delta.get("tool_calls") or ():
                self._add_call(call)
            content: Any = delta.get("content") or ""
            if not isinstance(content, str):
                # A list of parts (Mistral's reasoning models): only its text is part of the answer.
                content = "".join(part["text"] for part in content if part.get("type") == "text")
            return _encodable(content)
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
            raise InvalidReply("the model's reply does not have the form of OpenAI's chat completions") from None

    def _add_call(self, piece: dict[str, Any]) -> None:
        function: dict[str, Any] = piece.get("function") or {}
        call_id, name, arguments = (
            str(piece.get("id") or ""),
            function.get("name") or "",
            function.get("arguments") or "",
        )
        call = self._call_of(piece.get("index"), call_id, is_first=bool(call_id or name))
        call["id"] = call_id or call["id"]
        call["name"] += name
        # TGI and llama.cpp may send the arguments as an object.
        call["arguments"] += _encodable(arguments) if isinstance(arguments, str) else json.dumps(arguments)

    def _call_of(self, index: int | None, call_id: str, *, is_first: bool) -> dict[str, str]:
        """The call that a piece belongs to. Some servers send no index, or the index 0 for every call."""
        if index is None:
            known = None if is_first or not self._calls else self._calls[-1]
        else:
            known = self._call_at.get(index)
            if known and call_id and known["id"] not in {"", call_id}:
                known = None
        if known is None:
            known = {"id": "", "name": "", "arguments": ""}
            self._calls.append(known)
        if index is not None:
            self._call_at[index] = known
        return known


def _encodable(text: str) -> str:
    """The text with half a surrogate pair, which JSON can contain and UTF-8 cannot, replaced by a question mark."""
    return text.encode(errors="replace").decode()


class EventDecoder:
    """Decodes server-sent events with JSON data, or a body that is a single JSON value.

    Lenient where servers are: an event may lack the blank line behind it, or have its data on several lines. The
    decoder of the `openai` package is not, and has no limit.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()  # a line that is not complete, or a JSON body
        self._data = bytearray()  # of an event that is not complete
        self._is_error = False  # the event
        self._is_json: bool | None = None
        self.is_done = False
        """Whether the end was marked: with `[DONE]`, or by the body being a single JSON value."""

    def feed(self, piece: bytes) -> Iterator[Any]:
        """The values in a piece of the body."""
        self._buffer += piece
        if self._is_json is None:
            self._buffer = self._buffer.lstrip(_BLANK)
            self._is_json = self._buffer.startswith((b"{", b"[")) if self._buffer else None
        if not self._is_json and (b"\n" in piece or b"\r" in piece):
            *lines, rest = _LINE_END.split(bytes(self._buffer))
            self._buffer = bytearray(rest)
            for line in lines:
                if (value := self._read(line.strip())) is not None:
                    yield value
                if self.is_done:
                    return
        if len(self._buffer) + len(self._data) > LONGEST_EVENT_BYTES:
            raise InvalidReply(f"the model's reply has an event of more than {LONGEST_EVENT_BYTES >> 20} MiB")

    def finish(self) -> Iterator[Any]:
        """The values that the end of the body completes."""
        if self._is_json and not self.is_done:
            self.is_done = True
            yield self._value(self._buffer)
        elif not self.is_done:
            with suppress(ValueError):  # an event that was cut off
                yield from self.feed(b"\n\n")

    def _read(self, line: bytes) -> Any:
        """The value that a line completes, if any. Unknown fields are ignored, as are comments."""
        field, _, text = line.partition(b":")
        if field == b"event":
            self._is_error = text.strip() == b"error"
        elif field == b"data":
            return self._add(text.strip())
        elif field == b"error":  # llama.cpp
            self._is_error = True
            return self._add(text.strip())
        elif not line:
            data, self._data = self._data, bytearray()
            value = self._value(data) if data else None
            self._is_error = False
            return value
        return None

    def _add(self, data: bytes) -> Any:
        if data.startswith(b"[DONE]"):
            self.is_done = True
        elif self._data:
            self._data += b"\n" + data
        elif data:
            try:
                return self._value(data)
            except ValueError:  # the other lines follow
                self._data += data
        return None

    def _value(self, data: bytes | bytearray) -> Any:
        try:
            value: Any = json.loads(data.decode(errors="replace"))
        except RecursionError:
            raise InvalidReply("the model's reply is nested too deeply") from None
        if isinstance(value, list) and value:  # Google's endpoint sends an error as a list of one
            value = cast("list[Any]", value)[0]
        if self._is_error or (isinstance(value, dict) and cast("dict[str, Any]", value).get("error")):
            raise ReportedError(cast("object", value))
        return cast("object", value)
