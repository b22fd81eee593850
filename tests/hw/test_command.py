"""The command set, word by word: what a host's bus sees of it, and when."""

from itertools import pairwise

import pytest
from amaranth.sim import Simulator

from hw.host.command import command as commands_of
from hw.machine import FAR, NEAR, WIRES, Machine
from hw.memory_map import LANE_BITS, OP_READ, OP_WRITE, REGISTERS, ROW_BITS
from hw.network import Network

MACHINE = Machine.holding(Network(net="6-4-3", steps=3), lanes=2)
WORDS = [0xABCD_0001, 0x1234_5678, 0x0BAD_F00D]
ELSEWHERE = 1 << LANE_BITS + ROW_BITS  # a memory that is not the registers


@pytest.mark.parametrize("wires", [NEAR, FAR], ids=WIRES)
@pytest.mark.parametrize("wait", [0, 1, 2, 3, 20])
def test_a_header_waits_until_all_words_are_answered(wires, wait):
    """A write must not start the core while a reply waits for a host that stopped reading, nor come before the memories know who is
    meant."""
    command = commands_of(MACHINE.replace(wires=wires))
    send = [OP_READ | len(WORDS) << 8, ELSEWHERE, OP_WRITE | 1 << 8, REGISTERS["run"].address, 0]
    got, written, at = [], [], []

    async def memory(ctx):
        """Answers a row as many moves of the bus later as the core's memories do."""
        pipe = [0] * command.moves
        async for *_, enable, row in ctx.tick().sample(command.host.enable, command.host.row):
            if enable:
                pipe = [row, *pipe[:-1]]
                ctx.set(command.host.data_r, WORDS[pipe[-1] % len(WORDS)])

    async def host(ctx):
        for word in send:
            ctx.set(command.request.payload, word)
            ctx.set(command.request.valid, 1)
            await ctx.tick().until(command.request.ready)
        ctx.set(command.request.valid, 0)

    async def reader(ctx):
        ctx.set(command.idle, 1)
        meant = None  # as the memories see it, a cycle late
        for cycle in range(200):
            ready = cycle % (wait + 1) == wait
            ctx.set(command.reply.ready, ready)
            reply, host_bus = command.reply, command.host
            *_, valid, payload, write, region = await ctx.tick().sample(reply.valid, reply.payload, host_bus.write, host_bus.region)
            if write:
                written.append((len(got), meant))
            meant = region
            if valid and ready:
                got.append(payload)
                at.append(cycle)

    simulator = Simulator(command)
    simulator.add_clock(1e-6)
    simulator.add_testbench(memory, background=True)
    simulator.add_testbench(host, background=True)
    simulator.add_testbench(reader)
    simulator.run()
    register = REGISTERS["run"].address >> LANE_BITS + ROW_BITS
    assert got == WORDS and written == [(len(WORDS), register)], f"{len(got)} words, written after and to {written}"
    if not wait:
        assert {b - a for a, b in pairwise(at)} == {1 if wires == NEAR else command.moves + 1}, at
