"""The page of an agent in a real browser: what a person does, and sees."""

from typing import Any


def expect(what: Any) -> Any:
    """Playwright's assertion, which waits until it holds."""
    from playwright.async_api import expect as expected

    return expected(what)


async def say(page: Any, message: str) -> Any:
    """Send a message as a person does; the turn that it begins comes back."""
    await page.get_by_label("Message", exact=True).fill(message)
    await page.keyboard.press("Enter")
    return page.locator(".turn").last
