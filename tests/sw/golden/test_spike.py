"""Membranes, traces and readout in small cases worked out by hand."""

import torch

from hw.numbers import Q
from sw.golden.spike.membrane import fire, leak, weight_trace
from sw.golden.spike.readout import winner
from tests.sw.golden.plain import TWELVE as C

HALF, ONE = 2048, 4096


def ints(*v):
    return torch.tensor(v)


def leaked(u, s, theta=ONE, alpha=HALF, theta_trace=0, alpha_trace=0):
    return [int(x) for x in leak(ints(u), ints(s), ints(theta_trace), ints(alpha_trace), ints(theta), alpha, C)]


def test_membrane_resets_by_subtraction_and_leaks_downward():
    assert leaked(6001, 1)[0] == 952  # (6001 - 4096) / 2, floor
    assert leaked(6001, 0)[0] == 3000
    assert leaked(-1, 0)[0] == -1  # floor, not towards zero
    assert leaked(-32768, 1)[0] == -16384  # rest saturates before the leak
    assert leaked(-32768, 1, alpha=ONE)[0] == -32768
    assert leaked(6001, 0, alpha=0)[0] == 0


def test_threshold_trace_counts_the_old_spike_and_saturates_before_the_leak():
    assert leaked(0, 1)[1] == -2048
    assert leaked(0, 0, theta_trace=-3)[1] == -2
    assert leaked(0, 1, theta_trace=-32768, alpha=ONE)[1] == -32768


def test_leakage_trace_adds_the_unleaked_rest():
    assert leaked(6001, 1, alpha_trace=-7)[2] == -4 + 1905
    assert leaked(32767, 0, alpha_trace=32767, alpha=ONE)[2] == 32767
    assert leaked(-32768, 1, alpha_trace=-32768, alpha=ONE)[2] == -32768


def test_neuron_fires_at_its_threshold():
    u, s = fire(ints(100, 100, 100, 32767, -32768), ints(3995, 3996, 3997, 32767, -32768), ints(ONE, ONE, ONE, ONE, ONE), C)
    assert u.tolist() == [4095, 4096, 4097, 32767, -32768]
    assert s.tolist() == [0, 1, 1, 1, 0]


def test_layers_side_by_side_have_their_own_leakage():
    alpha = ints(0, HALF, ONE)
    both = leak(ints(9, 9, 9), ints(0, 0, 0), ints(-9, -9, -9), ints(5, 5, 5), ints(ONE, ONE, ONE), alpha, C)
    assert [x.tolist() for x in both] == [[0, 4, 9], [0, -5, -9], [9, 11, 14]]


def test_weight_trace_leaks_then_adds_a_value_and_saturates():
    """A value is in 1/256, a spike 256."""
    assert weight_trace(ints(4097, 4097, 32767, 0, 0), ints(0, 256, 256, 256, 3), HALF, C).tolist() == [2048, 6144, 20479, 4096, 48]
    assert weight_trace(ints(32767), ints(256), ONE, C).tolist() == [32767]
    narrow = C.replace(trace=Q(2, 8))
    assert weight_trace(ints(256, 511), ints(256, 255), ONE, narrow).tolist() == [511, 511]


def test_readout_breaks_ties_by_membrane_then_by_index():
    def first(count, membrane):
        return winner(ints(*count), ints(*membrane), C)

    assert first([0, 3, 2], [9, -32768, 32767]) == 1
    assert first([3, 3, 2], [-1, 0, 32767]) == 1
    assert first([0, 3, 3], [9, 7, 7]) == 1
    assert first([0, 0, 0], [-32768, -32768, -32768]) == 0
    assert first([255, 0, 255], [-32768, 32767, 32767]) == 2
