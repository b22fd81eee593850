// The golden model once more, compiled: docs/numerics.md written out, one neuron and one synapse at a time, in raw integers.
// Functions have the names of those in sw/golden/*.py that do the same to whole tensors. sw/golden/fast.py owns the memory.
#include <algorithm>
#include <cstdint>

using Int = int64_t;

struct Q {  // a format: its least and greatest raw value
    Int low, high;
};

struct Layer {
    Int n, m;        // neurons, inputs
    Int first, unit; // its first neuron among all, its first input among all weight traces
    Int alpha_shift; // of the leakage's update, at learning rate 1
    Int grain, all_inputs;  // neurons visited together, and whether silent inputs are visited: for counting only
    Int *weight, *grad;
};

struct Network {
    Q w, u, trace, delta, grad;
    Int is_static, is_frames, stochastic, each_step, lazy;  // static frames, stochastic rounding, cadence `step`, lazy learning
    Int steps, classes, layers, neurons, units, inputs;
    Int one, trace_frac, alpha_frac, alpha_one, alpha_min, theta_min, w_frac, u_frac, pixel_frac, phi_frac, phi_step_frac, phi_entries;
    Int delta_shift, current_shift, weight_grad_shift, alpha_grad_shift, weight_shift, theta_shift;
    Int batch, gathered;  // samples of a batch, and how many of this one were learned from
    Int rate_w, rate_theta, rate_alpha, rng, sops, sops_dense;
    // Neurons of all layers side by side; weight traces of the input units, then of the hidden layers.
    Int *theta, *membrane, *spike, *theta_trace, *alpha_trace, *current, *delta_, *theta_grad, *weight_trace, *input_grad, *count;
    Int *delta_sum, *last_sum;  // H and K of lazy learning
    Int *alpha, *alpha_grad, *error_table, *surrogate;
    Int *error, *listed, *row;  // scratch: errors of the layer that learns next, inputs that spiked, gradients of one neuron
    Layer layer[16];
};

