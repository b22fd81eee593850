"""The lanes: weights banked by postsynaptic neuron, one row address for all or one each, one multiplier each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from amaranth.hdl import Array, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.config import NEURON_MULTIPLIERS, Config, ceil_log2
from hw.fixed import dither_mask, dither_shift, floor_shift, halves, minus_halves, round_shift, rounding, saturate
from hw.memory import HostBus, LaneBanks, SpramBanks, WideBanks, damaged, fan_out, far_moves, found_in, relay
from hw.memory_map import regions
from hw.pipeline import NEAR, DelayLine, Multiplier, delay, spread
from hw.streams import bits_for, by_address, current_sum_bits, each_address, error_sum_bits, mul_port, operand_bits
from hw.weight.dither import RowHash, lane_word, xorshift32


class Sweep(enum.Enum, shape=3):
    """What a sweep over weight rows does in every lane."""

    FORWARD = 0  # sum += w * x
    BACKWARD = 1  # sum over the lanes += w * delta
    GATHER = 2  # G += delta * trace
    DESCEND = 3  # w -= delta * trace, or delta * pixel, at the learning rate
    APPLY = 4  # w -= G at the learning rate, G = 0; lazy learning: G += K * trace before


def row_op(c: Config) -> data.StructLayout:
    """A row of weights, read in all lanes at once, or one in every lane that is `live`."""
    return data.StructLayout(
        {
            "row": by_address(c, bits_for(c.rows)),
            "delta_row": by_address(c, bits_for(c.delta_rows)),
            "first": 1,  # of a sum
            "last": 1,  # of a sum: it leaves the lanes
        }
        | ({"live": c.lanes} if c.lane_lists else {})
    )


def lazy_members(c: Config) -> dict[str, wiring.Member]:
    """What the lanes take besides for lazy learning."""
    return {
        "gathers": In(1),
        "sum_write": In(c.lanes),
        "sum_row": In(bits_for(c.delta_rows)),
        "sum_data": In(signed(c.grad.bits)).array(c.lanes),
    }


def lent(c: Config) -> dict[str, wiring.Member]:
    """What the lanes give the neurons if they share: the multipliers `mul` of the first lanes, theirs in the cycle after `reserve`."""
    return {"reserve": In(1), "mul": In(mul_port(c)).array(NEURON_MULTIPLIERS * c.neuron_lanes)} if c.shared else {}


class Lanes(wiring.Component):
    """P lanes; lane p holds the weights of the neurons p, p + P, ... of every layer.

    `sweep` holds while rows are on their way (`busy`). A row's operand comes 1 + `Config.weight_registers` cycles after the row on `operand`: a pixel or 256 for a
    spike (FORWARD), a weight trace or a pixel in that format (GATHER, DESCEND). `rate` is the learning rate 2**-rate. `current` gives the P currents of a
    group in words of the neuron lanes, lanes without a neuron too; `error` one value a sum. `next_random` ends an update of a layer.

    Lazy learning: a FORWARD sweep takes H from G in the rows it sums, if it `gathers`; APPLY adds K * trace to G. H and K come as `sum_data`.

    Numerics: docs/numerics.md, the lines of I, e, g, G and W
    Timing:   a row a cycle; a free cycle after a FORWARD sum, in which the sums move on and clear; a row every second cycle where the
              weights are changed in single-port memories; the P currents of a group leave before the next `last` row is taken.
              If lanes are shared (`Config.shared`) they leave before the next row's product comes, and no row is taken while `reserve` is high.
              Latency of a sum: R + 4 cycles (FORWARD), R + 4 + ceil(log2 P) (BACKWARD), where R is `Config.weight_latency`
    Golden:   sw/golden/weight/lanes.py, equal in every bit
    """

    DEPTH = 8  # cycles from a row to its written word, at a weight latency of 1; lazy learning takes one more
    HASHED = 2  # the cycle in which its random word is begun

    def __init__(self, config: Config):
        self.config, self.answer_moves = config, far_moves(config)
        super().__init__(
            {
                "sweep": In(Sweep),
                "op": In(stream.Signature(row_op(config))),
                "operand": In(signed(operand_bits(config))),
                "rate": In(4),
                "next_random": In(1),
                "current": Out(stream.Signature(data.ArrayLayout(signed(config.u.bits), config.neuron_lanes), always_ready=True)),
                "error": Out(stream.Signature(signed(config.delta.bits), always_ready=True)),
                "delta_write": In(config.lanes),
                "delta_row": In(bits_for(config.delta_rows)),
                "delta_data": In(signed(config.delta.bits)).array(config.lanes),
                "busy": Out(1),
                "random": Out(32),
                "random_write": In(1),
                "random_data": In(32),
                "host": In(HostBus()),
            }
            | (lazy_members(config) if config.lazy else {})
            | damaged(config)
            | lent(config)
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        c, region = self.config, regions(self.config)
        in_lanes = partial(LaneBanks, registers=c.lane_registers, addresses=c.addresses)
        together = {"together": not c.lane_lists}
        self.weights = SpramBanks(region["weight"], pauses=c.shared) if c.weight_memory == "spram" else in_lanes(region["weight"], **together)
        self.delta = WideBanks(region["delta"]) if c.shared else in_lanes(region["delta"])
        self.grads = in_lanes(region["grad"], **together) if c.grad_rows else None
        members = {"weights": self.weights, "delta": self.delta, "grads": self.grads}
        if c.lazy:  # what the neurons sum, by lane; a copy that no host could repair, so that it has no parity
            copy = replace(region["delta_sum"], lanes=c.lanes, depth=c.delta_rows, parity=False)
            members["sums"] = self.sums = in_lanes(copy, hosted=False)
        for name, member in members.items():
            if member is not None:
                m.submodules[name] = member
        host = relay(m, self.host) if c.weight_registers else self.host
        banks = [member for member in members.values() if member is not None]
        fan_out(m, host, banks, max(0, self.answer_moves - 1))  # `relay` has one
        if c.parity:
            m.d.comb += self.damaged.eq(found_in(bank for bank in banks if bank.region.parity))

        # decoded a cycle later, long before the first row comes: every lane looks at them
        self.forward, self.backward, self.gather, self.descend, self.apply = Signal(), Signal(), Signal(), Signal(), Signal()
        self.summing = Signal()
        m.d.sync += [
            self.forward.eq(self.sweep == Sweep.FORWARD),
            self.backward.eq(self.sweep == Sweep.BACKWARD),
            self.gather.eq(self.sweep == Sweep.GATHER),
            self.descend.eq(self.sweep == Sweep.DESCEND),
            self.apply.eq(self.sweep == Sweep.APPLY),
            self.summing.eq((self.sweep == Sweep.FORWARD) | (self.sweep == Sweep.BACKWARD)),
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
        c, op = self.config, self.op
        self.changing = changing = self.descend | self.apply
        later, way = int(c.lazy), c.lane_registers  # lazy weights change a cycle later, behind the sum of their gradient
        self.reread, self.written, self.hashed = 5 + later - c.weight_latency, 7 + later, self.HASHED + later - way - c.weight_registers
        words = c.lanes // c.neuron_lanes  # of currents, of a group
        behind = words + 1 if c.shared else words - 1  # cycles in which no other sum may end
        pause, leaving = Signal(), Signal(range(max(behind + 1, 2)))
        taken, sum_ends = op.valid & op.ready, op.p.last & self.forward
        if c.shared:  # the sums leave as they stand, so that none may begin
            m.d.comb += op.ready.eq(~pause & (leaving == 0) & ~self.reserve)
        else:
            m.d.comb += op.ready.eq(~pause & ~(sum_ends & (leaving != 0)))
        m.d.sync += pause.eq(taken & (sum_ends | (changing & self.weights.single_port)))
        with m.If(taken & sum_ends):
            m.d.sync += leaving.eq(behind)
        with m.Elif(leaving != 0):
            m.d.sync += leaving.eq(leaving - 1)

        wait = c.weight_latency - 1  # cycles from taking a row to k = 0
        depth = wait + max(self.DEPTH + later + way, 6 + ceil_log2(c.lanes))
        in_flight: Value = Const(0)
        chains = {"valid": [taken], "first": [op.p.first], "last": [op.p.last]} | ({"live": [op.p.live]} if c.lane_lists else {})
        for name, chain in chains.items():
            for k in range(1, depth):
                following = Signal(len(chain[0]), name=f"{name}_{k}", reset_less=name != "valid")
                m.d.sync += following.eq(chain[-1])
                chain.append(following)
            setattr(self, name, chain[wait:])
        for valid in chains["valid"]:
            in_flight |= valid
        delays = sorted({self.reread, self.written, *((3 - way, 5) if c.grad_rows else ()), *((self.hashed,) if c.stochastic else ())})
        row = Value.cast(op.p.row)
        m.submodules.rows = rows = DelayLine(len(row), tuple(wait + k for k in delays))
        m.d.comb += rows.i.eq(row)
        self.row = {k: each_address(c, delayed) for k, delayed in zip(delays, rows.delayed, strict=True)}
        self.draining = Signal()
        m.d.comb += self.busy.eq(in_flight | self.draining)

    def _at(self, address, of: Callable[[int], Value]) -> list:
        """Statements that give a memory its address, or every lane its own; `of` the number of the address."""
        if self.config.addresses == 1:
            return [address.eq(of(0))]
        return [address[n].eq(of(n)) for n in range(self.config.addresses)]

    def _in_lanes(self, strobe: Value, k: int) -> Value:
        """`strobe` in every lane that has a row in cycle k."""
        strobes = strobe.replicate(self.config.lanes)
        return strobes & self.live[k] if self.config.lane_lists else strobes

    def _in_reach(self, m: Module, flag: Value) -> list:
        """`flag`, which holds for a sweep, for every lane from a register near it."""
        return spread(m, flag, self.config.lane_registers, self.config.lanes)

    def _read(self, m: Module) -> None:
        """Weights and deltas from their memories, between registers where the configuration wants them, and the operand beside them."""
        c, op = self.config, self.op
        around, row, delta_row = c.weight_registers, *(each_address(c, Value.cast(of)) for of in (op.p.row, op.p.delta_row))
        m.d.comb += [
            *self._at(self.weights.read_address, lambda n: Mux(self.changing, self.row[self.reread][n], row[n])),
            *self._at(self.delta.read_address, lambda n: delta_row[n]),
            self.delta.write.eq(self.delta_write),
            *self._at(self.delta.write_address, lambda n: self.delta_row),
            *(self.delta.write_data[lane].eq(self.delta_data[lane]) for lane in range(c.lanes)),
        ]
        self.w_read = [delay(m, self.weights.read_data[lane].as_signed(), around) for lane in range(c.lanes)]
        self.delta_read = [delay(m, self.delta.read_data[lane].as_signed(), around) for lane in range(c.lanes)]
        if c.lane_lists:
            self.delta_read = [Mux(live, delta, 0) for live, delta in zip(self.live[1], self.delta_read, strict=True)]
        self.factor = spread(m, self.operand, c.lane_registers, c.lanes)
        self.grad_shift = c.trace.f if c.lazy else c.weight_grad_shift
        if c.lazy:  # FORWARD takes them two cycles later, when the products come
            m.d.comb += [
                self.sums.read_address.eq(Mux(self.forward, delay(m, op.p.delta_row, 2), op.p.delta_row)),
                self.sums.write.eq(self.sum_write),
                self.sums.write_address.eq(self.sum_row),
                *(self.sums.write_data[lane].eq(self.sum_data[lane]) for lane in range(c.lanes)),
            ]
            self.sum_read = [delay(m, self.sums.read_data[lane].as_signed(), around) for lane in range(c.lanes)]

    def _multiply(self, m: Module) -> list:
        """Cycle 1: operands; cycle 3: products."""
        c, products = self.config, []
        summing, backward = self._in_reach(m, self.summing), self._in_reach(m, self.backward)
        for lane in range(c.lanes):
            w, delta = self.w_read[lane], self.delta_read[lane]
            learned = self.sum_read[lane] if c.lazy else delta
            bits = max(c.w.bits, len(learned)), max(operand_bits(c), c.delta.bits)
            other = self.mul[lane] if c.shared and lane < len(self.mul) else None
            mul = Multiplier(*bits) if other is None else Multiplier(max(bits[0], len(other.a)), max(bits[1], len(other.b)))
            m.submodules[f"mul_{lane}"] = mul
            a, b = Mux(summing[lane], w, learned), Mux(backward[lane], delta, self.factor[lane])
            # What rounds a gradient is added to the product; where sums have a long way, behind it (`_grad`).
            constant = 0 if c.lane_registers else Mux(summing[lane], 0, rounding(self.grad_shift))
            if other is not None:  # a row has the multiplier, the neurons if there is none
                a, b = Mux(self.valid[1], a, other.a), Mux(self.valid[1], b, other.b)
                constant = Mux(self.valid[2], constant, other.c)  # is added in cycle 2
                m.d.comb += other.p.eq(mul.port.p)
            m.d.comb += [mul.port.a.eq(a), mul.port.b.eq(b), mul.port.c.eq(constant), mul.port.en.eq(1)]
            products.append(mul.port.p if other is None else mul.port.p[: sum(bits)].as_signed())
        return products

    def _forward(self, m: Module, products: list) -> None:
        """Cycle 3: every lane adds; cycle 4: the sums move to a shift register, from which they leave a word of the neuron lanes a cycle."""
        c = self.config
        wide, around = signed(current_sum_bits(c)), c.weight_registers
        assert c.current_shift >= 0
        if c.shared:
            self._forward_in_place(m, products)
            return
        leaving = [Signal(wide, name=f"leaving_{lane}", reset_less=True) for lane in range(c.lanes)]
        load, add, count = Signal(), Signal(), Signal(range(c.lanes // c.neuron_lanes + 1))  # the first two in cycles 4 and 3
        m.d.sync += [load.eq(self.valid[3] & self.last[3] & self.forward), add.eq(self.valid[2] & self.forward)]
        loads, adds, way = [load] * c.lanes, [add] * c.lanes, c.lane_registers
        if way:  # a reset clears the sums by way of `loads`
            loads = spread(m, self.valid[4 - way] & self.last[4 - way] & self.forward, way, c.lanes, init=1)
            adds = spread(m, self.valid[3 - way] & self.forward, way, c.lanes)
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
        m.d.comb += [
            self.draining.eq(count != 0),
            self.current.valid.eq(delay(m, self.draining, around)),
            *(self.current.payload[q].eq(delay(m, saturate(round_shift(leaving[q], c.current_shift), c.u), around)) for q in range(c.neuron_lanes)),
        ]

    def _forward_in_place(self, m: Module, products: list) -> None:
        """Cycle 3: every lane adds; from cycle 5 the sums leave as they stand, a word of the neuron lanes a cycle, and then clear."""
        c, half = self.config, rounding(self.config.current_shift)
        wide, words = signed(current_sum_bits(c)), c.lanes // c.neuron_lanes
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
            m.d.comb += [total.eq(Array(totals[q :: c.neuron_lanes])[place]), current.eq(saturate(floor_shift(total, c.current_shift), c.u))]

    def _backward(self, m: Module, products: list) -> None:
        """From cycle 3: a registered adder tree over the lanes, then the sum over the groups."""
        c, level, at = self.config, list(products), 3
        if c.shared:
            level = [product[: c.w.bits + c.delta.bits].as_signed() for product in products]
        while len(level) > 1:
            sums = [level[k] + level[k + 1] if k + 1 < len(level) else level[k] for k in range(0, len(level), 2)]
            level = [Signal(v.shape(), name=f"tree_{at}_{k}", reset_less=True) for k, v in enumerate(sums)]
            m.d.sync += [register.eq(v) for register, v in zip(level, sums, strict=True)]
            at += 1
        total = Signal(signed(error_sum_bits(c)), reset_less=True)
        with m.If(self.valid[at]):
            m.d.sync += total.eq(Mux(self.first[at], 0, total).as_signed() + level[0])
        done, error = Signal(), Signal.like(self.error.payload)
        m.d.comb += done.eq(self.valid[at + 1] & self.last[at + 1] & self.backward)
        m.d.sync += error.eq(saturate(round_shift(total, c.w.f), c.delta))
        sent = Signal()
        m.d.sync += sent.eq(done)
        m.d.comb += [self.error.valid.eq(sent), self.error.payload.eq(error)]

    def _gathers(self, m: Module) -> Value:
        """Whether the row in cycle 5 changes G; in a FORWARD sweep only one whose operand is a spike, and not the 0 of an empty sum."""
        c = self.config
        return self.forward & self.gathers & delay(m, self.operand != 0, c.lane_registers + 4) if c.lazy else self.gather

    def _grad(self, m: Module, lane: int, product: Value) -> Signal:
        """What is added to G, or the gradient itself, in cycle 4."""
        c = self.config
        grad = (round_shift if c.lane_registers else floor_shift)(product, self.grad_shift)
        grad = Mux(self.forward, -self.sum_read[lane], grad).as_signed() if c.lazy else saturate(grad, c.grad)
        register = Signal(signed(len(grad)) if c.lazy else signed(c.grad.bits), name=f"grad_{lane}", reset_less=True)
        m.d.sync += register.eq(Mux(self.valid[3], grad, register) if c.shared else grad)
        return register

    def _update(self, m: Module, products: list) -> None:
        """Cycle 3: the gradient; cycle 4: into G, or shifted by the rate; cycles 5 to 7: off the weight, which is written (lazy learning: 6 to 8)."""
        c, apply = self.config, self.apply
        applies = self._in_reach(m, apply) if c.grad_rows else [apply] * c.lanes
        base = c.weight_shift(0)
        m.d.comb += [
            *self._at(self.weights.write_address, lambda n: self.row[self.written][n]),
            self.weights.write.eq(self._in_lanes(self.valid[self.written] & self.changing, self.written)),
        ]
        if self.grads is not None:
            m.d.comb += [
                *self._at(self.grads.read_address, lambda n: self.row[3 - c.lane_registers][n] - c.grad_row_offset),
                *self._at(self.grads.write_address, lambda n: self.row[5][n] - c.grad_row_offset),
                self.grads.write.eq(self._in_lanes(self.valid[5] & (self._gathers(m) | apply), 5)),
            ]
        around, way, words = c.weight_registers, c.lane_registers, []
        if c.stochastic:
            state = Signal(32, init=1)
            m.d.comb += self.random.eq(state)
            with m.If(self.random_write):
                m.d.sync += state.eq(self.random_data)
            for n, row in enumerate(self.row[self.hashed]):
                m.submodules[f"hash_{n}" if c.lane_lists else "hash"] = row_hash = RowHash(holds=c.shared)
                if c.shared:
                    m.d.comb += row_hash.enable.eq(self.valid[self.HASHED + 1])
                m.d.comb += [row_hash.state.eq(state), row_hash.row.eq(row)]
                words.append(row_hash.word)
            with m.If(self.next_random):
                m.d.sync += state.eq(xorshift32(state))
            words = [delay(m, word, around) for word in words]
            words = spread(m, words[0], way, c.lanes) if c.addresses == 1 else [delay(m, word, way) for word in words]
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
                word = lane_word(words[lane], lane)
                shifted = dither_shift(applied, base, rate, word[: len(keep)] & keep) << 1
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

    def _in_turns(self, m: Module, applied: list, words: list, keep: Value) -> None:
        """Two lanes change their weights one after the other: the first in cycles 4 to 6, the other in 5 to 7; both are written in cycle 7."""
        c, pairs = self.config, self.config.lanes // 2
        base, second = c.weight_shift(0), self.valid[5]
        m.d.comb += self.weights.read_enable.eq(~self.changing | self.valid[4])  # so that the weights stay for two cycles
        for lane in range(pairs):
            other = lane + pairs
            gradient = Mux(second, delay(m, applied[other], 1) if c.grad_rows else applied[other], applied[lane]).as_signed()
            if c.stochastic:
                word = words[0]
                dither = Mux(second, lane_word(word, other), lane_word(word, lane))[: len(keep)]
                shifted = dither_shift(gradient, base, self.rate, dither & keep) << 1
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
