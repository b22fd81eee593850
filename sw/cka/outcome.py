"""What a study hands to the report: text, numbers, tables, figures, and directions that it tested."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MARGIN = 0.01
"""A difference of CKA that is smaller in any seed decides nothing."""
CONFIRMED, OPPOSITE, NOT_SEEN = "confirmed", "opposite", "not seen"


@dataclass
class Table:
    caption: str
    header: list[str]
    rows: list[list[str]]


@dataclass
class Figure:
    """`draw` fills one pair of axes; `name` becomes a file name."""

    name: str
    caption: str
    draw: Callable[[Any], None]


@dataclass
class Direction:
    """A direction of the seed paper: `differences`, one a seed, are above 0 where the data here point that way."""

    name: str
    measured: str
    differences: list[float]

    @property
    def verdict(self) -> str:
        """Confirmed or opposite only if every seed says so by more than MARGIN."""
        if all(d > MARGIN for d in self.differences):
            return CONFIRMED
        return OPPOSITE if all(d < -MARGIN for d in self.differences) else NOT_SEEN


@dataclass
class Outcome:
    title: str
    text: list[str]
    numbers: dict[str, Any]
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    directions: list[Direction] = field(default_factory=list)


def plus_minus(values: Sequence[float], digits: int = 3, scale: float = 1.0) -> str:
    """Mean and standard deviation over seeds; the mean alone of one seed; a dash where there is nothing."""
    v = np.asarray([x for x in values if not np.isnan(x)]) * scale
    if not len(v):
        return "–"
    spread = f" ± {v.std(ddof=1):.{digits}f}" if len(v) > 1 else ""
    return f"{v.mean():.{digits}f}{spread}"
