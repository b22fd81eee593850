"""Hands deltas to the lanes and lists what has a non-zero delta; hands on spikes and traces likewise."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.machine import Machine
from hw.numbers import bits_for
from hw.pipeline import delay
from hw.program import NeuronOp, neuron_fields
from hw.streams import own_word, row_layout


def delta_entry(c: Machine) -> data.StructLayout:
    """A group of lanes: its first weight row, its number in the layer, and whether it is the last one.

    In a layer banked by its inputs an entry stands for a neuron, and has its delta; else that is 0."""
    row, number, value = bits_for(c.capacity.weight_rows), bits_for(c.listed_deltas), data.ArrayLayout(1, c.delta.bits)
    return data.StructLayout({"row": row, "number": number, "last": 1, "value": value})


def nonzero(word) -> Value:
    """Whether one of the deltas of a word is of a neuron, and not 0."""
    return Cat((delta != 0) & of_neuron for delta, of_neuron in zip(word.lane, word.mask, strict=True)).any()


class Dealer(wiring.Component):
    """Takes in order what a layer's neurons have for their lanes, in every cycle a word of the neuron lanes or a single neuron.

    Neuron i goes to lane i mod P, row `base` + i div P. `start` begins a layer, whose neurons come one by one if it is `serial`;
    `ends`: the word is the last of its row of lanes, or of the `words` of the layer.

    Timing:   one word a cycle. Where lanes lie far away they get their words `Wires.ends` cycles later
    """

    def __init__(self, machine: Machine):
        self.machine = machine
        fields = neuron_fields(machine)
        super().__init__(
            {
                "start": In(1),
                "base": In(fields["delta_row"]),
                "words": In(fields["words"]),
                "serial": In(1),
                "valid": In(1),
                "mask": In(machine.neuron_lanes),
                "last": Out(1),
                "ends": Out(1),
                "write": Out(machine.lanes),
                "write_row": Out(fields["delta_row"]),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        c, late = self.machine, lambda value: delay(m, value, self.machine.wires.ends)
        part, left, row = Signal(c.lanes // c.neuron_lanes, init=1), Signal.like(self.words), Signal.like(self.base)
        whole = ~self.serial | self.mask[-1]
        strobes = Cat(late(self.mask) & bit.replicate(c.neuron_lanes) for bit in late(part))
        m.d.comb += [
            self.last.eq(left == 1),
            self.ends.eq((part[-1] & whole) | self.last),
            self.write.eq(Mux(late(self.valid), strobes, 0)),
            self.write_row.eq(late(row)),
        ]
        with m.If(self.start):
            m.d.sync += [part.eq(1), left.eq(self.words), row.eq(self.base)]
        with m.Elif(self.valid):
            m.d.sync += [left.eq(left - 1), part.eq(Mux(whole, part.rotate_left(1), part)), row.eq(row + self.ends)]
        return m


class DeltaLists(wiring.Component):
    """Hands a layer's deltas to the lanes and lists the groups of lanes that have one.

    For a layer banked by its inputs the neurons are listed instead. `start` opens the list of the layer that `row` of the
    neurons' program names. Two lists are kept, odd and even, since an error passes back while the next list is written. A row
    that `deals` hands on spikes and traces, and lists nothing.

    `nonzero` tells, with a word, whether it has a delta (the function of that name).

    Timing:   one word a cycle, read latency 1 cycle
    """

    def __init__(self, machine: Machine):
        self.machine, self.index_bits = machine, bits_for(machine.listed_deltas)
        self.dealer = Dealer(machine)
        super().__init__(
            {
                "start": In(1),
                "row": In(row_layout(neuron_fields(machine))),
                "valid": In(1),
                "word": In(own_word(machine)),
                "nonzero": In(1),
                "write": Out(machine.lanes),
                "write_row": Out(neuron_fields(machine)["delta_row"]),
                "read_odd": In(1),
                "read_index": In(self.index_bits),
                "read_enable": In(1),
                "read_data": Out(delta_entry(machine)),
                "length": Out(self.index_bits + 1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        c, row = self.machine, self.row
        m.submodules.dealer = dealer = self.dealer
        bits = delta_entry(c).size - c.delta.bits + c.turned(c.delta.bits)  # the lower ones of an entry, all that is not 0
        m.submodules.memory = memory = Memory(shape=bits, depth=2 << self.index_bits, init=[])
        writer, reader = memory.write_port(), memory.read_port()
        odd, seen, listing = Signal(), Signal(), Signal()
        first_row, number, entry = Signal(len(self.read_data.row)), Signal(len(self.read_data.number)), Signal(delta_entry(c))
        lengths = Array(Signal(self.index_bits + 1, name=f"length_{parity}") for parity in ("even", "odd"))
        any_delta, over = Signal(), Signal()
        m.d.comb += [
            dealer.start.eq(self.start),
            dealer.base.eq(row.delta_row),
            dealer.words.eq(row.words),
            dealer.serial.eq(row.turned),
            dealer.valid.eq(self.valid),
            dealer.mask.eq(self.word.mask),
            self.write.eq(dealer.write),
            self.write_row.eq(dealer.write_row),
            any_delta.eq(seen | self.nonzero),
            over.eq(self.valid & (dealer.ends | row.turned)),
            writer.addr.eq(lengths[odd] | (odd << self.index_bits)),
            entry.row.eq(first_row),
            entry.number.eq(number),
            entry.last.eq(dealer.last),
            entry.value.eq(self._single()),
            writer.data.eq(entry),
            writer.en.eq(over & any_delta & listing),
            reader.addr.eq(self.read_index | (self.read_odd << self.index_bits)),
            reader.en.eq(self.read_enable),
            self.read_data.as_value().eq(reader.data),
            self.length.eq(lengths[self.read_odd]),
        ]
        with m.If(self.start):
            m.d.sync += [seen.eq(0), first_row.eq(row.weight_row), number.eq(0), listing.eq(~row.deals)]
            with m.If(~row.deals):
                m.d.sync += [odd.eq(row.odd), lengths[row.odd].eq(0)]
        with m.Elif(self.valid):
            m.d.sync += seen.eq(any_delta)
            with m.If(over):
                m.d.sync += [seen.eq(0), first_row.eq(first_row + row.fan_in), number.eq(number + 1)]
                with m.If(listing):
                    m.d.sync += lengths[odd].eq(lengths[odd] + any_delta)
        return m

    def _single(self) -> Value:
        """The delta of a word that has only one."""
        word: Value = Mux(self.word.mask[0], self.word.lane[0], 0)
        for lane, of_neuron in zip(list(self.word.lane)[1:], list(self.word.mask)[1:], strict=True):
            word = word | Mux(of_neuron, lane, 0)
        return word[: self.machine.delta.bits]


def erring(row) -> Value:
    """Whether a row of the neurons' program is a pass of errors."""
    return (row.op == NeuronOp.OUTPUT_ERROR) | (row.op == NeuronOp.HIDDEN_ERROR)


def starts(row) -> Value:
    """Whether a row of the neurons' program hands something to the lanes."""
    return erring(row) | row.deals | ((row.op == NeuronOp.FINISH) & row.held)
