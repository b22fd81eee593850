// The golden model once more, compiled: docs/numerics.md written out, one neuron and one synapse at a time, in raw integers.
// Functions have the names of those in sw/golden/*.py that do the same to whole tensors. sw/golden/fast.py owns the memory.
#include <algorithm>
#include <cstdint>
#include <numeric>

using Int = int64_t;

struct Q {  // a format: its least and greatest raw value
    Int low, high;
};

// A projection with weights: a row of `m` for each neuron, or for each filter, which all places share. There `taps` has the first
// unit behind each tap of each place, or -1 beyond the border.
struct Synapses {
    Int number, layer, source;  // the layer it leads to (from 0); the population whose units it sees (0 is the input)
    Int n, m;                   // neurons, or filters; weights of each
    Int unit, traces;           // its first unit among all weight traces, and how many it has
    Int pairs;                  // of a neuron and a unit that it sees
    Int shared, places, taps_each, channels;
    Int held, gathers, centres, slower;
    Int grain, all_inputs;  // neurons visited together, and whether silent inputs are visited: for counting only
    Int mean_factor, mean_shift;
    Int *taps, *weight, *grad;
};

// Neurons of a layer, or the inputs: `pool` x `pool` of them are a unit for the layers that see them.
struct Population {
    Int n, first, threshold;  // neurons; the first of them, and of their thresholds, among all
    Int units, value;         // units, and the first of them among all values
    Int channels, pool_shift;
    Int alpha_shift, sharing;  // of the leakage's update at learning rate 1; by how much a shared threshold's gradient is divided
    Int projections, identity;  // weighted ones, which follow `projection`; the population of an identity, or -1
    Int projection;
    const Int *unit_of, *threshold_of;  // of each neuron: its unit, or `units` if it has none, and its threshold among all
};

struct Network {
    Q w, u, trace, delta, grad;
    Int is_static, is_frames, stochastic, each_step, lazy, graded, decay, remainder;
    Int steps, classes, layers, neurons, thresholds, units, synapses, inputs;
    Int one, trace_frac, alpha_frac, alpha_one, alpha_min, theta_min, w_frac, u_frac, pixel_frac, phi_frac, phi_step_frac, phi_entries;
    Int graded_entries, decay_samples, rate_max, mean_bits;
    Int delta_shift, current_shift, weight_grad_shift, alpha_grad_shift, weight_shift, theta_shift;
    Int batch, gathered, aged;  // samples of a batch, how many of this one were learned from, and since weights decayed
    Int rate_w, rate_theta, rate_alpha, rate_decay, rng, sops, sops_dense;
    // Neurons of all layers side by side; weight traces of the units of all projections.
    Int *theta, *membrane, *spike, *theta_trace, *alpha_trace, *current, *delta_, *theta_grad, *weight_trace, *input_grad, *count;
    Int *delta_sum, *last_sum;  // H and K of lazy learning
    Int *alpha, *alpha_grad, *error_table, *graded_table, *surrogate;
    // Scratch: values of all units; error sums of all units; errors of a layer's neurons; sums of its neurons, or of its thresholds;
    // what is listed; gradients of a row; what a filter sees in one place; products of a projection's weights.
    Int *values, *above, *error, *sums, *listed, *row;
    double *patch, *products;
    Population population[17];
    Synapses synapse[32];
};

