"""What is read from the logs of nextpnr; the logs are cut from real ones."""

from pathlib import Path

import pytest

from boards import BOARDS
from hw.report import BuildError, critical_path, exceeded, fmax, utilisation

LOGS = Path(__file__).parent / "logs"
ICE40, FULL, ECP5 = ((LOGS / name).read_text() for name in ("ice40.tim", "ice40_full.tim", "ecp5.tim"))
ICEBREAKER, ULX3S = BOARDS["icebreaker"], BOARDS["ulx3s-85f"]


def without(log: str, text: str) -> str:
    assert text in log
    return "\n".join(line for line in log.splitlines() if text not in line)


def test_ice40_resources():
    assert utilisation(ICEBREAKER, ICE40) == {
        "lc": {"used": 2565, "available": 5280},
        "lut": {"used": 1335 + 691, "available": 5280},
        "ff": {"used": 691 + 517, "available": 5280},
        "bram": {"used": 26, "available": 30},
        "spram": {"used": 4, "available": 4},
        "dsp": {"used": 4, "available": 8},
    }


def test_ecp5_resources():
    assert utilisation(ULX3S, ECP5) == {
        "lut": {"used": 40660, "available": 83640},
        "ff": {"used": 11097, "available": 83640},
        "bram": {"used": 205, "available": 208},
        "spram": {"used": 0, "available": 0},
        "dsp": {"used": 36, "available": 156},
    }


def test_the_data_sheet_limits_what_is_available():
    assert utilisation(BOARDS["ulx3s-12f"], ECP5)["bram"] == {"used": 205, "available": 32}
    assert exceeded(BOARDS["ulx3s-12f"], utilisation(BOARDS["ulx3s-12f"], ECP5)) == "bram"


def test_fmax_is_that_after_routing():
    assert fmax(ICE40, 24e6) == 36.10e6
    assert fmax(ICE40.replace("PASS", "FAIL"), 24e6) == 36.10e6


def test_what_limits_the_clock_is_named_as_in_the_design():
    """The last path within the clock, not one from or to a pin."""
    assert critical_path(ICE40, 24e6) == {
        "from": "device.device.core.command.fsm_state", "to": "device.device.core.schedule.fsm_state", "logic_ns": 8.81,
        "routing_ns": 26.38,
    }  # fmt: skip
    assert critical_path(ECP5, 60e6) == {
        "from": "device.device.core.neurons.spikes.memory", "to": "device.device.core.lanes.weights.lane_26.following",
        "logic_ns": 7.93, "routing_ns": 6.43,
    }  # fmt: skip
    with pytest.raises(BuildError, match="critical path: the place-and-route log has none"):
        critical_path(without(ICE40, "ns routing"), 24e6)


def test_the_critical_path_of_another_clock_does_not_count():
    clock = ICE40[ICE40.index("Info: Critical path report for clock 'clk'") :]
    other = clock.replace("'clk'", "'usb'").replace("24.00", "48.00").replace("core.command", "core.other")
    assert critical_path(ICE40 + other, 24e6) == critical_path(ICE40, 24e6)
    assert critical_path(ICE40 + other, 48e6)["from"] == "device.device.core.other.fsm_state"


def test_exceeded_names_the_worst():
    assert exceeded(ICEBREAKER, utilisation(ICEBREAKER, ICE40)) is None
    assert exceeded(ICEBREAKER, utilisation(ICEBREAKER, FULL)) == "lc"


def test_a_chip_without_a_resource_needs_no_figure():
    log = without(without(ICE40, "SPRAM"), "DSP").replace("/   5280", "/   7680").replace("/     30", "/     32")
    found = utilisation(BOARDS["ice40-hx8k-b-evn"], log)
    assert found["dsp"] == found["spram"] == {"used": 0, "available": 0}


@pytest.mark.parametrize(
    ("log", "board", "line", "says"),
    [
        (ICE40, ICEBREAKER, "ICESTORM_LC", "LC"),
        (ICE40, ICEBREAKER, "ICESTORM_RAM", "EBR"),
        (ICE40, ICEBREAKER, "ICESTORM_SPRAM", "SPRAM"),
        (ICE40, ICEBREAKER, "ICESTORM_DSP", "DSP"),
        (ICE40, ICEBREAKER, "LUT4 and DFF", "LUT"),
        (ICE40, ICEBREAKER, "DFF only", "FF"),
        (ECP5, ULX3S, "TRELLIS_COMB", "LUT"),
        (ECP5, ULX3S, "TRELLIS_FF", "FF"),
        (ECP5, ULX3S, "DP16KD", "DP16KD"),
        (ECP5, ULX3S, "MULT18X18D", "DSP"),
    ],
)
def test_a_missing_figure_is_named(log, board, line, says):
    with pytest.raises(BuildError, match=rf"^{says}: the place-and-route log has no figure \(.*{line}\)"):
        utilisation(board, without(log, line))


@pytest.mark.parametrize("lost", ["Max frequency", "Routing complete"])
def test_a_missing_fmax_is_an_error(lost):
    with pytest.raises(BuildError, match="Fmax: the place-and-route log has no figure for a clock of 24 MHz after routing"):
        fmax(without(ICE40, lost), 24e6)


def test_fmax_of_another_clock_does_not_count():
    with pytest.raises(BuildError, match="for a clock of 48 MHz"):
        fmax(ICE40, 48e6)
