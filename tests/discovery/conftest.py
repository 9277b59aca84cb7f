"""What the tests of discovery share: a clock that turns by hand, registrations, and a registry behind a real socket."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from discovery.app import create_app
from discovery.contract import Registration
from discovery.registry import Store
from discovery.settings import Settings
from discovery.stores.memory import MemoryStore
from infrastructure.heads import bounded_heads
from tests.serving import serve

MINIMAL: dict[str, Any] = {
    "name": "customer-service",
    "endpoint": "http://127.0.0.1:8000",
    "agent_type": "tool",
    "tools": ["search_orders"],
    "version": "1.0.0",
}


class Clock:
    """Time as a test wants it; also stands in for the seconds that pass."""

    def __init__(self) -> None:
        self.start = self.now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def elapsed(self) -> float:
        return (self.now - self.start).total_seconds()

    def turn(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def registration(**changes: Any) -> Registration:
    return Registration(**MINIMAL | changes)


RunRegistry = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def registry() -> RunRegistry:
    """Run a whole registry behind a port of its own, served as operators start it; yields an HTTP client for it."""
    return running(**bounded_heads())


def running(**serving: Any) -> RunRegistry:
    """The same, served with other options."""

    @asynccontextmanager
    async def run(
        store: Store | None = None, *, port: int = 0, clock: Callable[[], datetime] | None = None, **settings: Any
    ) -> AsyncGenerator[httpx.AsyncClient]:
        values = {"database_url": "memory://"} | settings
        more = {} if clock is None else {"clock": clock}
        app = create_app(Settings(**values), store=store or (MemoryStore() if not settings else None), **more)
        async with (
            serve(app, port=port, **serving) as url,
            httpx.AsyncClient(base_url=url, trust_env=False, timeout=5) as http,
        ):
            yield http

    return run


async def eventually(condition: Callable[[], Any], seconds: float = 5) -> Any:
    """Give other tasks their turn until a condition holds; never longer than so many seconds."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.005)
