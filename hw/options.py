"""Command-line options that several programs take, and types for argparse, which says what is legal and exits with 2."""

from __future__ import annotations

import re
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, BooleanOptionalAction, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from boards import BOARDS
from hw.design import NETWORK_FIELDS, Design
from hw.machine import WEIGHT_MEMORIES, WIRES
from hw.network import CADENCES, INPUTS, OUTPUT_ERRORS, Network
from hw.notation import NotationError, canonical, read
from hw.numbers import Q


def net(text: str) -> str:
    """A network in the literature's notation (hw/notation.py)."""
    try:
        return canonical(read(text))
    except NotationError as error:
        raise ArgumentTypeError(str(error)) from None


def sizes(text: str) -> tuple[int, ...]:
    """Numbers of neurons joined by hyphens."""
    if not re.fullmatch(r"[1-9]\d*(-[1-9]\d*)*", text):
        raise ArgumentTypeError(f"{text!r} is not legal; legal is whole numbers of at least 1 joined by hyphens, such as 64-32")
    return tuple(map(int, text.split("-")))


def shares(text: str) -> tuple[float, ...]:
    """Shares of a whole written as 0.5,0.9."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = (-1.0,)
    if not all(0 <= share <= 1 for share in found):
        raise ArgumentTypeError(f"{text!r} is not legal; legal is numbers of 0 to 1 joined by commas, such as 0.5,0.9")
    return found


def whole_numbers(text: str) -> tuple[int, ...]:
    """Whole numbers written as 0,0,1."""
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise ArgumentTypeError(f"{text!r} is not legal; legal is whole numbers joined by commas, such as 0,0,1")
    return tuple(map(int, text.split(",")))


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
    "net": {"type": net, "metavar": "NET", "help": "the network: input and layers, such as 64-32-10 or 28x28-6C5-P2-10"},
    "steps": {"type": int, "metavar": "T", "help": "time steps of a sample"},
    "lanes": {"type": int, "metavar": "N", "help": "synapses a clock cycle"},
    "neuron_lanes": {"type": int, "metavar": "M", "help": "neurons a clock cycle"},
    "input": {"choices": INPUTS, "help": "a frame held for all steps, events, or a frame in every step"},
    "cadence": {"choices": CADENCES, "help": "when parameters change"},
    "batch": {"type": int, "metavar": "B", "help": "samples whose gradients are summed before they are applied"},
    "stochastic": {"action": BooleanOptionalAction, "help": "round weight updates up or down by chance"},
    "output_error": {"choices": OUTPUT_ERRORS, "help": "the last layer's error: from its spikes, or from U - theta"},
    "centred": {"action": BooleanOptionalAction, "help": "take gradients less their mean over a neuron's inputs"},
    "decay": {"action": BooleanOptionalAction, "help": "weights decay"},
    "remainder": {"action": BooleanOptionalAction, "help": "keep what updates round off"},
    "slower": {"type": whole_numbers, "metavar": "N,N", "help": "for each layer, what is added to the rate of its weights"},
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


def flag(name: str) -> str:
    """The option that sets a field."""
    return f"--{name.replace('_', '-')}"


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


def network(given: Namespace, base: Network) -> Network:
    """`base` with the fields of a network that were given as options; ValueError if that is not legal."""
    return base.replace(**{name: value for name, value in chosen(given).items() if name in NETWORK_FIELDS})


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
            out += [flag(name), ",".join(map(str, value))]
        elif isinstance(value, Q):
            out += [flag(name), f"{value.i},{value.f}"]
        else:
            out += [flag(name), str(getattr(value, "name", value))]
    return out
