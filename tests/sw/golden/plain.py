"""The contract once more, a second opinion: Python integers, one neuron and one synapse at a time, nothing shared with sw/golden.

Follows docs/numerics.md line by line; slow, and meant to be read beside it.
"""

from itertools import product

import numpy as np

from hw.network import Network
from hw.notation import Conv, Identity
from hw.numbers import Q

TWELVE = Network(
    net="64-32-10", **{name: Q(4, 12) for name in ("w", "u", "trace", "delta", "grad")}, alpha_frac=12, theta_min=256
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


def random_word(r, p, i, j):
    """For weight (i, j) of projection p."""
    tile_i, tile_j = i // 8, j // 8
    key = 2**16 * (tile_i % 2**8) + 2**24 * (tile_j % 2**8) + tile_i // 2**8 + 2**5 * (tile_j // 2**8) + 2**10 * p
    a = r ^ key
    x, y = a // 2**16, a % 2**16
    for _ in range(4):
        x, y = y ^ ((turn(x, 1) & turn(x, 8)) ^ turn(x, 2)), x
    h = 2**16 * x + y
    bits = [h // 2**n % 2 ^ i // 2 ** (n % 3) % 2 ^ j // 2 ** ((n + n // 3) % 3) % 2 for n in range(32)]
    return sum(bit * 2**n for n, bit in enumerate(bits))


def places(shape):
    """All indices of an array."""
    return list(product(*map(range, shape)))


def number(place, shape):
    """What a neuron, unit or tap counts as: place by place, channels fastest."""
    if len(place) == 1:
        return place[0]
    c, y, x = place
    return (y * shape[2] + x) * shape[0] + c


class Projection:
    """The synapses that lead to a layer: (neuron, unit, weight), each named by its indices."""

    def __init__(self, network, l, k, projection):
        self.source, kind, self.kind = projection.source, projection.kind, projection.kind
        above, below = network.populations[l].shape, network.populations[self.source].unit_shape
        self.weight, self.grad = (f"weight.{l}", f"grad.{l}") if k == 0 else (f"shortcut.{l}", f"shortcut_grad.{l}")
        self.trace = f"weight_trace.{self.source}" if k == 0 else f"shortcut_trace.{l}"
        self.below, self.shared = below, isinstance(kind, Conv)
        if isinstance(kind, Identity):
            self.synapses, self.shape = [(place, place, None) for place in places(above)], None
        elif isinstance(kind, Conv):
            self.synapses, self.shape = [], (above[0], below[0], kind.kernel, kind.kernel)
            for (o, y, x), (c, b, a) in product(places(above), places((below[0], kind.kernel, kind.kernel))):
                row, column = y * kind.stride + b - kind.padding, x * kind.stride + a - kind.padding
                if 0 <= row < below[1] and 0 <= column < below[2]:
                    self.synapses.append(((o, y, x), (c, row, column), (o, c, b, a)))
        else:
            self.shape = (above[0], *below)
            self.synapses = [((i,), unit, (i, *unit)) for i in range(above[0]) for unit in places(below)]

    def place(self, weight):
        """Neuron, or filter, and input of a weight, as numbers."""
        return weight[0], number(weight[1:], self.shape[1:])


class Plain:
    """State under the names of the memory map, as dicts by index; `run` shows a sample and learns."""

    def __init__(self, config, state, rates):
        self.c, self.rates = config, rates
        self.shapes = {name: np.shape(array) for name, array in state.items()}
        arrays = {name: np.asarray(array) for name, array in state.items()}
        self.v = {name: {place: int(array[place]) for place in places(array.shape)} for name, array in arrays.items()}
        self.last_sums = {}  # K of lazy learning
        self.v.setdefault("alpha_grad", {(l,): 0 for l in range(config.n_layers)})  # no part of the state at cadence step
        self.shape = [population.shape for population in config.populations]
        projections = {l: enumerate(config.populations[l].projections) for l in config.layers}
        self.into = {l: [Projection(config, l, k, p) for k, p in found] for l, found in projections.items()}
        weighted = [p for l in config.layers for p in self.into[l] if p.shape]
        self.number = {p.weight: n for n, p in enumerate(weighted)}

    def read(self):
        return {name: np.array([self.v[name][p] for p in places(shape)], np.int64).reshape(shape)
                for name, shape in self.shapes.items()}  # fmt: skip

    def fill(self, name):
        self.v[name] = dict.fromkeys(self.v[name], 0)

    def gathered(self):
        """Samples of this batch whose gradients are gathered."""
        return self.v["gathered"][()] if "gathered" in self.v else 0

    def held(self, p):
        return self.c.static and p.source == 0

    def run(self, sample, label, learn):
        c, v, last = self.c, self.v, self.c.n_layers
        sample = np.asarray(sample).astype(int).reshape(*([] if c.static else [c.steps]), *self.shape[0]).tolist()
        for l in c.layers:
            for name in ("membrane", "spike", "theta_trace", "alpha_trace"):
                self.fill(f"{name}.{l}")
            for p in self.into[l]:
                if p.shape:
                    self.fill(p.trace)
            if learn and c.cadence == "sample" and self.gathered() == 0:
                self.fill(f"theta_grad.{l}")
            if learn and c.lazy:
                self.fill(f"delta_sum.{l}")
        self.fill("count")
        if learn and c.static:
            self.fill("input_grad")

        def item(array, place):
            for k in place:
                array = array[k]
            return array

        for t in range(c.steps):
            scale = 256 if c.input == "events" else 1
            shown = sample if c.static else sample[t]
            x = {0: {place: scale * item(shown, place) for place in places(self.shape[0])}}
            self.forward(t, x, learn)
            v["count"] = {(i,): n + v[f"spike.{last}"][(i,)] for (i,), n in v["count"].items()}
            if learn:
                self.learn(label, learn)
        self.finish(x[0], learn)
        rank = [(v["count"][(i,)], v[f"membrane.{last}"][(i,)], -i) for i in range(c.classes)]
        v["class"] = {(): -max(rank)[2]}

    def forward(self, t, x, learn):
        c, v, last, one = self.c, self.v, self.c.n_layers, 2**self.c.trace.f
        for l in c.layers:
            a = v["alpha"][(l - 1,)]
            if c.lazy and "w" in learn:
                for (i,), (j,), w in self.into[l][0].synapses:
                    if x[l - 1][(j,)]:
                        v[f"grad.{l}"][w] = clip(v[f"grad.{l}"][w] - v[f"delta_sum.{l}"][(i,)], c.grad)
            if l > 1 or not c.static or t == 0:
                total = dict.fromkeys(places(self.shape[l]), 0)
                for p in self.into[l]:
                    for neuron, unit, w in p.synapses:
                        total[neuron] += x[p.source][unit] * (v[p.weight][w] if w else 2**c.w.f)
                v[f"current.{l}"] = {i: clip(rounded(n, c.w.f + 8 - c.u.f), c.u) for i, n in total.items()}
            for i in places(self.shape[l]):
                theta, s = v[f"theta.{l}"][i[:1]], v[f"spike.{l}"][i]
                rest = clip(v[f"membrane.{l}"][i] - theta * s, c.u)
                u = v[f"membrane.{l}"][i] = clip(a * rest // 2**c.alpha_frac + v[f"current.{l}"][i], c.u)
                v[f"theta_trace.{l}"][i] = a * clip(v[f"theta_trace.{l}"][i] - s * one, c.trace) // 2**c.alpha_frac
                v[f"alpha_trace.{l}"][i] = clip(a * v[f"alpha_trace.{l}"][i] // 2**c.alpha_frac + rest, c.u)
                v[f"spike.{l}"][i] = int(u >= theta)
            if l < last:
                x[l] = dict.fromkeys(places(c.populations[l].unit_shape), 0)
                for neuron, unit in self.units(l):
                    x[l][unit] += 256 * v[f"spike.{l}"][neuron] // c.populations[l].pool ** 2
        for l in c.layers:
            for p in self.into[l]:
                if p.shape:
                    seen = {(0,): 256} if self.held(p) else x[p.source]
                    for j, w in v[p.trace].items():
                        v[p.trace][j] = clip(v["alpha"][(l - 1,)] * w // 2**c.alpha_frac + seen[j] * 2 ** (c.trace.f - 8), c.trace)

    def units(self, l):
        """Pairs of a neuron and its unit; neurons left over at the border have none."""
        k, units = self.c.populations[l].pool, set(places(self.c.populations[l].unit_shape))
        pairs = [(i, i[:1] + tuple(n // k for n in i[1:])) for i in places(self.shape[l])]
        return [(i, unit) for i, unit in pairs if unit in units]

    def learn(self, label, learn):
        c, v, one, last = self.c, self.v, 2**self.c.trace.f, self.c.n_layers
        shift = c.delta.f + c.trace.f - c.grad.f
        fired = sum(v[f"spike.{last}"].values())
        above = {l: dict.fromkeys(places(c.populations[l].unit_shape), 0) for l in c.layers}
        g_thetas = {}
        for l in range(last, 0, -1):
            error, delta = dict.fromkeys(places(self.shape[l]), 0), {}
            for neuron, unit in self.units(l):
                error[neuron] = clip(rounded(above[l][unit], c.w.f + 2 * (c.populations[l].pool.bit_length() - 1)), c.delta)
            for i in places(self.shape[l]):
                distance = clip(v[f"membrane.{l}"][i] - v[f"theta.{l}"][i[:1]], c.u)
                y = int(i == (label,))
                if l == last and c.output_error == "graded":
                    delta[i] = v["graded_table"][(y, min(max(distance // 2 ** (c.u.f - 5) + 128, 0), 255))]
                    continue
                e = v["error_table"][(fired, v[f"spike.{l}"][i], y)] if l == last else error[i]
                phi = v["surrogate"][(min(abs(distance) // 2 ** (c.u.f - 5), 255),)]
                delta[i] = clip(rounded(e * phi, 12), c.delta)
            v[f"delta.{l}"] = delta
            totals = dict.fromkeys(v[f"theta.{l}"], 0)
            for i, d in delta.items():
                totals[i[:1]] += d * clip(v[f"theta_trace.{l}"][i] - one, c.trace)
                if "l" in learn:
                    v["alpha_grad"][(l - 1,)] += clip(rounded(d * v[f"alpha_trace.{l}"][i], c.delta.f + c.u.f - c.grad.f), c.grad)
                if l == 1 and c.static:
                    v["input_grad"][i] = clip(v["input_grad"][i] + rounded(d * v["weight_trace.0"][(0,)], c.trace.f), c.delta)
            sharing = next(k for k in range(20) if 2**k >= len(delta) // len(totals)) // 3
            g_thetas[l] = {i: clip(rounded(n, shift + sharing), c.grad) if "t" in learn else 0 for i, n in totals.items()}
            if c.cadence == "sample":
                for i, g in g_thetas[l].items():
                    v[f"theta_grad.{l}"][i] = clip(v[f"theta_grad.{l}"][i] + g, c.grad)
            if c.lazy:
                inverse = 2 ** (2 * c.alpha_frac) // v["alpha"][(l - 1,)]
                sums = {i: clip(v[f"delta_sum.{l}"][i] + d * 2 ** (c.grad.f - c.delta.f), c.grad) for i, d in delta.items()}
                v[f"delta_sum.{l}"] = {i: clip(rounded(k * inverse, c.alpha_frac), c.grad) for i, k in sums.items()}
                self.last_sums[l] = sums
            for p in self.into[l]:
                for neuron, unit, w in p.synapses if p.source else []:
                    above[p.source][unit] += delta[neuron] * (v[p.weight][w] if w else 2**c.w.f)
            for p in reversed(self.into[l]):
                if p.shape and "w" in learn and not c.lazy and not self.held(p):
                    self.gather(l, p, delta, v[p.trace])
        if c.cadence == "step":
            for l in range(last, 0, -1):
                self.update_neurons(l, learn, g_thetas[l])

    def gather(self, l, p, delta, factor):
        c, v, total = self.c, self.v, dict.fromkeys(places(p.shape), 0)
        for neuron, unit, w in p.synapses:
            total[w] += delta[neuron] * factor[unit]
        grad = {w: clip(rounded(n, c.delta.f + c.trace.f - c.grad.f), c.grad) for w, n in total.items()}
        if p.grad in v:
            v[p.grad] = {w: clip(g + grad[w], c.grad) for w, g in v[p.grad].items()}
        else:
            self.update_weights(l, p, grad)

    def finish(self, frame, learn):
        c, v, last, full = self.c, self.v, self.c.n_layers, self.gathered() == self.c.batch - 1
        first, centred = self.into[1][0], c.centred and last > 1
        if c.static and centred and not first.shared:
            mean = self.mean(sum(frame.values()), len(frame))
            frame = {unit: x - mean for unit, x in frame.items()}
        frame = {unit: x * 2 ** (c.trace.f - 8) for unit, x in frame.items()}
        gathers = first.grad in v
        if "w" in learn and c.static and gathers:
            self.gather(1, first, v["input_grad"], frame)
        if learn and full and c.cadence == "sample":
            for l in range(last, 0, -1):
                for p in reversed(self.into[l]):
                    if "w" in learn and p.grad in v:
                        self.apply(l, p, c.centred and l < last and not (self.held(p) and not p.shared))
                self.update_neurons(l, learn, v[f"theta_grad.{l}"])
        if "w" in learn and c.static and not gathers:
            self.gather(1, first, v["input_grad"], frame)
        if "w" in learn and c.decay:
            v["aged"] = {(): (v["aged"][()] + 1) % 16}
            for p in [p for l in range(last, 0, -1) for p in reversed(self.into[l]) if p.shape] if v["aged"][()] == 0 else []:
                for w, old in v[p.weight].items():
                    base = c.grad.f - c.w.f
                    r = random_word(v["rng"][()], self.number[p.weight], *p.place(w)) % 2 ** (base + self.rates[3])
                    v[p.weight][w] = clip(old - (old * 2**base + r) // 2 ** (base + self.rates[3]), c.w)
                v["rng"] = {(): xorshift(v["rng"][()])}
        if learn and c.batch > 1:
            v["gathered"] = {(): 0 if full else self.gathered() + 1}

    def mean(self, total, n):
        shift = next(k for k in range(20) if 2**k >= n)
        return rounded(rounded(total, shift) * ((2 ** (shift + 15) + n // 2) // n), 15)

    def rate(self, l):
        return self.c.grad.f - self.c.w.f + min(self.rates[0] + (self.c.slower[l - 1] if self.c.slower else 0), 15)

    def apply(self, l, p, centred):
        c, v = self.c, self.v
        grad, left = dict(v[p.grad]), dict.fromkeys(v[p.grad], 0)
        if c.lazy:
            traces = v[p.trace]
            left = {(i, j): 0 if traces[(j,)] else g for (i, j), g in grad.items()}
            grad = {(i, j): clip(g + rounded(self.last_sums[l][(i,)] * traces[(j,)], c.trace.f), c.grad) if traces[(j,)] else 0
                    for (i, j), g in grad.items()}  # fmt: skip
        if centred:
            for i in range(p.shape[0]):
                row = [w for w in grad if w[0] == i]
                mean = self.mean(sum(grad[w] for w in row), len(row))
                grad |= {w: clip(grad[w] - mean, c.grad) for w in row}
        if c.remainder:
            left = {w: g - rounded(g, self.rate(l)) * 2 ** self.rate(l) for w, g in grad.items()}
        self.update_weights(l, p, grad)
        v[p.grad] = left

    def update_weights(self, l, p, grad):
        c, v, n = self.c, self.v, self.rate(l)
        for w, g in grad.items():
            r = random_word(v["rng"][()], self.number[p.weight], *p.place(w)) % 2**n if c.stochastic else 0
            v[p.weight][w] = clip(v[p.weight][w] - ((g + r) // 2**n if c.stochastic else rounded(g, n)), c.w)
        if c.stochastic:
            v["rng"] = {(): xorshift(v["rng"][()])}

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
            v[f"theta.{l}"] = {i: max(clip(a - rounded(grad[i], n), c.u), c.theta_min) for i, a in v[f"theta.{l}"].items()}
        if "l" in learn:
            mean = next(k for k in range(20) if 2**k >= len(places(self.shape[l])))
            step = rounded(v["alpha_grad"][(l - 1,)], c.grad.f - c.alpha_frac + mean + self.rates[2])
            v["alpha"][(l - 1,)] = min(max(v["alpha"][(l - 1,)] - step, self.alpha_min()), 2**c.alpha_frac)
            v["alpha_grad"][(l - 1,)] = 0
