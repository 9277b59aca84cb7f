"""The page as it is served: its policy, its size, and what it may show of the agent."""

import re
from pathlib import Path
from typing import Any

from agent_runtime.models.scripted import ScriptedModel
from tests.agent_runtime.server.served import is_problem, serving


async def test_the_page_and_its_parts_are_served_with_a_strict_policy(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel([])) as client:
        html = (await client.get("/")).text
        parts = re.findall(r'(?:href|src)="(page/[^"]+)"', html)
        sizes = [len(html)]
        for name in [*parts, "page/turn.js", "page/approvals.js", "page/render.js"]:
            answer = await client.get(f"/{name}")
            assert answer.status_code == 200
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert "connect-src 'self';" in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
            sizes.append(len(answer.content))
        is_problem(await client.get("/page/__init__.py"), 404, "http_error")
    assert len(parts) == 2
    assert sum(sizes) < 60_000


async def test_what_the_page_shows_of_the_agent_needs_a_key_and_holds_no_prompt(tmp_path: Path) -> None:
    sections: dict[str, Any] = {"server": {"api_keys": ["k"]}, "system_prompt": "Nobody reads this."}
    async with serving(tmp_path, ScriptedModel([]), **sections) as client:
        assert (await client.get("/")).status_code == 200
        is_problem(await client.get("/page/agent"), 401, "unauthorized")
        shown = (await client.get("/page/agent", headers={"authorization": "Bearer k"})).json()
    assert (shown["name"], shown["model"], shown["remembers"]) == ("helper", "scripted", False)
    add = shown["tools"][0]
    assert (add["name"], sorted(add["input_schema"]["properties"])) == ("add", ["a", "b"])
    assert "Nobody" not in str(shown)


async def test_every_module_that_the_page_imports_is_served(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel([])) as client:
        waiting, seen = ["page.js"], set[str]()
        while waiting:
            name = waiting.pop()
            seen.add(name)
            module = await client.get(f"/page/{name}")
            assert module.status_code == 200, name
            waiting += set(re.findall(r'from "\./([a-z]+\.js)"', module.text)) - seen
    assert {"page.js", "turn.js", "render.js"} <= seen
