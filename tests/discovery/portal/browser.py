"""The portal in a real browser."""

from typing import Any

import httpx
import pytest

from tests.chromium import CHROMIUM, browser_page
from tests.discovery.conftest import MINIMAL

playwright = pytest.importorskip("playwright.async_api", reason="THE PORTAL IS NOT TESTED: pip install playwright")
expect = playwright.expect
__all__ = ["add", "browser_page", "expect", "in_a_browser"]
in_a_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"THE PORTAL IS NOT TESTED: there is no {CHROMIUM}"),
]


async def add(http: httpx.AsyncClient, **changes: Any) -> None:
    """Register an agent."""
    response = await http.post("/register", json=MINIMAL | changes)
    assert response.status_code in {200, 201}, response.text
