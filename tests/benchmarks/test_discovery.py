"""That the benchmarks of discovery work; how fast anything is is not for a test to say."""

from xml.etree import ElementTree

from benchmarks import discovery_growth, plots


async def test_a_picture_of_growth_has_a_panel_for_each_call_and_one_for_readers() -> None:
    panels = await discovery_growth.measured(amount=0.01)
    assert len(panels) == len(discovery_growth.OF_AGENTS) + 1
    picture = ElementTree.fromstring(plots.drawn("Growth", panels))
    said = {element.text for element in picture.iter() if element.text}
    for panel in panels:
        assert panel["title"] in said
        assert len(panel["points"]) == 1