namespace {

enum Switch : Int { W = 1, T = 2, L = 4 };  // hw/memory_map.py, register `learn`

Int saturate(Int v, Q q) { return std::min(std::max(v, q.low), q.high); }
Int floor_shift(Int v, Int n) { return v >> n; }
Int round_shift(Int v, Int n) { return (v + (Int{1} << n >> 1)) >> n; }
Int dither_shift(Int v, Int n, Int r) { return (v + (r & ((Int{1} << n) - 1))) >> n; }
Int nonzero(const Int* values, Int count) { return count - std::count(values, values + count, Int{0}); }

// The places of `values` that are not 0, in `listed`.
Int list(const Int* values, Int count, Int* listed) {
    Int found = 0;
    for (Int j = 0; j < count; ++j) {
        listed[found] = j;
        found += values[j] != 0;
    }
    return found;
}

// -- counting: a pass over a projection's synapses costs what is not zero --------------------------
void tally(Network& net, Int done, Int dense) {
    net.sops += done;
    net.sops_dense += dense;
}

// Neurons that are visited, since some delta of those visited together is not zero.
Int busy(const Synapses& s, const Int* delta) {
    Int total = 0;
    for (Int start = 0; start < s.n; start += s.grain) {
        const Int end = std::min(start + s.grain, s.n);
        if (std::any_of(delta + start, delta + end, [](Int d) { return d != 0; })) total += end - start;
    }
    return total;
}

// Pairs of neurons and units that are visited; without deltas, or without inputs, all count.
Int visited(const Synapses& s, const Int* delta, const Int* x) {
    if (!s.shared) return (delta ? busy(s, delta) : s.n) * (!x || s.all_inputs ? s.m : nonzero(x, s.m));
    Int total = 0;
    for (Int place = 0; place < s.places; ++place) {
        const Int neurons = delta ? nonzero(delta + place * s.n, s.n) : s.n;
        if (!neurons) continue;
        for (Int tap = 0; tap < s.taps_each; ++tap) {
            const Int unit = s.taps[place * s.taps_each + tap];
            if (unit >= 0) total += neurons * (x ? nonzero(x + unit, s.channels) : s.channels);
        }
    }
    return total;
}

// -- forward ----------------------------------------------------------------------------------------
// `value` is in 1/256; a spike is 256.
Int weight_trace(const Network& net, Int old, Int value, Int alpha) {
    return saturate(floor_shift(alpha * old, net.alpha_frac) + (value << (net.trace_frac - net.pixel_frac)), net.trace);
}

Int leak_and_fire(Network& net, Int i, Int theta, Int alpha) {
    const Int s = net.spike[i], rest = saturate(net.membrane[i] - theta * s, net.u);
    net.membrane[i] = saturate(floor_shift(alpha * rest, net.alpha_frac) + net.current[i], net.u);
    net.theta_trace[i] = floor_shift(alpha * saturate(net.theta_trace[i] - s * net.one, net.trace), net.alpha_frac);
    net.alpha_trace[i] = saturate(floor_shift(alpha * net.alpha_trace[i], net.alpha_frac) + rest, net.u);
    return net.spike[i] = net.membrane[i] >= theta;
}

// Sums of products are exact in a `double`, too, as they are below 2^53 (docs/numerics.md), and processors are faster with these.
using Exact = double;

// What the filters see of the units `x` in a place. False: nothing but zeros.
bool see(Network& net, const Synapses& s, Int place, const Int* x) {
    const Int* taps = s.taps + place * s.taps_each;
    Int any = 0;
    Exact* patch = net.patch;
    for (Int tap = 0; tap < s.taps_each; ++tap, patch += s.channels)
        for (Int c = 0; c < s.channels; ++c) {
            const Int value = taps[tap] < 0 ? 0 : x[taps[tap] + c];
            any |= value;
            patch[c] = value;
        }
    return any;
}

// The sum of weights times `x`, in eight parts, as its order is free.
Int dot(const Int* weight, const Exact* x, Int m) {
    Exact part[8] = {};
    Int j = 0;
    for (; j + 8 <= m; j += 8)
        for (Int k = 0; k < 8; ++k) part[k] += Exact(weight[j + k]) * x[j + k];
    for (; j < m; ++j) part[0] += Exact(weight[j]) * x[j];
    return Int(std::accumulate(part, part + 8, Exact{0}));
}

// Sums over the units `x` of a projection, for all neurons.
void forward(Network& net, const Synapses& s, const Int* x) {
    tally(net, visited(s, nullptr, x), s.pairs);
    if (!s.shared) {
        const Int found = list(x, s.m, net.listed);
        const bool few = found * 8 < s.m;  // else it is faster to meet the zeros, too
        if (!few) std::copy_n(x, s.m, net.patch);
        for (Int i = 0; i < s.n; ++i) {
            if (!few) {
                net.sums[i] += dot(s.weight + i * s.m, net.patch, s.m);
                continue;
            }
            const Int* weight = s.weight + i * s.m;
            Int sum = 0;
            for (Int k = 0; k < found; ++k) sum += weight[net.listed[k]] * x[net.listed[k]];
            net.sums[i] += sum;
        }
        return;
    }
    for (Int place = 0; place < s.places; ++place) {
        if (!see(net, s, place, x)) continue;
        for (Int i = 0; i < s.n; ++i) {
            net.sums[place * s.n + i] += dot(s.weight + i * s.m, net.patch, s.m);
        }
    }
}

// Currents of layer l from the values of the units that it sees.
void integrate(Network& net, Int l) {
    const Population& layer = net.population[l];
    std::fill_n(net.sums, layer.n, 0);
    for (Int p = layer.projection; p < layer.projection + layer.projections; ++p)
        forward(net, net.synapse[p], net.values + net.population[net.synapse[p].source].value);
    if (layer.identity >= 0) {
        const Int* x = net.values + net.population[layer.identity].value;
        for (Int i = 0; i < layer.n; ++i) net.sums[i] += x[i] << net.w_frac;
    }
    for (Int i = 0; i < layer.n; ++i) net.current[layer.first + i] = saturate(round_shift(net.sums[i], net.current_shift), net.u);
}

// What the layers above see of a layer that has fired.
void units(Network& net, const Population& layer) {
    Int* x = net.values + layer.value;
    const Int one = Int{1} << net.pixel_frac >> layer.pool_shift;
    std::fill_n(x, layer.units, 0);
    for (Int i = 0; i < layer.n; ++i)
        if (net.spike[layer.first + i] && layer.unit_of[i] < layer.units) x[layer.unit_of[i]] += one;
}

// What lazy learning takes from the inputs that spike.
void collect_events(const Network& net, const Synapses& s, Int first) {
    const Int* x = net.values + net.population[s.source].value;
    const Int spikes = list(x, s.m, net.listed);
    for (Int i = 0; i < s.n; ++i) {
        const Int sum = net.delta_sum[first + i];
        Int* grad = s.grad + i * s.m;
        if (sum)
            for (Int k = 0; k < spikes; ++k) grad[net.listed[k]] = saturate(grad[net.listed[k]] - sum, net.grad);
    }
}

void begin(Network& net, const Int* sample, Int learn) {
    for (Int* state : {net.membrane, net.spike, net.theta_trace, net.alpha_trace}) std::fill_n(state, net.neurons, 0);
    std::fill_n(net.weight_trace, net.units, 0);
    std::fill_n(net.count, net.classes, 0);
    if (learn) {
        if (net.gathered == 0) std::fill_n(net.theta_grad, net.thresholds, 0);
        std::fill_n(net.input_grad, net.population[1].n, 0);
        std::fill_n(net.delta_sum, net.neurons, 0);
    }
    if (net.is_static) {
        std::copy_n(sample, net.population[0].units, net.values);
        integrate(net, 1);
    }
}

// One step forward from the inputs: their spikes `x`, or their values.
void forward_step(Network& net, const Int* x, Int learn) {
    const Int one = Int{1} << net.pixel_frac;
    if (!net.is_static)
        for (Int j = 0; j < net.inputs; ++j) net.values[j] = net.is_frames ? x[j] : x[j] * one;
    for (Int l = 1; l <= net.layers; ++l) {
        const Population& layer = net.population[l];
        if (l > 1 || !net.is_static) integrate(net, l);
        if (net.lazy && learn & W) collect_events(net, net.synapse[layer.projection], layer.first);
        for (Int i = 0; i < layer.n; ++i)
            leak_and_fire(net, layer.first + i, net.theta[layer.threshold_of[i]], net.alpha[l - 1]);
        if (l < net.layers)
            units(net, layer);
        else
            for (Int i = 0; i < layer.n; ++i) net.count[i] += net.spike[layer.first + i];
    }
    for (Int p = 0; p < net.synapses; ++p) {
        const Synapses& s = net.synapse[p];
        const Int *values = net.values + net.population[s.source].value, alpha = net.alpha[s.layer];
        Int* trace = net.weight_trace + s.unit;
        if (s.held)
            *trace = weight_trace(net, *trace, one, alpha);
        else
            for (Int j = 0; j < s.traces; ++j) trace[j] = weight_trace(net, trace[j], values[j], alpha);
    }
}

// -- learning ---------------------------------------------------------------------------------------
Int distance(const Network& net, Int i, Int theta) { return saturate(net.membrane[i] - theta, net.u); }

Int surrogate(const Network& net, Int i, Int theta) {
    const Int v = distance(net, i, theta);
    return net.surrogate[std::min(floor_shift(v < 0 ? -v : v, net.u_frac - net.phi_step_frac), net.phi_entries - 1)];
}

// Deltas of the last layer.
void output_error(Network& net, Int label) {
    const Population& layer = net.population[net.layers];
    const Int k = nonzero(net.spike + layer.first, net.classes);
    for (Int i = 0; i < net.classes; ++i) {
        const Int at = layer.first + i, theta = net.theta[layer.threshold + i];
        if (net.graded) {
            const Int step = floor_shift(distance(net, at, theta), net.u_frac - net.phi_step_frac) + net.graded_entries / 2;
            net.delta_[at] = net.graded_table[(i == label) * net.graded_entries + std::clamp(step, Int{0}, net.graded_entries - 1)];
        } else {
            const Int e = net.error_table[4 * k + 2 * net.spike[at] + (i == label)];
            net.delta_[at] = saturate(round_shift(e * surrogate(net, at, theta), net.phi_frac), net.delta);
        }
    }
}

// Deltas of a hidden layer from the error sums of its units.
void hidden_error(Network& net, const Population& layer) {
    const Int* above = net.above + layer.value;
    for (Int i = 0; i < layer.n; ++i) {
        const Int unit = layer.unit_of[i], sum = unit < layer.units ? above[unit] : 0, at = layer.first + i;
        const Int e = saturate(round_shift(sum, net.w_frac + layer.pool_shift), net.delta);
        net.delta_[at] = e ? saturate(round_shift(e * surrogate(net, at, net.theta[layer.threshold_of[i]]), net.phi_frac), net.delta) : 0;
    }
}

// Gradients of a layer's thresholds, of its leakage, and of a held frame, from its deltas.
void gradients(Network& net, Int l, Int learn) {
    const Population& layer = net.population[l];
    const Int reciprocal = net.lazy ? net.alpha_one * net.alpha_one / std::max(net.alpha[l - 1], Int{1}) : 0;
    std::fill_n(net.sums, layer.channels, 0);
    for (Int i = 0; i < layer.n; ++i) {
        const Int at = layer.first + i, d = net.delta_[at];
        if (d && learn & T) net.sums[layer.threshold_of[i] - layer.threshold] += d * saturate(net.theta_trace[at] - net.one, net.trace);
        if (d && learn & L) net.alpha_grad[l - 1] += saturate(round_shift(d * net.alpha_trace[at], net.alpha_grad_shift), net.grad);
        if (net.lazy) {
            const Int sum = net.last_sum[at] = saturate(net.delta_sum[at] + (d << net.delta_shift), net.grad);
            net.delta_sum[at] = saturate(round_shift(sum * reciprocal, net.alpha_frac), net.grad);
        }
        if (d && l == 1 && net.is_static)
            net.input_grad[i] = saturate(net.input_grad[i] + round_shift(d * net.weight_trace[0], net.trace_frac), net.delta);
    }
    for (Int k = layer.threshold; learn & T && k < layer.threshold + layer.channels; ++k) {
        const Int grad = saturate(round_shift(net.sums[k - layer.threshold], net.weight_grad_shift + layer.sharing), net.grad);
        net.theta_grad[k] = net.each_step ? grad : saturate(net.theta_grad[k] + grad, net.grad);
    }
}

// Sums of weights times deltas, for the units of the population that a projection sees.
void backward(Network& net, const Synapses& s, const Int* delta) {
    Int* above = net.above + net.population[s.source].value;
    tally(net, visited(s, delta, nullptr), s.pairs);
    if (!s.shared) {
        for (Int i = 0; i < s.n; ++i) {
            const Int d = delta[i], *weight = s.weight + i * s.m;
            if (d)
                for (Int j = 0; j < s.m; ++j) above[j] += weight[j] * d;
        }
        return;
    }
    for (Int place = 0; place < s.places; ++place, delta += s.n) {
        if (!nonzero(delta, s.n)) continue;
        std::fill_n(net.patch, s.m, 0);
        for (Int i = 0; i < s.n; ++i) {
            const Exact d = delta[i];
            const Int* weight = s.weight + i * s.m;
            if (delta[i])
                for (Int j = 0; j < s.m; ++j) net.patch[j] += Exact(weight[j]) * d;
        }
        const Int* taps = s.taps + place * s.taps_each;
        const Exact* patch = net.patch;
        for (Int tap = 0; tap < s.taps_each; ++tap, patch += s.channels)
            for (Int c = 0; taps[tap] >= 0 && c < s.channels; ++c) above[taps[tap] + c] += Int(patch[c]);
    }
}

Int gradient(const Network& net, Int sum) { return saturate(round_shift(sum, net.weight_grad_shift), net.grad); }

uint32_t xorshift32(uint32_t r) {
    r ^= r << 13;
    r ^= r >> 17;
    return r ^ r << 5;
}

uint32_t rotate16(uint32_t x, int n) { return (x << n | x >> (16 - n)) & 0xffff; }

// Bits n of a word that the lower bits of an index flip: of a neuron's index bit n mod 3, of an input's bit (n + n / 3) mod 3.
constexpr uint32_t spread(uint32_t low, bool input) {
    uint32_t word = 0;
    for (uint32_t n = 0; n < 32; ++n) word |= (low >> (input ? (n + n / 3) % 3 : n % 3) & 1) << n;
    return word;
}

struct Flips {
    uint32_t neuron[8], input[8];
    Flips() {
        for (uint32_t low = 0; low < 8; ++low) neuron[low] = spread(low, false), input[low] = spread(low, true);
    }
};

// The word of a tile of 8 x 8 weights.
uint32_t tile_word(uint32_t rng, uint32_t number, uint32_t i, uint32_t j) {
    const uint32_t upper = (i & 0xff) | (j & 0xff) << 8, lower = i >> 8 | (j >> 8) << 5 | number << 10;
    const uint32_t a = rng ^ (upper << 16 | lower);
    uint32_t x = a >> 16, y = a & 0xffff;
    for (int round = 0; round < 4; ++round) {
        const uint32_t f = (rotate16(x, 1) & rotate16(x, 8)) ^ rotate16(x, 2);
        const uint32_t old = x;
        x = y ^ f;
        y = old;
    }
    return x << 16 | y;
}

uint32_t random_word(const Network& net, const Synapses& s, Int i, Int j) {
    static const Flips flips;
    return tile_word(net.rng, s.number, i >> 3, j >> 3) ^ flips.neuron[i & 7] ^ flips.input[j & 7];
}

Int rate(const Network& net, const Synapses& s) { return net.weight_shift + std::min(net.rate_w + s.slower, net.rate_max); }

// The weights of a neuron or filter after a step against their gradients.
void descend(Network& net, const Synapses& s, Int i, const Int* grad) {
    const Int n = rate(net, s), m = s.m;
    Int* weight = s.weight + i * m;
    const Q q = net.w;
    if (net.stochastic) {
        for (Int j = 0; j < m; ++j)
            if (grad[j])  // 0 rounds to 0 whatever the word
                weight[j] = saturate(weight[j] - dither_shift(grad[j], n, random_word(net, s, i, j)), q);
    } else {
        for (Int j = 0; j < m; ++j) weight[j] = saturate(weight[j] - round_shift(grad[j], n), q);
    }
}

void end_of_pass(Network& net) {
    if (net.stochastic) net.rng = xorshift32(net.rng);
}

// Sums over places of deltas times `x`, a weight each, in `products`.
void products(Network& net, const Synapses& s, const Int* delta, const Int* x) {
    std::fill_n(net.products, s.n * s.m, 0);
    for (Int place = 0; place < s.places; ++place, delta += s.n) {
        if (!nonzero(delta, s.n) || !see(net, s, place, x)) continue;
        for (Int i = 0; i < s.n; ++i) {
            Exact* sums = net.products + i * s.m;
            const Exact d = delta[i];
            if (delta[i])
                for (Int j = 0; j < s.m; ++j) sums[j] += d * net.patch[j];
        }
    }
}

// Gradients of deltas times `x`: they join G, or change the weights at once. A centred frame has no pixel that need not be visited.
void gather(Network& net, const Synapses& s, const Int* delta, const Int* x) {
    tally(net, visited(s, delta, s.held && s.centres && !s.shared ? nullptr : x), s.pairs);
    if (s.shared) products(net, s, delta, x);
    for (Int i = 0; i < s.n; ++i) {
        if (s.shared)
            for (Int j = 0; j < s.m; ++j) net.row[j] = gradient(net, Int(net.products[i * s.m + j]));
        else if (delta[i])
            for (Int j = 0; j < s.m; ++j) net.row[j] = gradient(net, delta[i] * x[j]);
        else
            continue;
        Int* grad = s.grad + i * s.m;
        if (s.gathers)
            for (Int j = 0; j < s.m; ++j) grad[j] = saturate(grad[j] + net.row[j], net.grad);
        else
            descend(net, s, i, net.row);
    }
    if (!s.gathers) end_of_pass(net);
}

Int mean(const Network& net, const Synapses& s, Int sum) { return round_shift(round_shift(sum, s.mean_shift) * s.mean_factor, net.mean_bits); }

// What a held frame is in the gradient of the weights behind it, in `error`.
void frame_factor(Network& net, const Synapses& s, const Int* sample) {
    const Int pixels = net.population[0].units;
    Int middle = 0;
    if (s.centres && !s.shared) {
        for (Int j = 0; j < pixels; ++j) middle += sample[j];
        middle = mean(net, s, middle);
    }
    for (Int j = 0; j < pixels; ++j) net.error[j] = (sample[j] - middle) * (Int{1} << (net.trace_frac - net.pixel_frac));
}

// Gathered gradients, less the mean of their neuron or filter.
void centre(Network& net, const Synapses& s) {
    for (Int i = 0; i < s.n; ++i) {
        Int* grad = s.grad + i * s.m;
        const Int middle = mean(net, s, std::accumulate(grad, grad + s.m, Int{0}));
        for (Int j = 0; j < s.m; ++j) grad[j] = saturate(grad[j] - middle, net.grad);
    }
}

// The weights of those inputs that have a trace descend along what their events left in G and what the last sums add.
void descend_lazily(Network& net, const Synapses& s) {
    const Int *trace = net.weight_trace + s.unit, *last = net.last_sum + net.population[s.layer + 1].first;
    for (Int i = 0; i < s.n; ++i) {
        Int* grad = s.grad + i * s.m;
        for (Int j = 0; j < s.m; ++j) {
            net.row[j] = trace[j] ? saturate(grad[j] + round_shift(last[i] * trace[j], net.trace_frac), net.grad) : 0;
            if (trace[j]) grad[j] = 0;
        }
        descend(net, s, i, net.row);
    }
    tally(net, s.n * nonzero(trace, s.m), s.pairs);
}

// The weights descend along what has gathered in G.
void apply(Network& net, const Synapses& s) {
    if (net.lazy) {
        descend_lazily(net, s);
    } else {
        const Int n = rate(net, s);
        if (s.centres && !(s.held && !s.shared)) centre(net, s);
        for (Int i = 0; i < s.n; ++i) {
            Int* grad = s.grad + i * s.m;
            descend(net, s, i, grad);
            for (Int j = 0; j < s.m; ++j) grad[j] = net.remainder ? grad[j] - round_shift(grad[j], n) * (Int{1} << n) : 0;
        }
        tally(net, s.n * s.m, s.n * s.m);
    }
    end_of_pass(net);
}

void decay(Network& net) {
    net.aged = (net.aged + 1) % net.decay_samples;
    for (Int p = net.synapses - 1; net.aged == 0 && p >= 0; --p) {
        const Synapses& s = net.synapse[p];
        for (Int i = 0; i < s.n; ++i)
            for (Int j = 0; j < s.m; ++j) {
                Int& weight = s.weight[i * s.m + j];
                const Int n = net.weight_shift + net.rate_decay, grad = weight * (Int{1} << net.weight_shift);
                if (weight) weight = saturate(weight - dither_shift(grad, n, random_word(net, s, i, j)), net.w);
            }
        net.rng = xorshift32(net.rng);
        tally(net, s.n * s.m, s.n * s.m);
    }
}

void update_neurons(Network& net, Int l, Int learn) {
    const Population& layer = net.population[l];
    if (learn & T)
        for (Int i = layer.threshold; i < layer.threshold + layer.channels; ++i) {
            const Int change = round_shift(net.theta_grad[i], net.theta_shift + net.rate_theta);
            net.theta[i] = std::max(saturate(net.theta[i] - change, net.u), net.theta_min);
        }
    if (learn & L) {
        const Int change = round_shift(net.alpha_grad[l - 1], layer.alpha_shift + net.rate_alpha);
        net.alpha[l - 1] = std::clamp(net.alpha[l - 1] - change, net.alpha_min, net.alpha_one);
        net.alpha_grad[l - 1] = 0;
    }
}

// One step of learning, from the last layer down to the first.
void learn_step(Network& net, Int label, Int learn) {
    std::fill_n(net.above, net.population[net.layers].value, 0);
    for (Int l = net.layers; l >= 1; --l) {
        const Population& layer = net.population[l];
        const Int* delta = net.delta_ + layer.first;
        if (l == net.layers)
            output_error(net, label);
        else
            hidden_error(net, layer);
        gradients(net, l, learn);
        for (Int p = layer.projection; p < layer.projection + layer.projections; ++p)
            if (net.synapse[p].source > 0) backward(net, net.synapse[p], delta);
        if (layer.identity >= 0) {
            Int* above = net.above + net.population[layer.identity].value;
            for (Int i = 0; i < layer.n; ++i) above[i] += delta[i] * (Int{1} << net.w_frac);
        }
        if (!(learn & W) || (l == 1 && net.is_static) || net.lazy) continue;
        for (Int p = layer.projection + layer.projections - 1; p >= layer.projection; --p)
            gather(net, net.synapse[p], delta, net.weight_trace + net.synapse[p].unit);
    }
    for (Int l = net.layers; net.each_step && l >= 1; --l) update_neurons(net, l, learn);
}

// The updates at the end of a sample.
void finish(Network& net, const Int* sample, Int learn) {
    const bool full = net.gathered == net.batch - 1;
    const Synapses& first = net.synapse[0];
    const bool of_frame = learn & W && net.is_static;
    if (of_frame && first.gathers) {
        frame_factor(net, first, sample);
        gather(net, first, net.input_grad, net.error);
    }
    for (Int l = net.layers; learn && full && !net.each_step && l >= 1; --l) {
        const Population& layer = net.population[l];
        for (Int p = layer.projection + layer.projections - 1; learn & W && p >= layer.projection; --p)
            if (net.synapse[p].gathers) apply(net, net.synapse[p]);
        update_neurons(net, l, learn);
    }
    if (of_frame && !first.gathers) {
        frame_factor(net, first, sample);
        gather(net, first, net.input_grad, net.error);
    }
    if (net.decay && learn & W) decay(net);
    if (learn) net.gathered = full ? 0 : net.gathered + 1;
}

}  // namespace

extern "C" {

Int network_size() { return sizeof(Network); }

// Time steps `first` to `last` of a sample: N0 pixels, or T x N0 spikes or values. `learn` has the bits of register `learn`.
void network_steps(Network* net, Int first, Int last, const Int* sample, Int label, Int learn) {
    for (Int t = first; t <= last; ++t) {
        if (t == 0) begin(*net, sample, learn);
        forward_step(*net, net->is_static ? nullptr : sample + t * net->inputs, learn);
        if (learn) learn_step(*net, label, learn);
        if (t == net->steps - 1) finish(*net, sample, learn);
    }
}

}  // extern "C"
