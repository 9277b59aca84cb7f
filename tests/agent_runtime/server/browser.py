"""A headless Chromium for a test of the page."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.chromium import ARGUMENTS, CHROMIUM


@asynccontextmanager
async def opened(url: Any, **options: Any) -> AsyncGenerator[Any]:
    """The page; it fails the test when anything goes wrong in it, or when it asks another host."""
    driver = pytest.importorskip("playwright.async_api", reason="THE PAGE IS NOT TESTED: pip install playwright")
    problems: list[str] = []
    async with driver.async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        page = await browser.new_page(**options)
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append("a script of an answer ran"))
        page.on("request", lambda request: "127.0.0.1" in request.url or problems.append(request.url))
        await page.goto(str(url))
        try:
            yield page
        finally:
            await browser.close()
    assert [problem for problem in problems if not problem.startswith("data:")] == []


def expect(what: Any) -> Any:
    """Playwright's assertion, which waits until it holds."""
    from playwright.async_api import expect as expected

    return expected(what)


async def say(page: Any, message: str) -> Any:
    """Send a message as a person does; the turn that it begins comes back."""
    await page.get_by_label("Message", exact=True).fill(message)
    await page.keyboard.press("Enter")
    return page.locator(".turn").last
