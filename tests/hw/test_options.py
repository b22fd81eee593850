"""What command lines refuse before any work is done."""

from argparse import ArgumentParser

import pytest

import hw.build
from boards import BOARDS
from hw import options
from hw.design import Design
from hw.machine import FAR
from hw.network import Network
from hw.numbers import Q
from sim import nir_study, sweep


@pytest.mark.parametrize("program", [hw.build, sweep, nir_study])
def test_a_report_that_cannot_be_written_stops_long_work_before_it_begins(program, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        program.main(["--json", str(tmp_path / "none" / "x.json")])
    assert f"--json: {tmp_path / 'none'} is not a folder" in capsys.readouterr().err


def parsed(*arguments):
    parser = ArgumentParser()
    options.add_design(parser)
    return parser.parse_args(arguments)


def test_options_of_the_design_change_the_board_they_start_from():
    assert options.design(parsed()) == Design.of(Network())
    board = BOARDS["ulx3s-85f"].design
    given = parsed("--board", "ulx3s-85f", "--w", "2,7", "--no-stochastic", "--neuron-lanes", "8")
    assert options.design(given) == board.replace(w=Q(2, 7), stochastic=False, neuron_lanes=8) != board
    assert options.chosen(given) == {"w": Q(2, 7), "stochastic": False, "neuron_lanes": 8}


def test_a_network_and_its_wires_are_options():
    design = options.design(parsed("--net", "9-7-5-4", "--wires", "far", "--lanes", "3"))
    assert design.network.sizes == (9, 7, 5, 4) and (design.machine.wires, design.machine.lanes) == (FAR, 3)
    assert (options.flag("net"), options.flag("neuron_lanes")) == ("--net", "--neuron-lanes")
    with pytest.raises(ValueError, match="lanes: 0 is not legal"):
        options.design(parsed("--lanes", "0"))


@pytest.mark.parametrize("format", ["4", "4.12", "a,b", "1,2,3"])
def test_a_number_format_that_is_none(format, capsys):
    with pytest.raises(SystemExit, match="2"):
        parsed("--w", format)
    assert f"{format!r} is not legal; legal is integer and fraction bits joined by a comma" in capsys.readouterr().err
