"""Deltas on their way to the lanes, and the list of lane groups, or each lane's list of neurons, that have any."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.config import Config
from hw.pipeline import delay
from hw.streams import bits_for, neuron_word


def lane_entry(c: Config) -> data.StructLayout:
    """A neuron of a lane: its first weight row and its delta row."""
    return data.StructLayout({"row": bits_for(c.rows), "delta_row": bits_for(c.delta_rows)})


def group_entry(c: Config) -> data.StructLayout:
    """A group of lanes: the same of its neurons, and whether it is the layer's last one."""
    return data.StructLayout({**lane_entry(c).members, "last": 1})


def listed(c: Config) -> data.Layout:
    """What an index finds: a group, or in every lane a neuron, and whether the lane's list is that long (`live`)."""
    return data.ArrayLayout(data.StructLayout({"entry": lane_entry(c), "live": 1}), c.lanes) if c.lane_lists else group_entry(c)


def nonzero(word) -> Value:
    """Whether one of the deltas of a word is of a neuron, and not 0."""
    return Cat((delta != 0) & of_neuron for delta, of_neuron in zip(word.lane, word.mask, strict=True)).any()


class LaneLists(wiring.Component):
    """In every lane the list of its neurons that have a delta: `entry` is added where `write` has a bit. Two of each, odd and even, as in `Groups`.

    Timing:   an entry a lane and cycle, read latency 1 cycle
    """

    def __init__(self, config: Config, index_bits: int):
        self.config, self.index_bits = config, index_bits
        super().__init__(
            {
                "start": In(1),  # the list of parity `starts_odd` is opened; `odd` one is written
                "starts_odd": In(1),
                "odd": In(1),
                "write": In(config.lanes),
                "entry": In(lane_entry(config)),
                "read_odd": In(1),
                "read_index": In(index_bits),
                "read_enable": In(1),
                "read_data": Out(listed(config)),
                "length": Out(index_bits + 1),  # of the longest
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()

        def lengths(name: str) -> Array:
            of = Array(Signal(self.index_bits + 1, name=f"{name}_{parity}") for parity in ("even", "odd"))
            with m.If(self.start):
                m.d.sync += of[self.starts_odd].eq(0)
            return of

        longest, grows = lengths("longest"), Signal(self.config.lanes)
        for lane, entry in enumerate(self.read_data):
            m.submodules[f"lane_{lane}"] = memory = Memory(shape=lane_entry(self.config), depth=2 << self.index_bits, init=[])
            writer, reader, length = memory.write_port(), memory.read_port(), lengths(f"length_{lane}")
            m.d.comb += [
                writer.addr.eq(length[self.odd] | (self.odd << self.index_bits)),
                writer.data.eq(self.entry),
                writer.en.eq(self.write[lane]),
                grows[lane].eq(self.write[lane] & (length[self.odd] == longest[self.odd])),
                reader.addr.eq(self.read_index | (self.read_odd << self.index_bits)),
                reader.en.eq(self.read_enable),
                entry.entry.eq(reader.data),
            ]
            with m.If(self.write[lane]):
                m.d.sync += length[self.odd].eq(length[self.odd] + 1)
            with m.If(self.read_enable):
                m.d.sync += entry.live.eq(self.read_index < length[self.read_odd])
        with m.If(grows.any()):
            m.d.sync += longest[self.odd].eq(longest[self.odd] + 1)
        m.d.comb += self.length.eq(longest[self.read_odd])
        return m


class Groups(wiring.Component):
    """Takes a layer's deltas in order, a word of the neuron lanes a cycle; neuron i goes to lane i mod P.

    `start` opens the list of `layer` (0: the input gradient of a static frame, which stands on the rows of layer 1). Two lists are
    kept, that of the odd and that of the even layers (layer 0 uses the even one), since an error passes back while the next list is written.
    With `Config.lane_lists` every lane has its own, and `length` is the longest one's.

    Timing:   one word a cycle, read latency 1 cycle. Where lanes lie far away they get their words `Config.weight_registers` cycles later, and
              `nonzero` tells whether a word has a delta
    """

    def __init__(self, config: Config):
        self.config = config
        self.index_bits = bits_for(max(config.groups.values()))
        super().__init__(
            {
                "start": In(1),
                "layer": In(bits_for(config.n_layers + 1)),
                "valid": In(1),
                "delta": In(neuron_word(config, config.delta.bits)),
                "write": Out(config.lanes),
                "write_row": Out(bits_for(config.delta_rows)),
                "write_data": Out(signed(config.delta.bits)).array(config.lanes),
                "read_odd": In(1),
                "read_index": In(self.index_bits),
                "read_enable": In(1),
                "read_data": Out(listed(config)),
                "length": Out(self.index_bits + 1),
            }
            | ({"nonzero": In(1)} if config.weight_registers else {})
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        c = self.config
        late = lambda value: delay(m, value, c.weight_registers)  # noqa: E731  what goes to lanes that lie far away
        if c.lane_lists:
            m.submodules.lists = lists = LaneLists(c, self.index_bits)
        else:
            m.submodules.memory = memory = Memory(shape=group_entry(c), depth=2 << self.index_bits, init=[])
            writer, reader = memory.write_port(), memory.read_port()
        odd, left = Signal(), Signal(range(c.neuron_words(max(c.sizes)) + 1))  # words to come
        part, fan_in = Signal(c.lanes // c.neuron_lanes, init=1), Signal(range(max(c.sizes) + 1))  # which word of the group
        entry, seen = Signal(group_entry(c)), Signal()
        lengths = Array(Signal(self.index_bits + 1, name=f"length_{parity}") for parity in ("even", "odd"))

        last, any_delta = Signal(), Signal()
        deltas = [late(self.delta.lane[q]) for q in range(c.neuron_lanes)]
        m.d.comb += [
            last.eq(left == 1),
            any_delta.eq(seen | (self.nonzero if c.weight_registers else nonzero(self.delta))),
            self.write.eq(Mux(late(self.valid), Cat(late(self.delta.mask) & bit.replicate(c.neuron_lanes) for bit in late(part)), 0)),
            self.write_row.eq(late(entry.delta_row)),
            *(data.eq(deltas[lane % c.neuron_lanes]) for lane, data in enumerate(self.write_data)),
        ]
        if c.lane_lists:
            names = ("start", "read_odd", "read_index", "read_enable")
            m.d.comb += [
                *(getattr(lists, name).eq(getattr(self, name)) for name in names),
                lists.starts_odd.eq(self.layer[0]),
                lists.odd.eq(odd),
                lists.write.eq(self.write & Cat(delta != 0 for delta in self.write_data)),
                lists.entry.row.eq(late(entry.row)),
                lists.entry.delta_row.eq(late(entry.delta_row)),
                self.read_data.eq(lists.read_data),
                self.length.eq(lists.length),
            ]
        else:
            m.d.comb += [
                writer.addr.eq(lengths[odd] | (odd << self.index_bits)),
                writer.data.eq(entry),
                writer.data.last.eq(last),
                reader.addr.eq(self.read_index | (self.read_odd << self.index_bits)),
                reader.en.eq(self.read_enable),
                self.read_data.eq(reader.data),
                self.length.eq(lengths[self.read_odd]),
            ]
        with m.If(self.start):
            m.d.sync += [odd.eq(self.layer[0]), lengths[self.layer[0]].eq(0), part.eq(1), seen.eq(0)]
            with m.Switch(self.layer):
                for layer, delta_row in c.delta_base.items():
                    of = layer or 1
                    with m.Case(layer):
                        m.d.sync += [
                            left.eq(c.neuron_words(c.sizes[of])),
                            fan_in.eq(c.sizes[of - 1]),
                            entry.row.eq(c.row_base[of]),
                            entry.delta_row.eq(delta_row),
                        ]
        with m.Elif(self.valid):
            m.d.sync += [left.eq(left - 1), part.eq(part.rotate_left(1)), seen.eq(any_delta)]
            with m.If(part[-1] | last):
                if not c.lane_lists:
                    m.d.comb += writer.en.eq(any_delta)
                m.d.sync += [
                    part.eq(1),
                    seen.eq(0),
                    entry.row.eq(entry.row + fan_in),
                    entry.delta_row.eq(entry.delta_row + 1),
                    lengths[odd].eq(lengths[odd] + any_delta),
                ]
        return m
