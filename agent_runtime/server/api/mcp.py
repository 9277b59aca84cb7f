"""The MCP protocol: the agent as one tool, over streamable HTTP."""

from __future__ import annotations

import asyncio
from typing import Any, cast

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
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from agent_runtime.agent import Agent
from agent_runtime.errors import CallerError, MyAgentError
from agent_runtime.events import Finished, Plan, ToolCalled
from agent_runtime.masking import masked
from agent_runtime.server.auth.authenticator import authenticate, caller_of
from agent_runtime.server.auth.origin_check import check_origin
from agent_runtime.server.dependencies import runs_of, session_owner
from agent_runtime.server.problems import masked_problem
from agent_runtime.server.run import Failed, Run, RunEvent

_CLOSE_SECONDS = 3.0
_ARGUMENTS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "message": {"type": "string", "description": "The message to the agent, in plain words."},
        "session_id": {
            "type": "string",
            "description": "The conversation to continue, if the agent keeps sessions.",
        },
    },
    "required": ["message"],
    "additionalProperties": False,
}


class McpEndpoint:
    """A stateless MCP server: any replica can answer any request."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        config = agent.config
        server: Server[Any] = Server(
            config.name,
            version=config.version,
            on_list_tools=self._list,
            on_call_tool=self._call,
        )
        # The library's check of the Host header allows loopback names only, but an agent may have any name. API keys
        # and the origin check below protect against DNS rebinding.
        self._manager = StreamableHTTPSessionManager(
            server,
            stateless=True,
            max_request_body_size=config.server.limits.max_body_bytes,
            security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        )
        self._running: asyncio.Task[None] | None = None
        self._started = asyncio.Event()
        self._stop = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Authenticate and answer a request."""
        request = Request(scope)
        await authenticate(request)
        check_origin(request, self._agent.config.server)
        if request.method != "POST":  # a stateless server has no stream to open and no session to delete
            raise HTTPException(405, "this endpoint takes POST only", {"allow": "POST"})
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="mcp-endpoint")
        await self._started.wait()
        await self._manager.handle_request(scope, receive, send)

    async def aclose(self) -> None:
        """Stop the server."""
        self._stop.set()
        if self._running is not None:
            _, pending = await asyncio.wait({self._running}, timeout=_CLOSE_SECONDS)
            if pending:
                self._running.cancel()

    async def _run(self) -> None:
        async with self._manager.run():
            self._started.set()
            await self._stop.wait()

    async def _list(self, _context: ServerRequestContext, _params: PaginatedRequestParams | None) -> ListToolsResult:
        config = self._agent.config
        description = masked(config.description, self._agent.secrets) or f"Ask the agent {config.name}."
        hints = ToolAnnotations(title=config.name)
        return ListToolsResult(
            tools=[Tool(name=config.name, description=description, input_schema=_ARGUMENTS, annotations=hints)]
        )

    async def _call(self, context: ServerRequestContext, params: CallToolRequestParams) -> CallToolResult:
        config = self._agent.config
        if params.name != config.name:
            return _result(f"There is no tool {params.name[:128]}; there is: {config.name}.", is_error=True)
        request = cast("Request", context.request)
        try:
            message, session_id = _arguments(params.arguments or {})
            owner = session_owner(caller_of(request), None)
            run = await runs_of(request).start(self._agent, message, session_id=session_id, owner=owner)
        except MyAgentError as error:
            return self._failed(error)
        try:
            return await self._follow(run, context)
        finally:
            run.cancel()  # if the client disconnected; otherwise the run has ended

    async def _follow(self, run: Run, context: ServerRequestContext) -> CallToolResult:
        seen = 0
        with run.reading():
            while events := await run.next_events(seen):
                for event in events:
                    seen += 1
                    if message := _progress_message(event):
                        await context.session.report_progress(seen, message=message)
                match events[-1]:
                    case Finished(answer, stop_reason):
                        structured = {"answer": answer, "session_id": run.session_id, "stop_reason": stop_reason}
                        return _result(answer, structured=structured)
                    case Failed(error):
                        return self._failed(error)
                    case _:
                        pass
        raise AssertionError("a run ends with Finished or Failed")

    def _failed(self, error: MyAgentError) -> CallToolResult:
        return _result(masked_problem(error, self._agent.secrets)["detail"], is_error=True)


def _arguments(arguments: dict[str, Any]) -> tuple[str, str | None]:
    message, session_id = arguments.get("message"), arguments.get("session_id")
    if not isinstance(message, str):
        raise CallerError("`message` must be a string")
    if session_id is not None and not isinstance(session_id, str):
        raise CallerError("`session_id` must be a string")
    if unknown := sorted(arguments.keys() - _ARGUMENTS["properties"].keys()):
        raise CallerError(f"unknown argument {', '.join(unknown)[:128]}; the arguments are message and session_id")
    return message, session_id


def _progress_message(event: RunEvent) -> str | None:
    match event:
        case ToolCalled():
            return f"calling {event.name}"
        case Plan():
            done = sum(step.status == "done" for step in event.steps)
            return f"{done} of {len(event.steps)} steps done"
        case _:
            return None


def _result(text: str, *, is_error: bool = False, structured: dict[str, Any] | None = None) -> CallToolResult:
    return CallToolResult(
        content=[TextContent(type="text", text=text)], structured_content=structured, is_error=is_error
    )
