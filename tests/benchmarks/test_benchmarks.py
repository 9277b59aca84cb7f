"""That the benchmarks work; how fast anything is is not for a test to say."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import growth, plots, report
from benchmarks.figures import Row
from benchmarks.run import MEASURES, SMOKE, measured


@pytest.mark.parametrize("name", MEASURES)
async def test_a_bounded_run_of_every_benchmark_gives_figures_of_us_and_the_reference(name: str) -> None:
    rows = await measured(name, SMOKE)
    assert rows
    for row in rows:
        assert {row.ours, row.reference} <= set(row.contenders())
        assert all(figure >= 0 for figures in row.rounds for figure in figures.values()), row.name


def row(better: Any, bound: float | None, *rounds: dict[str, float]) -> Row:
    made = Row("speed", "Speed", "ms", "us", "them", better, bound)
    for figures in rounds:
        made.add(figures)
    return made


def test_a_ratio_is_taken_within_each_round_and_its_median_is_held_against_the_bound() -> None:
    rounds = [{"us": 1.0, "them": 4.0}, {"us": 30.0, "them": 100.0}, {"us": 2.0, "them": 2.0}]
    assert row("less", 0.3, *rounds).ratios("us") == [0.25, 0.3, 1.0]
    assert row("less", 0.3, *rounds).holds
    assert not row("less", 0.29, *rounds).holds
    assert not row("more", 0.31, *rounds).holds
    assert row("less", None, *rounds).holds is None


def test_the_best_peer_is_neither_we_nor_the_reference() -> None:
    figures = {"us": 1.0, "them": 2.0, "slow": 9.0, "quick": 3.0}
    assert row("less", None, figures).best_peer() == "quick"
    assert row("more", None, figures).best_peer() == "slow"
    assert row("less", None, {"us": 1.0, "them": 2.0}).best_peer() is None


def test_the_page_holds_every_file_of_results(tmp_path: Path) -> None:
    told = [row("less", 0.5, {"us": 1.0, "them": 4.0, "peer": 8.0}).to_json()]
    for name in ("second", "first", "unlisted"):
        report.keep(tmp_path / f"{name}.json", rows=told)
    report.write_page(tmp_path / "page.md", tmp_path, ["first", "second"])
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert page.index("## First") < page.index("## Second") < page.index("## Unlisted")
    assert "| Speed | 1.00 ms | them 4.00 ms | 0.25 × (0.25–0.25) | ≤ 0.5 × | ✓ | peer | 2.00 × |" in page


async def test_a_picture_of_growth_is_an_svg_with_every_panel_and_point() -> None:
    panels = await growth.measured(amount=0.01)
    assert [panel["title"] for panel in panels] == list(growth.PANELS)
    picture = ElementTree.fromstring(plots.drawn("Growth", panels))
    said = [element.text for element in picture.iter() if element.text]
    for panel in panels:
        [(count, value)] = panel["points"]
        assert panel["title"] in said
        assert f"{count:,}: {value:.2f} ms" in said
