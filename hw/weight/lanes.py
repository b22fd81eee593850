"""The lanes: weights banked by neuron, or by input, one row address for all, one multiplier each."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from amaranth.hdl import Array, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.fixed import dither_mask, dither_shift, floor_shift, halves, minus_halves, round_shift, rounding, saturate
from hw.machine import Machine
from hw.memory import HostBus, LaneBanks, SpramBanks, WideBanks, damaged, fan_out, far_moves, found_in, relay
from hw.memory_map import regions
from hw.numbers import NEURON_MULTIPLIERS, PIXEL_FRAC, bits_for, ceil_log2
from hw.pipeline import NEAR, DelayLine, Multiplier, delay, spread
from hw.program import LaneOp
from hw.streams import mul_port, operand_bits
from hw.weight.dither import LAYER_BITS, WORD, Dither


def row_op(c: Machine) -> data.StructLayout:
    """A row of weights, read in all lanes at once."""
    return data.StructLayout(
        {
            "row": bits_for(c.capacity.weight_rows),
            "delta_row": bits_for(c.capacity.delta_rows),
            "first": 1,  # of a sum
            "last": 1,  # of a sum: it leaves the lanes
        }
        # whose weights they are
        | ({"group": bits_for(c.lane_groups), "unit": bits_for(max(c.capacity.fan_in, c.listed_deltas))} if c.stochastic else {})
    )


def lazy_members(c: Machine) -> dict[str, wiring.Member]:
    """What the lanes take besides for lazy learning."""
    return {
        "gathers": In(1),
        "sum_write": In(c.lanes),
        "sum_row": In(bits_for(c.capacity.delta_rows)),
        "sum_data": In(signed(c.grad.bits)).array(c.lanes),
    }


def random_members() -> dict[str, wiring.Member]:
    """What the lanes take and give for random bits; `by_chance` turns them on, `layer` is that of the sweep."""
    return {"layer": In(LAYER_BITS), "by_chance": In(1), "random": Out(WORD), "random_write": In(1), "random_data": In(WORD)}


def turned_members(c: Machine) -> dict[str, wiring.Member]:
    """What the lanes take and give for a layer banked by its inputs: a current is a sum over the lanes, an error one lane's sum."""
    words = data.ArrayLayout(signed(c.delta.bits), c.neuron_lanes)
    return {
        "turned": In(1),
        "single_current": Out(stream.Signature(signed(c.u.bits), always_ready=True)),
        "error_words": Out(stream.Signature(words, always_ready=True)),
    }


def lent(c: Machine) -> dict[str, wiring.Member]:
    """What the lanes give if they share: the multipliers `mul` of the first lanes, the neurons' in the cycle after `reserve`."""
    return {"reserve": In(1), "mul": In(mul_port(c)).array(NEURON_MULTIPLIERS * c.neuron_lanes)} if c.shared else {}


