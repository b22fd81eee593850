"""The driver: one device, on a serial port, simulated, or the golden model. numpy in and out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from hw.configuration import read_record, settings
from hw.host.protocol import DESCRIPTION_MOST, Link, Op, read_description
from hw.machine import Machine, lacks
from hw.memory_map import COUNTER_BITS, IDENTITY, PHASES, REGISTERS, Region, regions, registers
from hw.network import Network
from hw.numbers import ceil_div
from hw.plan import Plan, compile
from sw.common import checks
from sw.common.checks import RATES
from sw.driver.flash import image
from sw.driver.layout import Layout, bursts, layout, word_bytes, write_configuration
from sw.files import checkpoint
from sw.files.checkpoint import Checkpoint
from sw.files.image import Image, is_image
from sw.transport.base import DeviceError, Transport
from sw.transport.batch import Batch
from sw.transport.process import WORLDS, open_world
from sw.transport.session import Session

COUNTERS = (*(f"cycles_{phase}" for phase in PHASES), "sops", "sops_skipped")
_COUNTED = COUNTERS[:-1]  # by the device
CHUNK = 64  # samples between two looks at the counters, which count modulo 2**COUNTER_BITS
LINK = Link(clock=24_000_000, baud=3_000_000)
"""Of a device in this process, if no other is asked for."""


class DamagedError(DeviceError):
    """Bits flipped in the device's memories; `memories` names them. What was learned since the last checkpoint is not saved."""

    def __init__(self, port: str, memories: Sequence[str]):
        super().__init__(
            f"{port}: a bit flipped in memory {', '.join(memories)} (parity); load a whole network, or restore a checkpoint, before"
            " going on"
        )
        self.memories = tuple(memories)


class Info(NamedTuple):
    """What a device is: its port, what its core was built as, and its link."""

    port: str
    machine: Machine
    link: Link
    baud: int
    """Bit rate in use, Hz; 0 where there is none."""


class Results(NamedTuple):
    """Of n samples: the class (n,), and spike counts and final membranes (format `u`) of the last layer, (n, C); all int64."""

    classes: np.ndarray
    counts: np.ndarray
    membranes: np.ndarray


def first_rates() -> dict[str, int]:
    """Learning rates of a device for which nobody has chosen any."""
    from sw.golden.recipe import Recipe  # which loads PyTorch

    return Recipe().rates(0)


def _fresh(network: Network) -> dict[str, np.ndarray]:
    """The state of a network into which nothing was loaded."""
    from sw.golden.network import GoldenNetwork

    return GoldenNetwork(network).read()


