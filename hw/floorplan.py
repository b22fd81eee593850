"""Where on a large chip each lane lies: its multiplier gets a site of its own, and the rest of the lane is placed around it."""

from __future__ import annotations

from boards.board import Chip
from hw.config import NEURON_MULTIPLIERS, Config

_CORE = "top.device.device.core"
SHARES = {58: 0.4, 34: 0.3, 10: 0.3}
"""Of the lanes, by the row of multipliers (nextpnr's Y) they lie along: as much as the logic beside it has room for. The lanes go to and fro through
them, so that neighbours in number are neighbours on the chip."""
MIDDLE = 34
"""The row in whose middle the neurons' multipliers lie, and so the neurons."""


def multiplier_sites(c: Config, chip: Chip) -> dict[str, str]:
    """nextpnr's site (BEL) of every multiplier of the core by its module; none where lanes are so few that they lie together, or sites unknown.

    The placer, left alone, minimises the wires of the logic first and takes for the multipliers what is left then: on the LFE5U-85F, where they stand in
    three rows, a quarter of 100 lanes had theirs more than 25 tiles away, and some across the chip.
    """
    needed = c.neuron_lanes * NEURON_MULTIPLIERS
    if c.lane_registers < 3 or c.shared or not chip.dsp_rows or c.lanes + needed > chip.dsp:
        return {}
    rows = {y: [f"X{x}/Y{y}/MULT18_{z}" for x, z in chip.dsp_columns] for y in chip.dsp_rows}
    first = (len(rows[MIDDLE]) - needed) // 2
    neurons, rows[MIDDLE] = rows[MIDDLE][first : first + needed], rows[MIDDLE][:first] + rows[MIDDLE][first + needed :]
    of_lanes: list[str] = []
    for n, (y, share) in enumerate(SHARES.items()):
        row = rows[y] if n % 2 == 0 else rows[y][::-1]
        count = min(len(row), c.lanes - len(of_lanes), round(c.lanes * share) if n < len(SHARES) - 1 else c.lanes)
        of_lanes += [row[k * len(row) // count] for k in range(count)]
    sites = {f"{_CORE}.lanes.mul_{lane}": site for lane, site in enumerate(of_lanes)}
    return sites | {f"{_CORE}.neurons.mul_{k // NEURON_MULTIPLIERS}_{k % NEURON_MULTIPLIERS}": site for k, site in enumerate(neurons)}
