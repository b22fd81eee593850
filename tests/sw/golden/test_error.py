"""Errors, deltas, gradients and updates of neurons in small cases; the tables against softmax."""

import numpy as np
import pytest
import torch

from hw.numbers import Q
from sw.golden.error import delta as errors
from sw.golden.error import descent
from sw.golden.error.output import error_table, output_error, surrogate_table
from tests.sw.golden.plain import TWELVE as C

ONE = 4096


def ints(*v):
    return torch.tensor(v)


@pytest.mark.parametrize("beta", [0.5, 1.0, 5.0])
def test_error_table_is_the_derivative_of_cross_entropy(beta):
    table = error_table(C.replace(net="64-32-4"), beta=beta)
    assert table.shape == (5, 2, 2)
    for code in range(16):
        s = torch.tensor([float(code >> i & 1) for i in range(4)], dtype=torch.float64, requires_grad=True)
        torch.nn.functional.cross_entropy(beta * s, torch.tensor(2)).backward()
        k = code.bit_count()
        got = [table[k, code >> i & 1, int(i == 2)] for i in range(4)]
        assert np.abs(np.array(got) - s.grad.numpy() * ONE).max() <= 0.5


def test_error_table_of_mse_and_its_limits():
    table = error_table(C, "mse")
    assert (table == ONE * np.array([[0, -1], [1, 0]])).all() and table.shape == (11, 2, 2)
    assert (error_table(C, "mse", scale=0.5) == ONE // 2 * np.array([[0, -1], [1, 0]])).all()
    assert error_table(C, beta=100.0).min() == C.delta.low
    with pytest.raises(ValueError, match="loss: hinge is not legal; legal is cross_entropy or mse"):
        error_table(C, "hinge")


def test_output_error_looks_up_by_count_spike_and_label():
    table = torch.arange(11 * 4).reshape(11, 2, 2)
    spike, target = ints(0, 1, 1, 0, 0, 0, 0, 0, 0, 1), ints(0, 0, 1, 0, 0, 0, 0, 0, 0, 0)
    assert output_error(table, spike, target).tolist() == [12, 14, 15, 12, 12, 12, 12, 12, 12, 14]
    assert output_error(table, 0 * spike, target).tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    assert output_error(table, 0 * spike + 1, target).tolist() == [42, 42, 43, 42, 42, 42, 42, 42, 42, 42]


def test_surrogate_table_samples_the_exponential_at_the_middle_of_its_steps():
    table = surrogate_table()
    assert table.shape == (256,) and table[0] == 4032 and table[31] == 1531 and table[255] == 1
    assert (np.diff(table) <= 0).all() and table.max() < 4096


def test_surrogate_depends_on_the_distance_in_steps_of_a_32nd():
    table = torch.arange(256)
    u = ints(0, 127, 128, 255, 256, 32767, -32768, ONE, -127, -128)
    assert errors.surrogate(u, 0 * u, table, C).tolist() == [0, 0, 1, 1, 2, 255, 255, 32, 0, 1]
    assert errors.surrogate(ints(-32768, 32767), ints(32767, 1), table, C).tolist() == [255, 255]
    fine = C.replace(u=Q(8, 8))
    assert errors.surrogate(ints(7, 8, -9, 32767), ints(0, 0, 0, 0), table, fine).tolist() == [0, 1, 1, 255]


def test_delta_rounds_and_saturates():
    assert errors.delta(ints(1, 1, -1, -1, 32767, -32768), ints(2047, 2048, 2048, 2049, 4095, 4095), C).tolist() == [
        0,
        1,
        0,
        -1,
        32759,
        -32760,
    ]
    narrow = C.replace(delta=Q(1, 12), grad=Q(4, 12))
    assert errors.delta(ints(4095, -4096), ints(4095, 4095), narrow).tolist() == [4094, -4095]


def test_theta_gradient_subtracts_one_and_saturates_twice():
    def gradients(delta, trace):
        return errors.theta_gradient(errors.theta_products(delta, trace, C), 0, C)

    assert gradients(ints(ONE, ONE, -3, ONE), ints(0, -2048, -2048, -32768)).tolist() == [-4096, -6144, 5, -32768]
    assert gradients(ints(-32768, 32767), ints(-32768, -32768)).tolist() == [32767, -32768]


def test_alpha_gradient_rounds_and_saturates():
    assert errors.alpha_gradient(ints(1, -1, 1, 32767), ints(2048, 2048, 2047, 32767), C).tolist() == [1, 0, 0, 32767]


def test_input_gradient_accumulates_and_saturates():
    assert errors.input_gradient(ints(0, 5, 32767, -32768), ints(3, -3, 8, -8), ints(2048), C).tolist() == [2, 4, 32767, -32768]


def test_thresholds_have_a_floor_and_a_ceiling():
    theta = ints(256, 257, 32767, 300, 300)
    assert descent.thresholds(theta, ints(1, 256, -32768, 128, 127), 8, C).tolist() == [256, 256, 32767, 299, 300]
    assert descent.thresholds(theta, ints(32767, 0, -32768, -1, 1), 0, C).tolist() == [256, 257, 32767, 301, 299]


def test_leakage_takes_the_mean_over_the_next_power_of_two_and_stays_in_range():
    # 32 neurons: the shift is 5 + rate; 10 neurons: 4 + rate
    assert descent.leakage(1000, 32 * 7 + 16, 32, 0, C) == 992
    assert descent.leakage(1000, 32 * 7 + 15, 32, 0, C) == 993
    assert descent.leakage(1000, -(16 * 4 * 3), 10, 2, C) == 1003
    assert descent.leakage(1000, 1 << 20, 32, 0, C) == 0
    assert descent.leakage(1000, -(1 << 20), 32, 0, C) == 4096
    assert isinstance(descent.leakage(1000, 5, 32, 15, C), int)
