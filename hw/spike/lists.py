"""Lists of what is not zero, so that a pass over the synapses never meets a zero input."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.config import PIXEL_FRAC, Config
from hw.memory import Bank, HostBus, Select, damaged, follow, found_in
from hw.memory_map import regions
from hw.streams import bits_for


class UnitList(wiring.Component):
    """One list a presynaptic layer of `config.list_base`, each in that layer's own stretch of a memory.

    `start` empties the list of layer `layer`; `push` appends the units of word `row` of the layer that it has a bit for: unit row * M + q for
    bit q of the M neuron lanes. Those of a word are listed one a cycle; words wait meanwhile (`busy`). The k-th entry of a layer is read at
    `read_index` = k and `read_layer`, `length` is how many there are.

    Timing:   a word a cycle in, an entry a cycle out, read latency 1 cycle
    """

    def __init__(self, config: Config):
        self.config = config
        self.index_bits = bits_for(max(config.sizes[l] for l in config.list_base))
        layer_bits = bits_for(config.n_layers)
        super().__init__(
            {
                "layer": In(layer_bits),
                "start": In(1),
                "push": In(config.neuron_lanes),
                "row": In(bits_for(config.neuron_words(max(config.sizes)))),
                "busy": Out(1),
                "read_layer": In(layer_bits),
                "read_enable": In(1),
                "read_index": In(self.index_bits),
                "read_data": Out(self.index_bits),
                "length": Out(self.index_bits + 1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        c = self.config
        m.submodules.memory = memory = Memory(shape=self.index_bits, depth=max(2, c.listed_units), init=[])
        writer, reader = memory.write_port(), memory.read_port()
        first = min(c.list_base)
        bases = Array(c.list_base[l] for l in range(first, c.n_layers))
        lengths = Array(Signal(self.index_bits + 1, name=f"length_{l}") for l in range(first, c.n_layers))
        written, read = self.layer - first, self.read_layer - first
        push, unit = self._serial(m)
        m.d.comb += [
            writer.addr.eq(bases[written] + lengths[written]),
            writer.data.eq(unit),
            writer.en.eq(push),
            reader.addr.eq(bases[read] + self.read_index),
            reader.en.eq(self.read_enable),
            self.read_data.eq(reader.data),
            self.length.eq(lengths[read]),
        ]
        with m.If(self.start):
            m.d.sync += lengths[written].eq(0)
        with m.Elif(push):
            m.d.sync += lengths[written].eq(lengths[written] + 1)
        return m

    def _serial(self, m: Module) -> tuple[Value, Value]:
        """Whether there is a unit to list, and which: the lowest bit of a word that is not listed yet."""
        lanes = self.config.neuron_lanes
        if lanes == 1:
            return self.push, self.row
        m.submodules.words = words = SyncFIFOBuffered(width=lanes + len(self.row), depth=max(4, self.config.neuron_words(max(self.config.sizes))))
        pending, row, lane = Signal(lanes), Signal.like(self.row), Signal(range(lanes))
        rest, waiting = (pending & (pending - 1))[:lanes], Signal()
        m.d.comb += [
            words.w_data.eq(Cat(self.push, self.row)),
            words.w_en.eq(self.push.any()),
            words.r_en.eq(rest == 0),
            self.busy.eq(self.push.any() | waiting | pending.any()),
        ]
        for q in reversed(range(lanes)):
            with m.If(pending[q]):
                m.d.comb += lane.eq(q)
        m.d.sync += [pending.eq(rest), waiting.eq(self.push.any() | (words.level != 0))]
        with m.If(words.r_en & words.r_rdy):
            m.d.sync += Cat(pending, row).eq(words.r_data)
        return pending.any(), Cat(lane, row)


class Frame(wiring.Component):
    """The pixels of a static frame that are not zero, in ascending order: index above value.

    The host writes pixel after pixel, zeros too; row 0 starts a frame.

    Timing:   one pixel a cycle in, one entry a cycle out, read latency 1 cycle
    """

    def __init__(self, config: Config):
        self.config = config
        self.index_bits = bits_for(config.sizes[0])
        super().__init__(
            {
                "host": In(HostBus()),
                "read_index": In(self.index_bits),
                "read_enable": In(1),
                "index": Out(self.index_bits),
                "value": Out(PIXEL_FRAC),
                "length": Out(self.index_bits + 1),
            }
            | damaged(config)
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        host, region = self.host, regions(self.config)["frame"]
        m.submodules.bank = bank = Bank(region, host_writes=False)
        meant = Select(m, host, region).meant & host.write
        pixel, at = host.data_w[:PIXEL_FRAC], Signal.like(self.length)
        m.d.comb += [
            follow(bank.host, host),
            host.data_r.eq(bank.host.data_r),
            at.eq(Mux(host.row == 0, 0, self.length)),
            bank.write.eq(meant & (pixel != 0)),
            bank.write_address.eq(at),
            bank.write_data.eq(pixel | (host.row[: self.index_bits] << PIXEL_FRAC)),
            bank.read_address.eq(self.read_index),
            bank.read_enable.eq(self.read_enable),
            self.value.eq(bank.read_data[:PIXEL_FRAC]),
            self.index.eq(bank.read_data[PIXEL_FRAC:]),
        ]
        if self.config.parity:
            m.d.comb += self.damaged.eq(found_in([bank]))
        length = Signal.like(self.length)
        m.d.comb += self.length.eq(length)
        with m.If(meant):
            m.d.sync += length.eq(at + (pixel != 0))
        return m


