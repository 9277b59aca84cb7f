"""The MCP face of the registry: one tool, `find_agent`, over streamable HTTP."""

from typing import Any

from mcp.server import Server, ServerRequestContext
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from discovery.contract.models import MAX_BODY_BYTES, ToolInfo
from discovery.registry.registry import Registry
from discovery.registry.search import Hit, asked
from discovery.registry.store import StoreError
from discovery.settings import version

NAME = "find_agent"
ABOUT = (
    "Find agents and MCP servers that are deployed here and can do what is needed. Ask in plain words, such as 'who "
    "can look up customer orders?'. The answer says where each is, how it is, what tools it has and why it was found."
)
SHOWN_TOOLS = 20


class Question(BaseModel):
    """The arguments of the tool."""

    model_config = ConfigDict(extra="forbid", strict=True, title="find_agent")

    question: str = Field(min_length=1, max_length=2000, description="What is needed, in plain words")
    limit: int = Field(default=5, ge=1, le=50, description="At most so many agents")


class Found(BaseModel):
    """An agent that was found."""

    name: str
    endpoint: str
    agent_type: str
    status: str
    description: str | None
    protocols: list[str]
    tools: list[str]
    why: list[str] = Field(description="Where the words of the question stand")


class Answer(BaseModel):
    """What the tool answers: the best first, none that is down."""

    agents: list[Found]


def manager_of(registry: Registry) -> StreamableHTTPSessionManager:
    """The face as an ASGI application, without sessions: any replica answers any request."""
    tool = _FindAgent(registry)
    server: Server[Any] = Server(
        "myagent-discovery", version=version(), on_list_tools=tool.listed, on_call_tool=tool.called
    )
    # The library's own check of the Host header knows loopback names only, and a registry answers behind any.
    return StreamableHTTPSessionManager(
        server,
        stateless=True,
        max_request_body_size=MAX_BODY_BYTES,
        security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )


class _FindAgent:
    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def listed(self, _context: ServerRequestContext, _params: PaginatedRequestParams | None) -> ListToolsResult:
        tool = Tool(
            name=NAME,
            description=ABOUT,
            input_schema=Question.model_json_schema(),
            output_schema=Answer.model_json_schema(),
            annotations=ToolAnnotations(title="Find an agent", read_only_hint=True, open_world_hint=False),
        )
        return ListToolsResult(tools=[tool])

    async def called(self, _context: ServerRequestContext, params: CallToolRequestParams) -> CallToolResult:
        if params.name != NAME:
            return _said(f"There is no tool {params.name[:128]}; there is: {NAME}.", is_error=True)
        try:
            wanted = Question.model_validate(params.arguments or {})
            # Those that are down are left out afterwards, and shall not take the place of others.
            hits = await self._registry.search(asked(wanted.question), limit=max(len(self._registry.records), 1))
        except ValidationError as error:
            wrong = [f"`{one['loc'][0]}`: {one['msg']}" for one in error.errors() if one["loc"]]
            return _said("; ".join(wrong), is_error=True)
        except StoreError as error:
            return _said(f"The registry cannot answer now: {error}", is_error=True)
        up = [_found(hit) for hit in hits if hit.agent.status != "down"][: wanted.limit]
        down = [hit.agent.name for hit in hits if hit.agent.status == "down"][: wanted.limit]
        return _said(_told(up, down), structured=Answer(agents=up).model_dump())


def _found(hit: Hit) -> Found:
    agent = hit.agent
    tools = [tool.name if isinstance(tool, ToolInfo) else tool for tool in agent.tools]
    return Found(
        name=agent.name,
        endpoint=agent.endpoint,
        agent_type=agent.agent_type,
        status=agent.status,
        description=agent.description,
        protocols=agent.protocols,
        tools=tools[:SHOWN_TOOLS],
        why=[f"{one.field}: {one.text}" for one in hit.matched],
    )


def _told(up: list[Found], down: list[str]) -> str:
    """The answer for a model that reads text only."""
    parts = ["\n".join(_lines(agent)) for agent in up]
    if not up:
        parts.append("No agent that is up fits. Other words may find one.")
    if down:
        parts.append(f"Down, and so left out: {', '.join(down)}.")
    return "\n\n".join(parts)


def _lines(agent: Found) -> list[str]:
    lines = [f"{agent.name} ({agent.status}) at {agent.endpoint}"]
    if agent.description:
        lines.append(agent.description)
    for title, items in (("speaks", agent.protocols), ("tools", agent.tools), ("found in", agent.why)):
        if items:
            lines.append(f"{title}: {', '.join(items)}")
    return lines


def _said(text: str, *, is_error: bool = False, structured: dict[str, Any] | None = None) -> CallToolResult:
    return CallToolResult(
        content=[TextContent(type="text", text=text)], structured_content=structured, is_error=is_error
    )
