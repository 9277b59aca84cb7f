"""The HTTP face, over a real socket."""

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from discovery import portal
from tests.discovery.conftest import MINIMAL, Clock, RunRegistry, eventually


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert {"type", "title", "status", "code", "detail", "request_id"} <= body.keys()
    assert (body["status"], body["code"]) == (status, code)
    assert body["request_id"] == response.headers["x-request-id"]
    assert "Traceback" not in response.text
    return body


async def test_the_list_is_an_empty_array_before_anything_registered(registry: RunRegistry) -> None:
    async with registry() as http:
        response = await http.get("/agents")
        assert (response.status_code, response.json()) == (200, [])


async def test_five_fields_register_with_201_the_first_time_and_200_after(registry: RunRegistry) -> None:
    async with registry() as http:
        first = await http.post("/register", json=MINIMAL)
        second = await http.post("/register", json=MINIMAL)
        assert (first.status_code, second.status_code) == (201, 200)
        assert first.json() == {
            "name": "customer-service",
            "instance_id": "default",
            "revision": 1,
            "changed": True,
            "lease": None,
            "observed_address": "127.0.0.1",
            "warnings": [],
        }
        assert second.json()["changed"] is False
        (agent,) = (await http.get("/agents")).json()
        assert {field: agent[field] for field in MINIMAL} == MINIMAL
        assert agent["status"] == "registered"


async def test_registering_on_another_port_updates_and_never_adds(registry: RunRegistry) -> None:
    async with registry() as http:
        for port in (8000, 8001):
            await http.post("/register", json=MINIMAL | {"endpoint": f"http://127.0.0.1:{port}", "boot_id": str(port)})
        assert [agent["endpoint"] for agent in (await http.get("/agents")).json()] == ["http://127.0.0.1:8001"]


async def test_the_list_is_sorted_by_name_and_one_agent_is_the_same_object(registry: RunRegistry) -> None:
    async with registry() as http:
        for name in ("zebra", "ant", "Mole", "ärger"):
            await http.post("/register", json=MINIMAL | {"name": name})
        agents = (await http.get("/agents")).json()
        assert [agent["name"] for agent in agents] == ["Mole", "ant", "zebra", "ärger"]
        assert (await http.get("/agents/ärger")).json() == agents[-1]


async def test_an_unknown_agent_is_a_404_that_says_which(registry: RunRegistry) -> None:
    async with registry() as http:
        assert "'nobody'" in problem(await http.get("/agents/nobody"), 404, "agent_not_found")["detail"]


async def test_removing_is_204_also_where_it_is_gone_already(registry: RunRegistry) -> None:
    async with registry() as http:
        await http.post("/register", json=MINIMAL | {"boot_id": "b"})
        assert (await http.delete("/agents/customer-service?instance_id=other")).status_code == 204
        assert len((await http.get("/agents")).json()) == 1
        problem(await http.delete("/agents/customer-service?boot_id=a"), 409, "superseded")
        for _ in range(2):
            gone = await http.delete("/agents/customer-service?instance_id=default&boot_id=b")
            assert (gone.status_code, gone.content) == (204, b"")
        assert (await http.get("/agents")).json() == []


@pytest.mark.parametrize("path", ["/agents?statsu=up", "/agents/x?verbose=1"])
async def test_an_unknown_query_parameter_is_a_400_that_names_it(registry: RunRegistry, path: str) -> None:
    async with registry() as http:
        assert path.split("?")[1].split("=")[0] in problem(await http.get(path), 400, "unknown_parameter")["detail"]
        problem(await http.delete("/agents/x?instnace_id=y"), 400, "unknown_parameter")


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"endpoint": "nowhere"}, "endpoint", "must be an absolute http or https URL, like http://host:8000"),
        ({"tools": ["a", 5]}, "tools.1", "must be a name or an object with a name"),
        ({"tools": [{"description": "x"}]}, "tools.0.name", "is required"),
        ({"version": None}, "version", "Input should be a valid string"),
    ],
)
async def test_a_wrong_field_is_named_with_its_reason(
    registry: RunRegistry, change: dict[str, Any], field: str, reason: str
) -> None:
    async with registry() as http:
        body = problem(await http.post("/register", json=MINIMAL | change), 422, "invalid_registration")
        assert body["errors"] == [{"field": field, "reason": reason}]
        assert body["detail"] == f"{field}: {reason}"


async def test_a_prompt_is_refused_and_its_value_neither_answered_nor_logged(
    registry: RunRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with registry() as http:
        for bad in ({"system_prompt": "hush-hush"}, {"metadata": {"api_key": "hush-hush"}}):
            response = await http.post("/register", json=MINIMAL | bad)
            problem(response, 422, "forbidden_field")
            assert "hush-hush" not in response.text
        assert (await http.get("/agents")).json() == []
    assert "hush-hush" not in caplog.text


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000])
async def test_a_body_that_is_no_json_object_is_refused_and_nothing_breaks(registry: RunRegistry, body: bytes) -> None:
    async with registry() as http:
        response = await http.post("/register", content=body, headers={"content-type": "application/json"})
        assert response.status_code in {400, 422}
        problem(response, response.status_code, response.json()["code"])
        assert (await http.post("/register", json=MINIMAL)).status_code == 201