namespace {

enum Switch : Int { W = 1, T = 2, L = 4 };  // hw/memory_map.py, register `learn`

Int saturate(Int v, Q q) { return std::min(std::max(v, q.low), q.high); }
Int floor_shift(Int v, Int n) { return v >> n; }
Int round_shift(Int v, Int n) { return (v + (Int{1} << n >> 1)) >> n; }
Int dither_shift(Int v, Int n, Int r) { return (v + (r & ((Int{1} << n) - 1))) >> n; }

// -- counting: a pass over a layer's synapses costs what is not zero --------------------------------
void tally(Network& net, const Layer& layer, Int done) {
    net.sops += done;
    net.sops_dense += layer.n * layer.m;
}

// Neurons that are visited, since some delta of those visited together is not zero.
Int busy(const Layer& layer, const Int* delta) {
    Int total = 0;
    for (Int start = 0; start < layer.n; start += layer.grain) {
        const Int end = std::min(start + layer.grain, layer.n);
        if (std::any_of(delta + start, delta + end, [](Int d) { return d != 0; })) total += end - start;
    }
    return total;
}

Int nonzero(const Int* values, Int count) { return count - std::count(values, values + count, Int{0}); }
Int visited(const Layer& layer, const Int* inputs) { return layer.all_inputs ? layer.m : nonzero(inputs, layer.m); }

// -- forward ----------------------------------------------------------------------------------------
// `value` is in 1/256; a spike is 256.
Int weight_trace(const Network& net, Int old, Int value, Int alpha) {
    return saturate(floor_shift(alpha * old, net.alpha_frac) + (value << (net.trace_frac - net.pixel_frac)), net.trace);
}

Int leak_and_fire(Network& net, Int i, Int alpha) {
    const Int s = net.spike[i], rest = saturate(net.membrane[i] - net.theta[i] * s, net.u);
    net.membrane[i] = saturate(floor_shift(alpha * rest, net.alpha_frac) + net.current[i], net.u);
    net.theta_trace[i] = floor_shift(alpha * saturate(net.theta_trace[i] - s * net.one, net.trace), net.alpha_frac);
    net.alpha_trace[i] = saturate(floor_shift(alpha * net.alpha_trace[i], net.alpha_frac) + rest, net.u);
    return net.spike[i] = net.membrane[i] >= net.theta[i];
}

// Currents from a frame of pixels.
void current(Network& net, const Layer& layer, const Int* pixels) {
    for (Int i = 0; i < layer.n; ++i) {
        const Int* weight = layer.weight + i * layer.m;
        Int sum = 0;
        for (Int j = 0; j < layer.m; ++j) sum += weight[j] * pixels[j];
        net.current[layer.first + i] = saturate(round_shift(sum, net.current_shift), net.u);
    }
    tally(net, layer, layer.n * visited(layer, pixels));
}

// What lazy learning takes from the inputs listed, `spikes` of them.
void collect_events(const Network& net, const Layer& layer, Int spikes) {
    for (Int i = 0; i < layer.n; ++i) {
        const Int sum = net.delta_sum[layer.first + i];
        Int* grad = layer.grad + i * layer.m;
        if (sum)
            for (Int k = 0; k < spikes; ++k) grad[net.listed[k]] = saturate(grad[net.listed[k]] - sum, net.grad);
    }
}

// Currents from the inputs listed, `spikes` of them.
void current(Network& net, const Layer& layer, Int spikes) {
    for (Int i = 0; i < layer.n; ++i) {
        const Int* weight = layer.weight + i * layer.m;
        Int sum = 0;
        for (Int k = 0; k < spikes; ++k) sum += weight[net.listed[k]];
        net.current[layer.first + i] = saturate(round_shift(sum << net.pixel_frac, net.current_shift), net.u);
    }
    tally(net, layer, layer.n * (layer.all_inputs ? layer.m : spikes));
}

void begin(Network& net, const Int* sample, Int learn) {
    for (Int* state : {net.membrane, net.spike, net.theta_trace, net.alpha_trace}) std::fill_n(state, net.neurons, 0);
    std::fill_n(net.weight_trace, net.units, 0);
    std::fill_n(net.count, net.classes, 0);
    if (learn) {
        if (net.gathered == 0) std::fill_n(net.theta_grad, net.neurons, 0);
        std::fill_n(net.input_grad, net.layer[0].n, 0);
        std::fill_n(net.delta_sum, net.neurons, 0);
    }
    if (net.is_static) current(net, net.layer[0], sample);
}

// One step forward from the input units: their spikes `x`, or their values.
void forward(Network& net, const Int* x, Int learn) {
    const Int one = Int{1} << net.pixel_frac;
    Int spikes = 0;
    for (Int j = 0; j < net.inputs; ++j) {
        net.weight_trace[j] = weight_trace(net, net.weight_trace[j], net.is_frames ? x[j] : x[j] * one, net.alpha[0]);
        if (x[j]) net.listed[spikes++] = j;
    }
    for (Int l = 0; l < net.layers; ++l) {
        const Layer& layer = net.layer[l];
        if (l == 0 && net.is_frames)
            current(net, layer, x);
        else if (l > 0 || !net.is_static)
            current(net, layer, spikes);
        if (net.lazy && learn & W) collect_events(net, layer, spikes);
        spikes = 0;
        for (Int i = 0; i < layer.n; ++i) {
            const Int spike = leak_and_fire(net, layer.first + i, net.alpha[l]);
            if (l + 1 < net.layers) {
                Int& trace = net.weight_trace[net.layer[l + 1].unit + i];
                trace = weight_trace(net, trace, spike * one, net.alpha[l + 1]);
            } else {
                net.count[i] += spike;
            }
            if (spike) net.listed[spikes++] = i;
        }
    }
}

// -- learning ---------------------------------------------------------------------------------------
void output_error(Network& net, Int label) {
    const Int* spike = net.spike + net.layer[net.layers - 1].first;
    const Int k = net.classes - std::count(spike, spike + net.classes, Int{0});
    for (Int i = 0; i < net.classes; ++i) net.error[i] = net.error_table[4 * k + 2 * spike[i] + (i == label)];
}

Int surrogate(const Network& net, Int i) {
    const Int v = saturate(net.membrane[i] - net.theta[i], net.u);
    return net.surrogate[std::min(floor_shift(v < 0 ? -v : v, net.u_frac - net.phi_step_frac), net.phi_entries - 1)];
}

// Deltas of a layer from its errors, and the gradients of its thresholds, its leakage and a static input.
void delta(Network& net, Int l, Int learn) {
    const Layer& layer = net.layer[l];
    const Int reciprocal = net.lazy ? net.alpha_one * net.alpha_one / std::max(net.alpha[l], Int{1}) : 0;
    for (Int i = 0; i < layer.n; ++i) {
        const Int at = layer.first + i;
        const Int d = net.delta_[at] = saturate(round_shift(net.error[i] * surrogate(net, at), net.phi_frac), net.delta);
        if (learn & T) {
            const Int trace = saturate(net.theta_trace[at] - net.one, net.trace);
            const Int grad = saturate(round_shift(d * trace, net.weight_grad_shift), net.grad);
            net.theta_grad[at] = net.each_step ? grad : saturate(net.theta_grad[at] + grad, net.grad);
        }
        if (learn & L) net.alpha_grad[l] += saturate(round_shift(d * net.alpha_trace[at], net.alpha_grad_shift), net.grad);
        if (net.lazy) {
            const Int sum = net.last_sum[at] = saturate(net.delta_sum[at] + (d << net.delta_shift), net.grad);
            net.delta_sum[at] = saturate(round_shift(sum * reciprocal, net.alpha_frac), net.grad);
        }
        if (l == 0 && net.is_static)
            net.input_grad[i] = saturate(net.input_grad[i] + round_shift(d * net.weight_trace[0], net.trace_frac), net.delta);
    }
}

// Errors of the layer below.
void backward(Network& net, const Layer& layer) {
    std::fill_n(net.error, layer.m, 0);
    for (Int i = 0; i < layer.n; ++i) {
        const Int d = net.delta_[layer.first + i], *weight = layer.weight + i * layer.m;
        if (d)
            for (Int j = 0; j < layer.m; ++j) net.error[j] += weight[j] * d;
    }
    for (Int j = 0; j < layer.m; ++j) net.error[j] = saturate(round_shift(net.error[j], net.w_frac), net.delta);
    tally(net, layer, busy(layer, net.delta_ + layer.first) * layer.m);
}

Int gradient(const Network& net, Int delta, Int trace) {
    return saturate(round_shift(delta * trace, net.weight_grad_shift), net.grad);
}

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
uint32_t tile_word(uint32_t rng, uint32_t layer, uint32_t i, uint32_t j) {
    const uint32_t upper = (i & 0xff) | (j & 0xff) << 8, lower = i >> 8 | (j >> 8) << 5 | layer << 10;
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

// The weights of neuron i after a step against their gradients.
void descend(Network& net, const Layer& layer, Int i, const Int* grad) {
    Int* weight = layer.weight + i * layer.m;
    const Int n = net.weight_shift + net.rate_w, m = layer.m;
    const Q q = net.w;
    if (net.stochastic) {
        static const Flips flips;
        const uint32_t number = &layer - net.layer;
        for (Int j = 0; j < m; ++j) {
            if (!grad[j]) continue;  // rounds to 0 whatever the word
            const uint32_t word = tile_word(net.rng, number, i >> 3, j >> 3) ^ flips.neuron[i & 7] ^ flips.input[j & 7];
            weight[j] = saturate(weight[j] - dither_shift(grad[j], n, word), q);
        }
    } else {
        for (Int j = 0; j < m; ++j) weight[j] = saturate(weight[j] - round_shift(grad[j], n), q);
    }
}

void end_of_pass(Network& net) {
    if (net.stochastic) net.rng = xorshift32(net.rng);
}

// The weights of a layer descend at once along delta times `trace`, shifted left; a gradient of 0 changes nothing.
void descend_outer(Network& net, const Layer& layer, const Int* delta, const Int* trace, Int shift) {
    for (Int i = 0; i < layer.n; ++i) {
        const Int d = delta[i];
        if (!d) continue;
        for (Int j = 0; j < layer.m; ++j) net.row[j] = gradient(net, d, trace[j] << shift);
        descend(net, layer, i, net.row);
    }
    end_of_pass(net);
    tally(net, layer, busy(layer, delta) * visited(layer, trace));
}

// Gradients of a layer's weights, summed until the end of the sample.
void collect(Network& net, const Layer& layer, const Int* delta, const Int* trace) {
    for (Int i = 0; i < layer.n; ++i) {
        const Int d = delta[i];
        Int* grad = layer.grad + i * layer.m;
        if (d)
            for (Int j = 0; j < layer.m; ++j) grad[j] = saturate(grad[j] + gradient(net, d, trace[j]), net.grad);
    }
    tally(net, layer, busy(layer, delta) * visited(layer, trace));
}

// The weights of those inputs that have a trace descend along what their events left in G and what the last sums add.
void descend_lazily(Network& net, const Layer& layer) {
    const Int* trace = net.weight_trace + layer.unit;
    for (Int i = 0; i < layer.n; ++i) {
        Int *grad = layer.grad + i * layer.m, sum = net.last_sum[layer.first + i];
        for (Int j = 0; j < layer.m; ++j) {
            net.row[j] = trace[j] ? saturate(grad[j] + round_shift(sum * trace[j], net.trace_frac), net.grad) : 0;
            if (trace[j]) grad[j] = 0;
        }
        descend(net, layer, i, net.row);
    }
    tally(net, layer, layer.n * nonzero(trace, layer.m));
}

void update_neurons(Network& net, Int l, Int learn) {
    const Layer& layer = net.layer[l];
    if (learn & T)
        for (Int i = layer.first; i < layer.first + layer.n; ++i) {
            const Int change = round_shift(net.theta_grad[i], net.theta_shift + net.rate_theta);
            net.theta[i] = std::max(saturate(net.theta[i] - change, net.u), net.theta_min);
        }
    if (learn & L) {
        const Int change = round_shift(net.alpha_grad[l], layer.alpha_shift + net.rate_alpha);
        net.alpha[l] = std::clamp(net.alpha[l] - change, net.alpha_min, net.alpha_one);
        net.alpha_grad[l] = 0;
    }
}

// One step of learning, from the last layer down to the first.
void learn_step(Network& net, Int label, Int learn) {
    output_error(net, label);
    for (Int l = net.layers - 1; l >= 0; --l) {
        const Layer& layer = net.layer[l];
        const Int *deltas = net.delta_ + layer.first, *trace = net.weight_trace + layer.unit;
        delta(net, l, learn);
        if (l > 0) backward(net, layer);
        if (!(learn & W) || (l == 0 && net.is_static) || net.lazy) continue;
        if (net.each_step)
            descend_outer(net, layer, deltas, trace, 0);
        else
            collect(net, layer, deltas, trace);
    }
    for (Int l = net.layers - 1; net.each_step && l >= 0; --l) update_neurons(net, l, learn);
}

// The updates at the end of a sample.
void finish(Network& net, const Int* sample, Int learn) {
    const bool full = net.gathered == net.batch - 1, gathers_frame = net.is_static && net.layer[0].grad;
    if (learn & W && gathers_frame) {
        const Layer& layer = net.layer[0];
        const Int shift = net.trace_frac - net.pixel_frac;
        for (Int j = 0; j < layer.m; ++j) net.error[j] = sample[j] << shift;
        collect(net, layer, net.input_grad, net.error);
    }
    for (Int l = net.layers - 1; learn && full && !net.each_step && l >= 0; --l) {
        const Layer& layer = net.layer[l];
        if (learn & W && layer.grad) {
            if (net.lazy) {
                descend_lazily(net, layer);
            } else {
                for (Int i = 0; i < layer.n; ++i) descend(net, layer, i, layer.grad + i * layer.m);
                std::fill_n(layer.grad, layer.n * layer.m, 0);
                tally(net, layer, layer.n * layer.m);
            }
            end_of_pass(net);
        }
        update_neurons(net, l, learn);
    }
    if (learn & W && net.is_static && !gathers_frame) descend_outer(net, net.layer[0], net.input_grad, sample, net.trace_frac - net.pixel_frac);
    if (learn) net.gathered = full ? 0 : net.gathered + 1;
}

}  // namespace

extern "C" {

Int network_size() { return sizeof(Network); }

// Time steps `first` to `last` of a sample: N0 pixels, or T x N0 spikes. `learn` has the bits of register `learn`.
void network_steps(Network* net, Int first, Int last, const Int* sample, Int label, Int learn) {
    const Int always = 1;  // the one input unit of a static frame
    for (Int t = first; t <= last; ++t) {
        if (t == 0) begin(*net, sample, learn);
        forward(*net, net->is_static ? &always : sample + t * net->inputs, learn);
        if (learn) learn_step(*net, label, learn);
        if (t == net->steps - 1) finish(*net, sample, learn);
    }
}

}  // extern "C"
