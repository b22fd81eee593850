"""The host port: bytes on a serial line."""

import random

import pytest
from amaranth.hdl import Module
from amaranth.sim import Simulator

from hw.host.uart import UARTReceiver, UARTTransmitter, divisor

CYCLES = 8  # a bit, as the receiver and the transmitter count
LIMIT = 200_000  # clock cycles after which a test is stuck


def simulate(design, *benches, background=()):
    simulator = Simulator(design)
    simulator.add_clock(1e-6)
    for bench in benches:
        simulator.add_testbench(bench)
    for bench in background:
        simulator.add_testbench(bench, background=True)

    async def watchdog(ctx):
        for _ in range(LIMIT):
            await ctx.tick()
        raise AssertionError(f"still running after {LIMIT} cycles")

    simulator.add_testbench(watchdog, background=True)
    simulator.run()


async def put(ctx, stream, words, rng, stall):
    for word in words:
        while rng.random() < stall:
            await ctx.tick()
        ctx.set(stream.valid, 1)
        ctx.set(stream.payload, word)
        await ctx.tick().until(stream.ready)
        ctx.set(stream.valid, 0)


async def take(ctx, stream, count, rng, stall):
    words = []
    while len(words) < count:
        while rng.random() < stall:
            await ctx.tick()
        ctx.set(stream.ready, 1)
        (word,) = await ctx.tick().sample(stream.payload).until(stream.valid)
        ctx.set(stream.ready, 0)
        words.append(word)
    return words


async def send(ctx, rx, byte, cycles=CYCLES, stop=1):
    """One frame on the line, bit by bit; `cycles` may be a fraction."""
    sent = 0.0
    for bit in (0, *(byte >> k & 1 for k in range(8)), stop):
        ctx.set(rx, bit)
        before = round(sent)
        sent += cycles
        await ctx.tick().repeat(round(sent) - before)


def receive(frames, *, ready=True, gap=2, after=4 * CYCLES):
    """Bytes received and errors seen when `frames` (keyword arguments of `send`) are on the line."""
    dut, got, errors = UARTReceiver(CYCLES), [], []

    async def line(ctx):
        ctx.set(dut.rx, 1)
        await ctx.tick().repeat(3)
        for frame in frames:
            await send(ctx, dut.rx, **frame)
            ctx.set(dut.rx, 1)
            for _ in range(gap):
                await ctx.tick()
        await ctx.tick().repeat(after)

    async def watch(ctx):
        ctx.set(dut.o.ready, ready)
        while True:
            *_, valid, byte, error = await ctx.tick().sample(dut.o.valid, dut.o.payload, dut.error)
            if valid and ready:
                got.append(byte)
            errors.append(error)

    simulate(dut, line, background=[watch])
    return got, sum(errors)


def test_receiver_gets_every_byte():
    data = [0x00, 0xFF, *random.Random(1).sample(range(256), 50)]
    assert receive([dict(byte=byte) for byte in data], gap=0) == (data, 0)


@pytest.mark.parametrize("error", [-0.04, 0.04])
def test_receiver_bears_a_wrong_rate(error):
    data = [0x00, 0xFF, 0x55, 0xAA, 0x01, 0x80]
    assert receive([dict(byte=byte, cycles=CYCLES * (1 + error)) for byte in data]) == (data, 0)


def test_receiver_drops_a_byte_without_stop_bit_and_goes_on():
    assert receive([dict(byte=0x12), dict(byte=0x34, stop=0), dict(byte=0x56)], gap=3 * CYCLES) == ([0x12, 0x56], 1)


def test_receiver_takes_a_break_as_one_error():
    assert receive([dict(byte=0, cycles=4 * CYCLES, stop=0), dict(byte=0x56)], gap=3 * CYCLES) == ([0x56], 1)


def test_receiver_ignores_a_glitch():
    dut, seen = UARTReceiver(CYCLES), []

    async def line(ctx):
        for level, cycles in ((1, 5), (0, CYCLES // 2 - 2), (1, 12 * CYCLES)):
            ctx.set(dut.rx, level)
            await ctx.tick().repeat(cycles)

    async def watch(ctx):
        while True:
            *_, valid, error = await ctx.tick().sample(dut.o.valid, dut.error)
            seen.append((valid, error))

    simulate(dut, line, background=[watch])
    assert len(seen) > 12 * CYCLES and set(seen) == {(0, 0)}


def test_receiver_tells_of_a_byte_that_was_not_taken():
    assert receive([dict(byte=1), dict(byte=2), dict(byte=3)], ready=False) == ([], 2)


@pytest.mark.parametrize("stall", [0.0, 0.9])
def test_transmitter_to_receiver(stall):
    m = Module()
    m.submodules.tx = tx = UARTTransmitter(CYCLES)
    m.submodules.rx = rx = UARTReceiver(CYCLES)
    m.d.comb += rx.rx.eq(tx.tx)
    rng = random.Random(2)
    data = [rng.randrange(256) for _ in range(40)]
    cycles = []

    async def source(ctx):
        await put(ctx, tx.i, data, rng, stall)

    async def sink(ctx):
        assert await take(ctx, rx.o, len(data), rng, 0) == data

    async def count(ctx):
        while True:
            await ctx.tick()
            cycles.append(ctx.get(rx.error))

    simulate(m, source, sink, background=[count])
    assert sum(cycles) == 0
    assert stall or len(cycles) < (len(data) + 1) * 10 * CYCLES, "there is a pause between bytes"


def test_line_is_idle_before_the_first_byte():
    dut = UARTTransmitter(CYCLES)

    async def watch(ctx):
        assert [ctx.get(dut.tx)] + [(await ctx.tick().sample(dut.tx))[-1] for _ in range(40)] == [1] * 41

    simulate(dut, watch)


@pytest.mark.parametrize(("clock", "baud", "cycles"), [(24e6, 1e6, 24), (60e6, 1e6, 60), (12e6, 115_200, 104)])
def test_divisor(clock, baud, cycles):
    assert divisor(clock, baud) == cycles


@pytest.mark.parametrize(("baud", "says"), [(0, "legal is 1 to"), (-5, "legal is"), (24e6, r"to 6e\+06"), (3.7e6, "near it are")])
def test_divisor_rejects(baud, says):
    with pytest.raises(ValueError, match=f"baud: .*{says}"):
        divisor(24e6, baud)


@pytest.mark.parametrize("block", [UARTReceiver, UARTTransmitter])
def test_too_few_cycles_a_bit(block):
    with pytest.raises(ValueError, match="cycles_per_bit: 3 is not legal; legal is 4 or more"):
        block(3)
