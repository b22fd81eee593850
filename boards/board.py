"""What a board is to this project: a platform of amaranth-boards, its chip, its clock, and the design it is built for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from amaranth.build import Platform, Resource

from hw.design import Design
from hw.host.protocol import Link
from hw.host.stored import Stored
from hw.machine import Machine
from hw.numbers import ceil_div


@dataclass(frozen=True, kw_only=True)
class Family:
    """FPGAs with the same blocks and the same tools."""

    name: str
    bram_name: str
    """What the vendor calls a block RAM."""
    bram_shapes: tuple[tuple[int, int], ...]
    """Shapes that a block RAM can have: words, bits a word."""
    bram_least_bits: int
    """Yosys makes a memory of fewer bits from logic cells."""
    lut_ram: bool
    """Whether LUTs can be memory."""

    def bram_blocks(self, depth: int, bits: int) -> int:
        """Block RAMs for a memory of `depth` words of `bits` bits, 0 if it is small enough for logic cells."""
        if depth * bits < self.bram_least_bits:
            return 0
        return min(ceil_div(depth, d) * ceil_div(bits, b) for d, b in self.bram_shapes)


@dataclass(frozen=True, kw_only=True)
class Chip:
    """An FPGA by its data sheet: how many it has of each resource (`lut` is also the number of flip-flops)."""

    name: str
    family: Family
    lut: int
    bram: int
    dsp: int
    spram: int = 0
    dsp_rows: Mapping[int, float] = field(default_factory=dict)
    """The rows of multipliers, by nextpnr's Y, in the order in which many lanes go along them.

    The value is the share of the lanes that the logic beside the row has room for (hw/floorplan.py)."""
    dsp_columns: tuple[tuple[int, int], ...] = ()
    """nextpnr's X and number (Z) of the multipliers in each of these rows."""


ICE40 = Family(name="ice40", bram_name="EBR", bram_shapes=((256, 16), (512, 8), (1024, 4), (2048, 2)), bram_least_bits=65,
               lut_ram=False)  # fmt: skip
ECP5 = Family(name="ecp5", bram_name="DP16KD", bram_least_bits=2049, lut_ram=True,
              bram_shapes=((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1)))  # fmt: skip

UP5K = Chip(name="iCE40UP5K", family=ICE40, lut=5280, bram=30, dsp=8, spram=4)
HX8K = Chip(name="iCE40HX8K", family=ICE40, lut=7680, bram=32, dsp=0)
ECP5_12 = Chip(name="LFE5U-12F", family=ECP5, lut=12096, bram=32, dsp=28)
ECP5_25 = Chip(name="LFE5U-25F", family=ECP5, lut=24288, bram=56, dsp=28)
ECP5_85 = Chip(name="LFE5U-85F", family=ECP5, lut=83640, bram=208, dsp=156, dsp_rows={58: 0.4, 34: 0.3, 10: 0.3},
               dsp_columns=tuple((x + z, z) for x in (*range(4, 59, 9), *range(69, 115, 9)) for z in (0, 1, 4, 5)))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Board:
    """One board and the design it is built for unless another is asked for."""

    name: str
    platform: type[Platform]
    chip: Chip
    clock: float
    """Target frequency of the core in Hz. A PLL makes it if the board's oscillator has another."""
    design: Design
    """What is built if nothing else is asked for: the machine, and the network it holds first."""
    pll_pad: bool = False
    """iCE40: the oscillator's pin belongs to the PLL (SB_PLL40_PAD), and is not a fabric input (SB_PLL40_CORE)."""
    seed: int = 1
    """Of the placement: one that meets the clock with the tools of requirements.lock."""
    nextpnr: str = ""
    """Further options of nextpnr, for lanes all over the chip (`Machine.wires`)."""
    baud: int = 3_000_000
    """Bit rate of the host port, resource `uart` 0: what its USB bridge does and the clock divides down to."""
    buffer: int = 1024
    """Bytes of requests that may wait."""
    reply: int = 128
    """Bytes of a reply."""
    lights: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Resource and number of the LED for each of hw.top.LIGHTS, as far as there are any."""
    loader: tuple[str, ...] = ()
    """Options by which openFPGALoader finds the board."""
    flash: int | None = None
    """Offset in the SPI flash, in bytes, of the network that the board starts with: a multiple of 64 KiB, behind every bitstream.

    None: there is no flash, or openFPGALoader does not write to any place in it."""
    flash_pins: tuple[str, int] = ("spi_flash_1x", 0)
    """Resource and number of the flash."""
    resources: tuple[Resource, ...] = ()
    """Resources that the platform lacks."""

    def make_platform(self) -> Platform:
        """A fresh platform (Amaranth builds each at most once) with the extra resources."""
        platform = self.platform()
        platform.add_resources(self.resources)
        return platform

    def stored(self, machine: Machine) -> Stored | None:
        """The place for a network in the flash, if there is one."""
        return None if self.flash is None else Stored(machine, self.link, self.flash)

    @property
    def link(self) -> Link:
        """The host port as it is built."""
        return Link(clock=round(self.clock), baud=self.baud, buffer=self.buffer, reply=self.reply)
