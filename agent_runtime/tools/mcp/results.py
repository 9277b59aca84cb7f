"""What an MCP server sends, in the words of the runtime: the result of a tool as text, a failure as one line."""

from __future__ import annotations

import json
from typing import Any, cast

import httpx2
from mcp.shared.exceptions import MCPError
from mcp.types import (
    CONNECTION_CLOSED,
    AudioContent,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)


def text_of(result: CallToolResult) -> str:
    """The content as text; what a model cannot read as text is named with its type and size."""
    parts = [_block(block) for block in result.content]
    written = "\n\n".join(part for part in parts if part)
    if written:
        return written  # servers send structured content as text too, for clients that know only text
    if result.structured_content is not None:
        return json.dumps(result.structured_content, ensure_ascii=False)
    return "It failed without a word." if result.is_error else "Done."


def _block(block: ContentBlock) -> str:
    match block:
        case TextContent():
            return block.text
        case ImageContent() | AudioContent():
            return f"[{block.type}, {block.mime_type}, {_size(block.data)}: not shown]"
        case ResourceLink():
            about = f": {block.description}" if block.description else ""
            return f"[resource {block.title or block.name}{about}]({block.uri})"
        case EmbeddedResource(resource=TextResourceContents() as resource):
            return f"{resource.uri}:\n{resource.text}"
        case EmbeddedResource(resource=resource):
            kind = resource.mime_type or "binary"
            return f"[resource {resource.uri}, {kind}, {_size(getattr(resource, 'blob', ''))}: not shown]"


def _size(base64_text: str) -> str:
    return f"{max(1, len(base64_text) * 3 // 4 // 1024)} KiB"


def reason_of(error: BaseException) -> str:
    """Why a server could not be reached, in one line that may be long, without its address, which may hold a key."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    if isinstance(error, FileNotFoundError | PermissionError | NotADirectoryError):
        return f"{error.filename or 'the program'} cannot be started: {error.strerror}"
    if isinstance(error, httpx2.TransportError):
        return f"it cannot be reached ({type(error).__name__})"
    if isinstance(error, MCPError) and error.code == CONNECTION_CLOSED:
        return "it closed the connection"
    return " ".join(str(error).split()) or type(error).__name__


def schema_of(schema: dict[str, Any]) -> dict[str, Any]:
    """A tool's arguments as every provider takes them: an object, with properties even where there are none."""
    return {"type": "object", "properties": {}, **{key: value for key, value in schema.items() if key != "$schema"}}
