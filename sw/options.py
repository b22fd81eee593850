"""Values of command-line options that several programs take: types for argparse, which says what is legal and exits with 2."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path


def sizes(text: str) -> tuple[int, ...]:
    """Layer sizes written as 64-32-10."""
    try:
        return tuple(int(n) for n in text.split("-"))
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not legal; legal is whole numbers joined by -, such as 64-32-10") from None


def shares(text: str) -> tuple[float, ...]:
    """Shares of a whole written as 0.5,0.9."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = (-1.0,)
    if not all(0 <= share <= 1 for share in found):
        raise ArgumentTypeError(f"{text!r} is not legal; legal is numbers of 0 to 1 joined by commas, such as 0.5,0.9")
    return found


def whole(least: int) -> Callable[[str], int]:
    """A whole number of at least `least`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise ArgumentTypeError(f"{text!r} is not legal; legal is a whole number of at least {least}")
        return int(text)

    return parse


def output(text: str) -> Path:
    """A file to be written at the end: its folder must be there from the start."""
    path = Path(text)
    if not path.resolve().parent.is_dir():
        raise ArgumentTypeError(f"{path.parent} is not a folder")
    return path
