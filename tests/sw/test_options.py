"""What command lines refuse before any work is done."""

from argparse import ArgumentParser

import pytest

import hw.build
from boards import BOARDS
from hw.config import Config, Q
from sim import sweep
from sw import nir_study, options


@pytest.mark.parametrize("program", [hw.build, sweep, nir_study])
def test_a_report_that_cannot_be_written_stops_long_work_before_it_begins(program, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        program.main(["--json", str(tmp_path / "none" / "x.json")])
    assert f"--json: {tmp_path / 'none'} is not a folder" in capsys.readouterr().err


def test_options_of_the_design_change_the_board_they_start_from():
    parser = ArgumentParser()
    options.add_design(parser)
    assert options.configuration(parser.parse_args([])) == Config()
    board = BOARDS["ulx3s-85f"].config
    given = parser.parse_args(["--board", "ulx3s-85f", "--w", "2,7", "--no-stochastic", "--neuron-lanes", "4"])
    assert options.configuration(given) == board.replace(w=Q(2, 7), stochastic=False, neuron_lanes=4) != board


@pytest.mark.parametrize("format", ["4", "4.12", "a,b", "1,2,3"])
def test_a_number_format_that_is_none(format, capsys):
    parser = ArgumentParser()
    options.add_design(parser)
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["--w", format])
    assert f"{format!r} is not legal; legal is integer and fraction bits joined by a comma" in capsys.readouterr().err
