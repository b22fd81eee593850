"""The lanes: weights banked by neuron, or by input, one row address for all, one multiplier each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from amaranth.hdl import Module, Mux, Signal, Value, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.machine import Machine
from hw.memory import HostBus, LaneBanks, SpramBanks, WideBanks, ask, far_buses, far_moves, found_in
from hw.memory_map import DAMAGED_BITS, regions
from hw.numbers import NEURON_MULTIPLIERS, PIXEL_FRAC, bits_for
from hw.pipeline import delay, spread
from hw.program import LaneOp
from hw.streams import lane_multiplier, mul_port, operand_bits, row_op
from hw.weight.changes import Changes, ChangesInTurns, DecayingChanges
from hw.weight.dither import LAYER_BITS, WORD, Dither
from hw.weight.gradients import gradients
from hw.weight.products import FarProducts, Products, SharedProducts
from hw.weight.rounding import rounding
from hw.weight.rows import DOING, Rows
from hw.weight.sums import Fold, Sums, SumsInPlace, words


class Parts(NamedTuple):
    """Blocks that depend on how a machine's multipliers are used."""

    weights: Any
    delta: Any
    products: type[Products]
    sums: type[Sums]
    changes: type[Changes]


def parts(c: Machine) -> Parts:
    """Those of a machine."""
    region = regions(c)
    if c.shared:
        return Parts(SpramBanks(region["weight"]), WideBanks(region["delta"]), SharedProducts, SumsInPlace, ChangesInTurns)
    if c.weight_memory == "spram":
        return Parts(SpramBanks(region["weight"]), LaneBanks(region["delta"]), Products, Sums, Changes)
    weights, delta = LaneBanks(region["weight"], c.wires.tree, together=True), LaneBanks(region["delta"], c.wires.tree)
    changes = DecayingChanges if c.capacity.decay else Changes
    return Parts(weights, delta, FarProducts if c.wires.tree else Products, Sums, changes)


def each(ports: Sequence[Value], values: Sequence[Value]) -> list:
    """Statements that give every lane its own."""
    return [port.eq(value) for port, value in zip(ports, values, strict=True)]


