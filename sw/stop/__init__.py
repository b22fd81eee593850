"""STOP, spatiotemporal orthogonal propagation (Gao et al., arXiv 2411.11082), in PyTorch.

`network` has a worked example; `reference` is the analytic form for fully connected layers, which the golden model is compared
with.
"""

from sw.stop.loss import Readout, cross_entropy, mse, step_loss
from sw.stop.network import LEARN, METHODS, Method, Population, parameter_groups, populations, project, reset, set_method, unroll
from sw.stop.neuron import LIF, THETA_MIN, Rectifier
from sw.stop.reference import Parameters, stop
from sw.stop.surrogate import SURROGATES
from sw.stop.synapse import BatchNorm, Conv2d, Linear, Synapse

__all__ = [
    "LEARN", "LIF", "METHODS", "SURROGATES", "THETA_MIN", "BatchNorm", "Conv2d", "Linear", "Method", "Parameters", "Population",
    "Readout", "Rectifier", "Synapse", "cross_entropy", "mse", "parameter_groups", "populations", "project", "reset",
    "set_method", "step_loss", "stop", "unroll",
]  # fmt: skip
