"""An agent that speaks the chat stream and nothing else: what the portal needs on the other end."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.middleware.cors import CORSMiddleware

ROWS = """\
| order | customer | total |
|---|---|---:|
| A-17 | Möller & Söhne | £612.50 |
| A-21 | <b>Ada</b> | £980.00 |"""


ANSWER = f"**Two orders** are above `500`:\n\n{ROWS}\n\n<img src=x onerror=alert(1)> - nothing else."


def fake_agent(*, origins: tuple[str, ...] = ("*",), answer: str = ANSWER) -> FastAPI:
    """Answers with a table, and with HTML that must stay text.

    `wait` never ends, `fail` fails, `refuse` is a 503, `cut` breaks off.
    """
    app = FastAPI()
    app.state.asked = []
    app.add_middleware(CORSMiddleware, allow_origins=list(origins), allow_methods=["*"], allow_headers=["*"])

    @app.get("/livez")
    async def livez() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/chat/stream")
    async def chat(request: Request) -> Any:
        body = await request.json()
        app.state.asked.append(body)
        if body["message"] == "refuse":
            problem = {
                "title": "Busy",
                "status": 503,
                "detail": "all seats are taken",
                "hint": "Come back in a minute.",
            }
            return JSONResponse(problem, 503, media_type="application/problem+json")
        return StreamingResponse(_events(body, answer), media_type="text/event-stream")

    del livez, chat
    return app


async def _events(body: dict[str, Any], answer: str) -> AsyncIterator[str]:
    def event(name: str, data: dict[str, Any]) -> str:
        return f"id: 1\nevent: {name}\ndata: {json.dumps(data)}\n\n"

    yield ": a comment\n\n"
    yield event("run_started", {"run_id": "r1", "session_id": body.get("session_id", "s1")})
    if body["message"] == "fail":
        yield event("failed", {"message": "the model did not answer"})
        return
    steps = [{"text": text, "status": "pending"} for text in ("Look the orders up.", "Show them.")]
    yield event("plan", {"steps": steps})
    yield event("tool_call", {"name": "search_orders", "arguments": {"minimum": 500}})
    if body["message"] == "cut":
        return
    if body["message"] == "wait":
        await asyncio.sleep(3600)
    content = json.dumps([{"order": "A-17", "total": 612.5}, {"order": "A-21", "total": 980}])
    yield event("tool_result", {"name": "search_orders", "content": content, "is_error": False, "duration_ms": 12.4})
    for start in range(0, len(answer), 12):
        yield event("text", {"delta": answer[start : start + 12]})
    usage = {"input_tokens": 100, "output_tokens": 42}
    yield event("finished", {"answer": answer, "stop_reason": "finished", "steps": 2, "usage": usage})
