"""The golden model compiled, to tune hyper-parameters with and to follow long simulations."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from hw.network import Network
from hw.notation import Population
from hw.numbers import (
    DECAY_SAMPLES,
    GRADED_ENTRIES,
    LAYERS_MAX,
    MEAN_BITS,
    PHI_ENTRIES,
    PHI_FRAC,
    PHI_STEP_FRAC,
    PIXEL_FRAC,
    RATE_MAX,
    ceil_log2,
    mean_factor,
)
from sw.common import checks
from sw.common.compiler import shared_library
from sw.golden.network import GoldenNetwork, Input
from sw.golden.spike.readout import winner

SOURCE = Path(__file__).with_name("network.cpp")
_int, _pointer = ctypes.c_int64, ctypes.c_void_p


class _Q(ctypes.Structure):
    _fields_ = [("low", _int), ("high", _int)]


SYNAPSES = ("number", "layer", "source", "n", "m", "unit", "traces", "pairs", "shared", "places", "taps_each", "channels",
            "held", "gathers", "centres", "slower", "grain", "all_inputs", "mean_factor", "mean_shift")  # fmt: skip
POPULATION = ("n", "first", "threshold", "units", "value", "channels", "pool_shift", "alpha_shift",
               "sharing", "projections", "identity", "projection")  # fmt: skip


class _Synapses(ctypes.Structure):
    _fields_ = [*((name, _int) for name in SYNAPSES), ("taps", _pointer), ("weight", _pointer), ("grad", _pointer)]


class _Population(ctypes.Structure):
    _fields_ = [*((name, _int) for name in POPULATION), ("unit_of", _pointer), ("threshold_of", _pointer)]


FORMATS = ("w", "u", "trace", "delta", "grad")
NUMBERS = (
    "is_static", "is_frames", "stochastic", "each_step", "lazy", "graded", "decay", "remainder",
    "steps", "classes", "layers", "neurons", "thresholds", "units", "synapses", "inputs",
    "one", "trace_frac", "alpha_frac", "alpha_one", "alpha_min", "theta_min", "w_frac", "u_frac", "pixel_frac", "phi_frac",
    "phi_step_frac", "phi_entries", "graded_entries", "decay_samples", "rate_max", "mean_bits",
    "delta_shift", "current_shift", "weight_grad_shift", "alpha_grad_shift", "weight_shift", "theta_shift",
    "batch", "gathered", "aged", "rate_w", "rate_theta", "rate_alpha", "rate_decay", "rng", "sops", "sops_dense",
)  # fmt: skip
ARRAYS = ("theta", "membrane", "spike", "theta_trace", "alpha_trace", "current", "delta", "theta_grad", "weight_trace",
          "input_grad", "count", "delta_sum", "last_sum", "alpha", "alpha_grad", "error_table", "graded_table",
          "surrogate")  # fmt: skip
SCRATCH = ("values", "above", "error", "sums", "listed", "row", "patch", "products")


class _Network(ctypes.Structure):
    """`Network` of network.cpp.

    Arrays have the names of `sw.golden.network.GoldenNetwork`, with an underscore where a format has that name, too."""

    _fields_ = [
        *((name, _Q) for name in FORMATS),
        *((name, _int) for name in NUMBERS),
        *((name + "_" * (name in FORMATS), _pointer) for name in ARRAYS),
        *((name, _pointer) for name in SCRATCH),
        ("population", _Population * (LAYERS_MAX + 1)),
        ("synapse", _Synapses * (2 * LAYERS_MAX)),
    ]


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(shared_library(SOURCE)))
    library.network_size.restype = _int
    library.network_steps.argtypes = [_pointer, _int, _int, _pointer, _int, _int]
    library.network_steps.restype = None
    if library.network_size() != ctypes.sizeof(_Network):
        raise RuntimeError(f"{SOURCE.name} has a Network of {library.network_size()} bytes,"
                           f" but {ctypes.sizeof(_Network)} are wanted")  # fmt: skip
    return library


class FastNetwork(GoldenNetwork):
    """A `GoldenNetwork`, the same in every bit and in every name, whose time steps are compiled from C++ (network.cpp).

    The first one in a folder waits some seconds for the compiler. RuntimeError if there is none, or it fails.
    """

    def __init__(self, config: Network, *, visits: Sequence[tuple[int, bool]] | None = None) -> None:
        super().__init__(config, visits=visits)
        c, self._c = config, _library()
        numbers = {
            "is_static": c.static, "is_frames": c.input == "frames", "each_step": c.cadence == "step", "layers": c.n_layers,
            "graded": c.output_error == "graded", "synapses": len(c.synapses), "inputs": c.sizes[0],
            "one": c.trace.one, "trace_frac": c.trace.f, "w_frac": c.w.f, "u_frac": c.u.f,
            "pixel_frac": PIXEL_FRAC, "phi_frac": PHI_FRAC, "phi_step_frac": PHI_STEP_FRAC, "phi_entries": PHI_ENTRIES,
            "graded_entries": GRADED_ENTRIES, "decay_samples": DECAY_SAMPLES, "rate_max": RATE_MAX, "mean_bits": MEAN_BITS,
            "weight_shift": c.weight_shift(0), "delta_shift": c.grad.f - c.delta.f, "theta_shift": c.theta_shift(0),
        }  # fmt: skip
        products = max((i.weights.weight.numel() for i in self.inputs if i.weights.taps is not None), default=0)
        most = max(*c.sizes, *(i.synapses.fan_in for i in self.inputs), products)
        self._scratch = {name: np.zeros(sum(c.sizes) if name in ("values", "above") else most, np.int64) for name in SCRATCH}
        self._net = _Network(**{name: _Q(getattr(c, name).low, getattr(c, name).high) for name in FORMATS})
        for name in NUMBERS:
            setattr(self._net, name, numbers[name] if name in numbers else int(getattr(c, name, 0)))
        for name in ARRAYS:
            setattr(self._net, name + "_" * (name in FORMATS), getattr(self, name).data_ptr())
        for name, array in self._scratch.items():
            setattr(self._net, name, array.ctypes.data)
        for l, population in enumerate(c.populations):
            self._net.population[l] = _Population(**self._population(l, population))
        for layer in self.layers:
            self._net.population[layer.number].unit_of = layer.pool.unit_of.data_ptr()
            self._net.population[layer.number].threshold_of = layer.threshold_of.data_ptr()
        for of in self.inputs:
            grad, taps = (None if array is None else array.data_ptr() for array in (of.weights.grad, of.weights.taps))
            self._net.synapse[of.synapses.number] = _Synapses(**self._synapses(of), taps=taps, grad=grad,
                                                              weight=of.weights.weight.data_ptr())  # fmt: skip

    def _population(self, l: int, population: Population) -> dict[str, int]:
        c, first = self.config, min((i.synapses.number for i in self.inputs if i.synapses.layer == l), default=0)
        return {
            "n": population.size, "first": c.neuron_base.get(l, 0), "threshold": c.threshold_base.get(l, 0),
            "units": population.units, "value": sum(p.units for p in c.populations[:l]),
            "channels": population.channels, "pool_shift": self.layers[l - 1].pool.shift if l else 0,
            "alpha_shift": c.mean_shift(population.size),
            "sharing": c.sharing_shift(l), "projections": sum(p.kind.weighted for p in population.projections),
            "identity": next((p.source for p in population.projections if not p.kind.weighted), -1), "projection": first,
        }  # fmt: skip

    def _synapses(self, of: Input) -> dict[str, int]:
        c, s = self.config, of.synapses
        held, shared = c.static and of.source == 0, of.weights.taps is not None
        places, taps = of.weights.taps.shape if of.weights.taps is not None else (1, 0)
        return {
            "number": s.number, "layer": s.layer - 1, "source": of.source, "n": s.weight_shape[0], "m": s.fan_in,
            "unit": of.traces.start, "traces": of.traces.stop - of.traces.start, "pairs": s.pairs,
            "shared": shared, "places": places, "taps_each": taps, "channels": s.below[0], "held": held,
            "gathers": of.weights.grad is not None, "centres": c.centres(s.layer), "slower": of.slower,
            "grain": of.visit.neurons, "all_inputs": of.visit.all_inputs, "mean_factor": mean_factor(s.fan_in),
            "mean_shift": ceil_log2(s.fan_in),
        }  # fmt: skip

    def _run(self, sample: np.ndarray, label: int, learn: str) -> None:
        self._call(0, self.config.steps - 1, sample, label, learn)

    def _steps(self, sample: np.ndarray, label: int, learn: str) -> Iterator[int]:
        for t in range(self.config.steps):
            self._call(t, t, sample, label, learn)
            yield t

    def _call(self, first: int, last: int, sample: np.ndarray, label: int, learn: str) -> None:
        net, shown = self._net, sample.astype(np.int64)
        for name in (*checks.RATES, "rng", "gathered", "aged"):
            setattr(net, name, getattr(self, name))
        net.sops = net.sops_dense = 0
        self._c.network_steps(ctypes.byref(net), first, last, shown.ctypes.data, label, checks.learn_mask(learn))
        self.rng, self.gathered, self.aged, self.sops = net.rng, net.gathered, net.aged, self.sops + net.sops
        self.sops_skipped += net.sops_dense - net.sops
        if last == self.config.steps - 1:
            self.winner = winner(self.count, self.membrane[self.layers[-1].neurons], self.config)
