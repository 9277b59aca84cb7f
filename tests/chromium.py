"""The browser of the tests: where it is, the flags that keep it from asking any host but ours, and a watched page."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@asynccontextmanager
async def browser_page(url: str, **options: Any) -> AsyncGenerator[Any]:
    """A page that fails the test when anything goes wrong in it, or when it asks a host that is none of ours."""
    playwright = pytest.importorskip("playwright.async_api", reason="NO PAGE IS TESTED: pip install playwright")
    problems: list[str] = []
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        page = await browser.new_page(**options)
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append("a script of an answer ran"))
        page.on("request", lambda request: "127.0.0.1" in request.url or problems.append(request.url))
        await page.goto(url)
        try:
            yield page
        finally:
            await browser.close()
    assert [problem for problem in problems if not problem.startswith("data:")] == []
