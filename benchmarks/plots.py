"""Small multiples as an SVG that is readable on light and dark ground, and as text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT, COLUMNS = 340, 200, 2
LEFT, RIGHT, TOP, BOTTOM = 48, 16, 34, 34  # around the field of a panel
_STYLE = """\
  text { font: 12px system-ui, sans-serif; fill: #57606a }
  .title { font-weight: 600; fill: #1f2328 }
  .axis { stroke: #d0d7de; stroke-width: 1 }
  .line { fill: none; stroke: #0969da; stroke-width: 2 }
  .point { fill: #0969da }
  @media (prefers-color-scheme: dark) {
    text { fill: #9198a1 } .title { fill: #f0f6fc } .axis { stroke: #3d444d }
    .line { stroke: #4493f8 } .point { fill: #4493f8 }
  }"""


def drawn(title: str, panels: Sequence[dict[str, Any]]) -> str:
    """The picture. Points stand at equal distances: their counts grow by leaps."""
    rows = -(-len(panels) // COLUMNS)
    width, height = WIDTH * COLUMNS, HEIGHT * rows + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>\n{_STYLE}\n</style>",
        f'<text class="title" x="8" y="20">{escape(title)}</text>',
    ]
    for index, panel in enumerate(panels):
        x, y = WIDTH * (index % COLUMNS), 30 + HEIGHT * (index // COLUMNS)
        parts.append(f'<g transform="translate({x} {y})">\n{_panel(panel)}\n</g>')
    return "\n".join([*parts, "</svg>\n"])


def _panel(panel: dict[str, Any]) -> str:
    points: list[tuple[float, float]] = panel["points"]
    most = _above(max(value for _, value in points))
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    step = (right - LEFT - 24) / max(1, len(points) - 1)
    places = [
        (LEFT + 12 + step * number, bottom - (bottom - TOP) * value / most) for number, (_, value) in enumerate(points)
    ]
    parts = [f'<text class="title" x="{LEFT}" y="20">{escape(panel["title"])}</text>']
    for share in (0, 0.5, 1):
        y = bottom - (bottom - TOP) * share
        parts.append(f'<line class="axis" x1="{LEFT}" y1="{y:g}" x2="{right}" y2="{y:g}"/>')
        label = f"{most * share:g}{' ' + panel['unit'] if share == 1 else ''}"
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:g}" text-anchor="end">{label}</text>')
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts.append(f'<polyline class="line" points="{line}"/>')
    for (count, value), (x, y) in zip(points, places, strict=True):
        told = f"{count:,}: {value:.2f} {panel['unit']}"
        parts.append(f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="3.5"><title>{told}</title></circle>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{count:,}</text>')
    return "\n".join(parts)


def _above(value: float) -> float:
    """The next round number."""
    size = 10.0 ** len(str(int(value))) / 10 if value >= 1 else 0.1
    return next(size * factor for factor in (1, 2, 3, 4, 5, 6, 8, 10) if size * factor >= value)
