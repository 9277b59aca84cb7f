"""The page in a real browser: a whole conversation, a broken stream, a key, approvals, and how it looks."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_runtime import Agent, ModelError, Usage
from agent_runtime.models.scripted import ScriptedModel
from agent_runtime.server.app import create_app
from tests.agent_runtime.server.page.browser import expect, say
from tests.agent_runtime.server.served import serving
from tests.agent_runtime.speaking import Gated, Speaker
from tests.agents import write_agent
from tests.chromium import CHROMIUM, browser_page
from tests.serving import serve

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"THE PAGE IS NOT TESTED: there is no {CHROMIUM}"),
]

SAY = Speaker("native")
ROWS = [{"id": "A-1", "customer": "Ada", "total": 620.5}, {"id": "A-2", "customer": "Bob", "total": 940.0}]
CODE = f'''
import json
import re

def search_orders(minimum: float) -> list[dict]:
    """Orders of at least this total.

    Args:
        minimum: pounds
    """
    return json.loads("""{json.dumps(ROWS)}""")
'''
TABLE = "| id | customer | total |\n|---|---|---:|\n| A-1 | Ada | 620.50 |\n| A-2 | Bob | 940.00 |"
ANSWER = f"**Two orders** are above £500:\n\n{TABLE}\n\nNo script runs: <img src=x onerror=alert(1)>"
ORDERS: dict[str, Any] = {
    "name": "orders",
    "description": "Answers questions about the orders of the last 90 days.",
    "agent_type": "stateful_react_plan",
    "reasoning": {"dialect": "native"},
    "code": CODE,
    "tools": ["calculator:search_orders"],
}


def conversation() -> ScriptedModel:
    """Plans, searches, and answers with a table; then answers shortly, without a plan."""
    pieces = [ANSWER[at : at + 12] for at in range(0, len(ANSWER), 12)]
    return ScriptedModel(
        [
            ["1. Search the orders\n2. Answer", Usage(200, 20)],
            SAY.calls("search_orders", minimum=500, usage=Usage(300, 20)),
            [*pieces, Usage(400, 60)],
            "1. Answer",
            "You are welcome.",
        ]
    )


async def test_a_whole_conversation(tmp_path: Path) -> None:
    async with serving(tmp_path, conversation(), **ORDERS) as http, browser_page(str(http.base_url)) as page:
        await expect(page.locator("h1")).to_have_text("orders")
        await expect(page.locator("#model")).to_contain_text("scripted")
        await expect(page.locator("#intro")).to_contain_text("orders of the last 90 days")

        turn = await say(page, "Which orders are above 500 pounds?")
        answer = turn.locator(".answer")
        await expect(answer.locator("tbody tr")).to_have_count(2)
        await expect(answer.locator("strong")).to_have_text("Two orders")
        await expect(answer).to_contain_text("<img src=x onerror=alert(1)>")
        await expect(answer.locator("img")).to_have_count(0)
        await expect(turn).to_contain_text("1,000 tokens")
        steps = turn.locator("details.steps")
        assert await steps.get_attribute("open") is None
        await expect(steps.locator("summary")).to_have_text("2 steps")
        await steps.locator("summary").click()
        await expect(steps.locator("ol.plan li.done")).to_have_count(2)
        await expect(steps).to_contain_text("Called search_orders in ")
        await expect(steps.locator("pre")).to_contain_text('"minimum": 500')
        await expect(steps.locator("table tbody tr")).to_have_count(2)

        turn = await say(page, "Thank you")
        await expect(turn.locator(".answer")).to_have_text("You are welcome.")
        await expect(page.get_by_role("button", name="Ask again")).to_have_count(1)

        await page.reload()
        await expect(page.locator(".question")).to_have_text(["Which orders are above 500 pounds?", "Thank you"])
        await expect(page.locator(".turn").nth(1).locator("details.steps")).to_contain_text("Called search_orders")
        await page.locator("h1").click()
        await page.keyboard.press("n")
        await expect(page.locator(".question")).to_have_count(0)


async def test_the_tools_are_shown_with_their_schemas(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel([]), **ORDERS) as http, browser_page(str(http.base_url)) as page:
        await expect(page.get_by_role("button", name="1 tool")).to_be_visible()
        await page.locator("h1").click()
        await page.keyboard.press("t")
        panel = page.locator("#panel")
        await expect(panel).to_contain_text("Orders of at least this total.")
        await panel.get_by_text("Arguments").click()
        await expect(panel.locator("pre")).to_contain_text('"minimum"')
        await page.keyboard.press("Escape")
        await expect(panel).to_be_hidden()
        await page.keyboard.press("/")
        await expect(page.get_by_label("Message", exact=True)).to_be_focused()


async def test_a_run_is_stopped_and_asked_again(tmp_path: Path) -> None:
    model = Gated()
    async with serving(tmp_path, model) as http, browser_page(str(http.base_url)) as page:
        turn = await say(page, "hi")
        await expect(turn.locator(".answer")).to_have_text("first")
        await page.get_by_role("button", name="Stop").click()
        await expect(turn).to_contain_text("Stopped.")
        await expect(turn.locator(".answer")).to_have_text("first")
        await asyncio.wait_for(model.closed.wait(), 5)
        model.gate.set()
        await page.get_by_role("button", name="Ask again").click()
        await expect(page.locator(".answer").last).to_have_text("first second")


@asynccontextmanager
async def breaking(folder: Path, model: ScriptedModel, *, before: bytes) -> AsyncGenerator[str]:
    """A served agent whose chat streams break before they say that; other routes are as they are."""

    def broken(app: ASGIApp) -> ASGIApp:
        async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
            async def cut(message: Message) -> None:
                if scope["path"] == "/chat/stream" and before in message.get("body", b""):
                    raise ConnectionError("the network is gone")
                await send(message)

            await app(scope, receive, cut if scope["type"] == "http" else send)

        return wrapped

    async with (
        asyncio.timeout(30),
        Agent(write_agent(folder), model=model, environment={}) as agent,
        serve(broken(create_app(agent)), lifespan="on") as url,
    ):
        yield url


async def test_a_stream_that_breaks_is_picked_up_where_it_broke(tmp_path: Path) -> None:
    model = Gated("first ", "second ", "third")
    async with breaking(tmp_path, model, before=b"second") as url, browser_page(url) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.headers.get("last-event-id", "")))
        turn = await say(page, "hi")
        await expect(turn.locator(".answer")).to_have_text("first")
        model.gate.set()
        await expect(turn.locator(".answer")).to_have_text("first second third")
        await expect(turn.get_by_role("button", name="Ask again")).to_be_visible()
        assert [number for number in asked if number] == ["2"]


async def test_a_page_that_is_opened_again_goes_on_with_the_run(tmp_path: Path) -> None:
    model = Gated()
    async with serving(tmp_path, model, agent_type="stateful") as http, browser_page(str(http.base_url)) as page:
        turn = await say(page, "hi")
        await expect(turn.locator(".answer")).to_have_text("first")
        await page.reload()
        await expect(page.locator(".answer")).to_have_text("first")
        model.gate.set()
        await expect(page.locator(".answer")).to_have_text("first second")
        await expect(page.locator(".question")).to_have_text(["hi"])


async def test_what_fails_says_what_to_do_and_can_be_asked_again(tmp_path: Path) -> None:
    model = ScriptedModel([ModelError("the model is away", fault="unreachable"), "Hello."])
    async with serving(tmp_path, model) as http, browser_page(str(http.base_url)) as page:
        turn = await say(page, "hi")
        await expect(turn.get_by_role("alert")).to_contain_text("The agent could not answer: the model is away")
        await expect(turn.get_by_role("alert")).to_contain_text("the agent itself is healthy")
        await page.get_by_role("button", name="Ask again").click()
        await expect(page.locator(".answer").last).to_have_text("Hello.")


async def test_an_agent_with_keys_asks_for_one(tmp_path: Path) -> None:
    server = {"api_keys": ["right"]}
    async with (
        serving(tmp_path, ScriptedModel(["Hello."]), server=server) as http,
        browser_page(str(http.base_url)) as page,
    ):
        notices = page.locator("#notices")
        await expect(notices).to_contain_text("This agent requires an API key.")
        for key in ("wrong", "right"):
            await page.get_by_label("API key of this agent").fill(key)
            await page.keyboard.press("Enter")
            await expect(notices).to_contain_text("This agent requires an API key." if key == "wrong" else "")
        await expect(page.locator("h1")).to_have_text("helper")
        turn = await say(page, "hi")
        await expect(turn.locator(".answer")).to_have_text("Hello.")
        await page.reload()
        await expect(page.locator("h1")).to_have_text("helper")


PENDING = {
    "id": "a1",
    "run_id": "r1",
    "session_id": "s1",
    "tool": "refund",
    "arguments": {"order": "A-1", "amount": 620.5},
    "created_at": "2026-01-01T00:00:00Z",
}


ROUTE = re.compile(r"/approvals(/|$)")


class Approver:
    """What a page would find at the routes of approvals."""

    def __init__(self) -> None:
        self.pending = [PENDING]
        self.status = 200

    async def __call__(self, route: Any) -> None:
        await route.fulfill(status=self.status, json=self.pending)


REFUND = """
def refund(order: str, amount: float) -> str:
    \"\"\"Pay money back.\"\"\"
    return f"paid {amount:g} for {order}"
