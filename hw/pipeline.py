"""Pipelines that hold as one, and the multiplier they share."""

from __future__ import annotations

from amaranth.hdl import ClockSignal, Const, Instance, Module, Signal, Value, signed
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.numbers import ceil_log2

NEAR = 8
"""Lanes that one register reaches, where they lie far apart (`spread`)."""
NEXT = 4
"""Registers that one reaches on the way to them."""
KEEP_APART = "attrmvcp -copy -attr keep"
"""Tells Yosys, before synthesis, that a register whose signal is to be kept is not to be merged with its equals."""

_ALWAYS = Const(1)


class Pipe:
    """Registers of a block with one stream in and one out, `latency` cycles apart.

    Every register moves together (`en`): while the result at `o` is not taken, nothing moves. The registers carry data
    and need no reset; only the valid bits have one.
    """

    def __init__(self, m: Module, i: stream.Interface, o: stream.Interface, latency: int):
        self.m, self.en = m, Signal()
        m.d.comb += [self.en.eq(~o.valid | o.ready), i.ready.eq(self.en)]
        valid = i.valid
        for stage in range(latency):
            following = Signal(name=f"valid_{stage + 1}")
            with m.If(self.en):
                m.d.sync += following.eq(valid)
            valid = following
        m.d.comb += o.valid.eq(valid)

    def reg(self, value: Value, cycles: int = 1) -> Value:
        """`value` as it was `cycles` moves ago."""
        for _ in range(cycles):
            following = Signal(value.shape(), reset_less=True)
            with self.m.If(self.en):
                self.m.d.sync += following.eq(value)
            value = following
        return value


def delay(m: Module, value: Value, cycles: int, move: Value = _ALWAYS) -> Value:
    """`value` as it was some cycles ago (of those with `move`), in registers without a reset."""
    for _ in range(cycles if len(value) else 0):
        following = Signal(value.shape(), reset_less=True)
        with m.If(move):
            m.d.sync += following.eq(value)
        value = following
    return value


