"""The portal in a real browser: a page that is watched for what must not happen."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.chromium import ARGUMENTS, CHROMIUM
from tests.discovery.conftest import MINIMAL

playwright = pytest.importorskip("playwright.async_api", reason="THE PORTAL IS NOT TESTED: pip install playwright")
expect = playwright.expect
in_a_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"THE PORTAL IS NOT TESTED: there is no {CHROMIUM}"),
]


@asynccontextmanager
async def browser_page(url: str, **options: Any) -> AsyncGenerator[Any]:
    """A page that fails the test when anything goes wrong in it, or when it asks a host that is none of ours."""
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


async def add(http: httpx.AsyncClient, **changes: Any) -> None:
    """Register an agent."""
    response = await http.post("/register", json=MINIMAL | changes)
    assert response.status_code in {200, 201}, response.text
