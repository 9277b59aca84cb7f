import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from agent_runtime import ToolError
from agent_runtime.tools import FunctionTool, import_function, tool_for


class Order(BaseModel):
    id: int
    placed_on: date
    note: str | None = None


@dataclass
class Total:
    pounds: Decimal


def parameters(function: Callable[..., Any]) -> Any:
    return FunctionTool(function).spec.parameters


async def result(value: Any) -> str:
    def give() -> Any:
        return value

    return await FunctionTool(give).call({})


# --- what the model is told


def test_the_name_and_the_docstring_without_its_sections_describe_the_tool() -> None:
    def search_orders(text: str) -> str:
        """Find orders.

        Newest first.

        Args:
            text: a word
        """
        return text

    spec = FunctionTool(search_orders).spec
    assert (spec.name, spec.description) == ("search_orders", "Find orders.\n\nNewest first.")


def test_a_function_without_a_docstring_is_described_by_its_name() -> None:
    def top_customers() -> str:
        return ""

    spec = FunctionTool(top_customers).spec
    assert spec.description == "top customers"
    assert spec.parameters == {"type": "object", "properties": {}, "additionalProperties": False}


def test_types_and_defaults_make_the_schema() -> None:
    def search(text: str, limit: int = 10, exact: bool = False, above: float | None = None) -> None: ...

    schema = parameters(search)
    assert schema["required"] == ["text"]
    assert schema["additionalProperties"] is False
    assert schema["properties"] == {
        "text": {"type": "string"},
        "limit": {"type": "integer", "default": 10},
        "exact": {"type": "boolean", "default": False},
        "above": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": None},
    }


def test_a_literal_is_an_enum_and_a_container_says_what_it_holds() -> None:
    def search(status: Literal["open", "closed"], tags: list[str], prices: dict[str, float]) -> None: ...

    assert parameters(search)["properties"] == {
        "status": {"type": "string", "enum": ["open", "closed"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "prices": {"type": "object", "additionalProperties": {"type": "number"}},
    }


def test_descriptions_come_from_annotated_or_the_docstring() -> None:
    def search(
        above: Annotated[float, "in pounds"], limit: Annotated[int, Field(le=50)], period: str, status: str
    ) -> None:
        """Search.

        Args:
            above: ignored, as the annotation is nearer
            period (str): when the order was placed,
                in words
            status: where it stands

        Returns:
            nothing
        """

    properties = parameters(search)["properties"]
    assert properties["above"]["description"] == "in pounds"
    assert properties["limit"] == {"type": "integer", "maximum": 50}
    assert properties["period"]["description"] == "when the order was placed, in words"
    assert properties["status"]["description"] == "where it stands"


@pytest.mark.parametrize(
    "docstring",
    [
        "Search.\n\nParameters\n----------\ntext : str\n    a word\nlimit : int, optional\n    how many\n",
        "Search.\n\n:param text: a word\n:param int limit: how many\n:returns: nothing\n",
        "Search.\n\n@param text: a word\n@param limit: how many\n",
        "Search.\n\nArgs:\n    text: a word\n\n    limit (int, optional): how many\n",
    ],
    ids=["numpydoc", "reST", "epydoc", "google"],
)
def test_every_common_docstring_style_describes_the_parameters(docstring: str) -> None:
    def search(text: str, limit: int = 3) -> None: ...

    search.__doc__ = docstring
    spec = FunctionTool(search).spec
    properties: Any = spec.parameters["properties"]
    assert spec.description == "Search."
    assert [properties[name]["description"] for name in ("text", "limit")] == ["a word", "how many"]


def test_a_docstring_that_cannot_be_parsed_is_the_description() -> None:
    def search(text: str) -> None: ...

    search.__doc__ = "Search: by word.\n\nUse it when: the user asks.\n"
    assert FunctionTool(search).spec.description == "Search: by word.\n\nUse it when: the user asks."


def test_a_pydantic_model_is_an_object_of_the_schema() -> None:
    def save(order: Order) -> None: ...

    schema = parameters(save)
    order = schema["$defs"]["Order"]
    assert schema["properties"] == {"order": {"$ref": "#/$defs/Order"}}
    assert order["required"] == ["id", "placed_on"]
    assert order["properties"]["placed_on"] == {"type": "string", "format": "date"}


def test_no_title_repeats_a_name_but_a_parameter_may_be_called_title() -> None:
    def save(title: str, order: Order) -> None: ...

    schema = parameters(save)
    assert schema["properties"]["title"] == {"type": "string"}
    assert '"title": "' not in json.dumps(schema)


async def test_a_parameter_may_be_called_like_a_method_of_pydantic() -> None:
    def save(copy: str, schema: int, model_name: str, _hidden: int = 3) -> str:
        return f"{copy} {schema} {model_name} {_hidden}"

    assert list(parameters(save)["properties"]) == ["copy", "schema", "model_name", "_hidden"]
    assert await FunctionTool(save).call({"copy": "a", "schema": 1, "model_name": "b"}) == "a 1 b 3"


# --- how it is called


async def test_arguments_arrive_as_the_types_that_were_annotated() -> None:
    def save(order: Order, days: list[date], limit: int = 5) -> str:
        return f"{order.placed_on.year} {days[0].day} {limit}"

    arguments = {"order": {"id": 1, "placed_on": "2026-03-01"}, "days": ["2026-03-02"]}
    assert await FunctionTool(save).call(arguments) == "2026 2 5"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({}, "order: Field required"),
        ({"order": {"id": 1}}, "order.placed_on: Field required"),
        ({"order": {"id": "x", "placed_on": "2026-03-01"}}, "order.id: Input should be a valid integer"),
        ({"order": {"id": 1, "placed_on": "2026-03-01"}, "odrer": 1}, "odrer: Extra inputs are not permitted"),
    ],
)
async def test_arguments_that_do_not_fit_name_the_argument(arguments: dict[str, Any], complaint: str) -> None:
    def save(order: Order) -> None: ...

    with pytest.raises(ToolError) as caught:
        await FunctionTool(save).call(arguments)
    assert str(caught.value).startswith("The arguments are invalid: ")
    assert complaint in str(caught.value)


