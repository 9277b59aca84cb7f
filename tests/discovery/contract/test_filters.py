"""`GET /agents` with a query: which agents, how many at a time, and what a wrong query is told."""

from typing import Any, get_args

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.api.paging import MAX_PAGE, ListQuery, Shown, page_of
from discovery.contract import AgentRecord, Filters, Registration
from discovery.registry.leases import Record, Status
from discovery.registry.listing import Listing, Prepared
from discovery.registry.table import Table
from tests.discovery.api.test_agents import problem
from tests.discovery.conftest import MINIMAL, Clock, RunRegistry, eventually

FLEET: list[dict[str, Any]] = [
    {"name": "billing", "agent_type": "react", "tools": ["invoice", "refund"], "tags": ["money", "eu"], "owner": "Ada"},
    {"name": "customer-service", "tags": ["eu"], "owner": "Ben", "description": "Answers about ORDERS and refunds"},
    {"name": "mail", "agent_type": "mcp_server", "tools": [{"name": "send", "description": "Post a letter"}]},
    {"name": "zürich", "tags": ["money"], "owner": "Ada", "ttl_seconds": 30, "status": "degraded"},
]


async def put(http: httpx.AsyncClient, *agents: dict[str, Any]) -> None:
    for agent in agents:
        assert (await http.post("/register", json=MINIMAL | agent)).status_code == 201


async def names(http: httpx.AsyncClient, query: str) -> list[str]:
    response = await http.get(f"/agents?{query}")
    assert response.status_code == 200, response.text
    return [agent["name"] for agent in response.json()]


@pytest.mark.parametrize(
    ("query", "chosen"),
    [
        ("status=degraded", ["zürich"]),
        ("status=degraded&status=registered", ["billing", "customer-service", "mail", "zürich"]),
        ("status=down", []),
        ("type=react&type=mcp_server", ["billing", "mail"]),
        ("tool=refund", ["billing"]),
        ("tool=send", ["mail"]),
        ("tool=sen", []),
        ("tag=money", ["billing", "zürich"]),
        ("tag=money&tag=eu", ["billing", "customer-service", "zürich"]),
        ("tag=money&owner=Ada&status=registered", ["billing"]),
        ("owner=ada", []),
        ("q=REFUND", ["billing", "customer-service"]),
        ("q=refund+orders", ["customer-service"]),
        ("q=answers&q=letter", ["customer-service", "mail"]),
        ("q=ada", ["billing", "zürich"]),
        ("q=Z%C3%9CRICH", ["zürich"]),
        ("q=zu%CC%88rich", ["zürich"]),
        ("q=nothing", []),
    ],
)
async def test_values_of_one_filter_are_alternatives_and_all_filters_must_hold(
    registry: RunRegistry, query: str, chosen: list[str]
) -> None:
    async with registry() as http:
        await put(http, *FLEET)
        assert await names(http, query) == chosen


async def test_an_agent_that_falls_silent_moves_to_the_filter_of_its_new_status(
    registry: RunRegistry, clock: Clock
) -> None:
    async with registry(clock=clock) as http:
        await put(http, *FLEET)
        clock.turn(31)

        async def is_stale() -> bool:
            return await names(http, "status=stale") == ["zürich"]

        await eventually(is_stale)
        assert await names(http, "status=degraded") == []


@pytest.mark.parametrize(
    ("query", "parameter", "reason"),
    [
        ("status=upp", "status", "'up', 'degraded'"),
        ("status=up&status=", "status", "'up', 'degraded'"),
        ("status=removed", "status", "'up', 'degraded'"),
        ("tag=", "tag", "must not be blank"),
        ("q=+", "q", "must not be blank"),
        ("owner=" + "x" * 257, "owner", "at most 256"),
        ("&".join(["tag=x"] * 65), "tag", "at most 64"),
        ("limit=0", "limit", "greater than or equal to 1"),
        ("limit=1001", "limit", "less than or equal to 1000"),
        ("limit=ten", "limit", "integer"),
        ("limit=", "limit", "integer"),
        ("cursor=abc", "cursor", "is not a cursor of this registry"),
        ("cursor=", "cursor", "is not a cursor of this registry"),
        ("cursor=%C3%A4", "cursor", "is not a cursor of this registry"),
        ("cursor=_w", "cursor", "is not a cursor of this registry"),
    ],
)
async def test_a_wrong_value_is_a_400_that_names_the_parameter(
    registry: RunRegistry, query: str, parameter: str, reason: str
) -> None:
    async with registry() as http:
        body = problem(await http.get(f"/agents?{query}"), 400, "invalid_parameter")
        assert {error["field"] for error in body["errors"]} == {parameter}
        assert body["detail"].startswith(f"{parameter}: ")
        assert reason in body["detail"]


async def test_a_misspelt_parameter_is_named_also_beside_good_and_wrong_ones(registry: RunRegistry) -> None:
    async with registry() as http:
        body = problem(await http.get("/agents?tags=x&status=upp&limit=0"), 400, "unknown_parameter")
        assert body["detail"] == "Unknown query parameter: tags."
        assert body["hint"] == "Known here: status, type, tool, tag, owner, q, limit, cursor."


async def test_the_link_of_a_page_leads_through_the_whole_filtered_list(registry: RunRegistry) -> None:
    async with registry() as http:
        await put(http, *FLEET, *({"name": f"a&{number}", "tags": ["ü&="]} for number in range(5)))
        for query in ("tag=ü%26%3D&tag=money&", ""):
            whole = (await http.get(f"/agents?{query}".rstrip("?"))).json()
            pages: list[list[dict[str, Any]]] = []
            url: str | None = f"/agents?{query}limit=2"
            while url:
                response = await http.get(url)
                pages.append(response.json())
                url = response.links.get("next", {}).get("url")
            assert [len(page) for page in pages[:-1]] == [2] * (len(pages) - 1)
            assert [agent["name"] for page in pages for agent in page] == [agent["name"] for agent in whole]


