"""Random bits for stochastic rounding: a word belongs to a weight's place and to the number of the update."""

from __future__ import annotations

from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.config import ROW_BITS

WORD = 32
ROUNDS = 4
LANE_STEP = 5
LANE_KEY = 0x9E3779B9


def xorshift32(state: Value) -> Value:
    """The next state of the generator."""
    for shift in (13, -17, 5):
        state = state ^ ((state << shift)[:WORD] if shift > 0 else state >> -shift)
    return state


def lane_word(word: Value, lane: int) -> Value:
    """The random word of a lane from that of its row."""
    return word.rotate_left(LANE_STEP * lane % WORD) ^ Const(LANE_KEY * lane % (1 << WORD), WORD)


class RowHash(wiring.Component):
    """The random word of a row: four rounds of Simon32 over state and row.

    Numerics: docs/numerics.md, "Random bits"
    Timing:   latency 2 cycles, one row a cycle; with `holds`, `word` stays while `enable` is low
    Golden:   sw/golden/weight/dither.py, equal in every bit
    """

    def __init__(self, *, holds: bool = False) -> None:
        self.holds = holds
        super().__init__({"state": In(WORD), "row": In(ROW_BITS), "word": Out(WORD)} | ({"enable": In(1)} if holds else {}))

    def elaborate(self, platform) -> Module:
        m = Module()
        mixed = self.state ^ (self.row | (self.row << ROW_BITS))
        x, y = mixed[ROW_BITS:WORD], mixed[:ROW_BITS]
        for number in range(ROUNDS):
            x, y = y ^ (x.rotate_left(1) & x.rotate_left(8)) ^ x.rotate_left(2), x
            if number % 2:
                x_held, y_held = (Signal(ROW_BITS, name=f"{half}_{number}", reset_less=True) for half in "xy")
                if self.holds and number == ROUNDS - 1:
                    x, y = (Mux(self.enable, new, held) for new, held in ((x, x_held), (y, y_held)))
                m.d.sync += [x_held.eq(x), y_held.eq(y)]
                x, y = x_held, y_held
        m.d.comb += self.word.eq(y | (x << ROW_BITS))
        return m
