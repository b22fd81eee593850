"""Lists of what is not zero, so that a pass over the synapses never meets a zero input."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.fixed import halves, round_shift
from hw.machine import Machine
from hw.memory import Bank, HostBus, Select, follow, found_in
from hw.memory_map import DAMAGED_BITS, regions
from hw.numbers import MEAN_BITS, PIXEL_FRAC, bits_for


class UnitList(wiring.Component):
    """The lists of presynaptic layers, each in its own stretch of a memory, from `base` on.

    `start` empties the list of number `list`. `push` appends units of word `row` of the layer: bit q of the M neuron lanes stands
    for unit row * M + q. The units of a word are listed one a cycle; further words wait meanwhile (`busy`). The list `read_list`
    begins at `read_base` and has `length` entries; its k-th entry is read at `read_index` = k.

    Timing:   a word a cycle in, an entry a cycle out, read latency 1 cycle
    """

    def __init__(self, machine: Machine):
        self.machine = machine
        capacity = machine.capacity
        self.index_bits = bits_for(max(capacity.fan_in, 1))
        list_bits, base_bits = bits_for(max(capacity.lists, 1)), bits_for(max(capacity.listed, 1))
        super().__init__(
            {
                "list": In(list_bits),
                "base": In(base_bits),
                "start": In(1),
                "push": In(machine.neuron_lanes),
                "row": In(bits_for(machine.words)),
                "busy": Out(1),
                "read_list": In(list_bits),
                "read_base": In(base_bits),
                "read_enable": In(1),
                "read_index": In(self.index_bits),
                "read_data": Out(self.index_bits),
                "length": Out(self.index_bits + 1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        c = self.machine
        m.submodules.memory = memory = Memory(shape=self.index_bits, depth=max(2, c.capacity.listed), init=[])
        writer, reader = memory.write_port(), memory.read_port()
        lengths = Array(Signal(self.index_bits + 1, name=f"length_{k}") for k in range(max(c.capacity.lists, 1)))
        written = self.list
        push, unit = self._serial(m)
        m.d.comb += [
            writer.addr.eq(self.base + lengths[written]),
            writer.data.eq(unit),
            writer.en.eq(push),
            reader.addr.eq(self.read_base + self.read_index),
            reader.en.eq(self.read_enable),
            self.read_data.eq(reader.data),
            self.length.eq(lengths[self.read_list]),
        ]
        with m.If(self.start):
            m.d.sync += lengths[written].eq(0)
        with m.Elif(push):
            m.d.sync += lengths[written].eq(lengths[written] + 1)
        return m

    def _serial(self, m: Module) -> tuple[Value, Value]:
        """Whether there is a unit to list, and which: the lowest bit of a word that is not listed yet."""
        lanes = self.machine.neuron_lanes
        if lanes == 1:
            return self.push, self.row
        m.submodules.words = words = SyncFIFOBuffered(width=lanes + len(self.row), depth=max(4, self.machine.words))
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

    The host writes pixel after pixel, zeros too; row 0 starts a frame. `whole`, `mean_factor` and `mean_shift`: see CentredFrame.

    Timing:   one pixel a cycle in, one entry a cycle out, read latency 1 cycle
    """

    def __init__(self, machine: Machine):
        self.machine = machine
        self.index_bits = bits_for(machine.capacity.pixels)
        super().__init__(
            {
                "host": In(HostBus()),
                "read_index": In(self.index_bits),
                "read_enable": In(1),
                "whole": In(1),
                "mean_factor": In(MEAN_BITS + 2),
                "mean_shift": In(5),
                "index": Out(self.index_bits),
                "value": Out(signed(PIXEL_FRAC + 2)),
                "length": Out(self.index_bits + 1),  # of the list that is read
                "listed": Out(self.index_bits + 1),  # pixels that are not zero
                "damaged": Out(DAMAGED_BITS),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        host, region = self.host, regions(self.machine)["frame"]
        m.submodules.bank = bank = Bank(region, host_writes=False)
        meant = Select(m, host, region).meant & host.write
        pixel, at, listed = host.data_w[:PIXEL_FRAC], Signal.like(self.listed), Signal.like(self.listed)
        m.d.comb += [
            follow(bank.host, host),
            host.data_r.eq(bank.host.data_r),
            at.eq(Mux(host.row == 0, 0, listed)),
            bank.write.eq(meant & (pixel != 0)),
            bank.write_address.eq(at),
            bank.write_data.eq(pixel | (host.row[: self.index_bits] << PIXEL_FRAC)),
            bank.read_address.eq(self.read_index),
            bank.read_enable.eq(self.read_enable),
            self.damaged.eq(found_in([bank])),
            self.listed.eq(listed),
        ]
        with m.If(meant):
            m.d.sync += listed.eq(at + (pixel != 0))
        self._entry(m, meant, pixel, bank.read_data[PIXEL_FRAC:], bank.read_data[:PIXEL_FRAC])
        return m

    def _entry(self, m: Module, meant: Value, pixel: Value, index: Value, value: Value) -> None:
        """What is read: an entry of the list. `pixel` is written if `meant`."""
        m.d.comb += [self.index.eq(index), self.value.eq(value), self.length.eq(self.listed)]


class CentredFrame(Frame):
    """The same; what is read is the `whole` frame, pixel by pixel, less its mean, where that is wanted.

    `mean_factor` and `mean_shift` are those of hw.numbers.mean_factor. The pixels are in a memory of their own, without parity.

    Numerics: docs/numerics.md, "Centred gradients"
    Timing:   the mean is there three cycles after the last pixel
    Golden:   sw/golden/weight/lanes.py, `frame_factor`, equal in every bit
    """

    def _entry(self, m: Module, meant: Value, pixel: Value, index: Value, value: Value) -> None:
        row = self.host.row[: self.index_bits]
        m.submodules.pixels = pixels = Memory(shape=PIXEL_FRAC, depth=max(2, self.machine.capacity.pixels), init=[])
        writer, reader = pixels.write_port(), pixels.read_port()
        total, shifted = Signal(PIXEL_FRAC + self.index_bits), Signal(PIXEL_FRAC + 1)
        product, mean = Signal(len(shifted) + len(self.mean_factor)), Signal(PIXEL_FRAC + 1)
        count, place = Signal.like(self.length), Signal(self.index_bits)
        with m.If(meant):
            m.d.sync += [total.eq(Mux(self.host.row == 0, 0, total) + pixel), count.eq(row + 1)]
        with m.If(self.read_enable):
            m.d.sync += place.eq(self.read_index)
        m.d.sync += [
            shifted.eq((halves(total, 0, self.mean_shift) + 1) >> 1),
            product.eq(shifted * self.mean_factor),
            mean.eq(round_shift(product, MEAN_BITS)),
        ]
        m.d.comb += [
            writer.addr.eq(row),
            writer.data.eq(pixel),
            writer.en.eq(meant),
            reader.addr.eq(self.read_index),
            reader.en.eq(self.read_enable),
            self.index.eq(Mux(self.whole, place, index)),
            self.value.eq(Mux(self.whole, reader.data - mean, value)),
            self.length.eq(Mux(self.whole, count, self.listed)),
        ]


class NoFrame(Frame):
    """In place of the frame in a machine that takes none: empty."""

    def elaborate(self, platform) -> Module:
        return Module()




def frame(machine: Machine) -> Frame:
    """As the machine takes frames."""
    return (CentredFrame if machine.capacity.centred else Frame if machine.holds_frames else NoFrame)(machine)
