"""The portal at two in the morning: why an agent is what it is, what changed, what is shown while nothing answers."""

import json
import re
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import httpx
from fastapi import FastAPI

from discovery import portal
from discovery.contract import utc_now
from discovery.stores.memory import MemoryStore
from discovery.tokens import read_tokens
from tests.discovery.conftest import MINIMAL, Clock, RunRegistry
from tests.discovery.fake_agent import fake_agent
from tests.discovery.portal.browser import add, browser_page, expect, in_a_browser
from tests.discovery.portal.observed import find, observed
from tests.serving import serve

pytestmark = in_a_browser

REFUND = {"type": "object", "properties": {"order": {"type": "string"}, "amount": {"type": "number"}}}


def tool(name: str, *required: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "input_schema": REFUND | {"required": list(required)} | schema}


async def test_the_history_says_what_changed_and_which_change_of_a_tool_breaks_its_callers(
    registry: RunRegistry,
) -> None:
    async with registry() as http:
        await add(http, name="orders", tools=["find_order", tool("issue_refund", "order")])
        async with browser_page(f"{http.base_url}#/agents/orders") as page:
            changes = page.locator("[data-part=changes] .changes > li")
            await expect(changes).to_have_count(1)
            await expect(changes).to_contain_text("Registered version 1.0.0 at http://127.0.0.1:8000")
            tools = ["find_order", "cancel", tool("issue_refund", "order")]
            await add(http, name="orders", tools=tools, version="1.1.0")
            await expect(changes).to_have_count(2)
            await expect(changes.first).to_contain_text("Changed: tools, version is 1.1.0")
            await expect(changes.first).to_contain_text("nothing that breaks callers")
            await add(http, name="orders", tools=["cancel", tool("issue_refund", "order", "amount")], version="2.0.0")
            await expect(changes.first.locator(".diff.breaks li")).to_have_text(
                [
                    "−removed find_orderbreaking",
                    "~changed issue_refundbreakingargument amount is required now",
                ]
            )
            for number in range(60):
                await add(http, name="orders", tools=[], version=f"2.0.{number + 1}")
            await expect(changes).to_have_count(3)
            await page.get_by_role("link", name="All of its history").click()
            every = page.locator("#panel .changes > li")
            await expect(every).to_have_count(50)
            await page.get_by_role("button", name="Earlier").click()
            await expect(every).to_have_count(63)
            await expect(every.last).to_contain_text("Registered version 1.0.0")
            await http.delete("/agents/orders")
            await expect(page.locator("#panel")).to_contain_text("No agent of this name is registered.")
            await expect(every.first).to_contain_text("removed by request")


async def test_what_a_tool_takes_is_said_in_words_with_its_schema_folded_under_them(registry: RunRegistry) -> None:
    line = {"type": "object", "properties": {"sku": {"type": "string"}}, "required": ["sku"]}
    properties = {
        "lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}, "description": "What is ordered."},
        "speed": {"enum": ["slow", "fast"], "default": "slow"},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    }
    schema = {"type": "object", "properties": properties, "required": ["lines"], "$defs": {"Line": line}}
    async with registry() as http:
        await add(http, name="orders", tools=[{"name": "place", "input_schema": schema}, "today"])
        async with browser_page(f"{http.base_url}#/agents/orders") as page:
            takes = page.locator("[data-part=tools] details").first
            await expect(takes.locator("summary").first).to_have_text("takes lines, speed?, note?")
            await takes.locator("summary").first.click()
            fields = takes.locator(":scope > .fields > li")
            await expect(fields.nth(0)).to_contain_text("lines list of object")
            await expect(fields.nth(0).locator("li")).to_have_text("sku string")
            await expect(fields.nth(1)).to_have_text('speed one of "slow", "fast", optional, else "slow"')
            await expect(fields.nth(2)).to_have_text("note string or null, optional")
            await takes.get_by_text("as JSON Schema").click()
            shown = await takes.locator("pre").text_content()
            assert json.loads(shown) == schema
            await add(http, name="orders", tools=[{"name": "place", "input_schema": schema}])
            await expect(page.locator("[data-part=tools] h3")).to_have_text("1 tool")
            await expect(takes.locator("pre")).to_be_visible()  # what was unfolded stays so


