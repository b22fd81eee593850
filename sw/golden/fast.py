"""The golden model compiled, to tune hyper-parameters with and to follow long simulations."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from hw.network import Network
from hw.numbers import LAYERS_MAX, PHI_ENTRIES, PHI_FRAC, PHI_STEP_FRAC, PIXEL_FRAC
from sw.common import checks
from sw.common.compiler import shared_library
from sw.golden.network import GoldenNetwork
from sw.golden.spike.readout import winner

SOURCE = Path(__file__).with_name("network.cpp")
_int, _pointer = ctypes.c_int64, ctypes.c_void_p


class _Q(ctypes.Structure):
    _fields_ = [("low", _int), ("high", _int)]


class _Layer(ctypes.Structure):
    _NUMBERS = ("n", "m", "first", "unit", "alpha_shift", "grain", "all_inputs")
    _fields_ = [*((name, _int) for name in _NUMBERS), ("weight", _pointer), ("grad", _pointer)]


FORMATS = ("w", "u", "trace", "delta", "grad")
NUMBERS = (
    "is_static", "is_frames", "stochastic", "each_step", "lazy", "steps", "classes", "layers", "neurons", "units", "inputs",
    "one", "trace_frac", "alpha_frac", "alpha_one", "alpha_min", "theta_min", "w_frac", "u_frac", "pixel_frac", "phi_frac",
    "phi_step_frac", "phi_entries", "delta_shift", "current_shift", "weight_grad_shift", "alpha_grad_shift", "weight_shift",
    "theta_shift", "batch", "gathered", "rate_w", "rate_theta", "rate_alpha", "rng", "sops", "sops_dense",
)  # fmt: skip
ARRAYS = ("theta", "membrane", "spike", "theta_trace", "alpha_trace", "current", "delta", "theta_grad", "weight_trace",
          "input_grad", "count", "delta_sum", "last_sum", "alpha", "alpha_grad", "error_table", "surrogate")  # fmt: skip
SCRATCH = ("error", "listed", "row")


class _Network(ctypes.Structure):
    """`Network` of network.cpp.

    Arrays have the names of `sw.golden.network.GoldenNetwork`, with an underscore where a format has that name, too."""

    _fields_ = [
        *((name, _Q) for name in FORMATS),
        *((name, _int) for name in NUMBERS),
        *((name + "_" * (name in FORMATS), _pointer) for name in ARRAYS),
        *((name, _pointer) for name in SCRATCH),
        ("layer", _Layer * LAYERS_MAX),
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
            "inputs": c.input_units, "one": c.trace.one, "trace_frac": c.trace.f, "w_frac": c.w.f, "u_frac": c.u.f,
            "pixel_frac": PIXEL_FRAC, "phi_frac": PHI_FRAC, "phi_step_frac": PHI_STEP_FRAC, "phi_entries": PHI_ENTRIES,
            "weight_shift": c.weight_shift(0), "delta_shift": c.grad.f - c.delta.f, "theta_shift": c.theta_shift(0),
        }  # fmt: skip
        self._scratch = {name: np.zeros(max(c.sizes), np.int64) for name in SCRATCH}
        self._net = _Network(**{name: _Q(getattr(c, name).low, getattr(c, name).high) for name in FORMATS})
        for name in NUMBERS:
            setattr(self._net, name, numbers[name] if name in numbers else int(getattr(c, name, 0)))
        for name in ARRAYS:
            setattr(self._net, name + "_" * (name in FORMATS), getattr(self, name).data_ptr())
        for name, array in self._scratch.items():
            setattr(self._net, name, array.ctypes.data)
        for layer in self.layers:
            l = layer.number
            grad = None if layer.grad is None else layer.grad.data_ptr()
            self._net.layer[l - 1] = _Layer(
                c.sizes[l], c.sizes[l - 1], layer.neurons.start, layer.inputs.start, c.mean_shift(c.sizes[l]),
                *map(int, layer.visit), layer.weight.data_ptr(), grad)  # fmt: skip

    def _run(self, sample: np.ndarray, label: int, learn: str) -> None:
        self._call(0, self.config.steps - 1, sample, label, learn)

    def _steps(self, sample: np.ndarray, label: int, learn: str) -> Iterator[int]:
        for t in range(self.config.steps):
            self._call(t, t, sample, label, learn)
            yield t

    def _call(self, first: int, last: int, sample: np.ndarray, label: int, learn: str) -> None:
        net, shown = self._net, sample.astype(np.int64)
        for name in (*checks.RATES, "rng", "gathered"):
            setattr(net, name, getattr(self, name))
        net.sops = net.sops_dense = 0
        self._c.network_steps(ctypes.byref(net), first, last, shown.ctypes.data, label, checks.learn_mask(learn))
        self.rng, self.gathered, self.sops = net.rng, net.gathered, self.sops + net.sops
        self.sops_skipped += net.sops_dense - net.sops
        if last == self.config.steps - 1:
            self.winner = winner(self.count, self.membrane[self.layers[-1].neurons], self.config)