async def test_agents_that_come_and_go_between_two_pages_shift_nothing(registry: RunRegistry) -> None:
    async with registry() as http:
        await put(http, *({"name": name} for name in "bdfh"))
        first = await http.get("/agents?limit=2")
        assert [agent["name"] for agent in first.json()] == ["b", "d"]
        await put(http, {"name": "a"}, {"name": "g"})
        await http.delete("/agents/d")
        rest = await http.get(first.links["next"]["url"])
        assert [agent["name"] for agent in rest.json()] == ["f", "g"]


async def test_a_filtered_list_is_304_until_something_in_it_changes(registry: RunRegistry) -> None:
    async with registry() as http:
        await put(http, *FLEET)
        first = await http.get("/agents?tag=eu&limit=1")
        known = {"if-none-match": first.headers["etag"]}
        again = await http.get("/agents?tag=eu&limit=1", headers=known)
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
        assert again.links == first.links
        assert (await http.get("/agents?tag=eu", headers=known)).status_code == 200
        await http.post("/register", json=MINIMAL | FLEET[2] | {"version": "2"})
        assert (await http.get("/agents?tag=eu&limit=1", headers=known)).status_code == 304
        await http.post("/register", json=MINIMAL | FLEET[0] | {"version": "2"})
        changed = await http.get("/agents?tag=eu&limit=1", headers=known)
        assert (changed.status_code, changed.headers["x-registry-revision"]) == (200, "6")


async def test_a_page_that_stops_being_the_last_one_is_not_304(registry: RunRegistry) -> None:
    async with registry() as http:
        await put(http, {"name": "a"})
        first = await http.get("/agents?limit=1")
        await put(http, {"name": "b"})
        second = await http.get("/agents?limit=1", headers={"if-none-match": first.headers["etag"]})
        assert (second.status_code, second.json()) == (200, first.json())
        assert "next" in second.links


async def test_the_description_at_docs_has_every_parameter(registry: RunRegistry) -> None:
    async with registry() as http:
        operation = (await http.get("/openapi.json")).json()["paths"]["/agents"]["get"]
    described = {parameter["name"]: parameter for parameter in operation["parameters"]}
    assert list(described) == ["status", "type", "tool", "tag", "owner", "q", "limit", "cursor"]
    assert all(one["in"] == "query" and not one["required"] and one["description"] for one in described.values())
    assert described["status"]["schema"]["items"]["enum"] == list(get_args(Shown))
    assert described["limit"]["schema"]["anyOf"][0] == {"type": "integer", "minimum": 1, "maximum": MAX_PAGE}
    assert {"200", "304", "400", "503"} <= operation["responses"].keys()
    assert "422" not in operation["responses"]


def test_every_status_that_the_list_can_show_can_be_asked_for() -> None:
    assert {*get_args(Shown), "removed"} == set(get_args(Status))


# ---- as properties, without a wire ----

WORDS = ["a", "B", "ß", "ü", "a b"]
some = st.lists(st.sampled_from(WORDS), max_size=3, unique=True)


@st.composite
def listings(draw: st.DrawFn) -> Prepared:
    """A whole list as the registry prepares it."""
    now = Clock().now
    records: list[Record] = []
    for name in draw(st.lists(st.text("abzAÜ% .&", min_size=1, max_size=4), max_size=12, unique=True)):
        said: dict[str, Any] = {
            "name": f"x{name}",
            "tags": draw(some),
            "tools": draw(some),
            "owner": draw(st.none() | st.sampled_from(WORDS)),
            "agent_type": draw(st.sampled_from(WORDS)),
            "ttl_seconds": draw(st.none() | st.just(30)),
        }
        status: Status = "registered" if said["ttl_seconds"] is None else "up"
        records.append(Record(Registration(**MINIMAL | said), 1, now, now, now, status, "because", now))
    return Listing().prepared(Table(records, 1, "f00"), now)


queries = st.fixed_dictionaries(
    {},
    optional={
        "status": st.lists(st.sampled_from(["up", "registered", "down"]), max_size=2),
        "type": some,
        "tool": some,
        "tag": some,
        "owner": some,
    },
)


def read(body: bytes) -> list[str]:
    return [agent["name"] for agent in httpx.Response(200, content=body).json()]


@given(listings(), queries, st.integers(1, 5))
def test_pages_joined_are_the_whole_filtered_list(listing: Prepared, asked: dict[str, list[str]], limit: int) -> None:
    whole = read(page_of(listing, ListQuery(**asked)).body)
    query: ListQuery | None = ListQuery(**asked, limit=limit)
    joined: list[str] = []
    while query is not None:
        page = page_of(listing, query)
        names_of_page = read(page.body)
        assert len(names_of_page) == limit or page.following is None
        joined += names_of_page
        query = None if page.following is None else ListQuery.model_validate(parsed(page.following))
    assert joined == whole


def parsed(query: str) -> dict[str, Any]:
    """A query string as the route would read it."""
    params = httpx.QueryParams(query)
    return {name: params[name] if name in {"limit", "cursor"} else params.get_list(name) for name in params}


@given(listings(), queries)
def test_a_list_chosen_is_what_each_filter_alone_would_keep_in_the_same_order(
    listing: Prepared, asked: dict[str, list[str]]
) -> None:
    kept: list[AgentRecord] = list(listing.agents)
    for name, values in asked.items():
        alone = Filters(**{name: tuple(values)}).apply(listing.agents)
        kept = [agent for agent in kept if agent in alone]
    assert Filters(**{name: tuple(values) for name, values in asked.items()}).apply(listing.agents) == kept