async def test_a_heartbeat_without_an_endpoint_and_an_endpoint_without_a_heartbeat_are_two_faults(clock: Clock) -> None:
    clock.now = utc_now() - timedelta(seconds=100)
    async with observed(clock) as http, browser_page(str(http.base_url)) as page:
        for name in ("silent", "unreached", "well"):
            await add(http, name=name, ttl_seconds=60, boot_id=name)
        await find(http, "silent", ok=True, reason="health responds")
        await find(http, "unreached", ok=False, reason="connection refused")
        await expect(page.locator("#list tbody tr").first).to_contain_text("endpoint refused")
        clock.turn(50)
        for name in ("unreached", "well"):
            await add(http, name=name, ttl_seconds=60, boot_id=name)
        clock.turn(20)
        await expect(page.locator("#summary")).to_have_text("3 agents: 2 up, 1 stale")
        names = page.locator("#list tbody td.name")
        await expect(names.nth(0)).to_contain_text("no heartbeat within its lease of 60 s; its endpoint still answers")
        await expect(names.nth(1)).to_contain_text("endpoint refused: connection refused")
        await expect(names.nth(2).locator(".why")).to_be_hidden()

        standing = page.locator("[data-part=standing]")
        await page.get_by_role("link", name="silent").click()
        await expect(standing).to_contain_text("Heartbeat lost, endpoint fine. It works, and callers reach it")
        await expect(standing).to_contain_text("health responds, in 12 ms")
        # It counts down to what comes next.
        await expect(standing).to_contain_text(re.compile(r"Becomes down in \d min \d\d s"))
        said = await standing.locator("time[data-future]").text_content()
        await expect(standing.locator("time[data-future]")).not_to_have_text(said or "")
        await page.get_by_role("link", name="unreached").click()
        await expect(standing).to_contain_text("Heartbeat fine, endpoint refused. It runs and reports, but nobody")
        await page.get_by_role("link", name="well").click()
        await expect(standing).to_contain_text("Endpoint–not asked")
        await expect(standing.locator(".advice")).to_have_count(0)


async def test_what_the_probe_finds_is_shown_and_what_it_may_not_ask_is_no_fault(registry: RunRegistry) -> None:
    settings: dict[str, Any] = {"database_url": "memory://", "probe": True, "probe_seconds": 0.5}
    async with registry(**settings) as http, serve(fake_agent()) as face, browser_page(str(http.base_url)) as page:
        await add(http, name="well", endpoint=face)
        await add(http, name="gone", endpoint="http://127.0.0.1:1023")
        await add(http, name="odd", endpoint=face, protocols=["mcp"])
        await add(http, name="forbidden", endpoint="http://169.254.169.254")
        rows = page.locator("#list tbody tr")
        await expect(rows.nth(0)).to_contain_text("endpoint refused")
        await expect(rows.nth(0).locator(".why")).to_have_text("endpoint refused: connection refused")
        await expect(rows.nth(1)).to_contain_text("endpoint faulty")
        await expect(rows.nth(1).locator(".why")).to_contain_text("endpoint faulty: MCP failed")
        standing = page.locator("[data-part=standing]")
        for name, words in {
            "odd": "No heartbeats, endpoint faulty.",
            "well": "health responds, in",
            "forbidden": "Endpoint–not called: ",
        }.items():
            await page.get_by_role("link", name=name).click()
            await expect(standing).to_contain_text(words)
        await expect(standing.locator(".advice")).to_have_count(0)


async def test_two_processes_that_claim_one_name_are_both_shown(registry: RunRegistry) -> None:
    older, newer = ({"boot_id": boot, "endpoint": f"http://{boot}.internal:8000"} for boot in ("older", "newer"))
    async with registry() as http, browser_page(f"{http.base_url}#/agents/orders") as page:
        await add(http, name="orders", ttl_seconds=90, **older)
        await add(http, name="orders", ttl_seconds=90, **newer)
        refused = await http.post("/register", json=MINIMAL | older | {"name": "orders", "ttl_seconds": 90})
        assert refused.status_code == 409
        sides = page.locator("[data-part=conflict] li")
        await expect(sides.nth(0)).to_contain_text("Shown: http://newer.internal:8000")
        await expect(sides.nth(1)).to_contain_text("Also running: http://older.internal:8000")
        await expect(page.locator("#list tbody td.status")).to_contain_text("conflict")
        latest = page.locator("[data-part=changes] li").first
        await expect(latest).to_contain_text("two live processes claim this entry")


