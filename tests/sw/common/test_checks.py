"""Bad input: every one has a message that names the field, the value and what is legal."""

import numpy as np
import pytest

from sw.common import checks
from tests.sw.golden.plain import TWELVE

STATIC = TWELVE.replace(net="6-5-3", steps=4)
EVENTS = STATIC.replace(input="events")


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.int16])
def test_a_frame_is_bytes(dtype):
    frame = checks.check_sample(STATIC, np.array([0, 255, 3, 4, 5, 6], dtype))
    assert frame.dtype == np.uint8 and frame.tolist() == [0, 255, 3, 4, 5, 6]
    assert checks.check_sample(STATIC, [1, 2, 3, 4, 5, 6]).tolist() == [1, 2, 3, 4, 5, 6]


def test_events_are_bits():
    sample = np.eye(4, 6)
    assert (checks.check_sample(EVENTS, sample.astype(int)) == sample).all()
    assert checks.check_sample(EVENTS, sample.astype(bool)).dtype == bool


@pytest.mark.parametrize(
    "config, sample, message",
    [
        (STATIC, np.zeros(5, np.uint8), r"sample: shape \(5,\) is not legal; legal is \(6,\)"),
        (STATIC, np.zeros((2, 3), np.uint8), r"sample: shape \(2, 3\) is not legal; legal is \(6,\)"),
        (STATIC, np.full(6, np.nan), "sample: 6 of 6 values are NaN; legal are whole numbers"),
        (STATIC, np.zeros(6), "sample: type float64 is not legal; legal is an integer type"),
        (STATIC, np.array(["a"] * 6), "sample: type <U1 is not legal"),
        (STATIC, [0, 0, 0, 0, 300, -1], "sample: 2 of 6 values do not fit, the largest is 300; legal is 0 to 255"),
        (STATIC, [0, 0, 0, 0, 0, -1], "sample: 1 of 6 values do not fit, the largest is -1; legal is 0 to 255"),
        (EVENTS, np.zeros((4, 5), bool), r"sample: shape \(4, 5\) is not legal; legal is \(4, 6\)"),
        (EVENTS, np.zeros((0, 6), bool), r"sample: shape \(0, 6\) is not legal; legal is \(4, 6\)"),
        (EVENTS, np.full((4, 6), 2), "sample: 24 of 24 values do not fit, the largest is 2; legal is 0 to 1"),
    ],
)
def test_bad_samples(config, sample, message):
    with pytest.raises(ValueError, match=message):
        checks.check_sample(config, sample)


def test_event_addresses_become_bits():
    sample = checks.check_events(EVENTS, [[0, 5], [], [2, 2], [np.int64(3)]])
    assert sample.shape == (4, 6) and np.argwhere(sample).tolist() == [[0, 0], [0, 5], [2, 2], [3, 3]]


@pytest.mark.parametrize("address", [6, -1, 1.5, "3"])
def test_event_address_beyond_the_input_layer(address):
    with pytest.raises(ValueError, match=rf"events: address {address} \(step 2\) is not legal; legal is 0 to 5, the input layer"):
        checks.check_events(EVENTS, [[], [], [1, address], []])


def test_number_of_steps():
    with pytest.raises(ValueError, match="events: 3 time steps are not legal; legal is 4"):
        checks.check_events(EVENTS, [[], [], []])


@pytest.mark.parametrize("label", [3, -1, None, 1.0, True, "1"])
def test_bad_labels(label):
    with pytest.raises(ValueError, match=f"label: {label} is not a class; legal is 0 to 2"):
        checks.check_label(STATIC, label)


def test_labels_and_switches():
    assert checks.check_label(STATIC, np.int64(2)) == 2
    assert [checks.learn_mask(s) for s in ("", "w", "t", "l", "lw", "wtl")] == [0, 1, 2, 4, 5, 7]
    for bad in ("x", "ww", "W", None):
        with pytest.raises(ValueError, match="learn: .* is not legal; legal is any subset of the letters wtl"):
            checks.check_learn(bad)


@pytest.mark.parametrize("rate", [16, -1, 2.0, True, None])
def test_bad_rates(rate):
    with pytest.raises(ValueError, match=f"rate_w: {rate} is not legal; legal is a whole number of 0 to 15"):
        checks.check_rate("rate_w", rate)


@pytest.mark.parametrize(
    "name, array, message",
    [
        ("weight.3", np.zeros((3, 5), int), "weight.3: no such array; legal is one of weight.1, "),
        ("weight.2", np.zeros((5, 3), int), r"weight.2: shape \(5, 3\) is not legal; legal is \(3, 5\)"),
        ("weight.2", np.zeros((3, 5)), "weight.2: type float64 is not legal"),
        (
            "weight.2",
            np.full((3, 5), -40000),
            "weight.2: 15 of 15 values do not fit, the largest is -40000; legal is -32768 to 32767",
        ),
        ("theta.1", [255, 256, 257, 300, 300], "theta.1: 1 of 5 values do not fit, the largest is 255; legal is 256 to 32767"),
        ("alpha", [4097, 0], "alpha: 1 of 2 values do not fit, the largest is 4097; legal is 0 to 4096"),
        ("rng", 0, "rng: 1 of 1 values do not fit, the largest is 0; legal is 1 to 4294967295"),
        ("surrogate", np.full(256, 4096), "surrogate: 256 of 256 values do not fit, the largest is 4096; legal is 0 to 4095"),
    ],
)
def test_bad_state(name, array, message):
    with pytest.raises(ValueError, match=message):
        checks.check_state(STATIC.replace(stochastic=True), name, array)


def test_state_is_copied():
    mine = np.zeros((3, 5), np.int64)
    checked = checks.check_state(STATIC, "weight.2", mine)
    mine[:] = 9
    assert checked.dtype == np.int64 and not checked.any()
