"""Where the learning state stands among a core's words."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from hw.configuration import configuration
from hw.machine import Machine
from hw.memory_map import LANE_BITS, MAX_BURST, ROW_BITS, regions, state_fields
from hw.plan import Plan
from sw.common import checks
from sw.transport.batch import Batch


def bursts(addresses: np.ndarray) -> list[tuple[int, int]]:
    """Ascending addresses as (first address, length) of runs, none longer than a host command may be."""
    ends = np.flatnonzero(np.diff(addresses) != 1) + 1
    out = []
    for run in np.split(addresses, ends):
        out += [(int(run[at]), min(MAX_BURST, len(run) - at)) for at in range(0, len(run), MAX_BURST)]
    return out


class Layout:
    """Where the state's words stand: all addresses ascending, their bursts, and each array's place among them."""

    def __init__(self, plan: Plan):
        self.plan, self.fields = plan, state_fields(plan)
        self.addresses = np.unique(np.concatenate([f.addresses.ravel() for f in self.fields.values()]))
        self.bursts = bursts(self.addresses)
        self.places = {name: np.searchsorted(self.addresses, f.addresses) for name, f in self.fields.items()}
        self.used = np.zeros(len(self.addresses), np.int64)  # bits of each word that some array holds
        for name in self.fields:
            self.used[self.places[name]] |= self.mask(name)

    def mask(self, name: str) -> int:
        return ((1 << self.fields[name].bits) - 1) << self.fields[name].low

    def encode(self, state: Mapping[str, ArrayLike]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Words at all addresses that hold the given arrays, the bits of each that are given, and which words need their other bits
        from the core.

        `class` is the core's own and left out. Raises ValueError for an array that is not legal.
        """
        checked = {name: checks.check_state(self.plan.network, name, array) for name, array in state.items()}
        checked.pop("class", None)
        words, given = np.zeros((2, len(self.addresses)), np.int64)
        for name, array in checked.items():
            words[self.places[name]] |= array << self.fields[name].low & self.mask(name)
            given[self.places[name]] |= self.mask(name)
        return words, given, (given != 0) & (given != self.used)

    def write(self, batch: Batch, words: np.ndarray, given: np.ndarray) -> None:
        """Writes the words of which some bits are given."""
        (position,), start = np.nonzero(given), 0
        for address, count in bursts(self.addresses[position]) if len(position) else ():
            batch.write_words(address, words[position[start : start + count]], word_bytes(self.plan.machine, address))
            start += count

    def decode(self, words: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays, from the words at all addresses."""
        return {name: f.decode(words[self.places[name]]) for name, f in self.fields.items()}


def word_bytes(machine: Machine, address: int) -> int:
    """Bytes on the link of the words at an address."""
    return _widths(machine).get(address >> LANE_BITS + ROW_BITS, 4)


def write_configuration(batch: Batch, plan: Plan) -> None:
    """Writes the programs of a network, and what else makes a device run the network."""
    for address, words in configuration(plan):
        batch.write_words(address, words, word_bytes(plan.machine, address))


@lru_cache(maxsize=8)
def _widths(machine: Machine) -> dict[int, int]:
    return {region.number: region.width for region in regions(machine).values()}


@lru_cache(maxsize=8)
def layout(plan: Plan) -> Layout:
    return Layout(plan)
