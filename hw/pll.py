"""The clock of the core: divider search for the PLLs of iCE40 and ECP5, and the clock domain with its reset.

Sources: Lattice TN1251 (iCE40 sysCLOCK PLL), FPGA-TN-02200 (ECP5 sysCLOCK PLL).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

from amaranth.hdl import ClockDomain, ClockSignal, Elaboratable, Instance, Module, ResetSignal, Signal
from amaranth.lib import io
from amaranth.lib.cdc import FFSynchronizer

from boards.board import Board
from hw.numbers import ceil_log2

TOLERANCE = 0.001  # relative: the target itself is wanted, not a frequency near it
RESET_SECONDS = 15e-6  # iCE40 block RAM reads as zeros for some 3 us after configuration


@dataclass(frozen=True)
class PLL:
    """Dividers of one PLL: output = source / reference * feedback; oscillator = output * post."""

    frequency: float
    """Output in Hz."""
    reference: int
    """iCE40 DIVR + 1 (with feedback from the oscillator), ECP5 CLKI_DIV."""
    feedback: int
    """iCE40 DIVF + 1, ECP5 CLKFB_DIV."""
    post: int
    """iCE40 2**DIVQ, ECP5 CLKOP_DIV."""


def _nearest(kind: str, source: float, target: float, legal: Iterable[PLL]) -> PLL:
    best = min(legal, key=lambda pll: abs(pll.frequency - target), default=None)
    if best is None:
        raise ValueError(f"clock: {kind} makes nothing from an oscillator of {source / 1e6:g} MHz")
    if abs(best.frequency / target - 1) > TOLERANCE:
        raise ValueError(f"clock: {kind} does not make {target / 1e6:g} MHz from {source / 1e6:g} MHz;"
                         f" the nearest it makes is {best.frequency / 1e6:.6g} MHz")  # fmt: skip
    return best


def ice40_pll(source: float, target: float) -> PLL:
    """Dividers of an SB_PLL40 for `target` from `source`, both in Hz; ValueError names the nearest it makes."""
    return _nearest("SB_PLL40", source, target, (
        PLL(source / r * f / q, r, f, q)
        for r, f, q in product(range(1, 17), range(1, 129), (2, 4, 8, 16, 32, 64))
        if 10e6 <= source / r <= 133e6 and 533e6 <= source / r * f <= 1066e6 and 16e6 <= source / r * f / q <= 275e6
    ))  # fmt: skip


def ecp5_pll(source: float, target: float) -> PLL:
    """Dividers of an EHXPLLL for `target` from `source`, both in Hz; ValueError names the nearest it makes."""
    dividers = ((r, f, min(128, round(600e6 * r / (source * f)))) for r, f in product(range(1, 129), range(1, 81)))
    return _nearest("EHXPLLL", source, target, (
        PLL(source / r * f, r, f, q)  # the oscillator is kept near the middle of its range
        for r, f, q in dividers
        if 3.125e6 <= source / r <= 400e6 and 400e6 <= source / r * f * q <= 800e6 and 3.125e6 <= source / r * f <= 400e6
    ))  # fmt: skip


class Clocking(Elaboratable):
    """Drives domain `sync` of its parent at the board's target frequency, in reset until RESET_SECONDS after the PLL has locked.

    A board whose oscillator has the target frequency uses it as it is. ValueError if the PLL does not make the target.
    """

    def __init__(self, board: Board):
        platform = board.platform()
        self.board = board
        self.pin = platform.default_clk
        self.source = platform.default_clk_frequency
        search = {"ice40": ice40_pll, "ecp5": ecp5_pll}[board.chip.family.name]
        self.pll = None if board.clock == self.source else search(self.source, board.clock)

    @property
    def frequency(self) -> float:
        """Clock of the core in Hz."""
        return self.pll.frequency if self.pll else self.source

    @property
    def _timer_bits(self) -> int:
        """The top one ends the reset."""
        return ceil_log2(int(RESET_SECONDS * self.frequency)) + 1

    @property
    def flip_flops(self) -> int:
        """Timer, synchroniser and reset."""
        return self._timer_bits + 2 + 1

    def elaborate(self, platform) -> Module:
        m = Module()
        m.domains.start = start = ClockDomain("start", reset_less=True, local=True)
        clock, locked, ready = Signal(name="core_clock"), Signal(init=0 if self.pll else 1), Signal()
        timer = Signal(self._timer_bits)
        port = platform.request(self.pin, dir="-")
        if self.pll and self.board.pll_pad:
            m.submodules.pll = self._ice40(self.pll, clock, locked, "PAD", i_PACKAGEPIN=port.io)
        else:
            m.submodules.pin = pin = io.Buffer("i", port)
            if not self.pll:
                m.d.comb += clock.eq(pin.i)
            elif self.board.chip.family.name == "ice40":
                m.submodules.pll = self._ice40(self.pll, clock, locked, "CORE", i_REFERENCECLK=pin.i)
            else:
                m.submodules.pll = self._ecp5(self.pll, clock, locked, pin.i)
        m.submodules.locked = FFSynchronizer(locked, ready, o_domain="start")
        with m.If(~ready):
            m.d.start += timer.eq(0)
        with m.Elif(~timer[-1]):
            m.d.start += timer.eq(timer + 1)
        reset = Signal(init=1)
        m.d.start += reset.eq(~timer[-1])
        m.d.comb += [start.clk.eq(clock), ClockSignal().eq(clock), ResetSignal().eq(reset)]
        return m

    def _ice40(self, pll: PLL, clock: Signal, locked: Signal, kind: str, **source) -> Instance:
        compare = self.source / pll.reference
        return Instance(
            f"SB_PLL40_{kind}",
            p_FEEDBACK_PATH="SIMPLE",
            p_DIVR=pll.reference - 1,
            p_DIVF=pll.feedback - 1,
            p_DIVQ=pll.post.bit_length() - 1,
            p_FILTER_RANGE=1 + sum(compare >= limit for limit in (17e6, 26e6, 44e6, 66e6, 101e6)),
            i_RESETB=1, i_BYPASS=0, o_PLLOUTGLOBAL=clock, o_LOCK=locked, **source,
        )  # fmt: skip

    def _ecp5(self, pll: PLL, clock: Signal, locked: Signal, source: Signal) -> Instance:
        return Instance(
            "EHXPLLL",
            a_FREQUENCY_PIN_CLKI=f"{self.source / 1e6:g}", a_FREQUENCY_PIN_CLKOP=f"{self.frequency / 1e6:g}",
            a_ICP_CURRENT="12", a_LPF_RESISTOR="8", a_MFG_ENABLE_FILTEROPAMP="1", a_MFG_GMCREF_SEL="2",
            p_CLKI_DIV=pll.reference, p_CLKFB_DIV=pll.feedback, p_CLKOP_DIV=pll.post,
            p_FEEDBK_PATH="CLKOP", p_CLKOP_ENABLE="ENABLED", p_CLKOP_CPHASE=pll.post // 2 - 1, p_CLKOP_FPHASE=0,
            p_OUTDIVIDER_MUXA="DIVA", p_OUTDIVIDER_MUXB="DIVB", p_OUTDIVIDER_MUXC="DIVC", p_OUTDIVIDER_MUXD="DIVD",
            p_PLLRST_ENA="DISABLED", p_INTFB_WAKE="DISABLED", p_STDBY_ENABLE="DISABLED", p_DPHASE_SOURCE="DISABLED",
            i_CLKI=source, i_CLKFB=clock, i_RST=0, i_STDBY=0, i_PHASESEL0=0, i_PHASESEL1=0, i_PHASEDIR=1, i_PHASESTEP=1,
            i_PHASELOADREG=1, i_PLLWAKESYNC=0, i_ENCLKOP=0, o_CLKOP=clock, o_LOCK=locked,
        )  # fmt: skip
