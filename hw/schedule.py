"""The order of passes: a time step forward through the layers, back through them, and the end of a sample."""

from __future__ import annotations

from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.config import Config
from hw.memory_map import LEARN_L, LEARN_W, PHASES
from hw.pipeline import delay
from hw.spike.neurons import Pass
from hw.streams import bits_for
from hw.weight.lanes import Sweep

_PHASE_OF_SWEEP = {Sweep.FORWARD: "forward", Sweep.BACKWARD: "backward"}  # the others change weights: "update"
_PHASE_OF_PASS = {Pass.OUTPUT_ERROR: "backward", Pass.HIDDEN_ERROR: "backward", Pass.FINISH: "update"}  # the others: "neuron"


class Schedule(wiring.Component):
    """Starts sweeps of the lanes and passes of the neurons, side by side where one only follows the other:

    ===========================  ==============================================================================
    lanes                        neurons, at the same time
    ===========================  ==============================================================================
    currents of layer l          layer l integrates what has come (NEURON), or layer l - 1 still fires (its list grows)
    errors of layer l - 1        layer l - 1 turns them into deltas (HIDDEN_ERROR)
    update of layer l            layer l - 1 ends its deltas; after the sample: layer l - 1 learns its thresholds (FINISH)
    ===========================  ==============================================================================

    `run` starts; `single` stops after one time step. `step` is the next step t; it is kept by the host's registers, which follow
    `next_step` when `step_done` is high. `sweep` and `sweep_layer` go to sweeper and lanes, `kind` and `neuron_layer` to the neurons,
    `groups_layer` to the list of groups, each held while they are at it (`sweeping`, `passing`). `growing`: the neurons still add to
    the list of inputs that the sweep walks. `phase` (of memory_map.PHASES) is what the lanes do, or what they wait for.
    """

    def __init__(self, config: Config):
        self.config = config
        layer_bits = bits_for(config.n_layers + 1)
        super().__init__(
            {
                "run": In(1),
                "single": In(1),
                "learn": In(3),
                "step": In(8),
                "step_done": Out(1),
                "next_step": Out(8),
                "busy": Out(1),
                "idle": Out(1),  # its opposite, from a register of its own, since every memory looks at it
                "phase": Out(range(len(PHASES))),
                "start_sweep": Out(1),
                "sweep": Out(Sweep),
                "sweep_layer": Out(layer_bits),
                "growing": Out(1),
                "start_neurons": Out(1),
                "kind": Out(Pass),
                "neuron_layer": Out(layer_bits),
                "start_groups": Out(1),
                "groups_layer": Out(layer_bits),
                "start_current": Out(1),
                "update_alpha": Out(1),
                "next_random": Out(1),
                "sweeping": In(1),  # sweeper or lanes are busy; known `Config.weight_registers` cycles late
                "passing": In(1),  # neurons are busy; likewise
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        c = self.config
        layer, neuron_layer, sweep_layer, groups_layer = (
            Signal.like(self.sweep_layer, name=n) for n in ("layer", "neuron_layer_r", "sweep_layer_r", "groups_layer_r")
        )
        kind, sweep, single = Signal(Pass), Signal(Sweep), Signal()
        strobes = {name: Signal(name=f"{name}_r") for name in ("sweep", "neurons", "groups", "current")}
        final, lanes_idle, neurons_idle, drawn = Signal(), Signal(), Signal(), Signal()
        busy, idle, far = Signal(), Signal(init=1), c.weight_registers  # `far`: cycles that `sweeping` and `passing` come late
        learn_w, learn_l = (self.learn & LEARN_W) != 0, (self.learn & LEARN_L) != 0
        spiking = 1 if not c.static else layer != 1  # whether the inputs of `layer` are spikes
        started: Value = Const(0)
        if far:  # and so does `update_alpha`
            update = delay(m, self.update_alpha, far)
            started = delay(m, strobes["neurons"], far) | update | delay(m, update, far)
        m.d.comb += [
            self.sweep_layer.eq(sweep_layer),
            self.neuron_layer.eq(neuron_layer),
            self.groups_layer.eq(groups_layer),
            self.kind.eq(kind),
            self.sweep.eq(sweep),
            *(getattr(self, f"start_{name}").eq(strobe) for name, strobe in strobes.items()),
            final.eq(self.step == c.steps - 1),
            lanes_idle.eq(~self.sweeping & ~strobes["sweep"] & ~delay(m, strobes["sweep"], far)),
            neurons_idle.eq(~self.passing & ~strobes["neurons"] & ~started),
            self.growing.eq(~neurons_idle & (neuron_layer + 1 == sweep_layer) & (sweep_layer != 1 if c.static else 1)),
            self.busy.eq(busy),
            self.idle.eq(idle),
        ]
        m.d.sync += [strobe.eq(0) for strobe in strobes.values()]
        self._phase(m, lanes_idle)

        def neurons(a_pass: Pass, of) -> list:
            return [kind.eq(a_pass), neuron_layer.eq(of), strobes["neurons"].eq(1)]

        def rows(a_sweep: Sweep, of) -> list:
            return [sweep.eq(a_sweep), sweep_layer.eq(of), strobes["sweep"].eq(1)]

        def currents(of) -> list:
            return [*rows(Sweep.FORWARD, of), strobes["current"].eq(1)]

        def deltas(of) -> list:
            return [groups_layer.eq(of), strobes["groups"].eq(1)]

        with m.If(drawn & lanes_idle):  # an update of a layer's weights is over: the next one has other random bits
            m.d.comb += self.next_random.eq(1)
            m.d.sync += drawn.eq(0)

        def go(state: str) -> None:
            m.d.sync += [busy.eq(state != "IDLE"), idle.eq(state == "IDLE")]
            m.next = state

        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += single.eq(self.single)
                with m.If(self.run):
                    go("INPUT")

            # forward in space
            with m.State("INPUT"):
                m.d.sync += [neurons(Pass.INPUT, 0), layer.eq(1)]
                if c.static:
                    with m.If(self.step == 0):  # the currents of a frame: once a sample
                        m.d.sync += currents(1)
                    m.next = "INPUT-WAIT"
                else:
                    m.next = "EVENTS"
            if not c.static:
                with m.State("EVENTS"):
                    m.d.sync += currents(1)
                    m.next = "INPUT-WAIT"
            with m.State("INPUT-WAIT"), m.If(neurons_idle):
                m.next = "NEURON"
            with m.State("NEURON"):
                m.d.sync += neurons(Pass.NEURON, layer)
                m.next = "CURRENT"
            with m.State("CURRENT"), m.If(lanes_idle):
                with m.If(layer != c.n_layers):
                    m.d.sync += currents(layer + 1)
                m.next = "NEURON-WAIT"
            with m.State("NEURON-WAIT"), m.If(neurons_idle):
                with m.If(layer != c.n_layers):
                    m.d.sync += layer.eq(layer + 1)
                    m.next = "NEURON"
                with m.Elif(self.learn != 0):
                    m.next = "OUTPUT"
                with m.Else():
                    m.next = "STEP"

            # errors backward in space, each layer's update behind them
            with m.State("OUTPUT"):
                m.d.sync += [neurons(Pass.OUTPUT_ERROR, layer), deltas(layer)]
                m.next = "DELTAS-WAIT"
            with m.State("DELTAS-WAIT"), m.If(neurons_idle & lanes_idle):
                # the deltas of `layer` are complete
                if c.cadence == "step":
                    m.d.comb += self.update_alpha.eq(learn_l)
                m.next = "BACKWARD"
                with m.If(layer == 1):
                    m.next = "UPDATE"
            with m.State("BACKWARD"):
                m.d.sync += [neurons(Pass.HIDDEN_ERROR, layer - 1), deltas(layer - 1), rows(Sweep.BACKWARD, layer)]
                m.next = "BACKWARD-WAIT"
            with m.State("BACKWARD-WAIT"), m.If(lanes_idle):
                m.next = "UPDATE"
            with m.State("UPDATE"):
                if not c.lazy:
                    with m.If(learn_w & spiking):
                        m.d.sync += rows(Sweep.GATHER if c.cadence == "sample" else Sweep.DESCEND, layer)
                        if c.cadence == "step":
                            m.d.sync += drawn.eq(1)
                m.d.sync += layer.eq(layer - 1)
                m.next = "DELTAS-WAIT"
                with m.If(layer == 1):
                    m.next = "UPDATE-WAIT"
            with m.State("UPDATE-WAIT"), m.If(neurons_idle & lanes_idle):
                m.next = "STEP"

            # the end of a step, and of a sample
            with m.State("STEP"):
                m.d.comb += [self.step_done.eq(1), self.next_step.eq(Mux(final, 0, self.step + 1))]
                go("IDLE")
                with m.If(~final):
                    if c.static:
                        with m.If(~single):
                            go("INPUT")
                with m.Elif((self.learn != 0) & (c.cadence == "sample" or c.static)):
                    m.d.sync += layer.eq(c.n_layers if c.cadence == "sample" else 1)
                    go("FINISH")
            with m.State("FINISH"):
                m.d.sync += neurons(Pass.FINISH, layer)
                with m.If(layer == 1):
                    m.d.sync += deltas(0)
                m.next = "FINISH-WAIT"
            with m.State("FINISH-WAIT"), m.If(neurons_idle & lanes_idle):
                if c.cadence == "sample":
                    m.d.comb += self.update_alpha.eq(learn_l)
                m.next = "APPLY"
            with m.State("APPLY"):
                with m.If(learn_w):
                    m.d.sync += [rows(Sweep.APPLY, layer), drawn.eq(1)]
                    if c.static:
                        with m.If(layer == 1):
                            m.d.sync += sweep.eq(Sweep.DESCEND)
                m.d.sync += layer.eq(layer - 1)
                m.next = "FINISH"
                with m.If(layer == 1):
                    m.next = "APPLY-WAIT"
            with m.State("APPLY-WAIT"), m.If(neurons_idle & lanes_idle):
                go("IDLE")
        return m

    def _phase(self, m: Module, lanes_idle) -> None:
        of_sweep, of_pass = Signal.like(self.phase, name="of_sweep"), Signal.like(self.phase, name="of_pass")
        for phase, what, names, others in ((of_sweep, self.sweep, _PHASE_OF_SWEEP, "update"), (of_pass, self.kind, _PHASE_OF_PASS, "neuron")):
            m.d.comb += phase.eq(PHASES.index(others))
            with m.Switch(what):
                for value, name in names.items():
                    with m.Case(value):
                        m.d.comb += phase.eq(PHASES.index(name))
        m.d.sync += self.phase.eq(Mux(lanes_idle, of_pass, of_sweep))
