"""Is a device in order? Checks of its link, its memories and what it computes. `python -m sw.bringup` is the program."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from hw.design import Design
from hw.host.protocol import VERSION, Link
from hw.machine import CAPACITY_DOCS, Machine
from hw.memory_map import LANE_BITS, REGISTERS, ROW_BITS, Region, regions
from hw.network import Network
from hw.numbers import PIXEL_FRAC, ceil_log2
from sw.driver.device import Device
from sw.golden.network import GoldenNetwork
from sw.golden.state import initial_state
from sw.transport.base import DeviceError, Transport
from sw.transport.batch import Batch

MARCHED = (
    "weight", "grad", "membrane", "theta", "theta_trace", "alpha_trace", "weight_trace", "current", "theta_grad", "input_grad",
    "delta_sum", "delta", "alpha", "alpha_grad", "surrogate", "error_table", "count", "lane_program", "neuron_program", "network",
)  # fmt: skip
"""Memories that hold what a host writes."""
NEURON = ("membrane", "spike", "theta_trace", "alpha_trace", "weight_trace", "current", "count")
"""Arrays that an inference leaves behind."""
SPEED_WANTED = 0.9  # of the line rate
MARCH_PART = 256  # words of a memory that are marched over in one go of the progress bar
ADVICE = {
    "program": "the USB cable and its driver (Linux: libusb-1.0 and the udev rules of openFPGALoader); the board's name",
    "link": "power and USB cable; the path of the port; that the bitstream is for this board; that no other program holds the port",
    "machine": "that the bitstream is of this board's design: build and program it again",
    "network": "timing of the build (is Fmax above the clock?); the memories lane_program, neuron_program and network",
    "memory": "supply and clock of the FPGA (a memory that loses bits); else build again with another --seed",
    "lights": "the LEDs' pins in boards/__init__.py",
    "generator": "hw/weight/dither.py; timing of the build (is Fmax above the clock?)",
    "neurons": "timing of the build (is Fmax above the clock?); then hw/spike, the arrays named",
    "learning": "timing of the build (is Fmax above the clock?); then hw/error and hw/weight, the arrays named",
    "speed": "other load on the PC; the latency timer of the USB bridge (1 ms is best); the length of the cable if requests are"
             " repeated",
}


class Outcome(NamedTuple):
    """One line of the table. `passed` is None where there is nothing to check."""

    check: str
    passed: bool | None
    found: str

    @property
    def advice(self) -> str:
        return ADVICE[self.check.split(" ")[0]] if self.passed is False else ""


class Failure(Exception):
    """A check that failed; the message is what was found."""


def bring_up(port: str | Transport, design: Design, link: Link, *, seed: int = 1, quiet: bool = True) -> Iterator[Outcome]:
    """All checks of a device that is to be the machine of `design`, with its network, one after another.

    The first two end the table if they fail. What the device holds is lost.
    """
    try:
        device = Device.open(port, machine=design.machine, link=link)
    except DeviceError as e:
        yield Outcome("link", False, str(e))
        return
    with device:
        info, machine = device.info(), design.machine
        yield Outcome("link", True, f"{info.port}, {f'{info.baud:,} baud' if info.baud else 'in this process'}, version {VERSION}")
        wrong = difference(info.machine, machine)
        if wrong:
            yield Outcome("machine", False, wrong)
            return
        most = f"{machine.capacity.layers} layers at most" if not machine.fixed else "one network"
        yield Outcome("machine", True, f"{machine.lanes} lanes, {most}, digest {machine.digest:#010x}")
        for region in regions(machine).values():
            if region.name in MARCHED:
                yield _outcome(f"memory {region.name}", partial(march, device, region, quiet=quiet))
        configured = _outcome("network", lambda: check_network(device, design.network))
        yield configured
        if not configured.passed:
            return
        if machine.holds_frames:
            yield _outcome("memory frame", lambda: check_frame(device, seed))
        if machine.events:
            yield _outcome("memory event", lambda: check_events(device))
        yield _outcome("lights", lambda: check_lights(device))
        yield _outcome("generator", lambda: check_generator(device, seed))
        yield _outcome("neurons", lambda: check_neurons(device, seed))
        yield _outcome("learning", lambda: check_learning(device, seed))
        yield _outcome("speed", lambda: measure_speed(device))


def difference(got: Machine, wanted: Machine) -> str | None:
    """The first field in which a device is not what it should be, or None."""
    for of, has, should in ((Machine, got, wanted), (type(wanted.capacity), got.capacity, wanted.capacity)):
        for f in fields(of):
            a, b = getattr(has, f.name), getattr(should, f.name)
            if a != b and f.name != "capacity":
                a, b = (getattr(value, "name", None) or getattr(value, "title", value) for value in (a, b))
                return f"{f.name}: the device was built with {a}, the board's design has {b}{_meaning(f.name)}"
    return None


def _meaning(field: str) -> str:
    return f" ({CAPACITY_DOCS[field]})" if field in CAPACITY_DOCS else ""


def _outcome(name: str, check: Callable[[], str | None]) -> Outcome:
    try:
        found = check()
    except (Failure, DeviceError) as e:
        return Outcome(name, False, str(e))
    return Outcome(name, None if found is None else True, found or "this device has none")


# -- the checks --------------------------------------------------------------------------------------------------------------------


def march(device: Device, region: Region, *, quiet: bool = True) -> str:
    """March C- over a memory, each word read and written before the next one, with a background of 0101: finds stuck bits, words
    that cannot be reached or share a place, and words that disturb others.

    Source: A. J. van de Goor, Using march tests to test SRAMs, IEEE Design & Test 10 (1993).
    """
    ones = (1 << region.bits) - 1
    zero, one = 0x5555_5555 & ones, 0xAAAA_AAAA & ones
    addresses = np.concatenate([region.address(0, lane) + np.arange(region.depth) for lane in range(region.lanes)])
    elements: tuple[tuple[int | None, int | None, int], ...] = (
        (None, zero, 1), (zero, one, 1), (one, zero, 1), (zero, one, -1), (one, zero, -1), (zero, None, 1))  # fmt: skip
    with tqdm(total=len(elements) * len(addresses), desc=f"march {region.name}", unit=" words", leave=False, disable=quiet) as bar:
        for wanted, written, direction in elements:
            for at in range(0, len(addresses), MARCH_PART):
                part = addresses[::direction][at : at + MARCH_PART]
                batch = Batch(device.info().link)
                for address in map(int, part):
                    if wanted is not None:
                        batch.read(address, 1, region.width)
                    if written is not None:
                        batch.write(address, written, region.width)
                batch.flush()
                words = batch.collect(device.session.run(batch.payloads)) & ones
                if wanted is not None and (words != wanted).any():
                    first = int(np.flatnonzero(words != wanted)[0])
                    address, word = int(part[first]), int(words[first])
                    lane, row = address >> ROW_BITS & (1 << LANE_BITS) - 1, address & (1 << ROW_BITS) - 1
                    raise Failure(f"lane {lane} row {row} holds {word:#x}, {wanted:#x} was written; bits {word ^ wanted:#x} differ")
                bar.update(len(part))
    for lane in range(region.lanes):  # lanes that no neuron uses must hold 0
        device.write_words(region.address(0, lane), np.zeros(region.depth, np.int64))
    return f"March C-, {len(addresses):,} words of {region.bits} bits"


def check_network(device: Device, network: Network) -> str:
    """The device takes the network, says so, and holds its programs."""
    device.configure(network)
    held = device.held()
    if held != network:
        raise Failure(f"{held.title if held else 'no network'} is held, {network.title} was loaded")
    if not device.machine.fixed:
        for name, table in zip(("lane_program", "neuron_program"), device.plan.tables, strict=True):
            region = device.region(name)
            for lane in range(region.lanes):
                want = [row >> 32 * lane & 0xFFFF_FFFF for row in table]
                if device.read_words(region.address(0, lane), len(want)).tolist() != want:
                    raise Failure(f"{name}: word {lane} of a row is not what was written")
    c = network
    return f"{c.title}, T = {c.steps}, {c.input} input, cadence {c.cadence}" + (", wired in" if device.machine.fixed else "")


def check_events(device: Device) -> str:
    """The events of a step are held."""
    region = device.region("event")
    for word in (1, 0):
        for lane in range(region.lanes):
            device.write_words(region.address(0, lane), [word] * region.depth)
        for lane in range(region.lanes):
            if (device.read_words(region.address(0, lane), region.depth) != word).any():
                raise Failure(f"events of {word} do not stay in lane {lane}")
    return f"{region.lanes * region.depth} events"


def check_frame(device: Device, seed: int) -> str:
    """Pixels that are not zero are listed."""
    region, rng = device.region("frame"), np.random.default_rng(seed)
    n = region.depth
    for pixels in (rng.integers(1, 256, n), rng.integers(0, 256, n) * rng.integers(0, 2, n)):
        device.write_words(region.address(0), pixels)
        (k,) = np.nonzero(pixels)
        count = int(device.read_words(REGISTERS["frame_length"].address, 1)[0])
        if count != len(k) or (device.read_words(region.address(0), count) != k << PIXEL_FRAC | pixels[k]).any():
            raise Failure(f"{count} pixels are listed, {len(k)} are not zero, or their values differ")
    return f"{n} pixels, {len(k)} listed"


def check_lights(device: Device) -> str | None:
    """The LEDs, where they can be seen from here."""
    lights = getattr(getattr(device._transport, "model", None), "lights", None)
    if lights is None:
        return None if device.info().port == "golden" else "look: `configured` and `alive` are on, `busy` flickers, `error` is off"
    if not (lights["configured"] and lights["alive"]) or lights["busy"] or lights["error"]:
        raise Failure(f"an idle device in a session shows {', '.join(name for name, on in lights.items() if on) or 'nothing'}")
    return "configured and alive are on, busy and error off"


def _twins(device: Device, seed: int) -> tuple[GoldenNetwork, np.ndarray, np.ndarray]:
    """A golden network in the state that the device is given, samples, and labels."""
    c, rng = device.config, np.random.default_rng(seed)
    state = initial_state(c, seed, gain=4.0, theta=0.5, alpha=max(0.9, c.alpha_min / c.alpha_one))
    network = GoldenNetwork(c)
    network.load(state)
    network.rate_w, network.rate_theta, network.rate_alpha = 4, 5, 6
    device.write_state(network.read())
    device.set_rates(rate_w=4, rate_theta=5, rate_alpha=6)
    shape = (3, c.sizes[0]) if c.static else (3, c.steps, c.sizes[0])
    samples = rng.random(shape) < 0.3 if c.input == "events" else rng.integers(0, 256, shape).astype(np.uint8)
    return network, samples, rng.integers(0, c.classes, 3)


def _compare(device: Device, network: GoldenNetwork, kinds: tuple[str, ...] | None) -> int:
    """Compares arrays of the state; how many words."""
    got, want, words = device.read_state(), network.read(), 0
    wrong = [name for name in want if (kinds is None or name.split(".")[0] in kinds) and not np.array_equal(got[name], want[name])]
    if wrong:
        at = tuple(int(i) for i in np.argwhere(got[wrong[0]] != want[wrong[0]])[0])
        index = "".join(f"[{i}]" for i in at)
        raise Failure(f"{', '.join(wrong)} differ from the golden model: {wrong[0]}{index} is {int(got[wrong[0]][at])}, golden"
                      f" {int(want[wrong[0]][at])}")  # fmt: skip
    words += sum(array.size for name, array in want.items() if kinds is None or name.split(".")[0] in kinds)
    return words


def check_generator(device: Device, seed: int) -> str | None:
    """The random generator takes a value, and goes on as the golden one does, one value for each pass over a layer's weights."""
    if not device.config.stochastic:
        return None
    network, samples, labels = _twins(device, seed)
    for value in (1, 0x8000_0000, 0xDEAD_BEEF):
        device.write_state({"rng": np.array(value)})
        network.load({"rng": np.array(value)})
        if int(device.read_state()["rng"]) != value:
            raise Failure(f"R holds {int(device.read_state()['rng']):#x}, {value:#x} was written")
        device.train(samples[:1], labels[:1], "w")
        network.run(samples[0], int(labels[0]), "w")
        if int(device.read_state()["rng"]) != network.rng:
            raise Failure(f"R is {int(device.read_state()['rng']):#x} after a sample from {value:#x}, golden {network.rng:#x}")
    return f"R from 3 values, {network.rng:#010x} in the end"


