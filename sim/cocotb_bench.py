"""The cocotb half: a server in the simulator that plays words into the design and returns the words it answers.

Runs inside the Verilated program and must not import torch. The parent (sim/simulator.py) passes one end of a socket pair;
requests and answers are Python objects as documented at `Simulator.play`.
"""

from __future__ import annotations

import json
import os
from multiprocessing.connection import Connection

import cocotb
from cocotb.handle import Immediate
from cocotb.triggers import Timer

from hw.numbers import ceil_div


def _field(value: int, low: int, bits: int = 32) -> int:
    return value >> low & (1 << bits) - 1


class Bench:
    """The registers and memories of sim/bench.v."""

    def __init__(self, dut, word_bytes: int, slots: int, rows: int, probes: list[str], stepped: bool):
        self.stepped, self.dut, self.word_bytes, self.row_bytes = stepped, dut, word_bytes, word_bytes * slots
        self.probes = {name: getattr(dut, f"probe_{name}") for name in probes}
        self.words = slots * rows
        self.status = 0
        self.play_rows = [dut.play[n] for n in range(rows)]
        self.take_rows = [dut.take[n] for n in range(rows)]

    def set(self, **values: int) -> None:
        for name, value in values.items():
            getattr(self.dut, name).value = Immediate(value)

    async def clock(self, **values: int) -> int:
        """Set registers, let the clock run until the bench stops it, and return the status word."""
        pending = _field(self.status, 98, 1)
        self.set(run=1, offered=pending, sent=0, got=0, cycles=0, quiet=0, extra=0, unsteady=0, **values)
        if self.stepped:
            await self.step(values["limit"])
        else:
            await Timer(1, "step")
        self.set(run=0)
        self.status = int(str(self.dut.status.value), 2)
        return self.status

    async def step(self, limit: int) -> None:
        """The same with a callback in every clock cycle: a signal written, one read.

        No testbench that drives streams from Python does less.
        """
        for cycle in range(1, limit + 1):
            self.set(limit=cycle)
            await Timer(1, "step")
            if int(self.dut.cycles.value) < cycle:
                return

    async def restart(self) -> None:
        """Reset the registers of the design."""
        await self.clock(reset=1, n_in=0, n_out=1, last_in=1, last_out=1, limit=2, linger=0)
        self.set(reset=0)

    def load(self, data: bytes) -> None:
        for n, at in enumerate(range(0, len(data), self.row_bytes)):
            self.play_rows[n].value = Immediate(int.from_bytes(data[at : at + self.row_bytes], "little"))

    def collect(self, count: int) -> bytes:
        size = count * self.word_bytes
        rows = ceil_div(size, self.row_bytes)
        data = b"".join(int(str(row.value), 2).to_bytes(self.row_bytes, "little") for row in self.take_rows[:rows])
        return data[:size]

    async def play(self, data: bytes, outputs: int, limit: int, linger: int, **values: int) -> tuple[bytes, dict]:
        """Play the words of `data`, collect `outputs` words; give up `limit` clock cycles after the start."""
        inputs = len(data) // self.word_bytes
        total = {"inputs": inputs, "outputs": outputs, "limit": limit, "sent": 0, "got": 0, "cycles": 0, "extra": 0, "unsteady": 0}
        out, step = [], self.words * self.word_bytes
        self.set(**values)
        while True:
            chunk = data[total["sent"] * self.word_bytes :][:step]
            n_in, n_out = len(chunk) // self.word_bytes, min(outputs - total["got"], self.words)
            self.load(chunk)
            status = await self.clock(
                n_in=n_in, last_in=int(total["sent"] + n_in == inputs), n_out=n_out, last_out=int(total["got"] + n_out == outputs),
                limit=limit - total["cycles"], linger=linger)  # fmt: skip
            sent, got = _field(status, 64), _field(status, 32)
            total["sent"] += sent
            total["got"] += got
            total["cycles"] += _field(status, 0)
            total["extra"] |= _field(status, 96, 1)
            total["unsteady"] |= _field(status, 97, 1)
            out.append(self.collect(got))
            done = total["sent"] == inputs and total["got"] == outputs
            if done or total["cycles"] >= limit:
                return b"".join(out), total | {"probes": {name: int(str(wire.value), 2) for name, wire in self.probes.items()}}


@cocotb.test()
async def serve(dut) -> None:
    """Answer the parent's requests until it closes the connection."""
    connection = Connection(int(os.environ["SIM_SOCKET"]))
    bench = Bench(dut, **json.loads(os.environ["SIM_BENCH"]))
    await Timer(1, "step")
    while True:
        try:
            name, arguments = connection.recv()
        except EOFError:
            return
        connection.send(await getattr(bench, name)(**arguments))
