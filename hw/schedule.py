"""The order of passes: a time step forward through the layers, back through them, and the end of a sample."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.config import Config
from hw.memory_map import LEARN_L, LEARN_W, PHASES
from hw.spike.neurons import Pass
from hw.streams import bits_for
from hw.weight.lanes import Sweep


class Schedule(wiring.Component):
    """Starts one pass after another and waits for each.

    `run` starts; `single` stops after one time step. `step` is the next step t; it is kept by the host's registers, which follow
    `next_step` when `step_done` is high. `sweep` and `sweep_layer` go to sweeper and lanes, `kind` and `neuron_layer` to the neurons,
    `groups_layer` to the list of groups, each held while it is `busy`.
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
                "phase": Out(range(len(PHASES))),
                "start_sweep": Out(1),
                "sweep": Out(Sweep),
                "sweep_layer": Out(layer_bits),
                "start_neurons": Out(1),
                "kind": Out(Pass),
                "neuron_layer": Out(layer_bits),
                "start_groups": Out(1),
                "groups_layer": Out(layer_bits),
                "start_current": Out(1),
                "update_alpha": Out(1),
                "next_random": Out(1),
                "working": In(1),  # sweeper, lanes or neurons are busy
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        c = self.config
        layer, neuron_layer, groups_layer = (Signal.like(self.sweep_layer, name=n) for n in ("layer", "neuron_layer_r", "groups_layer_r"))
        kind, sweep, phase, single = Signal(Pass), Signal(Sweep), Signal.like(self.phase), Signal()
        strobes = {name: Signal(name=f"{name}_r") for name in ("sweep", "neurons", "groups", "current")}
        final, idle = Signal(), Signal()
        learn_w, learn_l = (self.learn & LEARN_W) != 0, (self.learn & LEARN_L) != 0
        spiking_1 = not c.static
        m.d.comb += [
            self.sweep_layer.eq(layer),
            self.neuron_layer.eq(neuron_layer),
            self.groups_layer.eq(groups_layer),
            self.kind.eq(kind),
            self.sweep.eq(sweep),
            self.phase.eq(phase),
            *(getattr(self, f"start_{name}").eq(strobe) for name, strobe in strobes.items()),
            final.eq(self.step == c.steps - 1),
            idle.eq(~self.working & ~strobes["sweep"] & ~strobes["neurons"]),
            self.busy.eq(1),
        ]
        m.d.sync += [strobe.eq(0) for strobe in strobes.values()]

        def neurons(a_pass: Pass, of) -> list:
            return [kind.eq(a_pass), neuron_layer.eq(of), strobes["neurons"].eq(1)]

        def rows(a_sweep: Sweep) -> list:
            return [sweep.eq(a_sweep), strobes["sweep"].eq(1)]

        def deltas(of) -> list:
            return [groups_layer.eq(of), strobes["groups"].eq(1)]

        def enter(name: str) -> list:
            return [phase.eq(PHASES.index(name))]

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.busy.eq(0)
                with m.If(self.run):
                    m.d.sync += [single.eq(self.single), layer.eq(1)]
                    if c.static:
                        with m.If(self.step == 0):
                            m.next = "CURRENT"
                        with m.Else():
                            m.next = "INPUT"
                    else:
                        m.next = "INPUT"

            # forward in space
            with m.State("INPUT"):
                m.d.sync += [neurons(Pass.INPUT, 0), layer.eq(1), enter("neuron")]
                m.next = "INPUT-WAIT"
            with m.State("INPUT-WAIT"), m.If(idle):
                m.next = "CURRENT" if spiking_1 else "NEURON"
            with m.State("CURRENT"):
                m.d.sync += [rows(Sweep.FORWARD), strobes["current"].eq(1), enter("forward")]
                m.next = "CURRENT-WAIT"
            with m.State("CURRENT-WAIT"), m.If(idle):
                m.next = "NEURON"
                if c.static:  # once a sample, before the first step
                    with m.If(layer == 1):
                        m.next = "INPUT"
            with m.State("NEURON"):
                m.d.sync += [neurons(Pass.NEURON, layer), enter("neuron")]
                m.next = "NEURON-WAIT"
            with m.State("NEURON-WAIT"), m.If(idle):
                with m.If(layer != c.n_layers):
                    m.d.sync += layer.eq(layer + 1)
                    m.next = "CURRENT"
                with m.Elif(self.learn != 0):
                    m.next = "OUTPUT"
                with m.Else():
                    m.next = "STEP"

            # errors backward in space, each layer's update behind them
            with m.State("OUTPUT"):
                m.d.sync += [neurons(Pass.OUTPUT_ERROR, layer), deltas(layer), enter("backward")]
                m.next = "ERROR-WAIT"
            with m.State("ERROR-WAIT"), m.If(idle):
                # deltas of neuron_layer are complete, and `layer` is either that layer (output) or the one behind it
                m.next = "ALPHA" if c.cadence == "step" else "BEHIND"
            with m.State("ALPHA"):
                m.d.comb += self.update_alpha.eq(learn_l)
                m.next = "BEHIND"
            with m.State("BEHIND"):
                with m.If((layer == neuron_layer) & (layer != 1)):
                    m.next = "BACKWARD"
                with m.Else():
                    m.next = "UPDATE"
            with m.State("BACKWARD"), m.If(idle):
                m.d.sync += [neurons(Pass.HIDDEN_ERROR, layer - 1), deltas(layer - 1), rows(Sweep.BACKWARD), enter("backward")]
                m.next = "ERROR-WAIT"
            with m.State("UPDATE"):
                with m.If(learn_w & ((layer != 1) | spiking_1)):
                    m.d.sync += [rows(Sweep.GATHER if c.cadence == "sample" else Sweep.DESCEND), enter("update")]
                m.next = "UPDATE-WAIT"
            with m.State("UPDATE-WAIT"), m.If(idle):
                if c.cadence == "step":
                    m.d.comb += self.next_random.eq(learn_w & ((layer != 1) | spiking_1))
                m.d.sync += layer.eq(layer - 1)
                with m.If(layer == 1):
                    m.next = "STEP"
                with m.Elif(layer == 2):
                    m.next = "UPDATE"
                with m.Else():
                    m.next = "BACKWARD"

            # the end of a step, and of a sample
            with m.State("STEP"):
                m.d.comb += [self.step_done.eq(1), self.next_step.eq(Mux(final, 0, self.step + 1))]
                with m.If(~final):
                    m.next = "IDLE" if not c.static else "INPUT"
                    with m.If(single):
                        m.next = "IDLE"
                with m.Elif((self.learn != 0) & (c.cadence == "sample" or c.static)):
                    m.d.sync += layer.eq(c.n_layers if c.cadence == "sample" else 1)
                    m.next = "FINISH"
                with m.Else():
                    m.next = "IDLE"
            with m.State("FINISH"):
                m.d.sync += [neurons(Pass.FINISH, layer), enter("update")]
                with m.If(layer == 1):
                    m.d.sync += deltas(0)
                m.next = "FINISH-WAIT"
            with m.State("FINISH-WAIT"), m.If(idle):
                if c.cadence == "sample":
                    m.d.comb += self.update_alpha.eq(learn_l)
                with m.If(learn_w):
                    m.d.sync += rows(Sweep.APPLY)
                    if c.static:
                        with m.If(layer == 1):
                            m.d.sync += rows(Sweep.DESCEND)
                m.next = "APPLY-WAIT"
            with m.State("APPLY-WAIT"), m.If(idle):
                m.d.comb += self.next_random.eq(learn_w)
                m.d.sync += layer.eq(layer - 1)
                m.next = "FINISH"
                with m.If(layer == 1):
                    m.next = "IDLE"
        return m