def check_neurons(device: Device, seed: int) -> str:
    """Three samples are classified: membranes, spikes and traces of all neurons equal the golden ones."""
    network, samples, _ = _twins(device, seed)
    words = 0
    for sample in samples:
        device.infer([sample])
        network.run(sample)
        words += _compare(device, network, NEURON)
    return f"{words:,} words equal golden"


def check_learning(device: Device, seed: int) -> str:
    """A sample is learned: the whole state equals the golden one."""
    network, samples, labels = _twins(device, seed)
    before = network.read()
    got, want = int(device.train(samples[:1], labels[:1])[0]), network.run(samples[0], int(labels[0]), "wtl").winner
    words = _compare(device, network, None)
    if got != want:
        raise Failure(f"the sample's class is {got}, golden {want}")
    changed = sum(int((before[name] != array).sum()) for name, array in network.read().items() if name.startswith("weight."))
    return f"{words:,} words equal golden, {changed:,} weights changed"


def measure_speed(device: Device) -> str | None:
    """The share of the line rate that bulk writes reach, and requests that had to be sent again."""
    link, info = device.info().link, device.info()
    region = device.region("surrogate")
    model = getattr(device._transport, "model", None)
    if model is not None and not hasattr(model, "cycles"):
        return None
    repeats, batch, data = device.session.repeats, Batch(link), np.arange(region.depth) & (1 << region.bits) - 1
    for _ in range(max(1, 40_000 // (2 * region.depth))):
        batch.write(region.address(0), data, 2)
    batch.flush()
    clock, start = getattr(model, "cycles", 0), time.perf_counter()
    list(device.session.run(batch.payloads))
    if (device.read_words(region.address(0), region.depth) != data).any():
        raise Failure("what was written is not there")
    if device.session.repeats != repeats:
        raise Failure(f"{device.session.repeats - repeats} requests of {len(batch.payloads)} were sent again")
    sent = sum(map(len, batch.payloads)) + 11 * len(batch.payloads)  # length, number, CRC, COBS, delimiter
    bits = ceil_log2(256) + 2  # of a byte on the line
    seconds = (model.cycles - clock) / link.clock if model is not None else time.perf_counter() - start
    share = sent * bits / (info.baud or link.baud) / seconds
    if share < SPEED_WANTED and model is None:
        raise Failure(f"{sent / seconds / 1000:,.0f} kB/s, {share:.0%} of the line rate, {SPEED_WANTED:.0%} wanted")
    return f"{sent / seconds / 1000:,.0f} kB/s" + (f", {share:.0%} of the line rate" if model is None else ", without the UART")
