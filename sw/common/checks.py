"""What a host may hand to a network, golden model or gateware alike: one place decides, and says what is legal.

Needs NumPy only, so that the simulation bench can import it without PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from hw.network import Legal, Network, state_arrays
from hw.numbers import LEARN_L, LEARN_T, LEARN_W, PIXEL_FRAC, RATE_MAX

RATES = ("rate_w", "rate_theta", "rate_alpha", "rate_decay")
SWITCHES = {"w": LEARN_W, "t": LEARN_T, "l": LEARN_L}
PIXEL_MAX = (1 << PIXEL_FRAC) - 1


@lru_cache(maxsize=64)
def legal_state(config: Network) -> dict[str, Legal]:
    """What each array of the learning state may hold, by name."""
    return state_arrays(config)


def _whole(name: str, value: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    """`value` as an array of whole numbers (bool or an integer type) of this shape."""
    array = np.asarray(value)
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise ValueError(f"{name}: {int(np.isnan(array).sum())} of {array.size} values are NaN; legal are whole numbers")
    if array.dtype.kind not in "biu":
        raise ValueError(f"{name}: type {array.dtype} is not legal; legal is an integer type")
    if array.shape != shape:
        raise ValueError(f"{name}: shape {array.shape} is not legal; legal is {shape}")
    return array


def _within(name: str, array: np.ndarray, low: int, high: int) -> np.ndarray:
    wrong = array[(array < low) | (array > high)]
    if wrong.size:
        worst = wrong[np.abs(wrong.astype(np.float64)).argmax()]
        raise ValueError(
            f"{name}: {wrong.size} of {array.size} values do not fit, the largest is {worst}; legal is {low} to {high}"
        )
    return array


def check_sample(config: Network, sample: ArrayLike) -> np.ndarray:
    """The sample as the core takes it: uint8 (N0,) for static input, bool (T, N0) for events, uint8 (T, N0) for frames.

    N0 inputs may have the shape (C, H, W) of the network's input; flat, they stand in the same order. Raises ValueError on a
    wrong shape or type, NaN, and values out of range.
    """
    shape, lead = config.populations[0].shape, () if config.static else (config.steps,)
    if np.shape(sample) == (*lead, *shape):
        sample = np.reshape(sample, (*lead, -1))
    if config.static:
        return _within("sample", _whole("sample", sample, config.sizes[:1]), 0, PIXEL_MAX).astype(np.uint8, copy=False)
    steps = _whole("sample", sample, (config.steps, config.sizes[0]))
    if config.input == "frames":
        return _within("sample", steps, 0, PIXEL_MAX).astype(np.uint8, copy=False)
    return _within("sample", steps, 0, 1).astype(bool, copy=False)


def check_events(config: Network, addresses: Sequence[Iterable[int]]) -> np.ndarray:
    """Event addresses, one list a time step, as a sample: bool (T, N0). Raises ValueError for an address beyond the input layer."""
    if len(addresses) != config.steps:
        raise ValueError(f"events: {len(addresses)} time steps are not legal; legal is {config.steps}")
    sample = np.zeros((config.steps, config.sizes[0]), bool)
    for t, step in enumerate(addresses):
        for address in step:
            sample[t, check_address(config, address, f"step {t}")] = True
    return sample


def check_address(config: Network, address: int, where: str = "event") -> int:
    """An event's address, an input of the first layer."""
    if not (isinstance(address, int | np.integer) and 0 <= address < config.sizes[0]):
        raise ValueError(f"events: address {address} ({where}) is not legal; legal is 0 to {config.sizes[0] - 1}, the input layer")
    return int(address)


def check_label(config: Network, label: int | None) -> int:
    """The label of a sample to learn from."""
    if isinstance(label, bool) or not isinstance(label, int | np.integer) or not 0 <= label < config.classes:
        raise ValueError(f"label: {label} is not a class; legal is 0 to {config.classes - 1}")
    return int(label)


def check_learn(learn: str) -> str:
    """What is learned: any of the letters w (weights), t (thresholds), l (leakages); nothing infers."""
    if not isinstance(learn, str) or set(learn) - set(SWITCHES) or len(set(learn)) != len(learn):
        raise ValueError(f"learn: {learn!r} is not legal; legal is any subset of the letters {''.join(SWITCHES)}")
    return learn


def learn_mask(learn: str) -> int:
    """The same as bits of register `learn`."""
    return sum(SWITCHES[letter] for letter in check_learn(learn))


def check_rate(name: str, rate: int) -> int:
    """A learning rate 2**-rate."""
    if isinstance(rate, bool) or not isinstance(rate, int | np.integer) or not 0 <= rate <= RATE_MAX:
        raise ValueError(f"{name}: {rate} is not legal; legal is a whole number of 0 to {RATE_MAX}")
    return int(rate)


def check_state(config: Network, name: str, array: ArrayLike) -> np.ndarray:
    """An array of the learning state as int64, by a name of `hw.network.state_arrays`.

    Raises ValueError for an unknown name, a wrong shape or type, and values that do not fit: how many, and the largest.
    """
    known = legal_state(config)
    if name not in known:
        raise ValueError(f"{name}: no such array; legal is one of {', '.join(known)}")
    shape, low, high = known[name]
    return _within(name, _whole(name, array, shape), low, high).astype(np.int64)