class Device:
    """A device behind a transport. Made by `open`; a context manager.

    Bad arguments are a ValueError before anything is sent. A device that does not answer, or was reset, is a
    sw.transport.base.DeviceError that says what to do next. `rates` are the learning rates in use. A core with parity is asked
    after every CHUNK samples, and when its state is read, whether it met a word in which a bit flipped: that is a DamagedError,
    until a whole network is loaded.

    `machine` is what the device was built as, `network` the network it holds, or None. Learning rates that are all 0 when it is
    opened, as after power-up, are taken as none, and become those with which a recipe starts (sw.golden.recipe).
    """

    def __init__(self, transport: Transport, *, timeout: float = 1.0):
        self.session = Session(transport, timeout=timeout)
        self._transport = transport
        baud = self._find(transport)
        try:
            self._info = self._identify(baud)
            self.machine = self._info.machine
            self._regions = regions(self.machine)
            self._none = "holds none"
            self._network = self.held()
            self._start()
            if self._network and not any(self.rates.values()):
                self.set_rates(**first_rates())
            self._counters, self._dense = dict.fromkeys(_COUNTED, 0), 0
        except BaseException:
            transport.close()
            raise

    @classmethod
    def open(cls, port: str | Transport, *, network: Network | None = None, machine: Machine | None = None,
             link: Link | None = None, flash: str | Path | None = None, timeout: float = 1.0) -> Device:  # fmt: skip
        """Opens the device at a serial port (its path, or a URL of pyserial), or makes one: `sim` is the Verilated gateware,
        `golden` the golden model, as `machine` (None: the smallest that holds `network`, or `Network()`) behind `link`.

        `network`: the device is configured for it (`configure`), if it holds another. None leaves a device as it is; one made here
        gets `Network()`, if that fits.
        `timeout`: seconds to wait for an answer (a sample's time counts). The bit rate is found. `flash`: a file that is the SPI
        flash of `sim` (None: what is stored there is forgotten when it is closed).

        Raises:
            DeviceError: nothing answers there.
            ValueError: the device does not hold `network`; what it lacks is named. A `flash` for another port than `sim`.
        """
        if flash is not None and port not in WORLDS:
            raise ValueError(f"flash: {flash} is not legal at port {port}; legal is none, as only that of sim is a file")
        if isinstance(port, Transport):
            transport = port
        elif port in WORLDS:
            built = machine or Machine.holding(network or Network())
            transport = open_world(port, built, link or LINK, flash=flash)
        else:
            from sw.transport.serialport import SerialPort

            transport = SerialPort(port)
        device = cls(transport, timeout=timeout)
        if port in WORLDS and network is None and device.network is None and not any(lacks(device.machine, Network())):
            network = Network()
        if network is not None and device.network != network:
            try:
                device.configure(network)
            except BaseException:
                device.close()
                raise
        return device

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def close(self) -> None:
        """Gives the port back. The device keeps its state."""
        self._transport.close()

    def info(self) -> Info:
        """Port, machine, link and bit rate."""
        return self._info

    # -- networks -----------------------------------------------------------------------------
    def configure(self, network: Network) -> None:
        """Makes the device run a network, with the state of a fresh `sw.golden.network.GoldenNetwork`, and the learning rates with
        which a recipe starts. What the device held is lost, a sample under way is given up.

        DoesNotFit (a ValueError), before anything is sent, if the machine does not hold it: what is needed, and what there is.
        """
        self._configure(network)
        self._write_whole(_fresh(network))

    def _configure(self, network: Network) -> None:
        """Programs and learning rates, and no state."""
        plan = compile(network, self.machine)
        batch = Batch(self._info.link)
        batch.write(REGISTERS["step"].address, 0, 1)
        write_configuration(batch, plan)
        self._network, self._none = None, "was configured only in part"
        self._collect(batch)
        self._network = network
        self.set_rates(**first_rates())

    @property
    def network(self) -> Network | None:
        """The network that the device holds; None if it holds none, or its configuration was interrupted."""
        return self._network

    @property
    def config(self) -> Network:
        """The network that the device holds. ValueError if it holds none."""
        if self._network is None:
            raise ValueError(f"network: {self._transport.name} {self._none}; configure it (Device.configure), or load a checkpoint")
        return self._network

    @property
    def plan(self) -> Plan:
        """Where everything of the network stands. ValueError if the device holds none."""
        return compile(self.config, self.machine)

    @property
    def _layout(self) -> Layout:
        return layout(self.plan)

    def held(self) -> Network | None:
        """The network that the device says it holds, asked anew; None, too, if what it says makes no sense."""
        if self.machine.fixed:
            return self.machine.fixed
        place = self._regions["network"]
        words = [int(word) for word in self.read_words(place.address(0), place.depth)]
        try:
            network = read_record(words, self.machine)
            if network:
                compile(network, self.machine)
            return network
        except ValueError as error:
            self._none = f"holds none that makes sense ({error})"
            return None

    # -- samples ------------------------------------------------------------------------------
    def infer(self, samples: Iterable[ArrayLike], *, quiet: bool = True) -> Results:
        """Classifies samples: uint8 (n, N0) for static input, bool (n, T, N0) for events, uint8 (n, T, N0) for frames.

        `quiet`: no progress bar.
        """
        c = self.config
        count, membrane = self._regions["count"], self._layout.fields[f"membrane.{c.n_layers}"]
        ascending, width = np.sort(membrane.addresses), self._regions["membrane"].width
        places = 1 + c.classes + np.searchsorted(ascending, membrane.addresses)

        def ask(batch: Batch) -> None:
            self._ask_class(batch)
            batch.read(count.address(0), c.classes, 1)
            for address, length in bursts(ascending):
                batch.read(address, length, width)

        words = self._show(samples, None, "", ask, quiet)
        parts = words.reshape(-1, 1 + 2 * c.classes)
        return Results(parts[:, 0], parts[:, 1 : 1 + c.classes], membrane.decode(parts[:, places]))

    def train(self, samples: Iterable[ArrayLike], labels: Sequence[int] | np.ndarray, learn: str = "wtl", *,
              quiet: bool = True) -> np.ndarray:  # fmt: skip
        """Learns from samples, one after another, what `learn` names: any of w (weights), t (thresholds), l (leakages).

        `samples` as for `infer`, `labels` (n,). Returns the class of each sample, (n,) int64, as it was before it was learned from.
        """
        return self._show(samples, labels, learn, self._ask_class, quiet)

    def evaluate(self, samples: Iterable[ArrayLike], labels: Sequence[int] | np.ndarray, *, quiet: bool = True) -> float:
        """Share of the samples whose class is their label."""
        targets = np.array([checks.check_label(self.config, label) for label in labels])
        if not targets.size:
            raise ValueError("labels: none are not legal; legal is at least one")
        return float(np.mean(self._show(samples, targets, "", self._ask_class, quiet) == targets))

    def set_rates(self, **rates: int) -> None:
        """Sets any of the rates of RATES, at which weights, thresholds and leakages learn and weights decay: 2**-rate, 0 to 15.

        `rate_decay` has no effect on a device without decay."""
        for name, rate in rates.items():
            if name not in RATES:
                raise ValueError(f"{name}: no such rate; legal is one of {', '.join(RATES)}")
            checks.check_rate(name, rate)
        batch, rates = Batch(self._info.link), {name: rate for name, rate in rates.items() if name in registers(self.machine)}
        for name, rate in rates.items():
            batch.write(REGISTERS[name].address, rate, 1)
        self._collect(batch)
        self.rates |= {name: int(rate) for name, rate in rates.items()}

    def _show(self, samples: Iterable[ArrayLike], labels: Sequence[int] | np.ndarray | None, learn: str,
              ask: Callable[[Batch], None], quiet: bool) -> np.ndarray:  # fmt: skip
        """Shows samples and returns what `ask` asked for after each. All are checked before the first is sent."""
        c, mask = self.config, checks.learn_mask(learn)
        checked = [checks.check_sample(c, sample) for sample in samples]
        targets = [checks.check_label(c, label) for label in labels] if labels is not None else [0] * len(checked)
        if len(targets) != len(checked):
            raise ValueError(f"labels: {len(targets)} are not legal; legal are as many as samples, {len(checked)}")
        out = [np.zeros(0, np.int64)]
        self._set("learn", mask)
        with tqdm(total=len(checked), desc="learn" if mask else "infer", unit=" samples", disable=quiet) as bar:
            for at in range(0, len(checked), CHUNK):
                batch = Batch(self._info.link)
                dense = self._operations(min(CHUNK, len(checked) - at), mask)
                for sample, label in zip(checked[at : at + CHUNK], targets[at : at + CHUNK], strict=True):
                    if mask:
                        batch.write(REGISTERS["label"].address, label, 1)
                    self._sample(batch, sample)
                    ask(batch)
                out.append(self._collect(batch))
                self._dense += dense
                self._count()
                self._check_memories()
                bar.update(min(CHUNK, len(checked) - at))
        return np.concatenate(out)

    def _sample(self, batch: Batch, sample: np.ndarray) -> None:
        run = REGISTERS["run"].address
        if self.config.static:
            batch.write(self._regions["frame"].address(0), sample.tobytes(), 1)
            batch.write(run, 0, 1)
            return
        if self.config.input == "frames":
            self._values(batch, sample)
            return
        for spikes in sample:
            if spikes.any():
                for address, count in bursts(np.sort(self._regions["event"].places(np.flatnonzero(spikes)))):
                    batch.write(address, b"\1" * count, 1)
            batch.write(run, 1, 1)

    def _values(self, batch: Batch, sample: np.ndarray) -> None:
        """A frame in every step; values stay in the device until others come."""
        event = self._regions["event"]
        for values in sample:
            for lane in range(min(event.lanes, len(values))):
                batch.write(event.address(0, lane), values[lane :: event.lanes].tobytes(), 1)
            batch.write(REGISTERS["run"].address, 1, 1)

    def _operations(self, samples: int, mask: int) -> int:
        """Synaptic operations of the samples to come, if nothing were skipped."""
        c, there = self.config, registers(self.machine)
        names = [name for name, counts in (("gathered", c.batch > 1), ("aged", c.decay)) if counts and name in there]
        counters = dict(zip(names, map(int, self._read_registers(names)), strict=True)) if names else {}
        return c.dense_operations(mask, samples, **counters)

    def _ask_class(self, batch: Batch) -> None:
        batch.read(REGISTERS["class"].address, 1, 1)

    # -- state --------------------------------------------------------------------------------
    def load(self, network: Mapping[str, ArrayLike] | str | Path | Image | Checkpoint | Any) -> None:
        """Loads a network: arrays by name for the network that the device holds; or an image or a checkpoint (sw/files), the path
        of one of them, or a golden network, for which the device is configured if it holds another. What an image does not have
        is as in a fresh network. ValueError says what does not fit, before anything changes.
        """
        if isinstance(network, Mapping):
            self._write_whole(network)
        elif isinstance(network, str | Path):
            self.load(Image.load(Path(network)) if is_image(network) else checkpoint.read(network))
        elif isinstance(network, Image):
            self._load(network.network, {**_fresh(network.network), **network.state})
        elif isinstance(network, Checkpoint):
            self._load(network.network, network.state)
        else:
            self._load(network.config, network.read())

    def _load(self, network: Network, state: Mapping[str, ArrayLike]) -> None:
        """Configures the device if it holds another network, and writes a whole state."""
        if network != self._network:
            self._configure(network)
        self._write_whole(state)

    def _write_whole(self, state: Mapping[str, ArrayLike]) -> None:
        """Writes arrays of the state; if they are all of it, so is whatever else the memories hold, and no damage is left."""
        values = self._layout.encode(state)
        whole = self.machine.parity and not self._layout.fields.keys() - state.keys() - {"class"}
        if whole:
            self._repair()
        self._write_encoded(*values)
        if whole:
            self._write(REGISTERS["damaged"].address, 0, 1)

    def write_state(self, state: Mapping[str, ArrayLike]) -> None:
        """Sets any of the state's arrays, by the names of `hw.network.state_arrays`; nothing changes if one is not legal.

        `class` is the core's own and stays as it is.
        """
        self._write_encoded(*self._layout.encode(state))

    def _write_encoded(self, values: np.ndarray, covered: np.ndarray, partial: np.ndarray) -> None:
        if partial.any():
            values[partial] |= self._read_words(self._layout.addresses[partial]) & ~covered[partial]
        if covered.any():
            batch = Batch(self._info.link)
            self._layout.write(batch, values, covered)
            self._collect(batch)

    def read_state(self) -> dict[str, np.ndarray]:
        """The whole state, int64 arrays by name."""
        words = self._read_words(self._layout.addresses)
        self._check_memories()
        return self._layout.decode(words)

    def save(self, path: str | Path) -> None:
        """Writes a checkpoint: network, state, learning rates, counters (sw/files/checkpoint.py)."""
        checkpoint.write(path, Checkpoint(self.config, self.read_state(), dict(self.rates), self.counters()))

    def restore(self, path: str | Path) -> None:
        """Goes on from a checkpoint, of any world, as if nothing had been between. ValueError, before anything changes."""
        kept = checkpoint.read(path)
        self._load(kept.network, kept.state)
        self.set_rates(**kept.rates)
        self._last = self._raw_counters()
        self._counters = {name: kept.counters[name] for name in _COUNTED}
        self._dense = kept.counters["sops"] + kept.counters["sops_skipped"]

    def store(self, board: str | None = None) -> None:
        """Stores state and learning rates in the SPI flash: what the device has after power-up, from now on, without a host.

        `board`: its name in `boards`, for a serial port; openFPGALoader writes, and reads back. The device is started anew, and
        must then have what was stored. A flash that is written in part starts nothing.

        Raises:
            ValueError: there is no flash (`golden`, some boards), or no board is named.
            DeviceError: the flash does not hold what was written, or the device does not come back with it.
        """
        network, state, rates = self.config, self.read_state(), dict(self.rates)
        self._count()
        self._transport.store(image(self.plan, self._info.link, state, rates), board)
        try:
            self.session.open()
        except DeviceError:
            raise DeviceError(f"{self._transport.name}: the flash holds the network, but the device does not come back; is its"
                              " bitstream in the flash, too (`python -m sw.bringup --program --keep`)?") from None  # fmt: skip
        self._network, self._none = self.held(), "has started without the network that its flash holds"
        self._start()
        state.pop("class")
        if self._network == network:
            found = self.read_state()
            wrong = next((name for name, array in state.items() if not np.array_equal(found[name], array)), None)
        else:
            wrong = "network"
        if wrong or self.rates != rates:
            raise DeviceError(f"{self._transport.name}: the flash holds the network, but the device has another"
                              f" {wrong or 'learning rate'} after its start; was its bitstream built before it could load one, or"
                              " for another board? Build and program it again")  # fmt: skip

    def counters(self) -> dict[str, int]:
        """Clock cycles by phase, synaptic operations done and skipped, since the device was opened (or those of the checkpoint)."""
        self._count()
        return self._counters | {"sops_skipped": self._dense - self._counters["sops"]}

    def _count(self) -> None:
        now = self._raw_counters()
        for name in _COUNTED:
            self._counters[name] += (now[name] - self._last[name]) % (1 << COUNTER_BITS)
        self._last = now

    # -- parity -------------------------------------------------------------------------------
    def _check_memories(self) -> None:
        """DamagedError until a whole network is loaded: a word that is written anew loses its mark, but not what came of it."""
        found = int(self._read_registers(["damaged"])[0]) if self.machine.parity else 0
        if found:
            names = [region.name for region in self._regions.values() if found >> region.number & 1]
            raise DamagedError(self._transport.name, names)

    def _repair(self) -> None:
        """Writes all words with a parity bit that no array of the state has."""
        batch = Batch(self._info.link)
        write_configuration(batch, self.plan)
        for region in self._regions.values():
            if region.name == "frame":  # every entry, of a frame in which no pixel is 0
                batch.write(region.address(0), b"\1" * region.depth, 1)
            elif region.parity and not region.name.endswith("program"):
                there = np.concatenate([region.address(0, lane) + np.arange(region.depth) for lane in range(region.lanes)])
                for address, count in bursts(np.setdiff1d(there, self._layout.addresses)):
                    batch.write_words(address, np.zeros(count, np.int64), region.width)
        self._collect(batch)

    def _raw_counters(self) -> dict[str, int]:
        return dict(zip(_COUNTED, map(int, self._read_registers(_COUNTED)), strict=True))

    # -- words --------------------------------------------------------------------------------
    def region(self, name: str) -> Region:
        """A memory by its name in `hw.memory_map.regions`, to be used with `read_words` and `write_words`."""
        return self._regions[name]

    def read_words(self, address: int, count: int) -> np.ndarray:
        """`count` words from an address on, int64 and not negative."""
        batch = Batch(self._info.link)
        batch.read(address, count, word_bytes(self.machine, address))
        return self._collect(batch)

    def write_words(self, address: int, words: ArrayLike) -> None:
        """Writes words from an address on."""
        self._write(address, words, word_bytes(self.machine, address))

    def _write(self, address: int, words: ArrayLike, width: int) -> None:
        batch = Batch(self._info.link)
        batch.write(address, words, width)
        self._collect(batch)

    def _set(self, register: str, value: int) -> None:
        self._write(REGISTERS[register].address, value, ceil_div(REGISTERS[register].bits, 8))

    def _read_registers(self, names: Iterable[str]) -> np.ndarray:
        batch = Batch(self._info.link)
        for name in names:
            batch.read(REGISTERS[name].address, 1, 4)
        return self._collect(batch)

    def _read_words(self, addresses: np.ndarray) -> np.ndarray:
        batch = Batch(self._info.link)
        for address, count in bursts(addresses):
            batch.read(address, count, word_bytes(self.machine, address))
        return self._collect(batch)

    def _collect(self, batch: Batch) -> np.ndarray:
        batch.flush()
        return batch.collect(self.session.run(batch.payloads))

    # -- at the start -------------------------------------------------------------------------
    def _start(self) -> None:
        """The beginning of a sample, and what the device holds besides its memories, as a reset has left no settings."""
        if self.machine.events:  # a host before may have gone in the middle of a step
            region = self._regions["event"]
            for lane in range(region.lanes):
                self._write(region.address(0, lane), np.zeros(region.depth, np.int64), 1)
        self._set("step", 0)
        for name, value in settings(self._network, self.machine).items() if self._network and not self.machine.fixed else ():
            self._set(name, value)
        names = [name for name in RATES if name in registers(self.machine)]
        self.rates = dict(zip(names, map(int, self._read_registers(names)), strict=True))
        self._last = self._raw_counters()

    def _find(self, transport: Transport) -> int:
        """Opens a session at the first bit rate at which the device answers; that rate, or 0."""
        try:
            if not transport.bauds:
                self.session.open()
                return 0
            for baud in transport.bauds:
                try:
                    transport.set_baud(baud)
                    self.session.open(timeout=0.2, tries=2)
                    return baud
                except DeviceError:
                    continue
            self.session.open(tries=1)
            return transport.bauds[-1]
        except BaseException:
            transport.close()
            raise

    def _identify(self, baud: int) -> Info:
        batch = Batch(Link(clock=1, baud=1, buffer=256, reply=128))
        batch.read(0, DESCRIPTION_MOST, 1, Op.INFO)
        batch.read(REGISTERS["identity"].address, 2, 4)
        batch.flush()
        words = batch.collect(self.session.run(batch.payloads))
        try:
            machine, link = read_description(bytes(words[:DESCRIPTION_MOST].astype(np.uint8)))
        except (ValueError, IndexError) as e:
            raise DeviceError(f"{self._transport.name}: a device answers, but this driver does not understand it: {e}") from None
        identity, digest = map(int, words[DESCRIPTION_MOST:])
        if (identity, digest) != (IDENTITY, machine.digest):
            raise DeviceError(f"{self._transport.name}: identity {identity:#010x}, machine {digest:#010x}, but {IDENTITY:#010x} and"
                              f" {machine.digest:#010x} follow from its description; build and program it again")  # fmt: skip
        self.session.link = link
        return Info(self._transport.name, machine, link, baud)
