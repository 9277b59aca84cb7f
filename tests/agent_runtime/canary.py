"""A served agent full of canaries, everything around it, and every byte that it wrote: for `test_canary`."""

import asyncio
import base64
import json
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import Response
from mcp.server import MCPServer

from discovery.app import create_app as create_registry
from discovery.settings import Settings
from discovery.tokens import read_tokens
from tests.agents import free_port, running, write_agent
from tests.openai_server import call, calls, says
from tests.serving import serve

CODE = '''
import asyncio, base64, gc, json, logging, os, sys, threading, urllib.parse, warnings

log = logging.getLogger("shop")


def secrets():
    with open(os.environ["CANARIES"]) as file:
        return json.load(file)


class Dying:
    def __init__(self, text):
        self.text = text

    def __del__(self):
        raise RuntimeError(self.text)


def leak(how: str) -> str:
    """Do something that shows secrets."""
    for name, secret in secrets().items():
        if how == "raise":
            raise RuntimeError(f"{name}: {' '.join(secrets().values())}")
        if how == "chain":
            try:
                raise KeyError(secret)
            except KeyError as error:
                raise ValueError(json.dumps({"said": secret})) from error
        if how == "encoded":
            url, basic = urllib.parse.quote(secret, safe=""), base64.b64encode(f"a:{secret}".encode()).decode()
            raise RuntimeError(f"GET http://shop/?key={url} Basic {basic}")
        if how == "log":
            log.warning("the key is %s%s", secret[:7], secret[7:])
            log.info("%r", {"headers": {"x": secret}})
        if how == "malformed log":
            log.error("one argument: %s", secret, secret)
        if how == "warn":
            warnings.warn(f"do not use {secret}", UserWarning)
        if how == "thread":
            def fail(text=secret):
                raise RuntimeError(text)
            thread = threading.Thread(target=fail)
            thread.start()
            thread.join()
        if how == "destructor":
            Dying(secret)
            gc.collect()
    return "Done."


async def forget() -> str:
    """Leave failing tasks behind."""
    async def fail(text):
        raise RuntimeError(text)
    for secret in secrets().values():
        asyncio.create_task(fail(secret))
    for _ in range(3):
        await asyncio.sleep(0)
    gc.collect()
    return "Done."
'''


@dataclass(frozen=True, slots=True)
class Canary:
    """One value. Its core is of digits that no encoding but base64 changes."""

    name: str
    value: str
    core: str

    @property
    def traces(self) -> list[bytes]:
        """What stands where the value was written, whole or cut at either end, in plain or in base64."""
        whole = [base64.b64encode(b"." * before + self.core.encode()).decode()[4:-8] for before in range(3)]
        return [text.encode() for text in (self.core[:14], self.core[18:], *whole)]


def canary(name: str) -> Canary:
    """A new one, with characters that encodings change."""
    core = uuid4().hex
    return Canary(name, f"{name}+/{core}~=", core)


@dataclass(slots=True)
class World:
    """What a fault may change around the agent, and what was recorded: bytes by the place where they arrived."""

    folder: Path
    canaries: dict[str, Canary]
    seen: dict[str, bytearray] = field(default_factory=dict[str, bytearray])
    arrived: dict[str, int] = field(default_factory=dict[str, int])
    reply: Callable[[str], Response] | None = None
    """What the model's endpoint answers, from the key and the body that it was sent; an ordinary answer by default."""
    refused: frozenset[str] = frozenset()
    """The places that answer everything with what they were sent, and a status that says no."""
    tool: dict[str, Any] | None = None
    client: Any = None
    process: Any = None

    def value(self, name: str) -> str:
        """Of a canary."""
        return self.canaries[name].value

    def record(self, place: str, data: bytes) -> None:
        """Keep what arrived somewhere."""
        self.seen.setdefault(place, bytearray()).extend(data + b"\n")
        self.arrived[place] = self.arrived.get(place, 0) + 1

    def found(self) -> set[str]:
        """Which canaries arrived where since the last time, as `canary in place`."""
        for file in self.folder.rglob("*"):
            if file.is_file() and file.name not in WRITTEN:
                self.record("files", file.read_bytes())
        found = {
            f"{one.name} in {place}"
            for place, data in self.seen.items()
            for one in self.canaries.values()
            if any(trace in data for trace in one.traces)
        }
        self.seen.clear()
        return found

    async def ask(self) -> list[int]:
        """One question through every face, and a look at everything else; the statuses of the answers."""
        key, message = self.value("caller"), f"hi {self.value('question')}"
        headers = {"authorization": f"Bearer {key}", "accept": "application/json, text/event-stream"}
        said = {"message": message, "session_id": uuid4().hex}
        chat = {"model": "helper", "messages": [{"role": "user", "content": message}]}
        parts = [{"kind": "text", "text": message}]
        sent = {"message": {"kind": "message", "messageId": uuid4().hex, "role": "user", "parts": parts}}
        tool = {"name": "helper", "arguments": {"message": message}}
        bodies: list[tuple[str, dict[str, Any]]] = [
            ("/chat", said),
            ("/chat/stream", said),
            ("/v1/chat/completions", chat),
            ("/v1/chat/completions", {**chat, "stream": True}),
            ("/v1/responses", {"model": "helper", "input": message}),
            ("/v1/responses", {"model": "helper", "input": message, "stream": True}),
            ("/a2a", {"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": sent}),
            ("/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": tool}),
        ]
        answers = [await self.client.post(path, json=body, headers=headers) for path, body in bodies]
        looks = ["/health", "/metrics", "/openapi.json", "/page/agent", "/.well-known/agent-card.json", "/v1/models"]
        looks += [f"/sessions/{said['session_id']}", "/approvals", "/", "/nowhere"]
        answers += [await self.client.get(path, headers=headers) for path in looks]
        for answer in answers:
            self.record("client", repr(answer.headers.raw).encode() + answer.content)
        return [answer.status_code for answer in answers[: len(bodies)]]

    async def leak(self, tool: str, **arguments: str) -> None:
        """Have the model call a tool of the agent's that shows secrets."""
        self.tool = call(tool, json.dumps(arguments))
        await self.ask()
        self.tool = None


