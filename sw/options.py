"""Command-line options that several programs take, and types for argparse, which says what is legal and exits with 2."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, BooleanOptionalAction, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from boards import BOARDS
from hw.config import CADENCES, INPUTS, WEIGHT_MEMORIES, Config, Q


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


def positive(text: str) -> float:
    """A number above 0."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise ArgumentTypeError(f"{text!r} is not legal; legal is a number above 0")
    return found


def whole(least: int) -> Callable[[str], int]:
    """A whole number of at least `least`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise ArgumentTypeError(f"{text!r} is not legal; legal is a whole number of at least {least}")
        return int(text)

    return parse


def fixed_point(text: str) -> Q:
    """A number format written as 4,12: integer bits (the sign is one of them) and fraction bits."""
    try:
        i, f = (int(bits) for bits in text.split(","))
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not legal; legal is integer and fraction bits joined by a comma, such as 4,12") from None
    return Q(i, f)


def output(text: str) -> Path:
    """A file to be written at the end: its folder must be there from the start."""
    path = Path(text)
    if not path.resolve().parent.is_dir():
        raise ArgumentTypeError(f"{path.parent} is not a folder")
    return path


DESIGN: dict[str, dict[str, Any]] = {
    "sizes": {"type": sizes, "metavar": "N-N-N", "help": "units of the input and of every layer"},
    "steps": {"type": int, "metavar": "T", "help": "time steps of a sample"},
    "lanes": {"type": int, "metavar": "N", "help": "synapses a clock cycle"},
    "neuron_lanes": {"type": int, "metavar": "M", "help": "neurons a clock cycle"},
    "input": {"choices": INPUTS, "help": "a frame held for all steps, or events"},
    "cadence": {"choices": CADENCES, "help": "when parameters change"},
    "stochastic": {"action": BooleanOptionalAction, "help": "round weight updates up or down by chance"},
    "w": {"type": fixed_point, "metavar": "I,F", "help": "format of the weights: integer bits, the sign among them, and fraction bits"},
    "u": {"type": fixed_point, "metavar": "I,F", "help": "likewise of membranes, currents and thresholds"},
    "trace": {"type": fixed_point, "metavar": "I,F", "help": "of traces"},
    "delta": {"type": fixed_point, "metavar": "I,F", "help": "of errors"},
    "grad": {"type": fixed_point, "metavar": "I,F", "help": "of gradients"},
    "weight_memory": {"choices": WEIGHT_MEMORIES, "help": "where the weights are"},
    "weight_latency": {"type": int, "metavar": "N", "help": "cycles to a weight: 1; 3 with registers on the long ways of a large chip; 5 for many lanes"},
    "parity": {"action": BooleanOptionalAction, "help": "a parity bit beside every word of lanes and neurons"},
    "lazy": {"action": BooleanOptionalAction, "help": "learn from events as they come, and from each synapse once a sample"},
    "shared": {"action": BooleanOptionalAction, "help": "neurons use the multipliers of lanes; with --weight-memory spram"},
    "lane_lists": {"action": BooleanOptionalAction, "help": "every lane walks its own list of neurons that have a delta"},
}
"""Fields of a configuration that are options, as argparse takes them."""


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def add_design(parser: ArgumentParser) -> None:
    """Options `--board` and those of DESIGN."""
    group = parser.add_argument_group("the design", "Defaults are those of hw/config.py, or the board's with --board.")
    group.add_argument("--board", choices=BOARDS, default=SUPPRESS, metavar="NAME", help=f"one of {', '.join(BOARDS)}")
    for name, option in DESIGN.items():
        group.add_argument(flag(name), default=SUPPRESS, **option)


def chosen(given: Namespace) -> dict[str, Any]:
    """The fields of a configuration that were given as options."""
    return {name: value for name, value in vars(given).items() if name in DESIGN}


def configuration(given: Namespace) -> Config:
    """The configuration that the options name; ValueError if it is not legal."""
    base = BOARDS[given.board].config if "board" in given else Config()
    return base.replace(**chosen(given))