class Lanes(wiring.Component):
    """P lanes; lane p holds the weights of the neurons p, p + P, ... of every layer, or of these inputs, if it is `turned`.

    `sweep` holds while rows are on their way (`busy`). A row's operand comes on `operand`, 1 + `Wires.ends` cycles after the
    row: a pixel or 256 for a spike (FORWARD), a weight trace or a pixel in that format (GATHER, DESCEND). `rate` is the
    learning rate 2**-rate. `current` gives the P currents of a group in words of the neuron lanes, and includes lanes without a
    neuron; `error` gives one value a sum. `next_random`: an update of a layer is over.

    Lazy learning: a FORWARD sweep takes H from G in the rows it sums, if it `gathers`; APPLY adds K * trace to G. H and K come
    as `sum_data`.

    Numerics: docs/numerics.md, the lines of I, e, g, G and W
    Timing:   a row a cycle; a free cycle after a FORWARD sum, in which the sums move on and clear; a row every second cycle
              where the weights are changed in single-port memories; the P currents of a group leave before the next `last` row
              is taken. If lanes are shared (`Machine.shared`), the currents leave before the next row's product comes, and no
              row is taken while `reserve` is high.
              Latency of a sum: R + 4 cycles (FORWARD), R + 4 + ceil(log2 P) (BACKWARD), where R is `Wires.latency`
    Golden:   sw/golden/weight/lanes.py, equal in every bit
    """

    DEPTH = 8  # cycles from a row to its written word, where `Wires.latency` is 1; lazy learning takes one more
    ROUNDED = 4  # the cycle in which its random word is used

    def __init__(self, machine: Machine):
        self.machine, self.answer_moves = machine, far_moves(machine)
        super().__init__(
            {
                "sweep": In(LaneOp),
                "op": In(stream.Signature(row_op(machine))),
                "operand": In(signed(operand_bits(machine))),
                "rate": In(4),
                "next_random": In(1),
                "current": Out(stream.Signature(data.ArrayLayout(signed(machine.u.bits), machine.neuron_lanes), always_ready=True)),
                "error": Out(stream.Signature(signed(machine.delta.bits), always_ready=True)),
                "own_write": In(machine.lanes),
                "own_row": In(bits_for(machine.capacity.delta_rows)),
                "own_data": In(machine.own_bits).array(machine.lanes),
                "busy": Out(1),
                "host": In(HostBus()),
            }
            | (random_members() if machine.stochastic else {})
            | (turned_members(machine) if machine.both_ways else {})
            | (lazy_members(machine) if machine.lazy else {})
            | damaged(machine)
            | lent(machine)
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        c, region = self.machine, regions(self.machine)
        in_lanes = partial(LaneBanks, registers=c.wires.tree)
        if c.weight_memory == "spram":
            self.weights = SpramBanks(region["weight"], pauses=c.shared)
        else:
            self.weights = in_lanes(region["weight"], together=True)
        self.delta = WideBanks(region["delta"]) if c.shared else in_lanes(region["delta"])
        self.grads = in_lanes(region["grad"], together=True) if c.capacity.grad_rows else None
        members = {"weights": self.weights, "delta": self.delta, "grads": self.grads}
        if c.lazy:  # what the neurons sum, by lane; a copy that no host could repair, so that it has no parity
            copy = replace(region["delta_sum"], lanes=c.lanes, depth=c.capacity.delta_rows, parity=False)
            members["sums"] = self.sums = in_lanes(copy, hosted=False)
        for name, member in members.items():
            if member is not None:
                m.submodules[name] = member
        host = relay(m, self.host) if c.wires.ends else self.host
        banks = [member for member in members.values() if member is not None]
        fan_out(m, host, banks, max(0, self.answer_moves - 1))  # `relay` has one
        if c.parity:
            m.d.comb += self.damaged.eq(found_in(bank for bank in banks if bank.region.parity))

        # decoded a cycle later, long before the first row comes: every lane looks at them
        self.forward, self.backward, self.gather, self.descend, self.apply = Signal(), Signal(), Signal(), Signal(), Signal()
        self.summing, self.folding = Signal(), Signal()  # a sum of any kind; one over the lanes
        turned = self.turned if c.both_ways else Const(0)
        m.d.sync += [
            self.folding.eq((self.sweep == LaneOp.BACKWARD) & ~turned | (self.sweep == LaneOp.FORWARD) & turned),
            self.forward.eq(self.sweep == LaneOp.FORWARD),
            self.backward.eq(self.sweep == LaneOp.BACKWARD),
            self.gather.eq(self.sweep == LaneOp.GATHER),
            self.descend.eq(self.sweep == LaneOp.DESCEND),
            self.apply.eq(self.sweep == LaneOp.APPLY),
            self.summing.eq((self.sweep == LaneOp.FORWARD) | (self.sweep == LaneOp.BACKWARD)),
        ]
        self._issue(m)
        self._read(m)
        products = self._multiply(m)
        self._forward(m, products)
        self._backward(m, products)
        self._update(m, products)
        return m

    def _issue(self, m: Module) -> None:
        """Take rows; `valid[k]` and `row[k]` tell of the row whose weights and operand come to the multipliers in cycle k = 1."""
        c, op = self.machine, self.op
        self.changing = changing = self.descend | self.apply
        later, way = int(c.lazy), c.wires.tree  # lazy weights change a cycle later, behind the sum of their gradient
        self.reread, self.written, self.rounded = 5 + later - c.wires.latency, 7 + later, self.ROUNDED + later
        words = c.lanes // c.neuron_lanes  # of currents, of a group
        behind = words + 1 if c.shared else words - 1  # cycles in which no other sum may end
        pause, leaving = Signal(), Signal(range(max(behind + 1, 2)))
        taken, sum_ends = op.valid & op.ready, op.p.last & self.summing & ~self.folding
        if c.shared:  # the sums leave as they stand, so that none may begin
            m.d.comb += op.ready.eq(~pause & (leaving == 0) & ~self.reserve)
        else:
            m.d.comb += op.ready.eq(~pause & ~(sum_ends & (leaving != 0)))
        m.d.sync += pause.eq(taken & (sum_ends | (changing & self.weights.single_port)))
        with m.If(taken & sum_ends):
            m.d.sync += leaving.eq(behind)
        with m.Elif(leaving != 0):
            m.d.sync += leaving.eq(leaving - 1)

        wait = c.wires.latency - 1  # cycles from taking a row to k = 0
        depth = wait + max(self.DEPTH + later + way, 6 + ceil_log2(c.lanes))
        in_flight: Value = Const(0)
        chains = {"valid": [taken], "first": [op.p.first], "last": [op.p.last]}
        for name, chain in chains.items():
            for k in range(1, depth):
                following = Signal(len(chain[0]), name=f"{name}_{k}", reset_less=name != "valid")
                m.d.sync += following.eq(chain[-1])
                chain.append(following)
            setattr(self, name, chain[wait:])
        for valid in chains["valid"]:
            in_flight |= valid
        delays = sorted({self.reread, self.written, *((3 - way, 5) if c.capacity.grad_rows else ())})
        m.submodules.rows = rows = DelayLine(len(op.p.row), tuple(wait + k for k in delays))
        m.d.comb += rows.i.eq(op.p.row)
        self.row = dict(zip(delays, rows.delayed, strict=True))
        self.draining = Signal()
        m.d.comb += self.busy.eq(in_flight | self.draining)

    def _in_reach(self, m: Module, flag: Value) -> list:
        """`flag`, which holds for a sweep, for every lane from a register near it."""
        return spread(m, flag, self.machine.wires.tree, self.machine.lanes)

    def _read(self, m: Module) -> None:
        """Weights and deltas from their memories, between registers where wires are far, and the operand beside them."""
        c, op = self.machine, self.op
        around = c.wires.ends
        m.d.comb += [
            self.weights.read_address.eq(Mux(self.changing, self.row[self.reread], op.p.row)),
            self.delta.read_address.eq(op.p.delta_row),
            self.delta.write.eq(self.own_write),
            self.delta.write_address.eq(self.own_row),
            *(self.delta.write_data[lane].eq(self.own_data[lane]) for lane in range(c.lanes)),
        ]
        self.w_read = [delay(m, self.weights.read_data[lane].as_signed(), around) for lane in range(c.lanes)]
        if c.both_ways or c.lazy:
            self.forward_in = self._in_reach(m, self.forward)
        self.own_read = [delay(m, self.delta.read_data[lane], around).as_signed() for lane in range(c.lanes)]
        if c.both_ways:
            flags = zip(self.forward_in, self._in_reach(m, self.turned), strict=True)
            self.own_read = [self._own(word, *known) for word, known in zip(self.own_read, flags, strict=True)]
        self.factor = spread(m, self.operand, c.wires.tree, c.lanes)
        self.grad_shift = c.trace.f if c.lazy else c.weight_grad_shift
        if c.lazy:  # FORWARD takes them two cycles later, when the products come
            m.d.comb += [
                self.sums.read_address.eq(Mux(self.forward, delay(m, op.p.delta_row, 2), op.p.delta_row)),
                self.sums.write.eq(self.sum_write),
                self.sums.write_address.eq(self.sum_row),
                *(self.sums.write_data[lane].eq(self.sum_data[lane]) for lane in range(c.lanes)),
            ]
            self.sum_read = [delay(m, self.sums.read_data[lane].as_signed(), around) for lane in range(c.lanes)]

    def _own(self, word: Value, forward: Value, turned: Value) -> Value:
        """A lane's delta; if turned, its input's trace or, forward, 256 for a spike."""
        c = self.machine
        delta, trace = word[: c.delta.bits].as_signed(), word[: c.trace.bits].as_signed()
        return Mux(forward, (word[-1] << PIXEL_FRAC).as_signed(), Mux(turned, trace, delta)).as_signed()

    def _multiply(self, m: Module) -> list:
        """Cycle 1: operands; cycle 3: products."""
        c, products = self.machine, []
        summing, folding = self._in_reach(m, self.summing), self._in_reach(m, self.folding)
        for lane in range(c.lanes):
            w, own = self.w_read[lane], self.own_read[lane]
            learned = self.sum_read[lane] if c.lazy else own
            bits = max(c.w.bits, len(learned)), max(operand_bits(c), len(own))
            other = self.mul[lane] if c.shared and lane < len(self.mul) else None
            mul = Multiplier(*bits) if other is None else Multiplier(max(bits[0], len(other.a)), max(bits[1], len(other.b)))
            m.submodules[f"mul_{lane}"] = mul
            a, b = Mux(summing[lane], w, learned), Mux(folding[lane], own, self.factor[lane])
            # What rounds a gradient is added to the product; where sums have a long way, behind it (`_grad`).
            constant = 0 if c.wires.tree else Mux(summing[lane], 0, rounding(self.grad_shift))
            if other is not None:  # a row has the multiplier, the neurons if there is none
                a, b = Mux(self.valid[1], a, other.a), Mux(self.valid[1], b, other.b)
                constant = Mux(self.valid[2], constant, other.c)  # is added in cycle 2
                m.d.comb += other.p.eq(mul.port.p)
            m.d.comb += [mul.port.a.eq(a), mul.port.b.eq(b), mul.port.c.eq(constant), mul.port.en.eq(1)]
            products.append(mul.port.p if other is None else mul.port.p[: sum(bits)].as_signed())
        return products

    def _forward(self, m: Module, products: list) -> None:
        """Cycle 3: every lane adds; cycle 4: the sums move to a shift register, and leave it a word of the neuron lanes a cycle."""
        c = self.machine
        wide, around = signed(max(c.current_sum_bits, c.error_sum_bits if c.both_ways else 0)), c.wires.ends
        summed = self.summing & ~self.folding
        if c.shared:
            self._forward_in_place(m, products)
            return
        leaving = [Signal(wide, name=f"leaving_{lane}", reset_less=True) for lane in range(c.lanes)]
        load, add, count = Signal(), Signal(), Signal(range(c.lanes // c.neuron_lanes + 1))  # the first two in cycles 4 and 3
        m.d.sync += [load.eq(self.valid[3] & self.last[3] & summed), add.eq(self.valid[2] & summed)]
        loads, adds, way = [load] * c.lanes, [add] * c.lanes, c.wires.tree
        if way:  # a reset clears the sums by way of `loads`
            loads = spread(m, self.valid[4 - way] & self.last[4 - way] & summed, way, c.lanes, init=1)
            adds = spread(m, self.valid[3 - way] & summed, way, c.lanes)
        for lane, product in enumerate(products):
            load_lane, add_lane = loads[lane], adds[lane]
            total = Signal(wide, name=f"sum_{lane}", reset_less=way > 0)
            with m.If(load_lane):
                m.d.sync += total.eq(0)
            with m.Elif(add_lane):
                m.d.sync += total.eq(total + product)
            following = leaving[lane + c.neuron_lanes] if lane + c.neuron_lanes < c.lanes else leaving[lane]
            m.d.sync += leaving[lane].eq(Mux(load_lane, total, following))
        with m.If(load):
            m.d.sync += count.eq(c.lanes // c.neuron_lanes)
        with m.Elif(count != 0):
            m.d.sync += count.eq(count - 1)
        m.d.comb += [self.draining.eq(count != 0), self.current.valid.eq(delay(m, self.draining & self.forward, around))]
        for q in range(c.neuron_lanes):
            current = saturate(round_shift(leaving[q], c.current_shift), c.u)
            m.d.comb += self.current.payload[q].eq(delay(m, current, around))

        if c.both_ways:
            m.d.comb += [
                self.error_words.valid.eq(delay(m, self.draining & self.backward, around)),
                *(self.error_words.payload[q].eq(delay(m, saturate(round_shift(leaving[q], c.w.f), c.delta), around))
                  for q in range(c.neuron_lanes)),
            ]  # fmt: skip

    def _forward_in_place(self, m: Module, products: list) -> None:
        """Cycle 3: every lane adds; from cycle 5 the sums leave in place, a word of the neuron lanes a cycle, and then clear."""
        c, half = self.machine, rounding(self.machine.current_shift)
        wide, words = signed(c.current_sum_bits), c.lanes // c.neuron_lanes
        totals = [Signal(wide, name=f"sum_{lane}", init=half) for lane in range(c.lanes)]
        load, add, leaving, place = Signal(), Signal(), Signal(), Signal(range(max(words, 2)))
        m.d.sync += [load.eq(self.valid[3] & self.last[3] & self.forward), add.eq(self.valid[2] & self.forward)]
        with m.If(load):
            m.d.sync += [leaving.eq(1), place.eq(0)]
        with m.Elif(leaving):
            m.d.sync += [leaving.eq(place != words - 1), place.eq(place + 1)]
        for total, product in zip(totals, products, strict=True):
            with m.If(leaving & (place == words - 1)):
                m.d.sync += total.eq(half)
            with m.Elif(add):
                m.d.sync += total.eq(total + product)
        m.d.comb += [self.draining.eq(leaving), self.current.valid.eq(leaving)]
        for q, current in enumerate(self.current.payload):
            total = Signal(wide, name=f"leaving_{q}")
            m.d.comb += total.eq(Array(totals[q :: c.neuron_lanes])[place])
            m.d.comb += current.eq(saturate(floor_shift(total, c.current_shift), c.u))

    def _backward(self, m: Module, products: list) -> None:
        """From cycle 3: a registered adder tree over the lanes, then the sum over the groups."""
        c, level, at = self.machine, list(products), 3
        if c.shared:
            level = [product[: c.w.bits + c.delta.bits].as_signed() for product in products]
        while len(level) > 1:
            sums = [level[k] + level[k + 1] if k + 1 < len(level) else level[k] for k in range(0, len(level), 2)]
            level = [Signal(v.shape(), name=f"tree_{at}_{k}", reset_less=True) for k, v in enumerate(sums)]
            m.d.sync += [register.eq(v) for register, v in zip(level, sums, strict=True)]
            at += 1
        total = Signal(signed(max(c.error_sum_bits, c.current_sum_bits if c.both_ways else 0)), reset_less=True)
        with m.If(self.valid[at]):
            m.d.sync += total.eq(Mux(self.first[at], 0, total).as_signed() + level[0])
        done, error, sent = Signal(), Signal.like(self.error.payload), Signal()
        m.d.comb += done.eq(self.valid[at + 1] & self.last[at + 1] & self.folding)
        m.d.sync += [error.eq(saturate(round_shift(total, c.w.f), c.delta)), sent.eq(done)]
        m.d.comb += [self.error.valid.eq(sent & self.backward), self.error.payload.eq(error)]
        if c.both_ways:
            current = Signal.like(self.single_current.payload)
            m.d.sync += current.eq(saturate(round_shift(total, c.current_shift), c.u))
            m.d.comb += [self.single_current.valid.eq(sent & self.forward), self.single_current.payload.eq(current)]

    def _gathers(self, m: Module) -> Value:
        """Whether the row in cycle 5 changes G. In a FORWARD sweep its operand must be a spike, and not the 0 of an empty sum."""
        c = self.machine
        return self.forward & self.gathers & delay(m, self.operand != 0, c.wires.tree + 4) if c.lazy else self.gather

    def _grad(self, m: Module, lane: int, product: Value) -> Signal:
        """What is added to G, or the gradient itself, in cycle 4."""
        c = self.machine
        grad = (round_shift if c.wires.tree else floor_shift)(product, self.grad_shift)
        grad = Mux(self.forward_in[lane], -self.sum_read[lane], grad).as_signed() if c.lazy else saturate(grad, c.grad)
        register = Signal(signed(len(grad)) if c.lazy else signed(c.grad.bits), name=f"grad_{lane}", reset_less=True)
        m.d.sync += register.eq(Mux(self.valid[3], grad, register) if c.shared else grad)
        return register

    def _update(self, m: Module, products: list) -> None:
        """Cycle 3: the gradient; cycle 4: into G, or shifted by the rate; cycles 5 to 7: the weight is changed and written.

        With lazy learning these are cycles 6 to 8."""
        c, apply = self.machine, self.apply
        applies = self._in_reach(m, apply) if c.capacity.grad_rows else [apply] * c.lanes
        base = c.weight_shift(0)
        m.d.comb += [
            self.weights.write_address.eq(self.row[self.written]),
            self.weights.write.eq((self.valid[self.written] & self.changing).replicate(c.lanes)),
        ]
        if self.grads is not None:
            m.d.comb += [
                self.grads.read_address.eq(self.row[3 - c.wires.tree]),
                self.grads.write_address.eq(self.row[5]),
                self.grads.write.eq((self.valid[5] & (self._gathers(m) | apply)).replicate(c.lanes)),
            ]
        around, words = c.wires.ends, self._random(m) if c.stochastic else []
        by_chance = self._in_reach(m, self.by_chance) if c.stochastic else []
        rate, keep = self.rate, dither_mask(base, self.rate)
        applied_in = []
        for lane, product in enumerate(products):
            if around and lane % NEAR == 0:  # handed on through the chip, long before they are used
                rate = delay(m, rate, 1)
                keep = delay(m, dither_mask(base, rate), 1)
            applied = grad = self._grad(m, lane, product)
            if self.grads is not None:
                gathered = self.grads.read_data[lane].as_signed()
                total = Signal(signed(c.grad.bits), name=f"gathered_{lane}", reset_less=True)
                if c.lazy:
                    m.d.sync += total.eq(saturate(grad + gathered, c.grad))
                    m.d.comb += self.grads.write_data[lane].eq(Mux(applies[lane], 0, total))
                    applied = total
                else:
                    m.d.sync += total.eq(Mux(applies[lane], 0, saturate(grad + gathered, c.grad)).as_signed())
                    m.d.comb += self.grads.write_data[lane].eq(total)
                    applied = Mux(applies[lane], gathered, grad)
            if c.shared:
                applied_in.append(applied)
                continue
            if c.stochastic:
                shifted = dither_shift(applied, base, rate, self._dither(words[lane], by_chance[lane], keep)) << 1
            else:
                shifted = halves(applied, base, rate)
            change = Signal(signed(c.grad.bits + 2), name=f"change_{lane}", reset_less=True)
            w = Signal(signed(c.w.bits), name=f"w_{lane}", reset_less=True)
            moved = Signal(signed(max(c.w.bits, c.grad.bits + 1) + 1), name=f"moved_{lane}", reset_less=True)
            m.d.sync += [
                change.eq(shifted),
                moved.eq(minus_halves(self.w_read[lane], change)),
                w.eq(saturate(moved, c.w)),
            ]
            m.d.comb += self.weights.write_data[lane].eq(w)
        if c.shared:
            self._in_turns(m, applied_in, words, keep)

    def _random(self, m: Module) -> list:
        """A random word for every lane."""
        c, op = self.machine, self.op.p
        taken_to_use = c.wires.latency - 1 + self.rounded
        m.submodules.dither = dither = Dither(c, lead=taken_to_use - Dither.LATENCY - c.wires.ends)
        m.d.comb += [
            dither.layer.eq(self.layer),
            dither.group.eq(op.group),
            dither.unit.eq(op.unit),
            *([dither.turned.eq(self.turned)] if c.both_ways else []),
            dither.next.eq(self.next_random),
            dither.write.eq(self.random_write),
            dither.data.eq(self.random_data),
            self.random.eq(dither.state),
        ]
        if c.shared:
            m.d.comb += dither.enable.eq(self.valid[self.rounded - 1])
        return list(dither.word)

    def _dither(self, word: Value, by_chance: Value, keep: Value) -> Value:
        """The bits that round: by chance, or those that round to nearest."""
        half = Mux(by_chance, 0, keep & ~(keep >> 1))
        return (word[: len(keep)] & Mux(by_chance, keep, 0)) | half

    def _in_turns(self, m: Module, applied: list, words: list, keep: Value) -> None:
        """Two lanes change their weights in turns: the first in cycles 4 to 6, the other in 5 to 7; both are written in cycle 7."""
        c, pairs = self.machine, self.machine.lanes // 2
        base, second = c.weight_shift(0), self.valid[5]
        m.d.comb += self.weights.read_enable.eq(~self.changing | self.valid[4])  # so that the weights stay for two cycles
        for lane in range(pairs):
            other = lane + pairs
            later = delay(m, applied[other], 1) if c.capacity.grad_rows else applied[other]
            gradient = Mux(second, later, applied[lane]).as_signed()
            if c.stochastic:
                word = Mux(second, words[other], words[lane])
                shifted = dither_shift(gradient, base, self.rate, self._dither(word, self.by_chance, keep)) << 1
            else:
                shifted = halves(gradient, base, self.rate)
            change = Signal(signed(c.grad.bits + 2), name=f"change_{lane}", reset_less=True)
            lessened = Signal(signed(max(c.w.bits, c.grad.bits + 1) + 1), name=f"moved_{lane}", reset_less=True)
            w, written = Signal(signed(c.w.bits), name=f"w_{lane}", reset_less=True), saturate(lessened, c.w)
            m.d.sync += [
                change.eq(shifted),
                lessened.eq(minus_halves(Mux(self.valid[6], self.w_read[other], self.w_read[lane]).as_signed(), change)),
                w.eq(written),
            ]
            m.d.comb += [self.weights.write_data[lane].eq(w), self.weights.write_data[other].eq(written)]
