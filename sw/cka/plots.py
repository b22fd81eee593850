"""One pair of axes a figure, small enough that its text can be read on a phone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas

SIZE = (4.4, 3.6)
DPI = 160


def save(draw: Callable[[Any], None], path: Path) -> None:
    """Without pyplot: no state, no window, any process."""
    canvas = Canvas(figsize=SIZE, layout="constrained")
    draw(canvas.subplots())
    canvas.savefig(path, dpi=DPI)


def heatmap(values: np.ndarray, x: str, y: str, *, low: float = 0.0, first: int = 1) -> Callable[[Any], None]:
    """CKA of rows (y) and columns (x), counted from `first`; grey where it is not defined."""

    def draw(axes: Any) -> None:
        axes.set_facecolor("0.8")
        rows, columns = values.shape
        image = axes.imshow(
            values, vmin=low, vmax=1, cmap="magma", origin="lower",
            extent=(first - 0.5, first + columns - 0.5, first - 0.5, first + rows - 0.5),
        )
        if values.size <= 100:
            for i, row in enumerate(values):
                for j, v in enumerate(row):
                    shown = "–" if np.isnan(v) else f"{v:.2f}"
                    axes.text(
                        first + j, first + i, shown, ha="center", va="center", fontsize=8, color="white" if v < 0.6 else "black"
                    )
        axes.set(xlabel=x, ylabel=y)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.figure.colorbar(image, ax=axes, label="CKA")

    return draw


def lines(
    series: Mapping[str, tuple[np.ndarray, np.ndarray]], xlabel: str, ylabel: str, *,
    x: Sequence[Any] | None = None, unit: bool = True,
) -> Callable[[Any], None]:
    """Means and standard deviations by name, at `x` or at 1, 2, ...; `unit`: the y axis ends at 1."""

    def draw(axes: Any) -> None:
        markers = "osD^vP*X<>"
        for (name, (mean, spread)), marker in zip(series.items(), markers * 3, strict=False):
            at = np.arange(1, len(mean) + 1) if x is None else np.arange(len(x)) if isinstance(x[0], str) else np.asarray(x)
            axes.errorbar(at[: len(mean)], mean, spread, marker=marker, markersize=4, capsize=2, linewidth=1.2, label=name)
        if x is not None:
            axes.set_xticks(np.arange(len(x)) if isinstance(x[0], str) else x, [str(v) for v in x])
        else:
            axes.xaxis.get_major_locator().set_params(integer=True)
        if unit:
            axes.set_ylim(min(0.0, axes.get_ylim()[0]), 1.02)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, framealpha=0.7)

    return draw


def scatter(points: Mapping[str, tuple[Sequence[float], Sequence[float]]], xlabel: str, ylabel: str) -> Callable[[Any], None]:
    """A cloud of (x, y) a name, one point a seed; x is logarithmic."""

    def draw(axes: Any) -> None:
        for (name, (x, y)), marker in zip(points.items(), "osD^vP*X<>" * 3, strict=False):
            axes.plot(x, y, marker, linestyle="none", label=name, markersize=6, alpha=0.8)
        axes.set(xlabel=xlabel, ylabel=ylabel, xscale="log")
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize=8, framealpha=0.7)

    return draw
