"""What a change of tools means for those who call them."""

from typing import Any

import pytest

from discovery.contract import ToolInfo
from discovery.registry.contract_diff import contract_diff


def tool(name: str = "find", *, required: list[str] | None = None, about: str = "Finds", **properties: Any) -> ToolInfo:
    schema = {"type": "object", "properties": properties, "required": required or []}
    return ToolInfo(name=name, description=about, input_schema=schema)


TEXT, NUMBER = {"type": "string"}, {"type": "integer"}


def test_the_same_tools_in_another_order_are_no_change() -> None:
    assert contract_diff(["a", tool()], [tool(), "a"]) is None


def test_a_tool_that_came_breaks_nobody_and_one_that_went_does() -> None:
    diff = contract_diff(["a", "b"], ["b", "c"])
    assert diff is not None
    assert (diff.added, diff.removed, diff.changed, diff.breaking) == (["c"], ["a"], [], True)
    came = contract_diff(["a"], ["a", "b"])
    assert came is not None
    assert not came.breaking


@pytest.mark.parametrize(
    ("before", "after", "breaking", "said"),
    [
        (tool(q=TEXT), tool(q=TEXT, n=NUMBER), False, "argument n was added"),
        (tool(q=TEXT), tool(q=TEXT, n=NUMBER, required=["n"]), True, "argument n was added and is required"),
        (tool(q=TEXT), tool(q=TEXT, required=["q"]), True, "argument q is required now"),
        (tool(q=TEXT, required=["q"]), tool(q=TEXT), False, "argument q is optional now"),
        (tool(q=TEXT), tool(), True, "argument q was removed"),
        (tool(q=TEXT), tool(q=NUMBER), True, "argument q is integer now, it was string"),
        (tool(q=TEXT), tool(q={"type": ["string", "null"]}), False, "argument q is null or string now, it was string"),
        (tool(q={"type": ["string", "null"]}), tool(q=TEXT), True, "argument q is string now, it was null or string"),
        (tool(q=TEXT), tool(q={}), False, "argument q is anything now, it was string"),
        (tool(q={"enum": ["a", "b"]}), tool(q={"enum": ["a"]}), True, "argument q takes other values now"),
        (tool(q={"enum": ["a"]}), tool(q={"enum": ["a", "b"]}), False, "argument q takes other values now"),
        (tool(q=TEXT), tool(q=TEXT | {"enum": ["a"]}), True, "argument q takes other values now"),
        (tool(q=TEXT | {"enum": ["a"]}), tool(q=TEXT), False, "argument q takes other values now"),
        (tool(q=TEXT), tool(q=TEXT | {"maxLength": 3}), True, "argument q has another form now"),
        (tool(q=TEXT), tool(q=TEXT | {"description": "words"}), False, "argument q is described differently"),
        (tool(q=True), tool(q=TEXT), True, "argument q changed"),
        (tool(), tool(about="Looks"), False, "its description changed"),
        (ToolInfo(name="find"), tool(about="Finds"), False, "its arguments are described now"),
        (tool(), ToolInfo(name="find", description="Finds"), False, "its arguments are no longer described"),
    ],
)
def test_a_tool_that_changed_is_told_in_sentences(before: ToolInfo, after: ToolInfo, breaking: bool, said: str) -> None:
    diff = contract_diff([before], [after])
    assert diff is not None
    (changed,) = diff.changed
    assert said in changed.what
    assert (changed.breaking, diff.breaking) == (breaking, breaking)


def test_schemas_that_are_odd_are_compared_all_the_same() -> None:
    for odd in ({"properties": []}, {"required": "q"}, {"type": 5}, {"properties": {"q": None}}):
        diff = contract_diff([tool(q=TEXT)], [ToolInfo(name="find", description="Finds", input_schema=odd)])
        assert diff is not None
