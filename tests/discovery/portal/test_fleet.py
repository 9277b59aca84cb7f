"""The portal with a whole fleet: fast, alive, searched, filtered, by keyboard, and asked who uses what."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from tests.discovery.conftest import RunRegistry
from tests.discovery.fleet import fleet
from tests.discovery.portal.browser import add, browser_page, expect, in_a_browser

pytestmark = in_a_browser

ROOT = Path(__file__).parents[3]
SHIRT = {"type": "object", "properties": {"size": {"type": "string"}}}


async def fill(http: httpx.AsyncClient, agents: list[dict[str, Any]]) -> None:
    for start in range(0, len(agents), 50):
        answers = await asyncio.gather(*(http.post("/register", json=agent) for agent in agents[start : start + 50]))
        assert {answer.status_code for answer in answers} == {201}


def rows(page: Any) -> Any:
    return page.locator("#list tbody tr")


async def milliseconds_to_the_list(page: Any) -> float:
    await expect(rows(page)).to_have_count(1000)
    marked = "performance.getEntriesByName('list')[0].startTime"
    return await page.evaluate(marked)


async def test_a_thousand_agents_are_there_within_a_second_and_a_change_shows_without_a_reload(
    registry: RunRegistry,
) -> None:
    agents = fleet(1000)
    async with registry() as http:
        await fill(http, agents)
        async with browser_page(str(http.base_url)) as page:
            times = [await milliseconds_to_the_list(page)]
            for _ in range(4):
                await page.reload()
                times.append(await milliseconds_to_the_list(page))
            # The machine does other work too: the best of five says what the page needs.
            assert min(times) < 1000, times
            await expect(page.locator("#summary")).to_have_text("1,000 agents: 1,000 up")

            changed = agents[500] | {"version": "9.9.9", "status": "degraded"}
            await http.post("/register", json=changed)
            await expect(page.locator("#summary")).to_have_text("1,000 agents: 999 up, 1 degraded")
            first = rows(page).first
            await expect(first).to_contain_text(changed["name"])
            await expect(first.locator(".version")).to_have_text("9.9.9")
            await http.delete(f"/agents/{changed['name']}")
            await expect(page.locator("#summary")).to_have_text("999 agents: 999 up")
            await http.post("/register", json=changed | {"name": "quite-new"})
            await expect(rows(page)).to_have_count(1000)


async def test_every_key_that_is_documented_does_what_it_says(registry: RunRegistry) -> None:
    async with registry() as http:
        await fill(http, fleet(40))
        async with browser_page(str(http.base_url)) as page:
            await expect(rows(page)).to_have_count(40)
            names = await rows(page).locator("td.name a").all_text_contents()
            assert names == sorted(names)
            focused = page.locator("#list a:focus")
            for key, name in {"j": 0, "ArrowDown": 1, "End": -1, "k": -2, "Home": 0}.items():
                await page.keyboard.press(key)
                await expect(focused).to_have_text(names[name])
            panel = page.locator("#panel")
            for key, view in {"Enter": "", "h": "/history", "c": "/chat"}.items():
                await page.keyboard.press(key)
                await expect(panel.locator("h2")).to_have_text(names[0])
                assert page.url.endswith(f"#/agents/{names[0]}{view}")
            await page.keyboard.press("Escape")  # out of the chat's field
            await page.keyboard.press("d")
            await expect(panel.locator("[aria-current=page]")).to_have_text("Details")
            await page.keyboard.press("Escape")
            await expect(panel).to_be_hidden()
            await expect(focused).to_have_text(names[0])
            # One stop of the Tab key for the list, however long it is.
            assert await page.locator("#list tbody a[tabindex='0']").count() == 1

            await page.keyboard.press("f")
            await page.keyboard.press("Enter")
            await expect(page.get_by_role("group", name="Status")).to_be_visible()
            await page.keyboard.press("Escape")
            await expect(page.get_by_role("group", name="Status")).to_be_hidden()
            await page.keyboard.press("?")
            await page.get_by_label("Letters are keys").uncheck()
            await page.keyboard.press("Escape")
            await page.locator("#list").focus()
            await page.keyboard.press("c")
            await page.keyboard.press("End")
            await expect(focused).to_have_text(names[-1])
            await expect(panel).to_be_hidden()


async def test_filters_count_narrow_stand_in_the_address_and_go_back(registry: RunRegistry) -> None:
    async with registry() as http:
        for name, owner, tag in (("refunds", "sales", "uk"), ("invoices", "sales", "fr"), ("payroll", "people", "uk")):
            await add(http, name=name, owner=owner, tags=[tag], tools=["today", f"find_{name}"], ttl_seconds=90)
        await add(http, name="erp", agent_type="mcp_server", owner="it", tools=["today"])
        async with browser_page(str(http.base_url)) as page:
            owner = page.locator("#filters details", has=page.locator("summary", has_text="Owner"))
            await owner.locator("summary").click()
            await expect(owner.locator("label")).to_have_text(["sales2", "it1", "people1"])
            await owner.get_by_text("sales").click()
            await expect(rows(page)).to_have_count(2)
            await owner.get_by_text("people").click()  # values of one filter are alternatives
            await expect(rows(page)).to_have_count(3)
            await page.locator("#filters summary", has_text="Tag").click()
            tags = page.get_by_role("group", name="Tag")
            await expect(tags.locator("label")).to_have_text(["uk2", "fr1"])
            await tags.get_by_text("fr").click()
            await expect(rows(page)).to_have_count(1)
            await expect(page.locator("#summary")).to_have_text("4 agents: 3 up, 1 registered · 1 shown")
            shared = page.url
            assert shared.endswith("#/?owner=sales&owner=people&tag=fr")

            await page.go_back()
            await expect(rows(page)).to_have_count(3)
            await page.goto("about:blank")
            await page.goto(shared)
            await expect(rows(page)).to_have_count(1)
            await page.keyboard.press("/")
            await page.keyboard.type("find_inv")
            await expect(rows(page).locator(".why")).to_have_text("tool find_invoices")
            assert page.url.endswith("&tag=fr&q=find_inv")
            await page.get_by_role("button", name="Owner: sales, take off").click()
            await expect(page.locator("#nothing")).to_contain_text("No agent matches “find_inv” with these filters.")
            await page.get_by_role("button", name="Show all agents").click()
            await expect(rows(page)).to_have_count(4)

            await page.get_by_role("link", name="1 registered").click()
            await expect(rows(page)).to_have_count(1)
            await page.get_by_role("button", name="Owner", exact=True).click()
            assert page.url.endswith("#/?status=registered&sort=owner")


async def test_one_click_from_a_model_a_tool_or_a_server_is_who_uses_it(registry: RunRegistry) -> None:
    erp = {"mcp_servers": [{"name": "erp", "url": "erp.internal:9000"}, "files"]}
    async with registry() as http:
        await add(http, name="refunds", owner="sales", model="openai/gpt-5.1", metadata=erp, ttl_seconds=90)
        await add(http, name="invoices", owner="sales", model="openai/gpt-5.1", metadata=erp)
        wide = [{"name": "search_orders", "input_schema": SHIRT}]
        await add(http, name="payroll", owner="people", model="local/tiny", metadata={"mcp_servers": []}, tools=wide)
        await add(http, name="erp-server", agent_type="mcp_server", endpoint="http://erp.internal:9000/mcp", tools=[])
        async with browser_page(f"{http.base_url}#/agents/refunds") as page:
            panel = page.locator("#panel")
            await panel.get_by_role("link", name="openai/gpt-5.1").click()
            await expect(panel).to_contain_text("2 agents: 1 up, 1 registered")
            await expect(panel).to_contain_text("Whom to tell: sales (2).")
            await expect(panel.locator("li a")).to_have_text(["invoices", "refunds"])
            await add(http, name="handbook", model="openai/gpt-5.1")  # and it stays true
            await expect(panel.locator("li a")).to_have_text(["handbook", "invoices", "refunds"])
            await panel.get_by_role("link", name="Show only these 3 in the list").click()
            await expect(rows(page)).to_have_count(3)
            await expect(panel).to_be_hidden()

            await page.goto(f"{http.base_url}#/agents/refunds")
            await panel.get_by_role("link", name="search_orders").click()
            await expect(panel).to_contain_text("2 different contracts go by this name.")
            await expect(panel.locator("h3")).to_have_text(["Contract 1: 3 agents", "Contract 2: 1 agent"])

            await page.goto(f"{http.base_url}#/agents/refunds")
            await panel.get_by_role("link", name="erp", exact=True).click()
            await expect(panel).to_contain_text("It is registered itself: registered erp-server")
            await panel.get_by_role("link", name="erp-server").click()
            users = panel.locator("[data-part=users] li")
            await expect(users).to_have_text([re.compile("invoices"), re.compile("refunds")])
            await page.go_back()
            await expect(panel.locator("h2")).to_have_text("erp.internal:9000")


def test_the_benchmark_runs_and_prints_one_json_object() -> None:
    command = [sys.executable, "-m", "benchmarks.portal", "--agents", "30", "--rounds", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["agents"], found["rounds"]) == (30, 1)
    assert found["first_list_ms"].keys() == found["change_ms"].keys() == {"median", "least", "most"}