class Lanes(wiring.Component):
    """P lanes; lane p holds the weights of the neurons p, p + P, ... of every layer, or of these inputs, if it is `turned`.

    `sweep` holds while rows are on their way (`busy`). A row's operand comes on `operand`, 1 + `Wires.ends` cycles after the
    row: a pixel or 256 for a spike (FORWARD), a weight trace or a pixel in that format (GATHER, DESCEND). `rate` is the
    learning rate 2**-rate. `current` gives the P currents of a group in words of the neuron lanes, and includes lanes without a
    neuron; `error` gives one value a sum. Of a layer banked by its inputs a current is a sum over the lanes (`single_current`),
    and an error one lane's sum (`error_words`). `next_random`: an update of a layer is over.

    Lazy learning: a FORWARD sweep takes H from G in the rows it sums, if it `gathers`; APPLY adds K * trace to G. H and K come
    as `sum_data`. A machine that shares lends its first multipliers as `mul`, in the cycle after `reserve`.

    Numerics: docs/numerics.md, the lines of I, e, g, G and W
    Timing:   a row a cycle; a free cycle after a FORWARD sum, in which the sums move on and clear; a row every second cycle
              where the weights are changed in single-port memories; the P currents of a group leave before the next `last` row
              is taken. If lanes are shared (`Machine.shared`), the currents leave before the next row's product comes, and no
              row is taken while `reserve` is high.
              Latency of a sum: R + 4 cycles (FORWARD), R + 4 + ceil(log2 P) (BACKWARD), where R is `Wires.latency`
    Golden:   sw/golden/weight/lanes.py, equal in every bit
    """

    def __init__(self, machine: Machine):
        c = self.machine = machine
        self.answer_moves = far_moves(c)
        chosen = parts(c)
        self.weights, self.delta, self.gradients = chosen.weights, chosen.delta, gradients(c)
        bits = sum(lane_multiplier(c, self.gradients.learned_bits))
        self.products, self.sums, self.fold = chosen.products(c, self.gradients), chosen.sums(c, bits), Fold(c, bits)
        # the cycles in which weights are read again for their change, and written
        applied = self.gradients.APPLIED
        self.rounding = rounding(c, c.wires.latency - 1 + applied - Dither.LATENCY - c.wires.ends)
        self.changes = chosen.changes(c, self.rounding)
        self.written = applied + 3
        self.rows = Rows(c, (applied + 1 - c.wires.latency, self.written, *self.gradients.row_cycles), self.written)
        super().__init__(
            {
                "sweep": In(LaneOp),
                "turned": In(1),
                "op": In(stream.Signature(row_op(c))),
                "operand": In(signed(operand_bits(c))),
                "rate": In(4),
                "remainder": In(1),  # what APPLY rounds off stays in G
                "current": Out(words(c, c.u)),
                "error": Out(stream.Signature(signed(c.delta.bits), always_ready=True)),
                "single_current": Out(stream.Signature(signed(c.u.bits), always_ready=True)),
                "error_words": Out(words(c, c.delta)),
                "own_write": In(c.lanes),
                "own_row": In(bits_for(c.capacity.delta_rows)),
                "own_data": In(c.own_bits).array(c.lanes),
                # random bits: `by_chance` turns them on, `layer` is that of the sweep
                "layer": In(LAYER_BITS),
                "by_chance": In(1),
                "next_random": In(1),
                "random": Out(WORD),
                "random_write": In(1),
                "random_data": In(WORD),
                # lazy learning
                "gathers": In(1),
                "sum_write": In(c.lanes),
                "sum_row": In(bits_for(c.capacity.delta_rows)),
                "sum_data": In(signed(c.grad.bits)).array(c.lanes),
                # multipliers for the neurons
                "reserve": In(1),
                "mul": In(mul_port(c)).array(NEURON_MULTIPLIERS * c.neuron_lanes),
                "busy": Out(1),
                "host": In(HostBus()),
                "damaged": Out(DAMAGED_BITS),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        for name in ("rows", "weights", "delta", "products", "sums", "fold", "gradients", "rounding", "changes"):
            m.submodules[name] = getattr(self, name)
        banks = [self.weights, self.delta, self.gradients]
        (host,) = far_buses(m, self.host, self.machine.wires.ends, 1)
        m.d.comb += [
            self.host.data_r.eq(ask(m, host, banks, self.answer_moves - self.machine.wires.ends)),
            self.damaged.eq(found_in(banks)),
        ]
        self._decode(m)
        self._take(m)
        self._read(m)
        self._sum(m)
        self._learn(m)
        return m

    def _decode(self, m: Module) -> None:
        """What the sweep is, a cycle later, long before the first row comes: every lane looks at it."""
        doing = self.doing = Signal(DOING)
        forward, backward, decay = (self.sweep == op for op in (LaneOp.FORWARD, LaneOp.BACKWARD, LaneOp.DECAY))
        flags = {
            "forward": forward,
            "backward": backward,
            "turned": self.turned,
            "gather": self.sweep == LaneOp.GATHER,
            "apply": self.sweep == LaneOp.APPLY,
            "changing": (self.sweep == LaneOp.DESCEND) | (self.sweep == LaneOp.APPLY) | decay,
            "decaying": decay,
            "summing": forward | backward,
            "weighing": forward | backward | decay,
            "folding": backward & ~self.turned | forward & self.turned,
        }
        for name, flag in flags.items():
            decoded = Signal(name=name)
            m.d.sync += decoded.eq(flag)
            m.d.comb += doing[name].eq(decoded)
        for block in (self.products, self.sums, self.fold, self.gradients, self.changes):
            m.d.comb += [block.doing.eq(doing), block.flight.eq(self.rows.flight)]

    def _take(self, m: Module) -> None:
        """A row is taken if it does not disturb those that are on their way."""
        op, doing, sums, rows, pause = self.op, self.doing, self.sums, self.rows, Signal()
        taken, ends = op.valid & op.ready, op.p.last & doing.summing & ~doing.folding
        m.d.comb += [
            op.ready.eq(~pause & sums.free & self.products.free),
            sums.ends.eq(ends),
            sums.taken.eq(taken),
            rows.taken.eq(taken),
            rows.p.eq(op.p),
            self.busy.eq(rows.busy | sums.busy),
        ]
        m.d.sync += pause.eq(taken & (ends | (doing.changing & self.weights.single_port)))

    def _read(self, m: Module) -> None:
        """Weights and what a lane has of its own from their memories, and the operand beside them, to the multipliers."""
        c, op, products, gradients, doing = self.machine, self.op, self.products, self.gradients, self.doing
        again, written = self.rows.then[:2]
        m.d.comb += [
            self.weights.read_address.eq(Mux(doing.changing & ~doing.decaying, again, op.p.row)),
            self.weights.write_address.eq(written),
            self.weights.write.eq((self.rows.flight.valid[self.written] & doing.changing).replicate(c.lanes)),
            self.delta.read_address.eq(op.p.delta_row),
            self.delta.write.eq(self.own_write),
            self.delta.write_address.eq(self.own_row),
        ]
        factors, turned = spread(m, self.operand, c.wires.tree, c.lanes), spread(m, self.turned, c.wires.tree, c.lanes)
        spikes = spread(m, doing.forward & self.turned, c.wires.tree, c.lanes)
        for lane in range(c.lanes):
            weight, own = (delay(m, bank.read_data[lane], c.wires.ends) for bank in (self.weights, self.delta))
            own = self._own(own, spikes[lane], turned[lane])
            m.d.comb += [
                self.delta.write_data[lane].eq(self.own_data[lane]),
                products.weight[lane].eq(weight.as_signed()),
                products.own[lane].eq(own),
                products.factor[lane].eq(factors[lane]),
                products.learned[lane].eq(gradients.learned[lane]),
                gradients.own[lane].eq(own),
                self.changes.weight[lane].eq(weight.as_signed()),
                self.weights.write_data[lane].eq(self.changes.changed[lane]),
            ]

    def _own(self, word: Value, spike: Value, turned: Value) -> Value:
        """A lane's delta; if turned, its input's trace or, forward, 256 for a spike."""
        c = self.machine
        delta, trace = word[: c.delta.bits].as_signed(), word[: c.trace.bits].as_signed()
        return Mux(spike, (word[-1] << PIXEL_FRAC).as_signed(), Mux(turned, trace, delta)).as_signed()

    def _sum(self, m: Module) -> None:
        """Products to the sums; and the multipliers that are lent."""
        for lane, product in enumerate(self.products.product):
            m.d.comb += [self.sums.product[lane].eq(product), self.fold.product[lane].eq(product)]
        for source, out in ((self.sums.current, self.current), (self.sums.error_words, self.error_words),
                            (self.fold.error, self.error), (self.fold.current, self.single_current)):  # fmt: skip
            connect(m, source, flipped(out))
        m.d.comb += self.products.reserve.eq(self.reserve)
        for of_neurons, lent in zip(self.mul, self.products.mul, strict=True):
            connect(m, flipped(of_neurons), lent)

    def _learn(self, m: Module) -> None:
        """Products to the gradients, these to the changes of weights, which random bits round."""
        op, changes, gradients, random = self.op.p, self.changes, self.gradients, self.rounding
        m.d.comb += [
            *(getattr(gradients, name).eq(getattr(self, name)) for name in ("operand", "gathers", "sum_write", "sum_row")),
            *(getattr(gradients, name).eq(getattr(self, name)) for name in ("rate", "remainder")),
            *each(gradients.sum_data, self.sum_data),
            gradients.delta_row.eq(op.delta_row),
            *each(gradients.rows, self.rows.then[2:]),
            *each(gradients.gradient, self.products.gradient),
            changes.rate.eq(self.rate),
            *each(changes.applied, gradients.applied),
            *each(changes.later, gradients.later),
            *each(changes.word, random.word),
            *each(changes.chance, random.chance),
            self.weights.read_enable.eq(changes.reads),
            random.layer.eq(self.layer),
            random.group.eq(op.group),
            random.unit.eq(op.unit),
            random.turned.eq(self.turned),
            random.enable.eq(changes.draws),
            random.next.eq(self.next_random),
            random.write.eq(self.random_write),
            random.data.eq(self.random_data),
            random.by_chance.eq(self.by_chance),
            self.random.eq(random.state),
        ]
