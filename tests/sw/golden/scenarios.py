"""Random networks, states and samples for the golden model, and how often they showed its corners."""

from collections import Counter

import numpy as np

from hw.network import CADENCES, INPUTS, Network
from hw.notation import Conv, Identity, dense
from hw.numbers import Q
from sw.common.checks import legal_state
from sw.golden.state import initial_state
from tests.sw.golden.plain import TWELVE

SMALL = TWELVE.replace(net="9-7-4", steps=5)
FORMS = [{"input": kind, "cadence": cadence, "lazy": False} for cadence in CADENCES for kind in INPUTS]
FORMS += [{"input": "events", "cadence": "sample", "lazy": True}]
FORMS += [{"input": kind, "cadence": "sample", "lazy": False, "batch": 3} for kind in INPUTS]
"""Fields that decide how a network learns."""
SATURATING = ("weight", "membrane", "weight_trace", "theta_trace", "alpha_trace", "input_grad", "theta_grad", "delta_sum")


def dense_net(random):
    """Any small dense layers."""
    return dense(random.integers(1, 12, random.integers(2, 8)))


def convolutional_net(random):
    """Any small convolutions, pooling and residual blocks, of which some cannot be made."""
    def conv():
        kernel = int(random.integers(1, 5))
        words = [f"{random.integers(1, 4)}C{kernel}", f"s{random.integers(1, 4)}", f"p{random.integers(kernel)}"]
        return "".join(word for word in words[:1] + [w for w in words[1:] if random.random() < 0.4] if word != "p0")

    sizes, words = [int(n) for n in random.integers([3, 3, 1], [8, 8, 4])], []
    for _ in range(random.integers(1, 4)):
        channels = words[-1 - (words[-1] == "P2")].strip("R()").split("-")[-1].split("C")[0] if words else "0"
        equal = f"R({channels}C3p1)", f"R({channels}C3p1-{channels}C1)", f"R({channels}C1-{channels}C5p2)"
        blocks = [f"R({conv()}-{conv()})", "R(4C3s2p1)", "R(2C1-4C3p1)", *equal]
        words.append(str(random.choice(blocks)) if words and random.random() < 0.6 else conv())
        words += ["P2"] * (random.random() < 0.4)
    return "-".join(["x".join(map(str, sizes)), *words, *map(str, random.integers(1, 6, random.integers(1, 3)))])


FORMS_AND_NETS = [(form, net) for net in (dense_net, convolutional_net) for form in FORMS if net is dense_net or not form["lazy"]]


def title(value):
    """A test's name by its form and net."""
    return " ".join(map(str, value.values())) if isinstance(value, dict) else value.__name__


def random_config(random, net=dense_net, **fixed):
    """Any small network that is legal."""
    while True:
        formats = {
            name: Q(int(random.integers(1, 8)), int(random.integers(0, 16))) for name in ("w", "u", "trace", "delta", "grad")
        }
        trace_bits = (2, 5) if fixed.get("lazy") else (2, 4)  # narrow enough to saturate, or to be refused
        formats["trace"] = Q(int(random.integers(*trace_bits)), int(random.integers(8, 16)))
        try:
            plain = bool(random.integers(2))
            switches = () if plain or fixed.get("lazy") else ("centred", "decay", "remainder")
            more = {name: bool(random.random() < 0.5) for name in switches}
            read = Network(net=net(random)).net
            return Network(
                net=read,
                output_error="counted" if plain or random.random() < 0.5 else "graded",
                slower=() if plain else random.integers(0, 4, len(Network(net=read).layers)).tolist(),
                **more,
                steps=int(random.integers(1, 6)),
                stochastic=bool(random.integers(2)),
                alpha_frac=int(random.integers(4, 17)),
                theta_min=int(random.integers(1, 9)),
                **formats,
                **fixed,
            )
        except ValueError:
            continue


