"""The core: neurons, lanes, the schedule that drives them, and the host's way in."""

from __future__ import annotations

from amaranth.hdl import Array, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.config import PIXEL_FRAC, Config
from hw.error.groups import Groups, nonzero
from hw.host.command import Command
from hw.host.registers import Registers
from hw.memory import HOST_BITS, fan_out, far_moves, found_in
from hw.memory_map import LEARN_W, PHASES
from hw.pipeline import delay, spread
from hw.schedule import Schedule
from hw.spike.lists import Frame
from hw.spike.neurons import Neurons
from hw.streams import neuron_word
from hw.weight.lanes import Lanes, Sweep
from hw.weight.sweeper import Sweeper


class Core(wiring.Component):
    """A network that infers and learns, behind two streams of host words (hw/host/command.py, hw/memory_map.py).

    `busy` and `phase` (of memory_map.PHASES) tell what it is doing.
    """

    def __init__(self, config: Config):
        self.config = config
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
        c = self.config
        m.submodules.command = command = Command(c)
        m.submodules.registers = registers = Registers(c)
        m.submodules.schedule = schedule = Schedule(c)
        m.submodules.sweeper = sweeper = Sweeper(c)
        m.submodules.lanes = lanes = Lanes(c)
        m.submodules.neurons = neurons = Neurons(c)
        m.submodules.groups = groups = Groups(c)
        frame = None
        if c.static:
            m.submodules.frame = frame = Frame(c)
        fan_out(m, command.host, [registers, lanes, neurons] + ([frame] if frame else []), moves=1 + far_moves(c))

        wiring.connect(m, wiring.flipped(self.request), command.request)
        wiring.connect(m, command.reply, wiring.flipped(self.reply))
        wiring.connect(m, sweeper.op, lanes.op)
        wiring.connect(m, lanes.current, neurons.current)
        wiring.connect(m, lanes.error, neurons.error)
        if c.shared:
            m.d.comb += lanes.reserve.eq(neurons.reserve)
            for of_neurons, of_lanes in zip(neurons.mul, lanes.mul, strict=True):
                wiring.connect(m, of_neurons, of_lanes)
        m.d.comb += [self.busy.eq(schedule.busy | command.waiting), self.phase.eq(schedule.phase), command.idle.eq(schedule.idle)]
        m.d.comb += command.busy.eq(delay(m, schedule.busy, c.weight_registers))
        self._control(m, registers, schedule, sweeper, lanes, neurons)
        self._deltas(m, schedule, neurons, groups, lanes, sweeper)
        self._units(m, schedule, sweeper, neurons, frame)
        self._count(m, registers, schedule, sweeper, lanes)
        if c.parity:
            m.d.comb += registers.damaged.eq(found_in([lanes, neurons] + ([frame] if frame else [])))
        return m

    def _control(self, m: Module, registers, schedule, sweeper, lanes, neurons) -> None:
        c = self.config
        m.d.comb += [
            schedule.run.eq(registers.run),
            schedule.single.eq(registers.single),
            schedule.learn.eq(registers.learn),
            schedule.step.eq(registers.step),
            schedule.sweeping.eq(delay(m, sweeper.busy | lanes.busy, c.weight_registers)),
            schedule.passing.eq(delay(m, neurons.busy, c.weight_registers)),
            sweeper.growing.eq(schedule.growing),
            registers.step_done.eq(schedule.step_done),
            registers.next_step.eq(schedule.next_step),
            sweeper.start.eq(schedule.start_sweep),
            sweeper.sweep.eq(schedule.sweep),
            sweeper.layer.eq(schedule.sweep_layer),
            lanes.sweep.eq(schedule.sweep),
            lanes.operand.eq(sweeper.operand),
            lanes.rate.eq(registers.rate_w),
            lanes.next_random.eq(schedule.next_random),
            lanes.random_write.eq(registers.rng_write),
            lanes.random_data.eq(lanes.host.data_w),
            registers.rng_value.eq(lanes.random),
            registers.class_value.eq(neurons.winner),
            neurons.start.eq(schedule.start_neurons),
            neurons.kind.eq(schedule.kind),
            neurons.layer.eq(schedule.neuron_layer),
            neurons.update_alpha.eq(delay(m, schedule.update_alpha, c.weight_registers)),
            neurons.current_start.eq(schedule.start_current),
            neurons.current_layer.eq(schedule.sweep_layer),
            *(getattr(neurons.settings, name).eq(getattr(registers, name)) for name in ("label", "learn", "rate_theta", "rate_alpha")),
        ]
        m.d.sync += [neurons.settings.first.eq(registers.step == 0), neurons.settings.final.eq(registers.step == c.steps - 1)]

    def _deltas(self, m: Module, schedule, neurons, groups, lanes, sweeper) -> None:
        """Deltas go to the lanes; the groups that have any are listed for the sweeper."""
        c, far = self.config, self.config.weight_registers
        static_first = (schedule.sweep_layer == 1) if c.static else 0  # its D is listed as layer 0
        word = neurons.delta.payload.as_value()
        for_groups, for_lanes = delay(m, word, far), groups.write_data
        if far:  # those for the lanes from a register of their own, which may lie among them
            (own,) = spread(m, word, 2 * far, 1)
            m.d.comb += groups.nonzero.eq(delay(m, nonzero(neurons.delta.payload), far))
            for_lanes = [neuron_word(c, c.delta.bits)(own).lane[lane % c.neuron_lanes] for lane in range(c.lanes)]
        m.d.comb += [
            groups.start.eq(schedule.start_groups),
            groups.layer.eq(schedule.groups_layer),
            groups.valid.eq(delay(m, neurons.delta.valid, far)),
            groups.delta.eq(for_groups),
            lanes.delta_write.eq(groups.write),
            lanes.delta_row.eq(groups.write_row),
            *(lanes.delta_data[lane].eq(for_lanes[lane]) for lane in range(c.lanes)),
            groups.read_odd.eq(schedule.sweep_layer[0] & ~static_first),
            groups.read_index.eq(sweeper.groups.index),
            groups.read_enable.eq(sweeper.groups.enable),
            sweeper.groups.entry.eq(groups.read_data),
            sweeper.groups.length.eq(groups.length),
        ]
        if c.lazy:
            gathers = Signal()
            m.d.sync += gathers.eq(((schedule.learn & LEARN_W) != 0) & (schedule.step != 0))
            sums = [delay(m, of_lane, 2 * far) for of_lane in neurons.lane_sum]
            m.d.comb += [
                lanes.gathers.eq(gathers),
                lanes.sum_write.eq(delay(m, groups.write, neurons.SUM_DELAY)),
                lanes.sum_row.eq(delay(m, groups.write_row, neurons.SUM_DELAY)),
                *(lanes.sum_data[lane].eq(sums[lane % c.neuron_lanes]) for lane in range(c.lanes)),
            ]

    def _units(self, m: Module, schedule, sweeper, neurons, frame) -> None:
        """The inputs of a sweep: listed spikes (FORWARD), listed traces (updates), or the pixels of a frame (layer 1)."""
        forward, units = schedule.sweep == Sweep.FORWARD, sweeper.units
        pixels = schedule.sweep_layer == 1 if frame else Const(0)
        spikes_known, pixels_known = (delay(m, known, self.config.weight_registers) for known in (forward, pixels))
        m.d.comb += [
            neurons.list_layer.eq(schedule.sweep_layer - 1),
            neurons.list_index.eq(units.index),
            neurons.list_enable.eq(units.enable),
            units.unit.eq(Mux(spikes_known, neurons.spike_unit, neurons.trace_unit)),
            units.length.eq(Mux(forward, neurons.spike_count, neurons.trace_count)),
            units.value.eq(1 << PIXEL_FRAC),
            sweeper.trace.eq(neurons.trace),
        ]
        if frame:
            m.d.comb += [frame.read_index.eq(units.index), frame.read_enable.eq(units.enable)]
            with m.If(pixels):
                m.d.comb += units.length.eq(frame.length)
            with m.If(pixels_known):
                m.d.comb += [units.unit.eq(frame.index), units.value.eq(frame.value)]

    def _count(self, m: Module, registers, schedule, sweeper, lanes) -> None:
        c = self.config
        dense = Array([0, *(c.sizes[l] * c.sizes[l - 1] for l in c.layers)])
        frame_length = Signal(16)
        if c.static:
            m.d.comb += frame_length.eq(m.submodules.frame.length)
        m.d.comb += [
            registers.busy.eq(schedule.busy),
            registers.phase.eq(schedule.phase),
            registers.counted.eq(delay(m, Mux(lanes.op.valid & lanes.op.ready, sweeper.counted, 0), c.weight_registers)),
            registers.dense.eq(Mux(schedule.start_sweep, dense[schedule.sweep_layer], 0)),
            registers.frame_length_value.eq(frame_length),
        ]
