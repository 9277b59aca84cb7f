"""How long the portal takes until the first list is there, and until a change is seen: in Chromium, as JSON.

    python -m benchmarks.portal [--agents 1000] [--rounds 10]

The registry runs in a process of its own on a new SQLite file; every round is a new page without a cache. From the
navigation on, `first_list_ms` is until all rows are in the document, `painted_ms` until a frame shows them; `change_ms`
is from the answer to a registration until a cell shows it.
"""

import argparse
import asyncio
import json
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from playwright.async_api import Browser, Page, async_playwright

from tests.chromium import ARGUMENTS, CHROMIUM
from tests.discovery.fleet import fleet

WATCH = """
new MutationObserver((_, observer) => {
  if (!document.querySelector("#list tbody tr")) return;
  observer.disconnect();
  requestAnimationFrame(() => setTimeout(() => {
    performance.mark("painted");
    document.documentElement.dataset.painted = "";
  }));
}).observe(document, { subtree: true, childList: true });
"""
MARKS = "['list', 'painted'].map((name) => performance.getEntriesByName(name)[0].startTime)"
WEIGHT = "performance.getEntriesByType('resource').reduce((sum, one) => sum + one.transferSize, 0)"


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description="Time to the portal's first list.")
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, registry(Path(folder) / "registry.db") as url:
        print(json.dumps(asyncio.run(measured(url, given.agents, given.rounds)), indent=2))


@contextmanager
def registry(database: Path) -> Generator[str]:
    """A registry in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "discovery", "--port", str(port), "--database-url", f"sqlite:///{database}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(100):
            try:
                httpx.get(f"{url}/readyz", trust_env=False).raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(10)


async def measured(url: str, count: int, rounds: int) -> dict[str, Any]:
    """Fill the registry and look at it again and again."""
    agents = fleet(count)
    found: dict[str, list[float]] = {"first_list_ms": [], "painted_ms": [], "change_ms": []}
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http, async_playwright() as driver:
        for agent in agents:
            (await http.post("/register", json=agent)).raise_for_status()
        list_bytes = len((await http.get("/agents")).content)
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        weight = 0
        for number in range(rounds):
            page = await opened(browser, url)
            listed, painted = await page.evaluate(MARKS)
            weight = await page.evaluate(WEIGHT)
            changed = await change(page, http, agents[0] | {"version": f"99.{number}"})
            for name, value in zip(found, (listed, painted, changed), strict=True):
                found[name].append(value)
            await page.context.close()
        chromium = browser.version
        await browser.close()
    return {
        "agents": count,
        "rounds": rounds,
        **{name: spread(values) for name, values in found.items()},
        "list_bytes": list_bytes,
        "page_bytes": weight,
        "chromium": chromium,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {platform.system()}",
    }


async def opened(browser: Browser, url: str) -> Page:
    """A page of its own, with the list in it."""
    page = await (await browser.new_context(viewport={"width": 1280, "height": 800})).new_page()
    await page.add_init_script(WATCH)
    await page.goto(url)
    await page.wait_for_selector("html[data-painted]", state="attached")
    return page


async def change(page: Page, http: httpx.AsyncClient, agent: dict[str, Any]) -> float:
    """Milliseconds from the registration of a change until its row shows it."""
    cell = page.locator("#list tbody tr", has_text=agent["name"]).locator(".version", has_text=agent["version"])
    shown = asyncio.create_task(cell.first.wait_for(state="attached"))
    (await http.post("/register", json=agent)).raise_for_status()
    start = time.perf_counter()
    await shown
    return (time.perf_counter() - start) * 1000


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {
        "median": round(statistics.median(values), 1),
        "least": round(min(values), 1),
        "most": round(max(values), 1),
    }


if __name__ == "__main__":
    main()