async def test_a_synchronous_function_runs_beside_the_event_loop() -> None:
    called = threading.Event()

    def wait() -> str:
        return f"{called.wait(5)} {threading.current_thread() is threading.main_thread()}"

    async with asyncio.timeout(5):
        running = asyncio.create_task(FunctionTool(wait).call({}))
        await asyncio.sleep(0)
        called.set()  # only a loop that is not blocked gets here
        assert await running == "True False"


async def test_an_asynchronous_function_is_awaited_on_the_event_loop() -> None:
    async def where() -> str:
        return str(asyncio.current_task() is not None)

    assert await FunctionTool(where).call({}) == "True"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("as it is", "as it is"),
        (None, "Done."),
        (5, "5"),
        ({"größe": [1, 2.5, None]}, '{"größe":[1,2.5,null]}'),
        (Order(id=1, placed_on=date(2026, 3, 1)), '{"id":1,"placed_on":"2026-03-01","note":null}'),
        ([Order(id=1, placed_on=date(2026, 3, 1))], '[{"id":1,"placed_on":"2026-03-01","note":null}]'),
        ([Total(Decimal("1.50"))], '[{"pounds":"1.50"}]'),
        (datetime(2026, 3, 1, 12, tzinfo=UTC), '"2026-03-01T12:00:00Z"'),
        ([float("nan")], "[null]"),
        ((Path("a"), complex(1, 2)), '["a","1+2j"]'),
    ],
)
async def test_a_result_is_written_as_json_but_a_text_stays_as_it_is(value: Any, expected: str) -> None:
    assert await result(value) == expected


# --- where it comes from


async def test_modules_of_the_same_name_in_two_folders_are_two_modules(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "orders.py").write_text(f"def search() -> str:\n    return {name!r}\n")
    first, second = (tool_for("orders:search", tmp_path / name) for name in ("a", "b"))
    assert (await first.call({}), await second.call({})) == ("a", "b")


async def test_a_module_finds_the_modules_beside_it(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_search.py").write_text("ANSWER = 'from next door'\n")
    (tmp_path / "search.py").write_text(
        "import neighbour_of_search\ndef ask():\n    return neighbour_of_search.ANSWER\n"
    )
    assert await tool_for("search:ask", tmp_path).call({}) == "from next door"


async def test_a_module_in_a_folder_is_named_with_a_dot(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "orders.py").write_text("def search() -> str:\n    return 'found'\n")
    assert await tool_for("shop.orders:search", tmp_path).call({}) == "found"


async def test_a_module_that_failed_may_be_mended_and_tried_again(tmp_path: Path) -> None:
    file = tmp_path / "orders.py"
    file.write_text("raise RuntimeError('no database')\n")
    with pytest.raises(ImportError, match="RuntimeError: no database"):
        import_function("orders:search", tmp_path)
    file.write_text("def search() -> str:\n    return 'mended, and longer than before'\n")
    assert import_function("orders:search", tmp_path)() == "mended, and longer than before"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("def f(*numbers): ...", "the parameter numbers must be a keyword parameter"),
        ("def f(x, /): ...", "the parameter x must be a keyword parameter"),
        ("def f(x: 'Nothing'): ...", "name 'Nothing' is not defined"),
        ("class T: ...\ndef f(x: T): ...", "Unable to generate pydantic-core schema"),
    ],
)
def test_a_function_that_cannot_be_a_tool_says_why(tmp_path: Path, code: str, reason: str) -> None:
    (tmp_path / "tools.py").write_text(code)
    with pytest.raises(ImportError, match=r"^f cannot be a tool: ") as caught:
        import_function("tools:f", tmp_path)
    assert reason in str(caught.value)


async def test_a_call_that_raises_is_made_again_as_often_as_the_file_says() -> None:
    made: list[int] = []

    def shaky() -> str:
        made.append(len(made))
        if len(made) < 3:
            raise ConnectionError("not yet")
        return "there"

    assert await FunctionTool(shaky, retries=2).call({}) == "there"
    assert len(made) == 3
    made.clear()
    with pytest.raises(ConnectionError):
        await FunctionTool(shaky, retries=1).call({})


async def test_what_the_model_must_mend_is_not_tried_again() -> None:
    made: list[int] = []

    def picky() -> str:
        made.append(1)
        raise ToolError("another date, please")

    with pytest.raises(ToolError):
        await FunctionTool(picky, retries=5).call({})
    assert made == [1]
