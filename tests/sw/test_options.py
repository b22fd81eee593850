"""What command lines refuse before any work is done."""

import pytest

import hw.build
from sim import sweep
from sw import nir_study


@pytest.mark.parametrize("program", [hw.build, sweep, nir_study])
def test_a_report_that_cannot_be_written_stops_long_work_before_it_begins(program, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        program.main(["--json", str(tmp_path / "none" / "x.json")])
    assert f"--json: {tmp_path / 'none'} is not a folder" in capsys.readouterr().err
