"""How a machine runs a network: where every number stands, and the programs of its two sequencers.

`compile` is the only place that knows rows and banks. Pure Python, without Amaranth or PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

from hw.machine import Machine, dense_shape, lacks, turned_layers
from hw.network import Network
from hw.program import LaneOp, NeuronOp, When, lane_fields, neuron_fields, pack

Row = dict[str, int]


class DoesNotFit(ValueError):
    """A machine does not hold a network: the message names what is needed and what there is."""


@dataclass(frozen=True)
class Plan:
    """A network on a machine. Made by `compile`.

    Neuron i of a layer is in lane i mod P, group i div P. Its weight of input j stands in row `row_base` + group * fan-in + j.
    In a layer that is `turned`, input j is in lane j mod P, group j div P, and the weight in row `row_base` + i * groups of
    inputs + group. A neuron's own numbers are in neuron lane i mod M, in row `neuron_row` + i div M. The numbers of presynaptic
    unit i are in the same lane, in row `unit_row` + i div M.
    """

    network: Network
    machine: Machine

    # -- lanes --------------------------------------------------------------------------------
    @cached_property
    def turned(self) -> frozenset[int]:
        """Layers that are banked by their inputs."""
        return turned_layers(self.network, self.machine)

    @cached_property
    def groups(self) -> dict[int, int]:
        """Groups of lanes a layer's neurons fill: ceil(neurons / lanes)."""
        return {l: self.machine.groups_of(self.network.sizes[l]) for l in self.network.layers}

    @cached_property
    def shape(self) -> dict[int, tuple[int, int]]:
        """Outer and inner bound of a dense pass over a layer's weight rows (`dense_shape`)."""
        return dense_shape(self.network, self.machine)

    @property
    def visits(self) -> tuple[tuple[int, bool], ...]:
        """Of each layer: how many neurons are visited together if one has a delta, and whether silent inputs are visited."""
        return tuple((1, True) if l in self.turned else (self.machine.lanes, False) for l in self.network.layers)

    @cached_property
    def row_base(self) -> dict[int, int]:
        """First weight row of a layer, the same in every lane. A first layer behind a held frame comes last, as it gathers no
        gradients: the gradient of every other weight stands in the weight's row."""
        n = self.network
        base, at = {}, 0
        for l in sorted(n.layers, key=lambda l: not n.spiking_input(l)):
            base[l] = at
            outer, inner = self.shape[l]
            at += outer * inner
        return base

    @cached_property
    def delta_base(self) -> dict[int, int]:
        """First delta row of a layer. Key 0: the input gradient D of a held frame, behind the last layer; then `dealt_row`."""
        base, at = {}, 0
        for l in self.network.layers:
            base[l] = at
            at += self.groups[l]
        return {**base, 0: at}

    @property
    def dealt_row(self) -> int:
        """First row of the inputs of a turned layer, spikes and traces, beside the deltas."""
        return self.delta_base[0] + (self.groups[1] if self.network.static else 0)

    # -- neuron lanes -------------------------------------------------------------------------
    def _words(self, l: int) -> int:
        return self.machine.neuron_words(self.network.sizes[l])

    @cached_property
    def neuron_row(self) -> dict[int, int]:
        """First row of a layer's neurons, the same in every neuron lane."""
        return {l: sum(map(self._words, range(1, l))) for l in self.network.layers}

    @cached_property
    def unit_row(self) -> dict[int, int]:
        """First row of the presynaptic units of a layer (0 is the input). A hidden neuron's unit has the neuron's own row; the
        input stands behind all neurons; the last layer has no units."""
        return {0: self.neuron_row[self.network.n_layers], **{l: self.neuron_row[l] for l in self.network.layers[:-1]}}

    @cached_property
    def list_base(self) -> dict[int, int]:
        """First place of a presynaptic layer in the lists of its units. A held frame has a list of its own; the inputs of a
        turned layer are not listed."""
        n, base, at = self.network, {}, 0
        for l in range(n.n_layers):
            if (l or not n.static) and l + 1 not in self.turned:
                base[l] = at
                at += n.sizes[l]
        return base

    @cached_property
    def list_number(self) -> dict[int, int]:
        return {l: k for k, l in enumerate(self.list_base)}

    # -- programs -----------------------------------------------------------------------------
    def _sweep(self, op: LaneOp, l: int, when: When, *, d: bool = False) -> Row:
        """A sweep over layer `l`; `d`: over its input gradients D instead of its deltas."""
        n, pixels = self.network, not self.network.spiking_input(l)
        (outer, inner), turned = self.shape[l], l in self.turned
        row: Row = {"op": op, "when": when, "layer": l, "turned": turned, "pixels": pixels,
                    "values": l == 1 and n.input == "frames", "odd": 0 if d else l % 2, "centred": d and n.centres_frame,
                    "slower": n.slower_by(l),
                    "row": self.row_base[l], "fan_in": inner, "groups": outer,
                    "delta_row": self.dealt_row if turned else self.delta_base[0 if d else l],
                    "rest": (n.sizes[l - 1 if turned else l] - 1) % self.machine.lanes + 1,
                    "neuron_row": self.neuron_row[l], "words": self._words(l)}  # fmt: skip
        if l - 1 in self.list_base:
            row |= {"list": self.list_number[l - 1], "list_base": self.list_base[l - 1], "unit_row": self.unit_row[l - 1]}
        return row

    def _pass(self, op: NeuronOp, l: int, when: When) -> Row:
        """A pass over layer `l`, 0 the input."""
        n = self.network
        d = op == NeuronOp.FINISH
        row: Row = {"op": op, "when": when, "layer": l, "row": self.neuron_row[l] if l else self.unit_row[0],
                    "count": n.sizes[l] if l else n.input_units, "output": l == n.n_layers, "held": n.static and l <= 1,
                    "graded": n.output_error == "graded",
                    "values": l == 0 and n.input == "frames", "gather": n.cadence == "sample"}  # fmt: skip
        if l in self.list_base and op in (NeuronOp.INPUT, NeuronOp.NEURON):
            row |= {"listed": 1, "list": self.list_number[l], "list_base": self.list_base[l]}
        if l:
            turned = l in self.turned and not d
            row |= {"odd": 0 if d else l % 2, "turned": turned, "words": n.sizes[l] if turned else self._words(l),
                    "fan_in": self.shape[l][1], "weight_row": self.row_base[l],
                    "delta_row": self.delta_base[0 if d and l == 1 and n.static else l],
                    "shift": n.mean_shift(n.sizes[l])}  # fmt: skip
        if l + 1 in self.turned and op in (NeuronOp.INPUT, NeuronOp.NEURON):
            row |= {"deals": 1, "turned": 0, "words": self._words(l), "delta_row": self.dealt_row}
        return row

    @cached_property
    def programs(self) -> tuple[list[Row], list[Row]]:
        """The rows of the lanes' and of the neurons' program, without END. `after` is a position of the other program."""
        n, static = self.network, self.network.static
        lanes: list[Row] = []
        neurons: list[Row] = []
        down = list(reversed(n.layers))

        def begun(program: list[Row], op: int, l: int) -> int:
            return 2 * _find(program, op, l) + 1

        def over(program: list[Row], op: int, l: int) -> int:
            return 2 * _find(program, op, l) + 2

        # forward in space; the trace of a held frame is not wanted before errors come, and does not keep the first layer waiting
        source = self._pass(NeuronOp.INPUT, 0, When.ALWAYS)
        neurons += [] if static else [source]
        for l in n.layers:
            held = l == 1 and static
            sweep = self._sweep(LaneOp.FORWARD, l, When.FIRST if held else When.ALWAYS)  # the currents of a frame: once a sample
            # The last neurons may still fire while their spikes are listed. They must be done before spikes are dealt to the lanes,
            # and before the lanes want the values that the pass walks.
            still_firing = l not in self.turned and not (l == 1 and n.input == "frames")
            before = over(neurons, NeuronOp.NEURON if l > 1 else NeuronOp.INPUT, l - 1) if not held else 0
            lanes.append(sweep | {"after": max(0, before - still_firing)})
            neurons.append(self._pass(NeuronOp.NEURON, l, When.ALWAYS) | {"after": begun(lanes, LaneOp.FORWARD, l)})
            neurons += [source] if held else []

        # errors backward in space, each layer's update behind them
        update = LaneOp.GATHER if n.cadence == "sample" else LaneOp.DESCEND
        learns = [l for l in down if n.spiking_input(l) and not n.lazy]  # in every step
        for l in down:
            if l == n.n_layers:
                error = self._pass(NeuronOp.OUTPUT_ERROR, l, When.LEARN) | {"stop": 1}
            else:  # the list of deltas of two layers above is no more wanted
                after = over(lanes, update, l + 2) if l + 2 in learns else 0
                error = self._pass(NeuronOp.HIDDEN_ERROR, l, When.LEARN) | {"after": after}
            neurons.append(error)
            if n.cadence == "step":
                neurons.append(self._pass(NeuronOp.LEAKAGE, l, When.LEARN | When.LEARN_L))
            if l < n.n_layers:
                at = begun(neurons, NeuronOp.HIDDEN_ERROR, l)
                lanes.append(self._sweep(LaneOp.BACKWARD, l + 1, When.LEARN) | {"after": at})
                if l + 1 in learns:
                    lanes.append(self._sweep(update, l + 1, When.LEARN | When.LEARN_W))
        first = over(neurons, NeuronOp.HIDDEN_ERROR if n.n_layers > 1 else NeuronOp.OUTPUT_ERROR, 1)
        if 1 in learns:
            lanes.append(self._sweep(update, 1, When.LEARN | When.LEARN_W) | {"after": first})
        self._stop_at_learning(lanes)

        self._end_of_sample(lanes, neurons, first)
        return lanes, neurons

    def _end_of_sample(self, lanes: list[Row], neurons: list[Row], first: int) -> None:
        """Thresholds, leakages and gathered gradients, from the last layer down.

        A first layer behind a held frame learns from its D, last of all. `first`: the neurons' position when the first layer's
        deltas are complete."""
        n, at = self.network, (len(lanes), len(neurons))
        ends = When.LAST | When.LEARN
        applies = ends | (When.FULL if n.batch > 1 else When.ALWAYS)
        done = 2 * len(lanes)  # all sweeps of the step are over
        for l in reversed(n.layers) if n.cadence == "sample" else ([1] if n.static else []):
            d = l == 1 and n.static
            neurons.append(self._pass(NeuronOp.FINISH, l, ends if d else applies) | {"after": done if l in (1, n.n_layers) else 0})
            if n.cadence == "sample":
                neurons.append(self._pass(NeuronOp.LEAKAGE, l, applies | When.LEARN_L))
                if n.spiking_input(l):
                    lanes.append(self._sweep(LaneOp.APPLY, l, applies | When.LEARN_W) | {"after": first})
            if d:
                op = LaneOp.GATHER if n.gathers(1) else LaneOp.DESCEND
                dealt = 2 * _find(neurons, NeuronOp.FINISH, 1) + 2
                lanes.append(self._sweep(op, 1, ends | When.LEARN_W, d=True) | {"after": dealt})
        if n.static and n.gathers(1):
            lanes.append(self._sweep(LaneOp.APPLY, 1, applies | When.LEARN_W))
        if n.decay:
            lanes += [self._sweep(LaneOp.DECAY, l, ends | When.LEARN_W | When.AGED) for l in reversed(n.layers)]
        for program, start in zip((lanes, neurons), at, strict=True):
            if start < len(program) and program[start]["when"] & ~When.LEARN_W == ends:
                program[start]["stop"] = 1

    @staticmethod
    def _stop_at_learning(lanes: list[Row]) -> None:
        learning = [row for row in lanes if row["when"] & When.LEARN]
        if learning and learning[0]["when"] == When.LEARN:
            learning[0]["stop"] = 1

    @cached_property
    def tables(self) -> tuple[list[int], list[int]]:
        """The programs as the machine's tables hold them: a packed row each, END last."""
        lanes, neurons = self.programs
        return _table(lane_fields(self.machine), lanes), _table(neuron_fields(self.machine), neurons)


def _table(fields: dict[str, int], program: list[Row]) -> list[int]:
    return [pack(fields, row) for row in (*program, {})]


def _find(program: list[Row], op: int, l: int) -> int:
    return next(k for k, row in reversed(list(enumerate(program))) if (row["op"], row["layer"]) == (op, l))


@lru_cache(maxsize=256)
def compile(network: Network, machine: Machine) -> Plan:
    """The plan of a network on a machine. DoesNotFit names the first thing that the machine lacks."""
    for lack in lacks(machine, network):
        raise DoesNotFit(lack)
    if machine.fixed is not None and machine.fixed != network:
        raise DoesNotFit(f"net: the machine has {machine.fixed.title} wired in, and runs no other network;"
                         f" build one for {network.title}")  # fmt: skip
    return Plan(network, machine)