async def test_mass_silence_is_a_banner_for_as_long_as_it_lasts(clock: Clock) -> None:
    clock.now = utc_now() - timedelta(seconds=100)
    names = [f"agent-{number:02}" for number in range(12)]

    async def heartbeats(http: httpx.AsyncClient, alive: list[str]) -> None:
        for name in alive:
            await add(http, name=name, ttl_seconds=60)

    async with observed(clock) as http, browser_page(str(http.base_url)) as page:
        await heartbeats(http, names)
        clock.turn(50)
        await heartbeats(http, names[4:])
        clock.turn(20)
        banner = page.locator("#notice-guard")
        await expect(banner).to_contain_text("Mass silence: 4 of 12 agents fell silent at once.")
        await expect(banner).to_contain_text("nothing is removed")
        await banner.get_by_role("link", name="Show them").click()
        await expect(page.locator("#list tbody tr")).to_have_count(4)
        await page.get_by_role("link", name="agent-00").click()
        await expect(page.locator("[data-part=standing]")).to_contain_text("It is held")
        await page.reload()  # who comes later sees it too
        await expect(banner).to_be_visible()
        await heartbeats(http, names)
        await expect(banner).to_have_count(0)


async def test_while_the_registry_is_away_the_last_list_stays_with_its_age_even_in_a_page_opened_anew(
    registry: RunRegistry,
) -> None:
    store = MemoryStore()
    async with AsyncExitStack() as stack:
        async with registry(store) as http:
            url = http.base_url
            await add(http, name="orders")
            page = await stack.enter_async_context(browser_page(str(url)))
            await expect(page.locator("#list tbody tr")).to_have_count(1)
            await page.evaluate("navigator.serviceWorker.ready.then(() => true)")
        away = page.locator("#notice-away")
        age = re.compile(r"The registry is away \(it does not answer\)\. This is its list from \d+ s ago")
        await expect(away).to_contain_text(age)
        await page.reload()
        await expect(away).to_contain_text(age)
        await expect(page.locator("#list")).to_have_class("old")
        await expect(page.locator("#list tbody tr")).to_contain_text("orders")
        before = await away.text_content()
        await expect(away).not_to_have_text(before)  # the age goes on
        async with registry(store, port=url.port) as http:
            await add(http, name="billing")
            await expect(away).to_have_count(0)
            await expect(page.locator("#list tbody tr")).to_have_count(2)


async def test_the_list_of_a_registry_with_tokens_is_not_left_in_the_browser(registry: RunRegistry) -> None:
    tokens = read_tokens("read:reader,register:writer")
    async with registry(database_url="memory://", tokens=tokens) as http:
        http.headers["authorization"] = "Bearer writer"
        await add(http, name="orders")
        async with browser_page(str(http.base_url)) as page:
            await page.get_by_label("Read token of this registry").fill("reader")
            await page.keyboard.press("Enter")
            await expect(page.locator("#list tbody tr")).to_have_count(1)
            await add(http, name="billing")  # told by the stream, which needs the token too
            await expect(page.locator("#list tbody tr")).to_have_count(2)
            kept = await page.evaluate("JSON.stringify([localStorage, sessionStorage])")
            assert "orders" not in kept
            assert "reader" not in kept


async def test_a_registry_that_knows_only_the_first_table_is_asked_again_and_again() -> None:
    agents: list[dict[str, Any]] = []
    app = FastAPI()
    app.include_router(portal.router)
    app.get("/agents")(lambda: agents)
    async with serve(app) as url, browser_page(url) as page:
        await expect(page.get_by_text("No agents yet")).to_be_visible()
        agents.append(MINIMAL)
        await expect(page.locator("#list tbody tr")).to_contain_text("customer-service")
        await page.get_by_role("link", name="customer-service").click()
        await expect(page.locator("[data-part=changes]")).to_contain_text("Nothing is recorded of it.")
        await expect(page.locator("[data-part=tools]")).to_contain_text("search_orders")
        agents.clear()
        await expect(page.locator("#panel")).to_contain_text("No agent of this name is registered.")