async def test_a_form_from_any_web_page_cannot_register(registry: RunRegistry) -> None:
    # A browser sends text/plain to other origins without asking first; JSON it does not.
    async with registry() as http:
        text = json.dumps(MINIMAL)
        response = await http.post("/register", content=text, headers={"content-type": "text/plain"})
        assert "application/json" in problem(response, 422, "invalid_registration")["hint"]


@pytest.mark.parametrize("size", [257 * 1024, 3 * 1024 * 1024])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_256_kib_is_a_413(registry: RunRegistry, size: int, chunked: bool) -> None:
    async def pieces() -> Any:
        for _ in range(size // 1024):
            yield b"x" * 1024

    async with registry() as http:
        content = pieces() if chunked else b"x" * size
        response = await http.post("/register", content=content, headers={"content-type": "application/json"})
        problem(response, 413, "body_too_large")


async def test_a_body_just_under_the_limit_is_taken(registry: RunRegistry) -> None:
    async with registry() as http:
        tools = [{"name": f"t{i}", "description": "x" * 450} for i in range(512)]
        body = MINIMAL | {"tools": tools}
        assert 200 * 1024 < len(json.dumps(body)) < 256 * 1024
        assert (await http.post("/register", json=body)).status_code == 201
        assert (await http.get("/agents/customer-service")).json()["tools"][511]["name"] == "t511"


async def test_the_list_has_a_weak_tag_and_answers_304_to_it(registry: RunRegistry) -> None:
    async with registry() as http:
        await http.post("/register", json=MINIMAL)
        first = await http.get("/agents")
        assert first.headers["etag"].startswith('W/"')
        assert first.headers["x-registry-revision"] == "1"
        same = await http.get("/agents", headers={"if-none-match": f'"other", {first.headers["etag"]}'})
        assert (same.status_code, same.content) == (304, b"")
        await http.post("/register", json=MINIMAL | {"version": "2"})
        changed = await http.get("/agents", headers={"if-none-match": first.headers["etag"]})
        assert (changed.status_code, changed.headers["x-registry-revision"]) == (200, "2")


async def test_every_record_says_why_and_what_comes_next(registry: RunRegistry, clock: Clock) -> None:
    async with registry(clock=clock) as http:
        await http.post("/register", json=MINIMAL | {"ttl_seconds": 30})
        states: list[tuple[str, str | None]] = []
        for seconds in (0, 30, 60):
            clock.turn(seconds)
            agent = await eventually(lambda: _turned(http, len(states)))
            assert agent["status_reason"]
            assert agent["last_seen"] == "2026-03-01T12:00:00.000Z"
            states.append((agent["status"], agent["next_transition_at"]))
        assert states == [
            ("up", "2026-03-01T12:00:30.000Z"),
            ("stale", "2026-03-01T12:01:30.000Z"),
            ("down", "2026-03-01T12:11:30.000Z"),
        ]
        clock.turn(600)
        await eventually(lambda: _instances(http, 0))


async def _turned(http: httpx.AsyncClient, step: int) -> dict[str, Any] | None:
    (agent,) = (await http.get("/agents")).json()
    return agent if agent["status"] == ["up", "stale", "down"][step] else None


async def _instances(http: httpx.AsyncClient, count: int) -> bool:
    return (await http.get("/health")).json()["instances"] == count


async def test_a_restart_keeps_the_table(registry: RunRegistry, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    async with registry(database_url=url) as http:
        await http.post("/register", json=MINIMAL | {"tags": ["x"], "ttl_seconds": 30})
        before = (await http.get("/agents")).json()
    async with registry(database_url=url) as http:
        after = (await http.get("/agents")).json()
        assert [agent["tags"] for agent in after] == [["x"]]
        assert after[0]["instances"][0]["revision"] == before[0]["instances"][0]["revision"]
        assert (await http.post("/register", json=MINIMAL | {"name": "b"})).json()["revision"] == 2


async def test_a_locked_database_is_503_with_retry_after_and_recovers_by_itself(
    registry: RunRegistry, tmp_path: Path
) -> None:
    path = tmp_path / "registry.db"
    async with registry(database_url=f"sqlite:///{path}") as http:
        await http.post("/register", json=MINIMAL)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            refused = await http.post("/register", json=MINIMAL | {"name": "b"})
            assert "locked" in problem(refused, 503, "store_unavailable")["detail"]
            assert int(refused.headers["retry-after"]) > 0
            assert "locked" in problem(await http.get("/readyz"), 503, "store_unavailable")["detail"]
            assert (await http.get("/livez")).status_code == 200
            health = (await http.get("/health")).json()
            assert (health["status"], health["checks"][0]["ok"]) == ("degraded", False)
            assert (await http.post("/register", json=MINIMAL)).status_code == 200  # a heartbeat writes nothing
            assert [agent["name"] for agent in (await http.get("/agents")).json()] == ["customer-service"]
            assert (await http.delete("/agents/customer-service")).status_code == 503
            other.execute("ROLLBACK")
        assert (await http.post("/register", json=MINIMAL | {"name": "b"})).status_code == 201
        assert (await http.get("/readyz")).status_code == 200


async def test_a_database_file_that_is_deleted_comes_back_with_everything_acknowledged(
    registry: RunRegistry, tmp_path: Path
) -> None:
    path = tmp_path / "registry.db"
    url = f"sqlite:///{path}"
    async with registry(database_url=url) as http:
        await http.post("/register", json=MINIMAL)
        path.unlink()
        problem(await http.post("/register", json=MINIMAL | {"name": "b"}), 503, "store_unavailable")

        async def ready() -> bool:
            return (await http.get("/readyz")).status_code == 200

        await eventually(ready)
    async with registry(database_url=url) as http:
        assert [agent["name"] for agent in (await http.get("/agents")).json()] == ["customer-service"]


async def test_a_database_that_cannot_be_opened_at_start_is_503_everywhere_until_it_can(
    registry: RunRegistry, tmp_path: Path
) -> None:
    path = tmp_path / "registry.db"
    path.write_bytes(b"no database at all" * 100)
    async with registry(database_url=f"sqlite:///{path}") as http:
        for answer in (
            await http.get("/agents"),
            await http.get("/agents/x"),
            await http.post("/register", json=MINIMAL),
            await http.delete("/agents/x"),
            await http.get("/readyz"),
        ):
            assert "not a database" in problem(answer, 503, "store_unavailable")["detail"]
        path.unlink()

        async def ready() -> bool:
            return (await http.get("/readyz")).status_code == 200

        await eventually(ready)
        assert (await http.get("/agents")).json() == []


async def test_wrong_paths_and_methods_are_problems_too(registry: RunRegistry) -> None:
    async with registry() as http:
        problem(await http.get("/nope"), 404, "not_found")
        problem(await http.put("/agents"), 405, "method_not_allowed")


async def test_another_origin_may_read_only_where_the_settings_say_so(registry: RunRegistry) -> None:
    origin = {"origin": "https://portal.example"}
    async with registry() as http:
        assert "access-control-allow-origin" not in (await http.get("/agents", headers=origin)).headers
    async with registry(cors_origins=("https://portal.example",)) as http:
        headers = (await http.get("/agents", headers=origin)).headers
        assert headers["access-control-allow-origin"] == "https://portal.example"
        assert "ETag" in headers["access-control-expose-headers"]


async def test_the_description_at_docs_is_true(registry: RunRegistry) -> None:
    async with registry() as http:
        assert (await http.get("/docs")).status_code == 200
        schema = (await http.get("/openapi.json")).json()
        register = schema["paths"]["/register"]["post"]
        assert set(register["responses"]) == {"200", "201", "400", "401", "403", "409", "413", "422", "503"}
        wanted = schema["components"]["schemas"]["Registration"]["required"]
        assert wanted == ["name", "endpoint", "agent_type", "tools", "version"]
        assert list(register["responses"]["422"]["content"]) == ["application/problem+json"]
        assert "HTTPValidationError" not in json.dumps(schema)
        assert {"type", "code", "detail"} <= schema["components"]["schemas"]["Problem"]["properties"].keys()


async def test_a_hundred_registrations_at_once_are_all_kept(registry: RunRegistry, tmp_path: Path) -> None:
    async with registry(database_url=f"sqlite:///{tmp_path / 'registry.db'}") as http:
        names = [f"agent-{number:03}" for number in range(100)]
        answers = await asyncio.gather(*(http.post("/register", json=MINIMAL | {"name": name}) for name in names))
        assert {answer.status_code for answer in answers} == {201}
        assert sorted(answer.json()["revision"] for answer in answers) == list(range(1, 101))
        assert [agent["name"] for agent in (await http.get("/agents")).json()] == names


async def test_the_portal_page_is_served_with_a_strict_policy_and_asks_no_other_host(registry: RunRegistry) -> None:
    async with registry() as http:
        size = 0
        for path in ["/", *(f"/portal/{part}" for part in portal.PARTS)]:
            response = await http.get(path)
            assert response.status_code == 200
            kind = path.rpartition(".")[2] if "." in path else "html"
            assert response.headers["content-type"].split(";")[0] == portal.MEDIA_TYPES[kind]
            policy = response.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "innerHTML" not in response.text
            size += response.num_bytes_downloaded
            plain = await http.get(path, headers={"accept-encoding": "identity"})
            assert ("content-encoding" not in plain.headers, plain.text) == (True, response.text)
        assert size < 60 * 1024
        problem(await http.get("/portal/__init__.py"), 404, "not_found")
