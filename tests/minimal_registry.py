"""A registry that knows the first table of the protocol and nothing else: two routes, five fields, no lease."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from tests.serving import serve

FIELDS = ("name", "endpoint", "agent_type", "tools", "version")


class MinimalRegistry:
    """Everything but `POST /register` and `GET /agents` is 404; `is_strict` refuses what it does not know of those."""

    def __init__(self, *, is_strict: bool = False) -> None:
        self.url = ""
        self.asked: list[str] = []
        self._agents: dict[str, dict[str, Any]] = {}
        self._is_strict = is_strict

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        call = f"{scope['method']} {scope['path']}"
        self.asked.append(call)
        status, answer = 404, b"Not Found"
        if call == "POST /register":
            status, answer = self._register(await _body(receive)), b""
        elif call == "GET /agents":
            status, answer = 200, json.dumps([self._agents[name] for name in sorted(self._agents)]).encode()
            if self._is_strict and scope["query_string"]:
                status, answer = 400, b"Bad Request"
        kind = b"application/json" if status == 200 else b"text/plain"
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": answer})

    def _register(self, body: dict[str, Any]) -> int:
        status = 200 if body["name"] in self._agents else 201
        self._agents[body["name"]] = {field: body[field] for field in FIELDS}
        return status


async def _body(receive: Any) -> dict[str, Any]:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return json.loads(body)


@asynccontextmanager
async def minimal_registry(*, is_strict: bool = False) -> AsyncGenerator[MinimalRegistry]:
    """Serve one, on a port of its own."""
    registry = MinimalRegistry(is_strict=is_strict)
    async with serve(registry, lifespan="off") as registry.url:
        yield registry
