"""The class a sample is given."""

from __future__ import annotations

from torch import Tensor

from hw.network import Network


def winner(count: Tensor, membrane: Tensor, config: Network) -> int:
    """Neuron with the most spikes; among equals the greatest final membrane; among those the lowest index.

    `count` (C,) spikes of the sample, `membrane` (C,) in format `u`.
    """
    return int(((count << config.u.bits) + membrane).argmax())  # argmax names the first of equals
