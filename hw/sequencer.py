"""The order of it all: two sequencers walk the programs of lanes and neurons, and a conductor starts them for every time step."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.machine import Machine
from hw.memory import Bank, HostBus, fan_out, found_in
from hw.memory_map import DAMAGED_BITS, regions
from hw.numbers import LEARN_L, LEARN_W, bits_for
from hw.pipeline import delay
from hw.plan import compile
from hw.program import WHEN_BITS, position_bits, table_rows
from hw.streams import row_layout


def table_members(machine: Machine, bits: int) -> dict[str, wiring.Member]:
    """Members of a table of rows: `word` is the row at `index`."""
    return {"index": In(bits_for(table_rows(machine))), "word": Out(bits), "host": In(HostBus()), "damaged": Out(DAMAGED_BITS)}


class LoadedTable(wiring.Component):
    """A program that the host writes, word by word: `word` is the row at `index`.

    Timing:   latency 1 cycle
    """

    def __init__(self, machine: Machine, name: str, fields: dict[str, int]):
        self.region, self.bits = regions(machine)[name], sum(fields.values())
        super().__init__(table_members(machine, self.bits))

    def elaborate(self, platform) -> Module:
        m = Module()
        lanes = range(self.region.lanes)
        banks = [Bank(self.region, lane=lane if len(lanes) > 1 else None, core_writes=False) for lane in lanes]
        for lane, bank in enumerate(banks):
            m.submodules[f"bank_{lane}"] = bank
            m.d.comb += bank.read_address.eq(self.index)
        fan_out(m, self.host, banks)
        m.d.comb += [self.word.eq(Cat(bank.read_data for bank in banks)), self.damaged.eq(found_in(banks))]
        return m


class FixedTable(wiring.Component):
    """The same, wired in: the program of the machine's only network."""

    def __init__(self, machine: Machine, words: list[int], fields: dict[str, int]):
        self.words, self.bits = words, sum(fields.values())
        super().__init__(table_members(machine, self.bits))

    def elaborate(self, platform) -> Module:
        m = Module()
        word = Signal(self.bits, reset_less=True)
        m.d.sync += word.eq(Array(Const(value, self.bits) for value in self.words)[self.index[: bits_for(len(self.words))]])
        m.d.comb += self.word.eq(word)
        return m


def tables(machine: Machine, lanes: dict[str, int], neurons: dict[str, int]) -> tuple[wiring.Component, wiring.Component]:
    """The tables of both programs, as the machine has them."""
    if machine.fixed is None:
        return LoadedTable(machine, "lane_program", lanes), LoadedTable(machine, "neuron_program", neurons)
    words = compile(machine.fixed, machine).tables
    return FixedTable(machine, words[0], lanes), FixedTable(machine, words[1], neurons)


class Sequencer(wiring.Component):
    """Walks a program from `go` to its END, row by row.

    It waits until the `other` has come as far as the row says, starts the unit, and waits until the unit is no more `busy`.

    A row is skipped if its conditions are not met (`holds`, a bit for each of hw.program.When). If the `stop` of such a row is
    set, all rows behind it are skipped, too. `row` stays as long as the unit works on it (`running`). `ready`: the unit can be
    started. `position` is 2 row + 1 when a row has begun and 2 row + 2 when it is over, and has all bits set while no program
    runs. `ends` is high for a cycle when a row is over.

    Timing:   the next row starts at the earliest a cycle after one is over, or skipped. `busy` is known `late` cycles after the
              unit is started
    """

    def __init__(self, machine: Machine, fields: dict[str, int], late: int):
        self.late, self.layout = late, row_layout(fields)
        position = position_bits(machine)
        super().__init__(
            {
                "go": In(1),
                "holds": In(WHEN_BITS),
                "other": In(position),
                "index": Out(bits_for(table_rows(machine))),
                "row": In(self.layout),
                "ready": In(1, init=1),
                "busy": In(1),
                "start": Out(1),
                "running": Out(1),
                "ends": Out(1),
                "idle": Out(1),
                "position": Out(position),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        row, index, begun, active, next_row = self.row, Signal.like(self.index), Signal(), Signal(), Signal()
        met, settled = (self.holds | ~row.when).all(), Const(1)
        for cycles in range(1, self.late + 1):  # so long nothing is known of the unit that was started
            settled &= ~delay(m, self.start, cycles)
        m.d.comb += [
            self.index.eq(Mux(next_row, index + 1, index)),  # a row comes a cycle after its index
            self.idle.eq(~active),
            self.running.eq(begun),
            self.position.eq(Mux(active, Cat(begun, index), (1 << len(self.position)) - 1)),
        ]
        with m.If(next_row):
            m.d.sync += index.eq(index + 1)
        with m.FSM():
            with m.State("IDLE"), m.If(self.go):
                m.d.sync += active.eq(1)
                m.next = "DECIDE"
            with m.State("DECIDE"):
                with m.If((row.op == 0) | (~met & row.stop)):
                    m.d.sync += [active.eq(0), index.eq(0)]
                    m.next = "IDLE"
                with m.Elif(~met):
                    m.d.comb += next_row.eq(1)
                with m.Elif((self.other >= row.after) & self.ready):
                    m.d.comb += self.start.eq(1)
                    m.d.sync += begun.eq(1)
                    m.next = "RUN"
            with m.State("RUN"), m.If(~self.busy & settled):
                m.d.comb += [self.ends.eq(1), next_row.eq(1)]
                m.d.sync += begun.eq(0)
                m.next = "DECIDE"
        return m


class Conductor(wiring.Component):
    """Starts both sequencers (`go`) for one time step after another.

    A run lasts from `run` to the end of the sample, or for one step if it is `single`. `step` is the next step t; the host's
    registers keep it, and take `next_step` when `step_done` is high. `first` and `final` tell that it is step 0 or T-1. The
    step is over when all that works is `quiet`.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "run": In(1),
                "single": In(1),
                "step": In(8),
                "last_step": In(8),
                "quiet": In(1),
                "go": Out(1),
                "first": Out(1),
                "final": Out(1),
                "step_done": Out(1),
                "next_step": Out(8),
                "busy": Out(1),
                "idle": Out(1),  # its opposite, from a register of its own, since every memory looks at it
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        busy, idle, single = Signal(), Signal(init=1), Signal()
        m.d.comb += [self.busy.eq(busy), self.idle.eq(idle), self.next_step.eq(Mux(self.final, 0, self.step + 1))]
        m.d.sync += [self.first.eq(self.step == 0), self.final.eq(self.step == self.last_step)]
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += single.eq(self.single)
                with m.If(self.run):
                    m.d.sync += [busy.eq(1), idle.eq(0)]
                    m.next = "SETTLE"
            with m.State("SETTLE"):  # `first` and `final` follow the step
                m.next = "GO"
            with m.State("GO"):
                m.d.comb += self.go.eq(1)
                m.next = "STEP"
            with m.State("STEP"), m.If(self.quiet):
                m.d.comb += self.step_done.eq(1)
                m.next = "SETTLE"
                with m.If(self.final | single):
                    m.d.sync += [busy.eq(0), idle.eq(1)]
                    m.next = "IDLE"
        return m


def conditions(conductor: Conductor, learn: Value, full: Value, aged: Value) -> Value:
    """What holds of hw.program.When in this step, a bit each."""
    return Cat(conductor.first, conductor.final, learn != 0, (learn & LEARN_W) != 0, (learn & LEARN_L) != 0, full, aged)