"""


async def test_a_call_that_waits_for_approval_is_a_card_and_the_run_goes_on_as_it_is_decided(tmp_path: Path) -> None:
    replies = [[SAY.calls("refund", order="A-1", amount=620.5), f"Done {number}."] for number in range(3)]
    model = ScriptedModel([reply for turn in replies for reply in turn])
    tools = [{"function": "calculator:refund", "approval": "required"}]
    choices = {
        "Approve": ([], "Approved: refund", "paid 620.5 for A-1"),
        "Deny": (["Deny the call"], "Denied: refund", "too much"),
        "Edit": (["Approve as edited"], "Approved as edited: refund", "paid 5 for A-1"),
    }
    async with serving(tmp_path, model, code=REFUND, tools=tools) as http, browser_page(str(http.base_url)) as page:
        card = page.locator("article.approval")
        for number, (choice, (buttons, words, result)) in enumerate(choices.items()):
            turn = await say(page, "Refund A-1")
            await expect(page.locator(".under").last).to_contain_text("It waits for an approval.")
            await expect(card).to_contain_text("The agent wants to call refund")
            await expect(card.locator("pre")).to_contain_text('"amount": 620.5')
            await card.get_by_role("button", name=choice, exact=True).click()
            if choice == "Deny":
                await card.get_by_label("Reason").fill("too much")
            if choice == "Edit":
                await card.get_by_label("Arguments as JSON").fill("{")
                await card.get_by_role("button", name="Approve as edited").click()
                await expect(card.get_by_role("alert")).to_contain_text("This is no JSON")
                await card.get_by_label("Arguments as JSON").fill('{"order": "A-1", "amount": 5}')
            for name in buttons:
                await card.get_by_role("button", name=name).click()
            await expect(card).to_have_count(0)
            await expect(turn.locator(".question")).to_have_text(words)
            await expect(turn.locator(".answer")).to_have_text(f"Done {number}.")
            assert result in model.asked[-1].messages[-1].content


async def test_there_are_no_cards_where_the_agent_has_no_such_route(tmp_path: Path) -> None:
    approver = Approver()
    approver.status = 404
    async with serving(tmp_path, ScriptedModel(["Hello."])) as http, browser_page("about:blank") as page:
        await page.route(ROUTE, approver)
        await page.goto(str(http.base_url))
        turn = await say(page, "hi")
        await expect(turn.locator(".answer")).to_have_text("Hello.")
        await expect(page.locator("#approvals")).to_be_hidden()


LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1200, "height": 800}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1200, "height": 800}},
    "phone": {"color_scheme": "light", "viewport": {"width": 360, "height": 640}},
}


@pytest.mark.parametrize("look", LOOKS)
async def test_it_looks_right_in_light_in_dark_and_on_a_phone(tmp_path: Path, look: str, record_property: Any) -> None:
    async with serving(tmp_path, conversation(), **ORDERS) as http, browser_page("about:blank", **LOOKS[look]) as page:
        await page.route(ROUTE, Approver())
        await page.goto(str(http.base_url))
        turn = await say(page, "Which orders are above 500 pounds?")
        await expect(turn).to_contain_text("1,000 tokens")
        await turn.locator("summary").click()
        await page.get_by_role("button", name="1 tool").click()
        if look == "phone":
            await expect(page.locator("#panel").get_by_role("button", name="Close")).to_be_in_viewport()
            await page.keyboard.press("Escape")
        await expect(page.get_by_role("button", name="Send")).to_be_in_viewport()
        assert await page.evaluate("document.documentElement.scrollWidth") <= LOOKS[look]["viewport"]["width"]
        background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == ("rgb(22, 24, 26)" if look == "dark" else "rgb(251, 251, 250)")
        picture = tmp_path / f"page-{look}.png"
        await page.screenshot(path=str(picture))
        record_property("screenshot", str(picture))
