"""The boards, by name. A new one is an entry here: platform, chip, clock and a design that fits."""

from __future__ import annotations

from dataclasses import replace

from amaranth.build import Attrs, PinsN, Resource
from amaranth_boards.ice40_hx8k_b_evn import ICE40HX8KBEVNPlatform
from amaranth_boards.icebreaker import ICEBreakerPlatform
from amaranth_boards.orangecrab_r0_2 import OrangeCrabR0_2_25FPlatform
from amaranth_boards.resources import UARTResource
from amaranth_boards.ulx3s import ULX3S_12F_Platform, ULX3S_85F_Platform

from boards.board import ECP5_12, ECP5_25, ECP5_85, HX8K, UP5K, Board, Chip
from hw.design import Design
from hw.network import CADENCES, INPUTS, Network
from hw.numbers import Q

__all__ = ["BOARDS", "Board", "Chip", "get_board"]

_LIGHTS = {name: ("led", n) for n, name in enumerate(("configured", "alive", "busy", "error"))}
_LVCMOS33 = Attrs(IO_TYPE="LVCMOS33")
_RGB = {"red": "K4", "green": "M3", "blue": "J3"}  # of the OrangeCrab, pins of its resource rgb_led

# Bitstreams take 104,090 bytes (UP5K) and 135,100 (HX8K), always; the flash has 16 MiB (icebreaker), 4 MiB (ice40-hx8k-b-evn).
_ICE40_FLASH = 0x10_0000
# An uncompressed bitstream of an LFE5U-85F takes 15.3 Mbit at most (Lattice FPGA-TN-02039, "Maximum Configuration Bits"). It begins
# at 0 or, with the board's USB bootloader, at 2 MiB; the flash has at least 4 MiB.
_ULX3S_FLASH = 0x38_0000

_SMALL = Design.of(
    Network(),
    *(Network(net="64-32-24-10", input=kind, cadence=cadence, batch=16 if cadence == "sample" else 1)
      for kind in INPUTS for cadence in CADENCES),
    lanes=8, parity=True)  # fmt: skip
_LARGE = Network(net="784-200-10", cadence="step", w=Q(1, 8), stochastic=True)

_ICEBREAKER = Board(
    name="icebreaker", platform=ICEBreakerPlatform, chip=UP5K, clock=24e6, pll_pad=True,
    loader=("-b", "ice40_generic"), flash=_ICE40_FLASH,
    design=Design.of(Network(net="784-64-10", cadence="step"), fixed=True, lanes=4, weight_memory="spram"),
    # Red and green on the board, two green ones on the part that breaks off (PMOD 2).
    resources=tuple(ICEBreakerPlatform.break_off_pmod),
    lights={"configured": ("led_g", 2), "alive": ("led_g", 3), "busy": ("led_g", 0), "error": ("led_r", 0)},
)  # fmt: skip

BOARDS: dict[str, Board] = {
    board.name: board
    for board in (
        _ICEBREAKER,
        # The same board with twice as many lanes, which use all its multipliers, and weights of half as many bits. Weights of so
        # few bits learn only if they are rounded by chance.
        replace(_ICEBREAKER, name="icebreaker-8bit", design=_ICEBREAKER.design.replace(
            lanes=8, shared=True, stochastic=True, w=Q(1, 7), u=Q(3, 7), trace=Q(3, 8), delta=Q(2, 6), grad=Q(2, 7),
            alpha_frac=7, theta_min=8)),
        Board(name="ice40-hx8k-b-evn", platform=ICE40HX8KBEVNPlatform, chip=HX8K, clock=48e6, lights=_LIGHTS, buffer=512,
              loader=("-b", "ice40_generic"), flash=_ICE40_FLASH,
              # No multipliers: numbers of 12 bits, whose products take half the cells.
              design=Design.of(Network(cadence="step", w=Q(3, 9), u=Q(4, 8), grad=Q(4, 10), alpha_frac=8, theta_min=16),
                               fixed=True, lanes=2)),
        # A word in a memory of the ECP5 has 18 bits: room for a parity bit, except beside weights of 9 or 18.
        Board(name="ulx3s-12f", platform=ULX3S_12F_Platform, chip=ECP5_12, clock=50e6, lights=_LIGHTS, buffer=4096, reply=256,
              loader=("-b", "ulx3s"), flash=_ULX3S_FLASH, flash_pins=("spi_flash", 0), design=_SMALL),
        Board(name="ulx3s-85f", platform=ULX3S_85F_Platform, chip=ECP5_85, clock=60e6, lights=_LIGHTS, buffer=4096, reply=256,
              loader=("-b", "ulx3s"), flash=_ULX3S_FLASH, flash_pins=("spi_flash", 0),
              # A memory has 9 or 18 bits. Weights of 9 bits take half the memories, and learn as well as those of 16 if they are
              # rounded by chance.
              design=Design.of(_LARGE, _LARGE.replace(net="120-64-9"), _LARGE.replace(net="64-32-10"),
                               lanes=104, neuron_lanes=4, wires="far", both_ways=True),
              # less wire than with the default placer; the default router does not finish
              nextpnr="--placer static --router router2"),
        # No flash: its USB bootloader, through which openFPGALoader comes, writes bitstreams only.
        # No USB serial chip: the host port is on the header, pins 0 (from the host) and 1 (to the host).
        Board(name="orangecrab-25f", platform=OrangeCrabR0_2_25FPlatform, chip=ECP5_25, clock=60e6, buffer=4096, reply=256,
              loader=("-b", "orangeCrab"), lights={"alive": ("green", 0), "busy": ("blue", 0), "error": ("red", 0)},
              design=_SMALL,
              resources=(UARTResource(0, rx="0", tx="1", conn=("io", 0), attrs=_LVCMOS33),
                         *(Resource(colour, 0, PinsN(pin, dir="o"), _LVCMOS33) for colour, pin in _RGB.items()))),
    )
}  # fmt: skip


def get_board(name: str) -> Board:
    """The board of that name; ValueError names the boards there are."""
    if name not in BOARDS:
        raise ValueError(f"board: {name!r} is not known; legal is one of {', '.join(BOARDS)}")
    return BOARDS[name]
