"""`POST /mcp`: the tool `find_agent` over streamable HTTP. The `mcp` extra is imported with the first request."""

import asyncio
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from discovery.api.auth import Config, Scoped, needs
from discovery.api.problems import Refusal
from discovery.contract import MAX_BODY_BYTES, ToolInfo, is_loopback
from discovery.registry.registry import Registry
from discovery.registry.search import Hit, asked
from discovery.registry.store import StoreError
from discovery.settings import Settings, version

if TYPE_CHECKING:
    from mcp.server import ServerRequestContext
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    from mcp.types import CallToolRequestParams, CallToolResult, PaginatedRequestParams

CLOSE_SECONDS = 3.0
MAX_TOOLS = 20
NAME = "find_agent"
DESCRIPTION = (
    "Find deployed agents and MCP servers for a task. Ask in plain words, such as 'who can look up customer orders?'. "
    "The result has the endpoint, status and tools of each agent, and the text that matched."
)

router = APIRouter(route_class=Scoped, include_in_schema=False)


class Question(BaseModel):
    """The arguments of the tool."""

    model_config = ConfigDict(extra="forbid", strict=True, title=NAME)

    question: str = Field(min_length=1, max_length=2000, description="What is needed, in plain words")
    limit: int = Field(default=5, ge=1, le=50, description="The maximum number of agents")


class FoundAgent(BaseModel):
    """An agent that matches."""

    name: str
    endpoint: str
    agent_type: str
    status: str
    description: str | None
    protocols: list[str]
    tools: list[str]
    why: list[str] = Field(description="The fields that match the question")


class Answer(BaseModel):
    """The result of the tool: the best match first, without agents that are down."""

    agents: list[FoundAgent]


class McpServer:
    """The MCP endpoint of one registry, started with the first request."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._app: ASGIApp | None = None
        self._task: asyncio.Task[None] | None = None
        self._starting, self._stop = asyncio.Lock(), asyncio.Event()

    async def app(self) -> ASGIApp:
        """The ASGI application that answers."""
        async with self._starting:
            if self._app is None:
                manager, started = await asyncio.to_thread(_session_manager, self._registry), asyncio.Event()
                # In a task of its own: the task that enters `manager.run()` must also leave it.
                self._task = asyncio.create_task(self._run(manager, started), name="discovery-mcp")
                await started.wait()
                self._app = cast("ASGIApp", manager.handle_request)
        return self._app

    async def aclose(self) -> None:
        """Stop the server; requests that take too long are cancelled."""
        self._stop.set()
        if self._task is not None:
            _, pending = await asyncio.wait({self._task}, timeout=CLOSE_SECONDS)
            if pending:
                self._task.cancel()

    async def _run(self, manager: "StreamableHTTPSessionManager", started: asyncio.Event) -> None:
        async with manager.run():
            started.set()
            await self._stop.wait()


def is_installed() -> bool:
    """Whether the `mcp` extra is installed."""
    return find_spec("mcp") is not None


@router.post("/mcp", openapi_extra=needs("read"))
async def mcp(request: Request, settings: Config) -> Response:
    """MCP requests and responses."""
    origin = request.headers.get("origin")
    if origin is not None and not _is_allowed(origin, request, settings):
        hint = "Add the origin of the page to DISCOVERY_CORS_ORIGINS."
        raise Refusal(403, "forbidden_origin", "This origin is not one of the registry's.", hint)
    return _Forwarded(await cast("McpServer", request.state.mcp).app())


def _is_allowed(origin: str, request: Request, settings: Settings) -> bool:
    """MCP requires this check: a foreign page could otherwise reach a local server through the user's browser."""
    allowed = settings.cors_origins
    return is_loopback(origin) or "*" in allowed or origin in {*allowed, f"{request.url.scheme}://{request.url.netloc}"}


class _Forwarded(Response):
    """The response of another ASGI application."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__()
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def _session_manager(registry: Registry) -> "StreamableHTTPSessionManager":
    """The MCP server of the SDK, without sessions, so that any replica can answer any request."""
    from mcp.server import Server
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    from mcp.server.transport_security import TransportSecuritySettings
    from mcp.types import ListToolsResult, Tool, ToolAnnotations

    async def list_tools(_: "ServerRequestContext", params: "PaginatedRequestParams | None") -> ListToolsResult:
        tool = Tool(
            name=NAME,
            description=DESCRIPTION,
            input_schema=Question.model_json_schema(),
            output_schema=Answer.model_json_schema(),
            annotations=ToolAnnotations(title="Find an agent", read_only_hint=True, open_world_hint=False),
        )
        return ListToolsResult(tools=[tool])

    async def call_tool(_: "ServerRequestContext", params: "CallToolRequestParams") -> "CallToolResult":
        return await _call_tool(registry, params)

    server: Server[Any] = Server(
        "myagent-discovery", version=version(), on_list_tools=list_tools, on_call_tool=call_tool
    )
    # The SDK's check of the Host header allows loopback names only, and a registry is served under any name.
    return StreamableHTTPSessionManager(
        server,
        stateless=True,
        max_request_body_size=MAX_BODY_BYTES,
        security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )


async def _call_tool(registry: Registry, params: "CallToolRequestParams") -> "CallToolResult":
    if params.name != NAME:
        return _result(f"Unknown tool {params.name[:128]}. The only tool is {NAME}.", is_error=True)
    try:
        question = Question.model_validate(params.arguments or {})
        # All hits: agents that are down are left out below, and must not take the place of others.
        hits = await registry.search(asked(question.question), limit=max(len(registry.records), 1))
    except ValidationError as error:
        problems = [f"`{one['loc'][0]}`: {one['msg']}" for one in error.errors() if one["loc"]]
        return _result("; ".join(problems), is_error=True)
    except StoreError as error:
        return _result(f"The registry is unavailable: {error}", is_error=True)
    up = [_found(hit) for hit in hits if hit.agent.status != "down"][: question.limit]
    down = [hit.agent.name for hit in hits if hit.agent.status == "down"][: question.limit]
    return _result(_as_text(up, down), content=Answer(agents=up).model_dump())


def _found(hit: Hit) -> FoundAgent:
    agent = hit.agent
    fields = agent.model_dump(include={"name", "endpoint", "agent_type", "status", "description", "protocols"})
    tools = [tool.name if isinstance(tool, ToolInfo) else tool for tool in agent.tools[:MAX_TOOLS]]
    return FoundAgent(**fields, tools=tools, why=[f"{one.field}: {one.text}" for one in hit.matched])


def _as_text(up: list[FoundAgent], down: list[str]) -> str:
    """The result for models that read text only."""
    parts = ["\n".join(_lines(agent)) for agent in up] or ["No agent matches. Try other words."]
    if down:
        parts.append(f"Left out because they are down: {', '.join(down)}.")
    return "\n\n".join(parts)


def _lines(agent: FoundAgent) -> list[str]:
    details = (("protocols", agent.protocols), ("tools", agent.tools), ("matched", agent.why))
    return [
        f"{agent.name} ({agent.status}) at {agent.endpoint}",
        *([agent.description] if agent.description else []),
        *(f"{title}: {', '.join(items)}" for title, items in details if items),
    ]


def _result(text: str, *, is_error: bool = False, content: dict[str, Any] | None = None) -> "CallToolResult":
    from mcp.types import CallToolResult, TextContent

    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=content, is_error=is_error)
