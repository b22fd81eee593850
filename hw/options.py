"""Command-line options that several programs take, and types for argparse, which says what is legal and exits with 2."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, BooleanOptionalAction, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from boards import BOARDS
from hw.design import NETWORK_FIELDS, Design
from hw.machine import WEIGHT_MEMORIES, WIRES
from hw.network import CADENCES, INPUTS, Network
from hw.numbers import Q


def sizes(text: str) -> tuple[int, ...]:
    """A network in the literature's notation: units of the input and of every layer, joined by hyphens."""
    parts, at = text.split("-"), 0
    for part in parts:
        if not part.isdecimal():
            raise ArgumentTypeError(f"{part!r} at character {at + 1} of {text!r} is not legal;"
                                    " legal is whole numbers joined by -, such as 64-32-10")  # fmt: skip
        at += len(part) + 1
    return tuple(map(int, parts))


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
        legal = "integer and fraction bits joined by a comma, such as 4,12"
        raise ArgumentTypeError(f"{text!r} is not legal; legal is {legal}") from None
    return Q(i, f)


def output(text: str) -> Path:
    """A file to be written at the end: its folder must be there from the start."""
    path = Path(text)
    if not path.resolve().parent.is_dir():
        raise ArgumentTypeError(f"{path.parent} is not a folder")
    return path


DESIGN: dict[str, dict[str, Any]] = {
    "sizes": {"type": sizes, "metavar": "N-N-N", "help": "the network: units of the input and of every layer, such as 64-32-10"},
    "steps": {"type": int, "metavar": "T", "help": "time steps of a sample"},
    "lanes": {"type": int, "metavar": "N", "help": "synapses a clock cycle"},
    "neuron_lanes": {"type": int, "metavar": "M", "help": "neurons a clock cycle"},
    "input": {"choices": INPUTS, "help": "a frame held for all steps, events, or a frame in every step"},
    "cadence": {"choices": CADENCES, "help": "when parameters change"},
    "batch": {"type": int, "metavar": "B", "help": "samples whose gradients are summed before they are applied"},
    "stochastic": {"action": BooleanOptionalAction, "help": "round weight updates up or down by chance"},
    "w": {"type": fixed_point, "metavar": "I,F",
          "help": "format of the weights: integer bits, the sign among them, and fraction bits"},
    "u": {"type": fixed_point, "metavar": "I,F", "help": "likewise of membranes, currents and thresholds"},
    "trace": {"type": fixed_point, "metavar": "I,F", "help": "of traces"},
    "delta": {"type": fixed_point, "metavar": "I,F", "help": "of errors"},
    "grad": {"type": fixed_point, "metavar": "I,F", "help": "of gradients"},
    "alpha_frac": {"type": int, "metavar": "F", "help": "fraction bits of a leakage factor"},
    "theta_min": {"type": int, "metavar": "N", "help": "least threshold, in steps of the format u"},
    "weight_memory": {"choices": WEIGHT_MEMORIES, "help": "where the weights are"},
    "wires": {"choices": WIRES, "help": "near, or far: registers on the long ways of a large chip"},
    "parity": {"action": BooleanOptionalAction, "help": "a parity bit beside every word of lanes and neurons"},
    "lazy": {"action": BooleanOptionalAction, "help": "learn from events as they come, and from each synapse once a sample"},
    "both_ways": {"action": BooleanOptionalAction, "help": "a narrow last layer is banked by its inputs"},
    "shared": {"action": BooleanOptionalAction, "help": "neurons use the multipliers of lanes; with --weight-memory spram"},
}
"""Fields of a design that are options, as argparse takes them."""


FLAGS = {"sizes": "--net"}


def flag(name: str) -> str:
    """The option that sets a field."""
    return FLAGS.get(name, f"--{name.replace('_', '-')}")


def add_design(parser: ArgumentParser) -> None:
    """Options `--board` and those of DESIGN."""
    defaults = "Defaults are those of hw/network.py and hw/machine.py, or the board's with --board."
    group = parser.add_argument_group("the design", defaults)
    group.add_argument("--board", choices=BOARDS, default=SUPPRESS, metavar="NAME", help=f"one of {', '.join(BOARDS)}")
    for name, option in DESIGN.items():
        group.add_argument(flag(name), dest=name, default=SUPPRESS, **option)


def chosen(given: Namespace) -> dict[str, Any]:
    """The fields of a design that were given as options."""
    return {name: value for name, value in vars(given).items() if name in DESIGN}


def design(given: Namespace) -> Design:
    """The design that the options name; ValueError if it is not legal."""
    base = BOARDS[given.board].design if "board" in given else Design.of(Network())
    return base.replace(**chosen(given))


def differences(design: Design, board: str) -> dict[str, Any]:
    """The fields in which a design is not the board's own."""
    def value(of: Design, name: str) -> Any:
        return getattr(of.network if name in NETWORK_FIELDS else of.machine, name)

    own = BOARDS[board].design
    return {name: value(design, name) for name in DESIGN if value(design, name) != value(own, name)}


def as_options(board: str, fields: dict[str, Any]) -> list[str]:
    """Options that `design` reads as these fields of a board's design."""
    out = ["--board", board]
    for name, value in fields.items():
        if isinstance(value, bool):
            out.append(flag(name) if value else flag(name).replace("--", "--no-", 1))
        elif isinstance(value, tuple):
            out += [flag(name), "-".join(map(str, value))]
        elif isinstance(value, Q):
            out += [flag(name), f"{value.i},{value.f}"]
        else:
            out += [flag(name), str(getattr(value, "name", value))]
    return out
