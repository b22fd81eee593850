"""The core: neurons, lanes, the sequencers that drive them, and the host's way in."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.error.deltas import DeltaLists, nonzero, starts
from hw.host.command import command
from hw.host.registers import Registers
from hw.machine import Machine
from hw.memory import bank, fan_out, far_moves, found_in
from hw.memory_map import PHASES, regions
from hw.numbers import DECAY_SAMPLES, HOST_BITS, LEARN_W, PIXEL_FRAC, RATE_MAX
from hw.pipeline import delay, spread
from hw.program import LaneOp, NeuronOp, lane_fields, neuron_fields, varying
from hw.sequencer import Conductor, Sequencer, conditions, tables
from hw.spike.lists import frame
from hw.spike.multipliers import multipliers
from hw.spike.neurons import Neurons
from hw.streams import own_word, row_layout
from hw.weight.lanes import Lanes
from hw.weight.sweeper import Sweeper

PHASE_OF_SWEEP = {LaneOp.FORWARD: "forward", LaneOp.BACKWARD: "backward"}  # the others change weights: "update"
PHASE_OF_PASS = {NeuronOp.OUTPUT_ERROR: "backward", NeuronOp.HIDDEN_ERROR: "backward",
                 NeuronOp.FINISH: "update"}  # the others: "neuron"  # fmt: skip


class Core(wiring.Component):
    """Any network within the machine's capacity: it infers and learns, behind two streams of host words.

    The words are those of hw/host/command.py and hw/memory_map.py.

    `busy` and `phase` (of memory_map.PHASES) tell what it is doing.
    """

    def __init__(self, machine: Machine):
        self.machine, self.far = machine, machine.wires.ends
        self.command, self.registers = command(machine), Registers(machine)
        self.lane_table, self.neuron_table = tables(machine, lane_fields(machine), neuron_fields(machine))
        self.lane_sequencer = Sequencer(machine, lane_fields(machine), late=2 * self.far)
        self.neuron_sequencer = Sequencer(machine, neuron_fields(machine), late=2 * self.far)
        self.conductor, self.sweeper, self.deltas = Conductor(), Sweeper(machine), DeltaLists(machine)
        self.lanes, self.neurons, self.multipliers = Lanes(machine), Neurons(machine), multipliers(machine)
        self.frame = frame(machine)
        self.record = bank(regions(machine), "network", core_writes=False)
        super().__init__(
            {
                "request": In(stream.Signature(HOST_BITS)),
                "reply": Out(stream.Signature(HOST_BITS)),
                "busy": Out(1),
                "phase": Out(range(len(PHASES))),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        parts = ("command", "registers", "lane_table", "neuron_table", "lane_sequencer", "neuron_sequencer", "conductor",
                 "sweeper", "deltas", "lanes", "neurons", "multipliers", "frame", "record")  # fmt: skip
        for name in parts:
            m.submodules[name] = getattr(self, name)
        hosted = [self.registers, self.lanes, self.neurons, self.lane_table, self.neuron_table, self.frame, self.record]
        fan_out(m, self.command.host, hosted, moves=1 + far_moves(self.machine))
        wiring.connect(m, wiring.flipped(self.request), self.command.request)
        wiring.connect(m, self.command.reply, wiring.flipped(self.reply))
        self.lane_row, self.start_sweep = self._issue(m, self.lane_sequencer, lane_fields(self.machine))
        self.neuron_row, self.start_pass = self._issue(m, self.neuron_sequencer, neuron_fields(self.machine))
        self._sequence(m)
        self._settings(m)
        self._sums(m)
        self._multiply(m)
        self._deltas(m)
        self._units(m)
        self._observe(m)
        m.d.comb += self.registers.damaged.eq(found_in([self.lanes, self.neurons, self.lane_table, self.neuron_table, self.frame]))
        return m

    def _issue(self, m: Module, sequencer: Sequencer, fields: dict[str, int]) -> tuple:
        """A sequencer's row as its unit sees it, and when it starts: over a long way a cycle later, from registers, as they are
        faster than a block RAM."""
        row, (ones, zeros) = delay(m, sequencer.row.as_value(), self.far, sequencer.start), varying(self.machine, fields)
        return row_layout(fields)(row & ones | ~Const(zeros, len(row))), delay(m, sequencer.start, self.far)

    def _sequence(self, m: Module) -> None:
        """The sequencers walk their programs, and each sees how far the other is."""
        conductor, registers, far = self.conductor, self.registers, self.far
        lanes, neurons, sweep, a_pass = self.lane_sequencer, self.neuron_sequencer, self.lane_row, self.neuron_row
        more = registers.gathered != registers.last_sample  # samples of the batch are to come
        aged = registers.aged == DECAY_SAMPLES - 1
        holds, leaking = conditions(conductor, registers.learn, ~more, aged), delay(m, self.neurons.leaking, far)
        changing = (sweep.op == LaneOp.DESCEND) | (sweep.op == LaneOp.APPLY) | (sweep.op == LaneOp.DECAY)
        for sequencer, other, table in ((lanes, neurons, self.lane_table), (neurons, lanes, self.neuron_table)):
            m.d.comb += [
                table.index.eq(sequencer.index),
                sequencer.row.eq(table.word),
                sequencer.go.eq(conductor.go),
                sequencer.holds.eq(holds),
                sequencer.other.eq(other.position),
            ]
        m.d.comb += [
            conductor.run.eq(registers.run),
            conductor.single.eq(registers.single),
            conductor.step.eq(registers.step),
            conductor.last_step.eq(registers.last_step),
            conductor.quiet.eq(lanes.idle & neurons.idle & ~leaking),
            registers.step_done.eq(conductor.step_done),
            registers.next_step.eq(conductor.next_step),
            lanes.busy.eq(delay(m, self.sweeper.busy | self.lanes.busy, far)),
            neurons.busy.eq(delay(m, self.neurons.busy, far)),
            neurons.ready.eq((neurons.row.op != NeuronOp.LEAKAGE) | ~leaking),
            self.sweeper.start.eq(self.start_sweep),
            self.sweeper.row.eq(sweep),
            self.sweeper.growing.eq(neurons.running & a_pass.listed & ~sweep.pixels & (a_pass.layer + 1 == sweep.layer)),
            self.lanes.sweep.eq(sweep.op),
            self.lanes.next_random.eq(lanes.ends & changing & self.lanes.by_chance),
            self.neurons.settings.earlier.eq(registers.gathered != 0),
            self.neurons.settings.more.eq(more),
            self.neurons.start.eq(self.start_pass),
            self.neurons.row.eq(a_pass),
            self.neurons.sweep.eq(sweep),
            self.neurons.current_start.eq(self.start_sweep & (sweep.op == LaneOp.FORWARD)),
        ]

    def _settings(self, m: Module) -> None:
        """Where settings go, and results come from."""
        registers, lanes, neurons, conductor = self.registers, self.lanes, self.neurons, self.conductor
        decays, rate_w = self.lane_row.op == LaneOp.DECAY, registers.rate_w + self.lane_row.slower
        of_step = ("label", "learn", "rate_theta", "rate_alpha", "alpha_min")
        m.d.comb += [
            self.command.idle.eq(conductor.idle),
            self.command.busy.eq(delay(m, conductor.busy, self.far)),
            lanes.rate.eq(Mux(decays, registers.rate_decay, Mux(rate_w > RATE_MAX, RATE_MAX, rate_w))),
            lanes.remainder.eq(registers.remainder),
            registers.class_value.eq(neurons.winner),
            neurons.settings.first.eq(conductor.first),
            neurons.settings.final.eq(conductor.final),
            *(getattr(neurons.settings, name).eq(getattr(registers, name)) for name in of_step),
            lanes.layer.eq(self.lane_row.layer),
            lanes.by_chance.eq(registers.rounding | decays),
            lanes.random_write.eq(registers.rng_write),
            lanes.random_data.eq(lanes.host.data_w),
            registers.rng_value.eq(lanes.random),
        ]

    def _sums(self, m: Module) -> None:
        """Rows go to the lanes; currents and errors to the neurons."""
        wiring.connect(m, self.sweeper.op, self.lanes.op)
        wiring.connect(m, self.lanes.current, self.neurons.current)
        wiring.connect(m, self.lanes.error, self.neurons.error)
        wiring.connect(m, self.lanes.single_current, self.neurons.single_current)
        wiring.connect(m, self.lanes.error_words, self.neurons.error_words)
        m.d.comb += [self.lanes.operand.eq(self.sweeper.operand), self.lanes.turned.eq(self.lane_row.turned)]

    def _multiply(self, m: Module) -> None:
        """Neurons get their multipliers, perhaps from the lanes."""
        multipliers = self.multipliers
        m.d.comb += [multipliers.reserve.eq(self.neurons.reserve), self.lanes.reserve.eq(multipliers.lanes_reserve)]
        for wanted, port in zip((*self.neurons.mul, *multipliers.lanes), (*multipliers.neurons, *self.lanes.mul), strict=True):
            wiring.connect(m, wanted, port)

    def _deltas(self, m: Module) -> None:
        """Deltas, spikes and traces go to the lanes; what has a delta is listed for the sweeper."""
        c, far, neurons, deltas, lanes, sweeper = self.machine, self.far, self.neurons, self.deltas, self.lanes, self.sweeper
        row, own = self.neuron_row, neurons.own.payload.as_value()
        # those for the lanes from a register of their own, which may lie among them
        word, dealt = delay(m, own, far), own_word(c)(spread(m, own, 2 * far, 1)[0])
        m.d.comb += [
            deltas.start.eq(self.start_pass & starts(row)),
            deltas.row.eq(row),
            deltas.valid.eq(delay(m, neurons.own.valid, far)),
            deltas.word.eq(word),
            deltas.nonzero.eq(delay(m, nonzero(neurons.own.payload), far)),
            lanes.own_write.eq(deltas.write),
            lanes.own_row.eq(deltas.write_row),
            deltas.read_odd.eq(self.lane_row.odd),
            deltas.read_index.eq(sweeper.groups.index),
            deltas.read_enable.eq(sweeper.groups.enable),
            sweeper.groups.entry.eq(deltas.read_data),
            sweeper.groups.length.eq(deltas.length),
        ]
        # for lazy learning
        gathers, sums = Signal(), [delay(m, of_lane, 2 * far) for of_lane in neurons.lane_sum]
        m.d.sync += gathers.eq(((self.registers.learn & LEARN_W) != 0) & (self.registers.step != 0))
        m.d.comb += [
            lanes.gathers.eq(gathers),
            lanes.sum_write.eq(delay(m, deltas.write, neurons.SUM_DELAY)),
            lanes.sum_row.eq(delay(m, deltas.write_row, neurons.SUM_DELAY)),
        ]
        for lane in range(c.lanes):
            q = lane % c.neuron_lanes
            m.d.comb += [lanes.own_data[lane].eq(Cat(dealt.lane[q], dealt.spike[q])), lanes.sum_data[lane].eq(sums[q])]

    def _units(self, m: Module) -> None:
        """The inputs of a sweep: listed spikes (FORWARD), listed traces (updates), or the pixels of a frame (layer 1)."""
        row, units, neurons, frame, forward = self.lane_row, self.sweeper.units, self.neurons, self.frame, Signal()
        spikes_known, pixels_known = (delay(m, known, self.far) for known in (forward, row.pixels))
        m.d.comb += [
            forward.eq(row.op == LaneOp.FORWARD),
            neurons.list_index.eq(units.index),
            neurons.list_enable.eq(units.enable),
            units.unit.eq(Mux(spikes_known, neurons.spike_unit, neurons.trace_unit)),
            units.length.eq(Mux(forward, neurons.spike_count, neurons.trace_count)),
            units.value.eq(1 << PIXEL_FRAC),
            self.sweeper.trace.eq(neurons.trace),
            self.sweeper.value.eq(neurons.value),
            frame.read_index.eq(units.index),
            frame.read_enable.eq(units.enable),
            frame.whole.eq(row.centred),
            frame.mean_factor.eq(self.registers.mean_factor),
            frame.mean_shift.eq(self.registers.mean_shift),
            self.registers.frame_length_value.eq(frame.listed),
        ]
        with m.If(row.pixels):
            m.d.comb += units.length.eq(frame.length)
        with m.If(pixels_known):
            m.d.comb += [units.unit.eq(frame.index), units.value.eq(frame.value)]

    def _observe(self, m: Module) -> None:
        """What a host sees of the work: the phase, which is what the lanes do or what they wait for, and the operations done."""
        phase, counted = Signal.like(self.phase), Mux(self.lanes.op.valid & self.lanes.op.ready, self.sweeper.counted, 0)
        of_sweep, of_pass = Signal.like(phase, name="of_sweep"), Signal.like(phase, name="of_pass")
        for of, op, names, others in ((of_sweep, self.lane_row.op, PHASE_OF_SWEEP, "update"),
                                      (of_pass, self.neuron_row.op, PHASE_OF_PASS, "neuron")):  # fmt: skip
            m.d.comb += of.eq(PHASES.index(others))
            with m.Switch(op):
                for value, name in names.items():
                    with m.Case(value):
                        m.d.comb += of.eq(PHASES.index(name))
        m.d.sync += phase.eq(Mux(self.lane_sequencer.running, of_sweep, of_pass))
        m.d.comb += [
            self.busy.eq(self.conductor.busy | self.command.waiting),
            self.phase.eq(phase),
            self.registers.busy.eq(self.conductor.busy),
            self.registers.phase.eq(phase),
            self.registers.counted.eq(delay(m, counted, self.far)),
        ]
