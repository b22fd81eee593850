"""The contract once more, a second opinion: Python integers, one neuron and one synapse at a time, nothing shared with sw/golden.

Follows docs/numerics.md line by line; slow, and meant to be read beside it.
"""

import numpy as np

from hw.network import Network
from hw.numbers import Q

TWELVE = Network(
    sizes=(64, 32, 10), **{name: Q(4, 12) for name in ("w", "u", "trace", "delta", "grad")}, alpha_frac=12, theta_min=256
)
"""Twelve fraction bits everywhere: 1.0 is 4096, the least value -32768, the greatest 32767. For cases worked out by hand."""


def clip(v, q):
    return min(max(v, -(2 ** (q.bits - 1))), 2 ** (q.bits - 1) - 1)


def rounded(v, n):
    return v if n == 0 else (v + 2 ** (n - 1)) // 2**n


def xorshift(r):
    r ^= (r << 13) % 2**32
    r ^= r >> 17
    return r ^ (r << 5) % 2**32


def turn(v, n):
    return ((v << n) | (v >> (16 - n))) % 2**16


def random_word(r, l, i, j):
    tile_i, tile_j = i // 8, j // 8
    key = 2**16 * (tile_i % 2**8) + 2**24 * (tile_j % 2**8) + tile_i // 2**8 + 2**5 * (tile_j // 2**8) + 2**10 * (l - 1)
    a = r ^ key
    x, y = a // 2**16, a % 2**16
    for _ in range(4):
        x, y = y ^ ((turn(x, 1) & turn(x, 8)) ^ turn(x, 2)), x
    h = 2**16 * x + y
    bits = [h // 2**n % 2 ^ i // 2 ** (n % 3) % 2 ^ j // 2 ** ((n + n // 3) % 3) % 2 for n in range(32)]
    return sum(bit * 2**n for n, bit in enumerate(bits))


class Plain:
    """State under the names of the memory map, as nested lists; `run` shows a sample and learns."""

    def __init__(self, config, state, rates):
        self.c, self.v, self.rates = config, {name: np.asarray(array).tolist() for name, array in state.items()}, rates
        self.names = tuple(self.v)
        self.last_sums = {}  # K of lazy learning
        self.v.setdefault("alpha_grad", [0] * config.n_layers)  # no part of the state at cadence step

    def read(self):
        return {name: np.array(self.v[name]) for name in self.names}

    def run(self, sample, label, learn):
        c, v, last = self.c, self.v, self.c.n_layers
        sample = [int(x) for x in sample] if c.static else [[int(x) for x in row] for row in sample]
        one, k_w = 2**c.trace.f, self.rates[0]
        layers, inputs = range(1, last + 1), [c.sizes[0] if not c.static else 1, *c.sizes[1:-1]]
        for l in layers:
            for name in ("membrane", "spike", "theta_trace", "alpha_trace"):
                v[f"{name}.{l}"] = [0] * c.sizes[l]
            v[f"weight_trace.{l - 1}"] = [0] * inputs[l - 1]
            if learn and c.cadence == "sample" and self.gathered() == 0:
                v[f"theta_grad.{l}"] = [0] * c.sizes[l]
            if learn and c.lazy:
                v[f"delta_sum.{l}"] = [0] * c.sizes[l]
        v["count"] = [0] * c.classes
        if learn and c.static:
            v["input_grad"] = [0] * c.sizes[1]

        for t in range(c.steps):
            x = [256] if c.static else sample[t] if c.input == "frames" else [256 * s for s in sample[t]]
            alpha = list(v["alpha"])
            rise = 2 ** (c.trace.f - 8)
            v["weight_trace.0"] = [
                clip(alpha[0] * w // 2**c.alpha_frac + b * rise, c.trace) for w, b in zip(v["weight_trace.0"], x, strict=True)
            ]
            for l in layers:
                a = alpha[l - 1]
                if c.lazy and "w" in learn:
                    for row, h in zip(v[f"grad.{l}"], v[f"delta_sum.{l}"], strict=True):
                        for j, s in enumerate(x if l == 1 else v[f"spike.{l - 1}"]):
                            row[j] = clip(row[j] - h, c.grad) if s else row[j]
                for i in range(c.sizes[l]):
                    if l > 1 or not c.static or t == 0:
                        values = sample if l == 1 and c.static else x if l == 1 else [256 * s for s in v[f"spike.{l - 1}"]]
                        total = sum(w * b for w, b in zip(v[f"weight.{l}"][i], values, strict=True))
                        v[f"current.{l}"][i] = clip(rounded(total, c.w.f + 8 - c.u.f), c.u)
                    theta, s = v[f"theta.{l}"][i], v[f"spike.{l}"][i]
                    rest = clip(v[f"membrane.{l}"][i] - theta * s, c.u)
                    u = v[f"membrane.{l}"][i] = clip(a * rest // 2**c.alpha_frac + v[f"current.{l}"][i], c.u)
                    v[f"theta_trace.{l}"][i] = a * clip(v[f"theta_trace.{l}"][i] - s * one, c.trace) // 2**c.alpha_frac
                    v[f"alpha_trace.{l}"][i] = clip(a * v[f"alpha_trace.{l}"][i] // 2**c.alpha_frac + rest, c.u)
                    s = v[f"spike.{l}"][i] = int(u >= theta)
                    if l < last:
                        w = v[f"weight_trace.{l}"]
                        w[i] = clip(alpha[l] * w[i] // 2**c.alpha_frac + s * one, c.trace)
            v["count"] = [n + s for n, s in zip(v["count"], v[f"spike.{last}"], strict=True)]
            if learn:
                self.learn(label, learn)
        frame, full = None, self.gathered() == c.batch - 1
        if "w" in learn and c.static:
            shift, f = c.delta.f + c.trace.f - c.grad.f, 2 ** (c.trace.f - 8)
            frame = [[clip(rounded(d * p * f, shift), c.grad) for p in sample] for d in v["input_grad"]]
            if c.batch > 1:
                pairs = zip(v["grad.1"], frame, strict=True)
                v["grad.1"] = [[clip(a + b, c.grad) for a, b in zip(*rows, strict=True)] for rows in pairs]
        if learn and full and c.cadence == "sample":
            for l in reversed(layers):
                if "w" in learn and c.lazy:
                    traces = v[f"weight_trace.{l - 1}"]
                    last_products = [[rounded(k * w, c.trace.f) for w in traces] for k in self.last_sums[l]]
                    total = [
                        [clip(g + p, c.grad) if w else 0 for g, p, w in zip(*both, traces, strict=True)]
                        for both in zip(v[f"grad.{l}"], last_products, strict=True)
                    ]
                    self.update_weights(l, total, k_w)
                    v[f"grad.{l}"] = [[0 if w else g for g, w in zip(row, traces, strict=True)] for row in v[f"grad.{l}"]]
                elif "w" in learn and (l > 1 or not c.static or c.batch > 1):
                    self.update_weights(l, v[f"grad.{l}"], k_w)
                    v[f"grad.{l}"] = [[0] * c.sizes[l - 1] for _ in range(c.sizes[l])]
                self.update_neurons(l, learn, v[f"theta_grad.{l}"])
        if frame is not None and c.batch == 1:
            self.update_weights(1, frame, k_w)
        if learn and c.batch > 1:
            v["gathered"] = 0 if full else v["gathered"] + 1
        rank = [(n, u, -i) for i, (n, u) in enumerate(zip(v["count"], v[f"membrane.{last}"], strict=True))]
        v["class"] = -max(rank)[2]

    def gathered(self):
        """Samples of this batch whose gradients are gathered."""
        return self.v.get("gathered", 0)

    def learn(self, label, learn):
        c, v, one = self.c, self.v, 2**self.c.trace.f
        error, last, fired = [], c.n_layers, sum(v[f"spike.{c.n_layers}"])
        for l in range(last, 0, -1):
            trace, n, m = v[f"weight_trace.{l - 1}"], c.sizes[l], c.sizes[l - 1]
            delta, g_theta, grad, shift = [], [], [], c.delta.f + c.trace.f - c.grad.f
            for i in range(n):
                e = v["error_table"][fired][v[f"spike.{l}"][i]][int(i == label)] if l == last else error[i]
                distance = abs(clip(v[f"membrane.{l}"][i] - v[f"theta.{l}"][i], c.u))
                phi = v["surrogate"][min(distance // 2 ** (c.u.f - 5), 255)]
                d = clip(rounded(e * phi, 12), c.delta)
                delta.append(d)
                g = clip(rounded(d * clip(v[f"theta_trace.{l}"][i] - one, c.trace), shift), c.grad) if "t" in learn else 0
                g_theta.append(g)
                if c.cadence == "sample":
                    v[f"theta_grad.{l}"][i] = clip(v[f"theta_grad.{l}"][i] + g, c.grad)
                if "l" in learn:
                    v["alpha_grad"][l - 1] += clip(rounded(d * v[f"alpha_trace.{l}"][i], c.delta.f + c.u.f - c.grad.f), c.grad)
                if l == 1 and c.static:
                    v["input_grad"][i] = clip(v["input_grad"][i] + rounded(d * trace[0], c.trace.f), c.delta)
                else:
                    grad.append([clip(rounded(d * w, shift), c.grad) for w in trace])
            v[f"delta.{l}"] = delta
            if c.lazy:
                inverse = 2 ** (2 * c.alpha_frac) // v["alpha"][l - 1]
                sums = [clip(h + d * 2 ** (c.grad.f - c.delta.f), c.grad) for h, d in zip(v[f"delta_sum.{l}"], delta, strict=True)]
                v[f"delta_sum.{l}"] = [clip(rounded(k * inverse, c.alpha_frac), c.grad) for k in sums]
                self.last_sums[l] = sums
            error = [clip(rounded(sum(v[f"weight.{l}"][i][j] * delta[i] for i in range(n)), c.w.f), c.delta) for j in range(m)]
            if "w" in learn and grad and not c.lazy:
                if c.cadence == "step":
                    self.update_weights(l, grad, self.rates[0])
                else:
                    total = v[f"grad.{l}"]
                    v[f"grad.{l}"] = [
                        [clip(a + b, c.grad) for a, b in zip(x, y, strict=True)] for x, y in zip(total, grad, strict=True)
                    ]
            if c.cadence == "step":
                self.update_neurons(l, learn, g_theta)

    def update_weights(self, l, grad, rate):
        c, v = self.c, self.v
        n = c.grad.f - c.w.f + rate
        for i, row in enumerate(grad):
            for j, g in enumerate(row):
                step = (g + random_word(v["rng"], l, i, j) % 2**n) // 2**n if c.stochastic else rounded(g, n)
                v[f"weight.{l}"][i][j] = clip(v[f"weight.{l}"][i][j] - step, c.w)
        if c.stochastic:
            v["rng"] = xorshift(v["rng"])

    def alpha_min(self):
        """Least leakage factor at which 16 is not less than its growth over the sample, and a trace of 1.0 does not vanish."""
        c, one = self.c, 2**self.c.alpha_frac
        for alpha in range(one // 4 if c.lazy else 0, one + 1):
            trace = 2**c.trace.f
            for _ in range(c.steps - 1):
                trace = alpha * trace // one
            if not c.lazy or (trace > 0 and 16 * alpha**c.steps >= one**c.steps):
                return alpha

    def update_neurons(self, l, learn, grad):
        c, v = self.c, self.v
        if "t" in learn:
            n = c.grad.f - c.u.f + self.rates[1]
            v[f"theta.{l}"] = [max(clip(a - rounded(g, n), c.u), c.theta_min) for a, g in zip(v[f"theta.{l}"], grad, strict=True)]
        if "l" in learn:
            mean = next(k for k in range(20) if 2**k >= c.sizes[l])
            step = rounded(v["alpha_grad"][l - 1], c.grad.f - c.alpha_frac + mean + self.rates[2])
            v["alpha"][l - 1] = min(max(v["alpha"][l - 1] - step, self.alpha_min()), 2**c.alpha_frac)
            v["alpha_grad"][l - 1] = 0
