"""Random bits for stochastic rounding.

A word belongs to a weight (layer, neuron, input) and to the number of the update, and is the same on any machine.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.machine import Machine
from hw.numbers import LAYERS_MAX, UNITS_MAX, bits_for, ceil_div
from hw.pipeline import delay, spread

WORD, HALF = 32, 16
ROUNDS = 4
TILE_BITS = 3
TILE = 1 << TILE_BITS
"""Neurons, and inputs, of a tile of weights that share a hash."""
PLACE_BITS = bits_for(UNITS_MAX) - TILE_BITS  # of a tile's place among neurons, and among inputs
UPPER = 8  # lower bits of a place, in the half of the hash that is mixed first
LAYER_BITS = bits_for(LAYERS_MAX)


def xorshift32(state: Value) -> Value:
    """The next state of the generator."""
    for shift in (13, -17, 5):
        state = state ^ ((state << shift)[:WORD] if shift > 0 else state >> -shift)
    return state


def neuron_bit(k: int) -> int:
    """Which of the lower bits of a neuron's index flips bit k of the word."""
    return k % TILE_BITS


def input_bit(k: int) -> int:
    """Which of the lower bits of an input's index flips bit k of the word."""
    return (k + k // TILE_BITS) % TILE_BITS


def neuron_word(low: int) -> int:
    """What the lower bits of a neuron's index make of the word of its tile, by XOR."""
    return sum((low >> neuron_bit(k) & 1) << k for k in range(WORD))


def input_word(low: int) -> int:
    """What the lower bits of an input's index make of the word of its tile, by XOR."""
    return sum((low >> input_bit(k) & 1) << k for k in range(WORD))


def key(layer: Value | int, neurons: Value | int, inputs: Value | int) -> Value:
    """A tile's key, which meets the state of the generator: the layer (from 0), and the tile's place among neurons and inputs."""
    layer, neurons, inputs = (Value.cast(value) for value in (layer, neurons, inputs))
    lower = Cat(_part(neurons, UPPER, PLACE_BITS), _part(inputs, UPPER, PLACE_BITS), _part(layer, 0, LAYER_BITS))
    return Cat(_part(lower, 0, HALF), _part(neurons, 0, UPPER), _part(inputs, 0, UPPER))


def _part(value: Value, low: int, high: int) -> Value:
    """Bits `low` to `high` - 1, 0 where there is none."""
    bits = value[low:high] if low < len(value) else Const(0, 0)
    return Cat(bits, Const(0, high - low - len(bits)))


class TileHash(wiring.Component):
    """The random words of a tile: four rounds of Simon32 over `mixed`, which is the state XOR the tile's key. The lower bits of the
    input's index then flip some bits, and so do those lower bits of the neuron's index that are the same in all lanes.

    Numerics: docs/numerics.md, "Random bits"
    Timing:   latency 2 cycles, one word a cycle; `word` stays while `enable` is low
    Golden:   sw/golden/weight/dither.py, equal in every bit
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "mixed": In(WORD),
                "neuron_low": In(TILE_BITS),
                "input_low": In(TILE_BITS),
                "enable": In(1, init=1),
                "word": Out(WORD),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        values = [self.mixed[HALF:WORD], self.mixed[:HALF], self.neuron_low, self.input_low]
        for number in range(ROUNDS):
            values[:2] = self._round(*values[:2])
            if number == ROUNDS // 2 - 1:
                held = [Signal(len(value), reset_less=True, name=f"half_way_{k}") for k, value in enumerate(values)]
                m.d.sync += [register.eq(value) for register, value in zip(held, values, strict=True)]
                values = list(held)
        x, y, neuron_low, input_low = values
        word = Cat(y, x) ^ Cat(neuron_low[neuron_bit(k)] ^ input_low[input_bit(k)] for k in range(WORD))
        held = Signal(WORD, name="held", reset_less=True)
        with m.If(self.enable):
            m.d.sync += held.eq(word)
        m.d.comb += self.word.eq(held)
        return m

    @staticmethod
    def _round(x: Value, y: Value) -> tuple[Value, Value]:
        return y ^ (x.rotate_left(1) & x.rotate_left(8)) ^ x.rotate_left(2), x


class Dither(wiring.Component):
    """The generator, and a random word for every lane, in `layer` (from 1).

    The word belongs to the weight of the lane's neuron in `group` of the lanes, and of input `unit`. If `turned` it belongs to the
    weight of the lane's input in `group`, and of neuron `unit`.

    Timing:   a word `lead` + 2 cycles after its group and unit, and some more where lanes lie far apart (`Wires`); a row a cycle
    """

    LATENCY = 2

    def __init__(self, machine: Machine, lead: int):
        self.machine, self.lead = machine, lead
        super().__init__(
            {
                "layer": In(LAYER_BITS),
                "group": In(bits_for(machine.lane_groups)),
                "unit": In(bits_for(max(machine.capacity.fan_in, machine.listed_deltas))),
                "turned": In(1),
                "enable": In(1, init=1),
                "next": In(1),
                "state": Out(WORD, init=1),
                "write": In(1),
                "data": In(WORD),
                "word": Out(WORD).array(machine.lanes),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        lanes, wires = self.machine.lanes, self.machine.wires
        with m.If(self.write):
            m.d.sync += self.state.eq(self.data)
        with m.Elif(self.next):
            m.d.sync += self.state.eq(xorshift32(self.state))

        blocks, tree = ceil_div(lanes, TILE), bool(wires.tree)
        early = self.lead - wires.tree - tree
        if blocks > 1 or lanes == TILE:
            place, low = self.group * blocks, Const(0, TILE_BITS)
        else:  # several groups of lanes make a tile
            groups = bits_for(TILE // lanes)
            place, low = self.group >> groups, (self.group[:groups] * lanes)[:TILE_BITS]
        unit = delay(m, self.unit, early)
        of_unit = unit >> TILE_BITS
        mixed = self.state ^ Mux(self.turned, key(self.layer - 1, of_unit, 0), key(self.layer - 1, 0, of_unit))
        word = Cat(mixed, _part(unit, 0, TILE_BITS), _part(delay(m, low, early), 0, TILE_BITS), delay(m, place, early))
        turned_in = spread(m, self.turned, wires.tree, lanes)
        for block, far in enumerate(spread(m, word, wires.tree, lanes)[::TILE]):
            m.submodules[f"hash_{block}"] = tile = TileHash()
            at, lows = far[WORD + 2 * TILE_BITS :] + block, [far[WORD + k * TILE_BITS :][:TILE_BITS] for k in range(2)]
            of_block = turned_in[block * TILE]  # `turned`, from a register near the block
            of_lanes = Mux(of_block, key(0, 0, at), key(0, at, 0))
            m.d.comb += [
                tile.mixed.eq(delay(m, far[:WORD] ^ of_lanes, tree)),
                tile.input_low.eq(delay(m, Mux(of_block, lows[1], lows[0]), tree)),
                tile.neuron_low.eq(delay(m, Mux(of_block, lows[0], lows[1]), tree)),
                tile.enable.eq(self.enable),
            ]
            near = delay(m, tile.word, wires.ends)
            for lane in range(block * TILE, min(lanes, (block + 1) * TILE)):
                own = lane % TILE
                m.d.comb += self.word[lane].eq(near ^ Mux(turned_in[lane], input_word(own), neuron_word(own)))
        return m
