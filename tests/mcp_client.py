"""The official client of MCP, for whatever serves it over HTTP."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

pytest.importorskip("mcp", reason="needs the mcp extra")

import httpx2
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

__all__ = ["MODES", "MCPError", "mcp_client", "text_of"]

MODES = ("auto", "legacy")
"""The protocol of today, and the one with a handshake."""


@asynccontextmanager
async def mcp_client(http: httpx.AsyncClient, mode: str = "auto", **headers: str) -> AsyncGenerator[Client]:
    """A client of `/mcp` at the address that an HTTP client has."""
    url = str(http.base_url.join("/mcp"))
    async with (
        httpx2.AsyncClient(headers=headers, trust_env=False, timeout=10) as wire,
        Client(streamable_http_client(url, http_client=wire), mode=mode) as client,
    ):
        yield client


def text_of(result: Any) -> str:
    """The text of a tool's result."""
    return "".join(block.text for block in result.content)
