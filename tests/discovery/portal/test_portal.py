"""The page in a real browser, with an agent on another origin that speaks the chat stream."""

import pytest

from discovery.tokens import read_tokens
from tests.discovery.conftest import RunRegistry
from tests.discovery.fake_agent import fake_agent
from tests.discovery.portal.browser import add, browser_page, expect, in_a_browser
from tests.serving import serve

pytestmark = in_a_browser


async def test_a_person_sees_an_agent_appear_reads_about_it_and_chats_with_it(registry: RunRegistry) -> None:
    agent = fake_agent()
    async with registry() as http, serve(agent) as endpoint, browser_page(str(http.base_url)) as page:
        await expect(page.get_by_text("No agents yet")).to_be_visible()
        await expect(page.locator("#command")).to_contain_text("myagent run --config agent.yaml")
        await add(http, name="orders", endpoint=endpoint, ttl_seconds=90, model="local/tiny", description="<i>Hi</i>")
        await add(http, name="warehouse", agent_type="mcp_server")
        await expect(page.locator("#summary")).to_have_text("2 agents: 1 up, 1 registered")
        await expect(page.locator("tr", has_text="orders")).to_contain_text("<i>Hi</i>")

        await page.keyboard.press("j")
        await page.keyboard.press("Enter")
        await expect(page.locator("#panel")).to_contain_text("The built-in model answers. It is small")
        assert page.url.endswith("#/agents/orders")

        await page.keyboard.press("c")
        await page.get_by_label("Message to orders").fill("show me orders above 500 pounds")
        await page.keyboard.press("Enter")
        answer = page.locator(".answer").last
        await expect(answer.locator("tbody tr")).to_have_count(2)
        await expect(answer.locator("strong")).to_have_text("Two orders")
        await expect(answer).to_contain_text("<img src=x onerror=alert(1)>")
        await expect(answer.locator("img, b")).to_have_count(0)
        steps = page.locator("details.steps")
        await expect(steps.locator("summary")).to_have_text("2 steps")
        assert await steps.get_attribute("open") is None
        await steps.locator("summary").click()
        await expect(steps).to_contain_text("Called search_orders in 12 ms")

        await page.get_by_label("Message to orders").fill("again")
        await page.keyboard.press("Enter")
        await expect(page.locator(".turn .under button.retry")).to_have_count(1)
        await expect(page.locator(".answer table")).to_have_count(2)
        assert [asked.get("session_id") for asked in agent.state.asked] == [None, "s1"]

        await page.keyboard.press("Escape")
        await page.keyboard.press("Escape")
        await expect(page.locator("#panel")).to_be_hidden()


async def test_a_run_can_be_stopped_and_what_fails_says_what_to_do(registry: RunRegistry) -> None:
    async with registry() as http, serve(fake_agent()) as endpoint, serve(fake_agent(origins=())) as shut:
        await add(http, name="orders", endpoint=endpoint)
        await add(http, name="shut", endpoint=shut)
        await add(http, name="gone", endpoint="http://127.0.0.1:1023")
        async with browser_page(f"{http.base_url}#/agents/orders/chat") as page:
            for message, outcome in {
                "fail": "The agent could not answer: the model did not answer",
                "refuse": "Come back in a minute.",
                "cut": "the connection ended before the answer did",
            }.items():
                await page.get_by_label("Message to orders").fill(message)
                await page.keyboard.press("Enter")
                await expect(page.locator(".turn").last).to_contain_text(outcome)
            await page.get_by_label("Message to orders").fill("wait")
            await page.keyboard.press("Enter")
            await expect(page.locator(".turn").last).to_contain_text("Calls search_orders")
            await page.get_by_role("button", name="Stop").click()
            await expect(page.locator(".turn").last).to_contain_text("Stopped.")
            await expect(page.get_by_role("button", name="Ask again")).to_have_count(1)
            for name, outcome in {"shut": "server.cors_origins", "gone": "found nobody there"}.items():
                await page.goto(f"{http.base_url}#/agents/{name}/chat")
                await page.get_by_label(f"Message to {name}").fill("hello")
                await page.keyboard.press("Enter")
                await expect(page.locator(".turn").last).to_contain_text(outcome)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_fits_a_phone_in_light_and_dark(registry: RunRegistry, scheme: str) -> None:
    async with registry() as http:
        await add(http, name="an-agent-with-quite-a-long-name-for-a-phone", description="word " * 60)
        options = {"viewport": {"width": 320, "height": 640}, "color_scheme": scheme}
        async with browser_page(str(http.base_url), **options) as page:
            await page.locator("#filters summary", has_text="Tool").click()
            await expect(page.get_by_role("group", name="Tool").get_by_text("search_orders")).to_be_in_viewport()
            await page.locator("h1").click()
            await expect(page.get_by_role("group", name="Tool")).to_be_hidden()
            assert await page.evaluate("document.documentElement.scrollWidth") <= 320
            await page.locator("#list tbody tr").click()
            await expect(page.get_by_role("button", name="Close")).to_be_in_viewport()
            assert await page.evaluate("document.documentElement.scrollWidth") <= 320


async def test_search_narrows_the_list_by_name_tool_and_owner(registry: RunRegistry) -> None:
    async with registry() as http:
        for name, owner in {"orders": "sales", "billing": "finance", "handbook": "people"}.items():
            await add(http, name=name, owner=owner, tools=[f"search_{name}"])
        async with browser_page(str(http.base_url)) as page:
            await expect(page.locator("tbody tr")).to_have_count(3)
            await page.keyboard.press("/")
            await page.keyboard.type("finance search_")
            await expect(page.locator("tbody tr")).to_have_count(1)
            await page.keyboard.press("Enter")
            await page.keyboard.press("Enter")
            await expect(page.locator("#panel h2")).to_have_text("billing")
            await page.get_by_label("Search agents").fill("nothing like it")
            await expect(page.get_by_text("No agent matches")).to_be_visible()


async def test_a_registry_with_tokens_asks_for_one_and_the_page_forgets_it(registry: RunRegistry) -> None:
    tokens = read_tokens("read:reader,register:writer")
    async with registry(database_url="memory://", tokens=tokens) as http:
        http.headers["authorization"] = "Bearer writer"
        await add(http, name="orders")
        async with browser_page(str(http.base_url)) as page:
            field = page.get_by_label("Read token of this registry")
            said = {"": "those who have a read token", "wrong": "not known", "writer": "needs the scope"}
            for token, words in said.items():
                if token:
                    await field.fill(token)
                    await page.keyboard.press("Enter")
                await expect(page.locator("#token p")).to_contain_text(words)
                await expect(page.locator("#summary")).to_contain_text("it asks for a token")
            await field.fill("reader")
            await page.get_by_role("button", name="Use for this visit").click()
            await expect(page.locator("tbody tr")).to_have_count(1)
            await expect(field).to_have_count(0)
            kept = "JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])"
            assert "reader" not in await page.evaluate(kept)
            await page.reload()
            await expect(field).to_be_visible()
            await expect(page.locator("#list tbody tr")).to_have_count(0)
