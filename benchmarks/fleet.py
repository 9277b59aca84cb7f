"""The fleet that registries are measured with: agents of an ordinary size, and the calls that they and others make.

Calls are whole HTTP requests as bytes, so that nothing is encoded while time is taken.
"""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator
from typing import Any

_HEAD = "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{headers}\r\n"
_PROPERTIES = {"order_id": {"type": "string", "description": "The number on the receipt"}, "limit": {"type": "integer"}}


def agent(number: int, turn: int = 0) -> dict[str, Any]:
    """What one agent registers; another turn is another version of it."""
    schema = {"type": "object", "properties": _PROPERTIES, "required": ["order_id"]}
    return {
        "name": f"agent-{number:05}",
        "endpoint": f"http://10.0.{number // 250}.{number % 250}:8000",
        "agent_type": "tool",
        "tools": [
            {"name": "search_orders", "description": "Find the orders of a customer.", "input_schema": schema},
            {"name": "refund", "description": "Pay an order back.", "input_schema": schema},
        ],
        "version": f"1.0.{turn}",
        "boot_id": f"5f0c7d1e-0000-4000-8000-{number:012}",
        "ttl_seconds": 3600.0,  # nobody falls silent while time is taken
        "description": "Answers customers' questions about their orders.",
        "owner": "team-orders",
        "tags": ["orders", "customers"],
        "protocols": ["chat", "openai", "a2a"],
        "model": "openai/gpt-4o-mini",
    }


def reads(path: str = "/agents", **headers: str) -> Iterator[bytes]:
    """The same question for ever."""
    return itertools.repeat(_request("GET", path, headers))


def registrations(agents: int, *, changing: bool, first_turn: int = 1, **headers: str) -> Iterator[bytes]:
    """Each agent in turn, for ever; changing ones say something new each time, the others repeat themselves."""
    if not changing:
        said = [_register(agent(number), headers) for number in range(agents)]
        yield from itertools.cycle(said)
    for turn in itertools.count(first_turn):
        for number in range(agents):
            yield _register(agent(number, turn), headers)


def puts(agents: int, *, first_turn: int = 1) -> Iterator[bytes]:
    """As `registrations`, for the JSON gateway of etcd: a key for each agent, what it says as the value."""
    for turn in itertools.count(first_turn):
        for number in range(agents):
            said = agent(number, turn)
            pair = {"key": _base64(f"/agents/{said['name']}"), "value": _base64(json.dumps(said))}
            yield _request("POST", "/v3/kv/put", {"content-type": "application/json"}, json.dumps(pair).encode())


def watching() -> bytes:
    """The request of a reader of events."""
    return _request("GET", "/events", {"accept": "text/event-stream"})


def _register(said: dict[str, Any], headers: dict[str, str]) -> bytes:
    return _request("POST", "/register", {"content-type": "application/json", **headers}, json.dumps(said).encode())


def _request(method: str, path: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    if body:
        headers = {**headers, "content-length": str(len(body))}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return _HEAD.format(method=method, path=path, headers=lines).encode() + body


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
