"""A whole registry whose clock is in the hands of who runs it, with a door for what a probe would find."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

import httpx
from fastapi import Request

from discovery.app import create_app
from discovery.contract import Reachability
from discovery.registry.store import Store
from discovery.settings import Settings
from discovery.stores.memory import MemoryStore
from tests.serving import serve


@asynccontextmanager
async def observed(
    clock: Callable[[], datetime], *, store: Store | None = None, port: int = 0
) -> AsyncGenerator[httpx.AsyncClient]:
    """Serve it; yields an HTTP client for it."""
    app = create_app(Settings(database_url="memory://"), store=store or MemoryStore(), clock=clock)

    @app.post("/found/{name}")
    async def found(name: str, ok: bool, reason: str, request: Request, latency_ms: float | None = None) -> None:
        reached = Reachability(ok=ok, reason=reason, checked_at=clock(), latency_ms=12.3 if ok else latency_ms)
        await request.state.registry.reached(name, "default", reached)

    del found
    async with serve(app, port=port) as url, httpx.AsyncClient(base_url=url, trust_env=False, timeout=5) as http:
        try:
            yield http
        finally:
            app.state.watch.close()  # or the server waits for who still reads the events


async def find(http: httpx.AsyncClient, name: str, *, ok: bool, reason: str, **latency: float) -> None:
    """As a probe would: its endpoint answered, or why it did not."""
    (await http.post(f"/found/{name}", params={"ok": ok, "reason": reason, **latency})).raise_for_status()