def spread(m: Module, value: Value, cycles: int, lanes: int, *, near: int = NEAR, init: int | None = None) -> list[Value]:
    """`value` as it was some cycles ago, for every lane, by a tree of registers.

    `near` lanes share a register at the leaves; every other register reaches NEXT further ones. A wire across a large chip takes a
    cycle of its own. The registers are alike, and are kept apart (`KEEP_APART`) so that synthesis does not make them one again.
    With `init` they begin with that value, and a reset puts it into the first.
    """
    ends, reach, start = [value], lanes, init or 0
    for level in reversed(range(cycles)):
        sources, before, reach = ends, reach, near * NEXT**level
        resets = init is not None and level == cycles - 1
        ends = [Signal(value.shape(), init=start, reset_less=not resets, attrs={"keep": 1}) for _ in range(0, lanes, reach)]
        m.d.sync += [end.eq(sources[n * reach // before]) for n, end in enumerate(ends)]
    return [ends[lane // reach] for lane in range(lanes)]


def adder_tree(m: Module, values: list[Value]) -> tuple[Value, int]:
    """The sum of the values, by a tree of adders whose levels are registered, and its levels: so many cycles later it is there."""
    levels = 0
    while len(values) > 1:
        sums = [a + b for a, b in zip(values[::2], values[1::2], strict=False)] + values[len(values) & ~1 :]
        registers = [Signal(total.shape(), name=f"tree_{levels}_{k}", reset_less=True) for k, total in enumerate(sums)]
        m.d.sync += [register.eq(total) for register, total in zip(registers, sums, strict=True)]
        values, levels = registers, levels + 1
    return values[0], levels


class DelayLine(wiring.Component):
    """A value as it was some cycles ago, from a memory that goes round: cheaper than registers for a wide value and a long delay.

    `delayed[k]` is `i` as it was `delays[k]` cycles ago.
    """

    def __init__(self, shape: int, delays: tuple[int, ...]):
        if min(delays) < 2:
            raise ValueError(f"delays: {delays} is not legal; legal is at least 2 cycles each")
        self.shape, self.delays = shape, delays
        super().__init__({"i": In(shape), "delayed": Out(shape).array(len(delays))})

    def elaborate(self, platform) -> Module:
        m = Module()
        depth = 1 << ceil_log2(max(self.delays) + 1)
        style = {"ram_style": "block"} if getattr(platform, "family", None) == "iCE40" else {}  # which has no memory in LUTs
        m.submodules.memory = memory = Memory(shape=self.shape, depth=depth, init=[], attrs=style)
        writer, at = memory.write_port(), Signal(range(depth))
        m.d.sync += at.eq(at + 1)
        m.d.comb += [writer.addr.eq(at), writer.data.eq(self.i), writer.en.eq(1)]
        for out, delay in zip(self.delayed, self.delays, strict=True):
            reader = memory.read_port()
            m.d.comb += [reader.addr.eq(at - (delay - 1)), out.eq(reader.data)]
        return m


class StreamRegister(wiring.Component):
    """A stream, a cycle later."""

    def __init__(self, shape: int):
        self.shape = shape
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform) -> Module:
        m = Module()
        valid, payload = Signal(), Signal(self.shape, reset_less=True)
        m.d.comb += [self.o.valid.eq(valid), self.o.payload.eq(payload), self.i.ready.eq(~valid | self.o.ready)]
        with m.If(self.i.ready):
            m.d.sync += [valid.eq(self.i.valid), payload.eq(self.i.payload)]
        return m


class MulPort(wiring.Signature):
    """What a block needs of a multiplier. The block drives `a`, `b`, `en` and gets a * b + c two moves later.

    `c` is constant in a pass.
    """

    def __init__(self, a: int, b: int):
        super().__init__({"a": Out(signed(a)), "b": Out(signed(b)), "c": Out(a + b - 2), "en": Out(1), "p": In(signed(a + b))})


class Multiplier(wiring.Component):
    """p = a * b + c, exact (a product is at most 2**(bits - 2), and so is c).

    Timing:   latency 2 cycles (operands and product are registered, inside the DSP block where there is one);
              holds while `en` is low.
    """

    def __init__(self, a: int, b: int):
        super().__init__({"port": In(MulPort(a, b))})

    def elaborate(self, platform) -> Module:
        m = Module()
        if getattr(platform, "family", None) == "ecp5":
            return self._ecp5(m)
        a, b = Signal.like(self.port.a, reset_less=True), Signal.like(self.port.b, reset_less=True)
        product = Signal.like(self.port.p, reset_less=True)
        with m.If(self.port.en):
            m.d.sync += [a.eq(self.port.a), b.eq(self.port.b), product.eq(a * b + self.port.c)]
        m.d.comb += self.port.p.eq(product)
        return m

    def _ecp5(self, m: Module) -> Module:
        """MULT18X18D with its own registers, which Yosys leaves unused; `c` is added behind them, as it is constant in a pass."""
        port = self.port
        a, b, product = Signal(signed(18)), Signal(signed(18)), Signal(signed(36))
        registers = {f"p_REG_{name}_{pin}": f"{pin}0" for name in ("INPUTA", "INPUTB", "OUTPUT") for pin in ("CLK", "CE", "RST")}
        operands = {f"i_{name}{n}": value[n] for name, value in (("A", a), ("B", b)) for n in range(18)}
        m.submodules.block = Instance(
            "MULT18X18D",
            **registers,
            p_GSR="DISABLED",
            i_CLK0=ClockSignal(),
            i_CE0=port.en,
            i_RST0=Const(0),
            i_SIGNEDA=Const(1),
            i_SIGNEDB=Const(1),
            i_SOURCEA=Const(0),
            i_SOURCEB=Const(0),
            **operands,
            **{f"o_P{n}": product[n] for n in range(36)},
        )
        m.d.comb += [a.eq(port.a), b.eq(port.b), port.p.eq(product + port.c)]
        return m


def drive(port, a: Value, b: Value, en: Value, c: int = 0) -> list:
    """Statements that hand operands to a multiplier."""
    return [port.a.eq(a), port.b.eq(b), port.c.eq(c), port.en.eq(en)]
