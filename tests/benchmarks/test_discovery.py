"""That the benchmarks of discovery work; how fast anything is is not for a test to say."""

import importlib
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import discovery_growth, plots
from benchmarks.figures import Scale

SMOKE = Scale(rounds=1, amount=0.02)
MEASURES = ("discovery_lists", "discovery_registrations", "discovery_events")


@pytest.mark.parametrize("name", MEASURES)
async def test_a_bounded_run_gives_figures_of_us_and_of_the_reference(name: str) -> None:
    measure: Any = importlib.import_module(f"benchmarks.measures.{name}").measure
    rows = await measure(SMOKE)
    assert rows
    for row in rows:
        assert {row.ours, row.reference} <= set(row.contenders())
        assert all(figure >= 0 for figures in row.rounds for figure in figures.values()), row.name


async def test_a_picture_of_growth_has_a_panel_for_each_call_and_one_for_readers() -> None:
    panels = await discovery_growth.measured(amount=0.01)
    assert len(panels) == len(discovery_growth.OF_AGENTS) + 1
    picture = ElementTree.fromstring(plots.drawn("Growth", panels))
    said = {element.text for element in picture.iter() if element.text}
    for panel in panels:
        assert panel["title"] in said
        assert len(panel["points"]) == 1
