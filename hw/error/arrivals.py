"""Errors on their way from the lanes to the neurons."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.machine import Machine


class Arrivals(wiring.Component):
    """Errors come one by one on `error` until they fill a word of the neuron lanes, or as words on `error_words`.

    `mask` has the lanes of the word that hold a neuron. The word is complete (`whole`) with its last error; `begins` empties it.
    """

    def __init__(self, machine: Machine):
        lanes, error = machine.neuron_lanes, signed(machine.delta.bits)
        super().__init__(
            {
                "begins": In(1),
                "mask": In(lanes),
                "error": In(stream.Signature(error, always_ready=True)),
                "error_words": In(stream.Signature(data.ArrayLayout(error, lanes), always_ready=True)),
                "whole": Out(1),
                "word": Out(error).array(lanes),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        single, words, lanes = self.error, self.error_words, len(self.mask)
        slot = Signal(range(max(lanes, 2)))
        more = Cat(Const(0), *((slot == q) & self.mask[q + 1] for q in range(lanes - 1))).any()
        m.d.comb += self.whole.eq((single.valid & ~more) | words.valid)
        with m.If(self.begins | self.whole):
            m.d.sync += slot.eq(0)
        with m.Elif(single.valid):
            m.d.sync += slot.eq(slot + 1)
        for q, of_lane in enumerate(self.word):
            error = Signal.like(of_lane, name=f"error_{q}")
            m.d.comb += of_lane.eq(error)
            with m.If(single.valid & (slot == q)):
                m.d.sync += error.eq(single.payload)
            with m.If(words.valid):
                m.d.sync += error.eq(words.payload[q])
        return m