def random_state(config, random):
    """Half of the time something that could learn, else anything legal, whatever it means."""
    state = {
        name: random.integers(legal.low, legal.high + 1, legal.shape)
        for name, legal in legal_state(config).items()
        if not name.startswith("alpha_grad")
    }
    theta = min(0.7, config.u.high / config.u.one)
    seed, least = int(random.integers(1000)), config.alpha_min / config.alpha_one
    sane = initial_state(config, seed, theta=theta, alpha=max(float(random.choice([0, 0.5, 1])), least), gain=2.0)
    zero = {"alpha_grad": np.zeros(config.n_layers, int)} if config.cadence == "sample" else {}
    return state | zero | (sane if random.random() < 0.5 else {})


def random_sample(config, random):
    if config.static:
        return (random.integers(0, 256, config.sizes[0]) * (random.random(config.sizes[0]) < 0.7)).astype(np.uint8)
    events = random.random((config.steps, config.sizes[0])) < random.choice([0, 0.2, 0.6, 1])
    return events if config.input == "events" else (events * random.integers(0, 256, events.shape)).astype(np.uint8)


CORNERS = (
    "spikes", "ties", "errors", "theta at its floor", "alpha at its floor", "alpha 1", "graded", "shared weights", "pooled",
    "shortcuts Conv", "shortcuts Identity", "centred", "decay", "remainder", "slower",
    *(f"{name} saturated" for name in SATURATING),
)  # fmt: skip
"""What `corners` counts."""


def corners(config, state):
    """How often a state shows what a comparison must have seen to prove something."""
    hit = Counter()
    for name, array in state.items():
        legal, kind = legal_state(config)[name], name.partition(".")[0]
        if kind == "spike":
            hit["spikes"] += int(array.sum())
        elif kind == "theta":
            hit["theta at its floor"] += int((array == legal.low).sum())
        elif kind == "alpha":
            hit["alpha at its floor"] += int((array == legal.low).sum())
            hit["alpha 1"] += int((array == legal.high).sum())
        elif kind == "delta":
            hit["errors"] += int((array != 0).sum())
        elif kind in SATURATING:
            hit[f"{kind} saturated"] += int(((array == legal.low) | (array == legal.high)).sum())
    hit["graded"] += config.output_error == "graded"
    hit["shared weights"] += any(config.shares_weights(l) for l in config.layers)
    hit["pooled"] += any(p.pool > 1 and p.unit_shape[1:] != tuple(n / p.pool for n in p.shape[1:]) for p in config.populations)
    for kind in (Conv, Identity):
        shortcuts = any(isinstance(p.kind, kind) for population in config.populations for p in population.projections[1:])
        hit[f"shortcuts {kind.__name__}"] += shortcuts
    for name in ("centred", "decay", "remainder"):
        hit[name] += getattr(config, name)
    hit["slower"] += any(config.slower)
    count = np.sort(state["count"])
    hit["ties"] += int(len(count) > 1 and count[-1] == count[-2])
    return hit


def seldom(hit, form, net, *more):
    """What was seen so seldom that the comparison proves little: of CORNERS and of `more`.

    What a network of this one of FORMS cannot show does not count.
    """
    none = {
        "input_grad saturated": form["input"] != "static",
        "theta_grad saturated": form["cadence"] == "step",
        "weight_trace saturated": form["lazy"],  # which has room for all spikes of a sample
        "theta_trace saturated": form["lazy"],
        "delta_sum saturated": not form["lazy"],
        "centred": form["lazy"] or form["cadence"] == "step" and (form["input"] != "static" or net is not dense_net),
        "remainder": form["cadence"] == "step" or form["lazy"],
        "decay": form["lazy"],
        **dict.fromkeys(("shared weights", "pooled", "shortcuts Conv", "shortcuts Identity"), net is dense_net),
    }
    return {name: hit[name] for name in (*CORNERS, *more) if hit[name] < 10 and not none.get(name)}
