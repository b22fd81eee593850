"""Where on a large chip each lane lies: its multiplier gets a site of its own, and the rest of the lane is placed around it."""

from __future__ import annotations

from boards.board import Chip
from hw.machine import Machine
from hw.numbers import NEURON_MULTIPLIERS

CORE = "top.device.device.core"
"""Path of the core in a board's design."""


def multiplier_sites(c: Machine, chip: Chip) -> dict[str, str]:
    """nextpnr's site (BEL) of every multiplier of the core, by its module.

    There are none (the placer is left alone) if the lanes do not lie all over the chip, if the chip's sites are unknown, or if
    they are too few. The neurons and their multipliers lie in the middle of the middle row. The lanes go to and fro through the
    rows, so that neighbours in number are neighbours on the chip.

    The placer, left alone, minimises the wires of the logic first, and gives the multipliers the sites that are left then. On
    the LFE5U-85F, where they stand in three rows, a quarter of 100 lanes had theirs more than 25 tiles away, and some across
    the chip.
    """
    needed, width = c.neuron_lanes * NEURON_MULTIPLIERS, len(chip.dsp_columns)
    if not c.wires.tree or needed > width or c.lanes + needed > width * len(chip.dsp_rows):
        return {}
    rows = {y: [f"X{x}/Y{y}/MULT18_{z}" for x, z in chip.dsp_columns] for y in chip.dsp_rows}
    middle, first = sorted(rows)[len(rows) // 2], (width - needed) // 2
    neurons, rows[middle] = rows[middle][first : first + needed], rows[middle][:first] + rows[middle][first + needed :]
    of_lanes: list[str] = []
    behind = sum(map(len, rows.values()))  # sites in the rows to come
    for n, (y, share) in enumerate(chip.dsp_rows.items()):
        row, left = rows[y] if n % 2 == 0 else rows[y][::-1], c.lanes - len(of_lanes)
        behind -= len(row)
        count = min(len(row), left, max(round(c.lanes * share), left - behind))
        of_lanes += [row[k * len(row) // count] for k in range(count)]
    sites = {f"{CORE}.lanes.products.mul_{lane}": site for lane, site in enumerate(of_lanes)}
    middle_ones = {f"{CORE}.multipliers.mul_{k}": site for k, site in enumerate(neurons)}
    return sites | middle_ones
