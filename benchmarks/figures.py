"""Figures of one round beside each other, and what they come to over all rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is done: `amount` scales every count, so that a smoke run ends within seconds."""

    rounds: int = 5
    amount: float = 1.0
    peers: Sequence[str] = ()

    def count(self, number: int, *, least: int = 1) -> int:
        return max(least, int(number * self.amount))


@dataclass(slots=True)
class Row:
    """One line of the table: a quantity, measured of several contenders in every round.

    `bound` is what our ratio to the reference may be at most, or must be at least; none where it is only told.
    """

    name: str
    title: str
    unit: str
    ours: str
    reference: str
    better: Literal["less", "more"]
    bound: float | None = None
    rounds: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    note: str = ""

    def add(self, figures: Mapping[str, float]) -> None:
        """The figures of one round, by contender."""
        self.rounds.append(dict(figures))

    def contenders(self) -> list[str]:
        return list(self.rounds[0])

    def value(self, contender: str) -> float:
        """The median over the rounds."""
        return median(figures[contender] for figures in self.rounds)

    def ratios(self, contender: str) -> list[float]:
        """To the reference of the same round: what else the machine did then was the same for both."""
        return [figures[contender] / figures[self.reference] for figures in self.rounds if figures[self.reference]]

    def best_peer(self) -> str | None:
        """Who is nearest to us of those who are neither we nor the reference."""
        others = [name for name in self.contenders() if name not in {self.ours, self.reference}]
        pick = min if self.better == "less" else max
        return pick(others, key=self.value) if others else None

    @property
    def holds(self) -> bool | None:
        """Whether our ratio keeps its bound; nothing where there is none."""
        if self.bound is None:
            return None
        ratio = median(self.ratios(self.ours))
        return ratio <= self.bound if self.better == "less" else ratio >= self.bound

    def to_json(self) -> dict[str, Any]:
        """Everything, for a file."""
        told = {
            name: {
                "median": self.value(name),
                "ratio": median(self.ratios(name)),
                "ratios": [min(self.ratios(name)), max(self.ratios(name))],
            }
            for name in self.contenders()
        }
        return {
            "name": self.name,
            "title": self.title,
            "unit": self.unit,
            "ours": self.ours,
            "reference": self.reference,
            "better": self.better,
            "bound": self.bound,
            "holds": self.holds,
            "best_peer": self.best_peer(),
            "rounds": len(self.rounds),
            "note": self.note,
            "contenders": told,
        }
