"""A node of a NIR graph, and what its parameters may be: every complaint names node and parameter."""

from __future__ import annotations

import math
from typing import NoReturn

import nir
import numpy as np

from hw.notation import Shape


class Node:
    """A node under its name, and its arrays."""

    def __init__(self, name: str, node: nir.NIRNode):
        self.name, self.node, self.kind = name, node, type(node).__name__

    def cannot(self, what: str, nearest: str) -> NoReturn:
        raise ValueError(f"node {self.name!r} ({self.kind}): {what}; the nearest that can be done: {nearest}")

    def array(self, parameter: str, shape: Shape | None = None) -> np.ndarray:
        """A parameter as float64, of this shape if given. It must be finite."""
        try:
            value = np.asarray(getattr(self.node, parameter), np.float64)
        except (AttributeError, TypeError, ValueError):
            self.cannot(f"{parameter}: {getattr(self.node, parameter, None)}", "numbers")
        if not np.isfinite(value).all():
            self.cannot(
                f"{parameter}: {np.count_nonzero(~np.isfinite(value))} of {value.size} values are NaN or infinite", "finite values"
            )
        if shape is None:
            return value
        while value.ndim > len(shape) and len(value) == 1:
            value = value[0]
        try:
            return np.broadcast_to(value, shape).copy()
        except ValueError:
            self.cannot(f"{parameter}: shape {value.shape} does not go with {shape} neurons", f"shape {shape}, or one value")

    def pair(self, parameter: str, least: int) -> tuple[int, int]:
        """A parameter of one or two whole numbers of at least `least`, for rows and columns."""
        value = self.array(parameter).reshape(-1)
        if value.size not in (1, 2) or (value != np.round(value)).any() or (value < least).any():
            self.cannot(f"{parameter}: {_plain(value)}", f"one or two whole numbers of at least {least}")
        return int(value[0]), int(value[-1])

    def square(self, parameter: str, least: int, most: int) -> int:
        """A parameter of one or two equal whole numbers within these limits."""
        rows, columns = self.pair(parameter, min(least, 0))
        if rows != columns:
            self.cannot(f"{parameter}: {rows} x {columns}", "the same for rows and columns")
        if not least <= rows <= most:
            self.cannot(f"{parameter}: {rows}", f"{least} to {most}" if most > least else str(least))
        return rows

    def shape(self, key: str = "input_type") -> Shape | None:
        """The shape of what comes in, if the node says it, without an axis of one sample before channels."""
        value = getattr(self.node, key, None)
        value = value.get("input") if isinstance(value, dict) else value
        if value is None:
            return None
        try:
            shape = tuple(int(n) for n in np.asarray(value).reshape(-1))
        except (TypeError, ValueError, OverflowError):
            self.cannot(f"{key}: {value}", "whole numbers")
        if not shape or min(shape) < 1:
            self.cannot(f"{key}: shape {shape}", "sizes of at least 1")
        return shape[1:] if len(shape) == 4 and shape[0] == 1 else shape


def _plain(value: np.ndarray) -> str:
    return ", ".join(f"{v:g}" for v in value)


def units(shape: Shape) -> str:
    """A shape for a reader."""
    return f"{math.prod(shape)} ({' x '.join(map(str, shape))})" if len(shape) > 1 else str(shape[0])
