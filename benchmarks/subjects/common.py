"""What all contenders are given, and how those are served that bring no server: with FastAPI, in a few lines."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

MODEL = "gpt-4o-mini"
KEY = "sk-benchmark"
PROMPT = "You are a helpful assistant. Use the tools you are given for every calculation."


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: the first number
        b: the second number
    """
    return a + b


async def serve_with_fastapi(run: Callable[[str], Awaitable[str]], port: int) -> None:
    """`POST /chat`, answered without remembering anything."""
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel

    class ChatRequest(BaseModel):
        message: str
        session_id: str | None = None

    class ChatAnswer(BaseModel):
        answer: str

    app = FastAPI()

    async def chat(body: ChatRequest) -> ChatAnswer:
        return ChatAnswer(answer=await run(body.message))

    chat.__annotations__ = {"body": ChatRequest, "return": ChatAnswer}  # classes of this function, not of the module
    app.post("/chat")(chat)
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, access_log=False)
    await uvicorn.Server(config).serve()
