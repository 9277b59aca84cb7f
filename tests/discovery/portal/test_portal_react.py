"""The example of a React page: built as its README says, served from another origin, fed by a real registry."""

import asyncio
import os
import shutil
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.staticfiles import StaticFiles

from tests.discovery.conftest import RunRegistry
from tests.discovery.portal.browser import add, browser_page, expect, in_a_browser
from tests.serving import serve

pytestmark = in_a_browser

EXAMPLE = Path(__file__).parents[3] / "examples" / "portal-react"


def npm(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("THE REACT EXAMPLE IS NOT TESTED: there is no npm")
    environment = os.environ | variables
    command = [npm, *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example with its packages installed."""
    folder = tmp_path_factory.mktemp("portal-react") / "project"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules", "dist", "package-lock.json"))
    installed = npm(folder, "install", "--no-audit", "--no-fund", "--no-package-lock")
    if installed.returncode:
        pytest.skip(f"THE REACT EXAMPLE IS NOT TESTED: npm cannot install: {installed.stderr[-500:]}")
    return folder


async def changed_while_a_list_is_on_its_way(page: Any, http: httpx.AsyncClient) -> None:
    """The list that the page reads when its stream begins comes late: older than a change that it has heard of."""
    lists: list[Any] = []
    second, goes_on, came = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def answer(route: Any) -> None:
        lists.append(route)
        answered = await route.fetch()
        if len(lists) == 2:
            second.set()
            await goes_on.wait()
        await route.fulfill(response=answered)
        if len(lists) == 2:
            came.set()

    await page.route("**/agents", answer)
    await page.reload()
    await second.wait()
    follow = "url => new Promise(done => { const events = new EventSource(url); events.onopen = () => done(); "
    follow += "window.heard = new Promise(told => events.addEventListener('status', told)); })"
    await page.evaluate(follow, str(http.base_url.join("/events")))
    await add(http, name="orders", ttl_seconds=90)
    await page.evaluate("() => window.heard.then(() => true)")
    goes_on.set()
    await came.wait()
    await page.unroute("**/agents")


async def test_a_page_on_another_origin_shows_an_agent_live_and_says_when_the_registry_is_away(
    registry: RunRegistry, project: Path
) -> None:
    pages = Starlette()
    pages.mount("/", StaticFiles(directory=project / "dist", html=True, check_dir=False))
    async with serve(pages) as origin:
        settings = {"database_url": "memory://", "cors_origins": (origin,)}
        async with registry(**settings) as http:
            port = http.base_url.port
            address = {"VITE_DISCOVERY_URL": str(http.base_url)}
            built = await asyncio.to_thread(npm, project, "run", "build", **address)
            assert built.returncode == 0, built.stdout + built.stderr
        async with AsyncExitStack() as stack:
            async with registry(**settings, port=port) as http:
                page = await stack.enter_async_context(browser_page(origin))
                rows = page.locator("tbody tr")
                await expect(page.get_by_text("No agents yet.")).to_be_visible()
                await add(http, name="orders", ttl_seconds=90)
                await expect(rows.locator(".status.up")).to_have_text("● up")
                await add(http, name="orders", ttl_seconds=90, status="degraded")
                await expect(rows.locator(".status.degraded")).to_have_text("◐ degraded")
                await changed_while_a_list_is_on_its_way(page, http)
                await expect(rows.locator(".status.up")).to_have_text("● up")
                await add(http, name="billing", tools=["find_invoice"])
                await expect(rows.locator("strong")).to_have_text(["billing", "orders"])
                await page.get_by_label("Search agents").fill("invoice")
                await expect(rows).to_have_count(1)
                await http.delete("/agents/billing")
                await expect(page.get_by_role("status")).to_have_text("0 of 1")
                await page.get_by_label("Search agents").fill("")
            away = page.get_by_role("alert")
            await expect(away).to_contain_text("is not available: it does not respond")
            await expect(away).to_contain_text("The list is from")
            await expect(page.locator("table.stale tbody tr")).to_have_count(1)
            async with registry(**settings, port=port) as http:
                await add(http, name="orders")
                await expect(away).to_have_count(0)
                await expect(rows.locator(".status")).to_have_text("○ registered")
