"""The integers that the chip and the golden model load, from a float network of fully connected layers."""

from __future__ import annotations

import torch
from torch import nn

from hw.network import Network
from hw.notation import dense
from sw.files.image import Image
from sw.golden.error.output import error_table, surrogate_table
from sw.golden.fixed import clipped, raw
from sw.stop.network import populations
from sw.stop.synapse import Linear, Synapse


def integer_image(net: nn.Module, config: Network, *, beta: float = 1.0, loss: str = "cross_entropy") -> tuple[Image, int]:
    """Weights, thresholds and leakages rounded to the formats of `config`, with the error and surrogate tables; and how many values
    had to be clipped.

    Raises ValueError if the network is not made of layers of `config.sizes` without biases.
    """
    c = config
    layers = [(p.neuron, _linear(p)) for p in populations(net)]
    sizes = (layers[0][1].in_features, *(linear.out_features for _, linear in layers)) if layers else ()
    if sizes != c.sizes:
        raise ValueError(f"net: {c.net} is not legal; legal is {dense(sizes)}, that of the network")
    real = {"alpha": (torch.stack([neuron.alpha for neuron, _ in layers]), c.alpha_one, 0, c.alpha_one)}
    for l, (neuron, linear) in enumerate(layers, 1):
        real[f"weight.{l}"] = (linear.weight, c.w.one, c.w.low, c.w.high)
        real[f"theta.{l}"] = (neuron.theta, c.u.one, c.theta_min, c.u.high)
    real = {name: (value.detach().cpu(), *limits) for name, (value, *limits) in real.items()}
    state = {name: raw(*arguments) for name, arguments in real.items()}
    tables = {"error_table": error_table(c, loss, beta=beta), "surrogate": surrogate_table()}
    return Image(c, state | tables), sum(clipped(*arguments) for arguments in real.values())


def _linear(population: nn.Module) -> Linear:
    synapses = [m for m in population.modules() if isinstance(m, Synapse)]
    if len(synapses) != 1 or not isinstance(synapses[0], Linear) or synapses[0].bias is not None:
        raise ValueError("model: the chip has fully connected layers without biases only; legal is mlp")
    return synapses[0]
