"""Bench for one block: a component with an input stream `i` and an output stream `o`, played with random stalls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from amaranth.lib import wiring

from sim.build import WAVES, build
from sim.simulator import LINGER, SimulationError, Simulator


@dataclass(frozen=True)
class Scenario:
    """One play: `inputs` are packed payload words, `outputs` the number of words to collect.

    `stall_in`, `stall_out`: chance (0 <= p < 1) in each clock cycle that no word is offered, or that none is taken.
    `seed`: of these stalls. `ports`: constant values of the component's other inputs (0 if not named).
    """

    inputs: Sequence[int]
    outputs: int
    stall_in: float = 0.0
    stall_out: float = 0.0
    seed: int = 0
    ports: Mapping[str, int] = field(default_factory=dict)


def run_scenarios(component: wiring.Component, scenarios: Sequence[Scenario], *, i: str = "i", o: str = "o", waves: bool = False,
                  opt: str = "quick", cycles_per_word: int = 64) -> list[list[int]]:  # fmt: skip
    """Play scenarios one after another in one simulation (a start costs most of a second); the output words of each.

    The component's registers are reset before each scenario, its memories are not. Words are packed payloads: of a struct,
    `Const.cast(layout.const({...})).value` packs and `layout.from_bits(word)` unpacks.

    Raises SimulationError if the component hangs (a scenario may take `cycles_per_word` clock cycles a word, stalls counted on
    top), gives more words than asked for, or changes a waiting output; ValueError for bad arguments.
    """
    program = build(component, i=i, o=o, opt=opt, waves=waves)
    results = []
    with Simulator(program, waves=WAVES / f"{type(component).__name__}.vcd" if waves else None) as simulator:
        for number, s in enumerate(scenarios):
            limit = 1000 + cycles_per_word * (len(s.inputs) + s.outputs)
            simulator.restart()
            try:
                play = simulator.play(s.inputs, s.outputs, limit=limit, linger=LINGER, stall_in=s.stall_in, stall_out=s.stall_out,
                                      seed=s.seed, ports={name: 0 for name in program.ports} | dict(s.ports))  # fmt: skip
            except SimulationError as e:
                raise SimulationError(f"{type(component).__name__}, scenario {number} (seed {s.seed}, stalls {s.stall_in}, "
                                      f"{s.stall_out}): {e}") from None  # fmt: skip
            results.append(simulator.words(play.data))
    return results


def run_streams(component: wiring.Component, inputs: Sequence[int], outputs: int, *, stall_in: float = 0.0,
                stall_out: float = 0.0, seed: int = 0, waves: bool = False, ports: Mapping[str, int] | None = None,
                **options: Any) -> list[int]:  # fmt: skip
    """One scenario: `inputs` in, `outputs` words out; see `Scenario` and `run_scenarios`. Waves go to `build/waves/<name>.vcd`."""
    scenario = Scenario(inputs, outputs, stall_in, stall_out, seed, ports or {})
    return run_scenarios(component, [scenario], waves=waves, **options)[0]
