"""A real MCP server for the tests, started as a program of its own."""

import os
import sys

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, EmbeddedResource, ImageContent, ResourceLink, TextContent, TextResourceContents

server = MCPServer("warehouse")


@server.tool()
def stock(item: str) -> str:
    """How many pieces of an item there are."""
    return f"7 {item}"


@server.tool()
def whoami() -> dict[str, str | int]:
    """The process, its folder and its variables."""
    return {
        "pid": os.getpid(),
        "cwd": os.getcwd(),
        "token": os.environ.get("TOKEN", ""),
        "variables": " ".join(os.environ),
        "argument": sys.argv[-1],
    }


@server.tool()
def broken() -> str:
    """Fail."""
    raise ToolError("the shelf is empty")


@server.tool()
def crash() -> str:
    """End the process in the middle of a call."""
    os._exit(9)


@server.tool(name="files.list/all")
def files() -> CallToolResult:
    """Everything that is not text."""
    return CallToolResult(
        content=[
            TextContent(type="text", text="Two files:"),
            ImageContent(type="image", data="A" * 4096, mime_type="image/png"),
            ResourceLink(type="resource_link", name="report", uri="file:///report.pdf", description="the report"),
            EmbeddedResource(
                type="resource", resource=TextResourceContents(uri="file:///notes.txt", text="Buy more pegs.")
            ),
        ]
    )


if __name__ == "__main__":
    print("a banner on stderr, as many servers write", file=sys.stderr)
    server.run()