WRITTEN = {"agent.yaml", "calculator.py"}  # by the test, not by the agent


def sections(around: World, urls: dict[str, str], store: str) -> dict[str, Any]:
    """The agent file; two of its texts hold a secret that its owner pasted there."""
    return {
        "agent_type": "stateful",
        "description": "Helps. ${secret:key}",
        "model": {
            "name": "model-${secret:name}",
            "endpoint": f"{urls['model']}/v1",
            "api_key": "${secret:key}",
            "max_retries": 0,
            "timeout_seconds": 2,
        },
        "system_prompt": f"Keep this to yourself: {around.value('prompt')}",
        "tools": ["calculator:leak", "calculator:forget"],
        "mcp_servers": {"shop": {"url": f"{urls['tools']}/mcp", "headers": {"X-Key": "${secret:header}"}}},
        "session": {"store": store},
        "server": {"port": free_port(), "api_keys": ["${secret:caller}"]},
        "discovery": {"url": urls["registry"], "token": "${secret:registry}", "heartbeat_seconds": 0.2},
    }


SECRETS = ("key", "caller", "registry", "header", "name", "db")


@asynccontextmanager
async def world(folder: Path, store: str, password: Canary) -> AsyncGenerator[World]:
    """A served agent and the parts around it. `store` may hold `${secret:db}`, which is the password."""
    canaries = {name: canary(name) for name in (*SECRETS, "prompt", "question", "answer")}
    around = World(folder / "agent", canaries | {"db": password})
    secrets, known = folder / "secrets", folder / "known.json"
    secrets.mkdir()
    around.folder.mkdir()
    named = [name for name in SECRETS if name != "db" or "${secret:db}" in store]
    for name in named:
        (secrets / name).write_text(around.value(name))
    known.write_text(json.dumps({name: around.value(name) for name in named}))
    async with AsyncExitStack() as stack:
        apps = {"model": _model(around), "collector": _collector(around), "tools": _tools(around)}
        tokens = read_tokens(f"register:{around.value('registry')}")
        registry = create_registry(Settings(database_url=f"sqlite:///{folder}/agent/registry.db", tokens=tokens))
        apps["registry"] = _guarded(registry, around, "registry", b"authorization", around.value("registry"))
        urls = {name: await stack.enter_async_context(serve(app)) for name, app in apps.items()}
        document = sections(around, urls, store)
        write_agent(around.folder, code=CODE, **document)
        command = [*PYTHON, "run", "--log-level", "debug"]
        environment = {
            "MYAGENT_SECRETS": f"file:{secrets}",
            "CANARIES": str(known),
            "OTEL_EXPORTER_OTLP_ENDPOINT": urls["collector"],
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_METRIC_EXPORT_INTERVAL": "300",
        }
        around.process = await stack.enter_async_context(running(command, around.folder, environment))
        readers = [asyncio.create_task(_read(around, place)) for place in ("stdout", "stderr")]
        for reader in readers:
            stack.callback(reader.cancel)
        url = f"http://127.0.0.1:{document['server']['port']}"
        around.client = await stack.enter_async_context(httpx.AsyncClient(base_url=url, trust_env=False, timeout=20))
        yield around


PYTHON = [sys.executable, "-m", "agent_runtime"]


async def _read(around: World, place: str) -> None:
    stream = getattr(around.process, place)
    while data := await stream.read(65536):
        around.record(place, data)


def _model(around: World) -> FastAPI:
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def _(request: Request) -> Response:
        headers, body = dict(request.headers), (await request.body()).decode()
        if headers["authorization"] == f"Bearer {around.value('key')}":
            del headers["authorization"]  # the one place that the key is meant for
            around.record("its header", b"")
        around.record("model headers", repr(headers).encode())
        around.record("model body", body.encode())
        if around.reply:
            return around.reply(f"{request.headers['authorization']} {body}")
        asked = json.loads(body)["messages"][-1]
        if around.tool and asked["role"] == "user":
            return calls([around.tool])()
        return says(f"Hello. {around.value('answer')}")()

    return app


def _collector(around: World) -> FastAPI:
    app = FastAPI()

    @app.post("/v1/{kind}")
    async def _(request: Request) -> Response:
        body = await request.body()
        around.record("collector", repr(request.headers.raw).encode() + body)
        if "collector" in around.refused:
            return Response(body, 400)
        return Response(media_type="application/x-protobuf")

    return app


def _tools(around: World) -> Any:
    server = MCPServer("shop")
    server.add_tool(lambda item: "3 pounds", name="price", description="A price.")
    return _guarded(server.streamable_http_app(), around, "tools", b"x-key", around.value("header"))


def _guarded(app: Any, around: World, place: str, header: bytes, secret: str) -> Any:
    """An application whose requests are recorded, but for the header that a secret is meant for; it may refuse them."""

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        body = bytearray()

        async def received() -> Any:
            message = await receive()
            body.extend(message.get("body", b""))
            return message

        if place in around.refused:
            sent = {name.decode(): value.decode() for name, value in scope["headers"]}
            await Response(json.dumps({"detail": sent, "title": sent}), 403)(scope, receive, send)
            return
        try:
            await app(scope, received, send)
        finally:
            rest = [pair for pair in scope["headers"] if not (pair[0] == header and secret.encode() in pair[1])]
            around.record(place, repr((scope["path"], rest)).encode() + body)

    return guarded
