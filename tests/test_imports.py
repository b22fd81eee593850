"""Imports go one way: hw knows neither sw nor sim, sw knows no sim; and within sw, programs know libraries, never the other way."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def imported(file):
    """Names of the modules that a file imports, anywhere in it, each with what it imports from it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package, above", [("hw", {"sw", "sim"}), ("boards", {"sw", "sim"}), ("sw", {"sim"})])
def test_imports_go_one_way(package, above):
    files = list((ROOT / package).rglob("*.py"))
    wrong = [f"{file.relative_to(ROOT)}: {name}" for file in files for name in imported(file) if name.partition(".")[0] in above]
    assert files and not wrong


SW = ROOT / "sw"
PROGRAMS = {file.stem for file in SW.glob("*.py")} - {"__init__"}
PACKAGES = {folder.parent.name for folder in SW.glob("*/__init__.py")}


def test_a_module_of_sw_is_a_program_or_library():
    """Modules at the top of sw are programs, packages are libraries: they import no program. Two packages hold one of their own."""
    programs = {file.relative_to(SW).as_posix() for file in SW.rglob("*.py") if "__main__" in file.name + file.read_text()}
    assert programs == {f"{name}.py" for name in PROGRAMS} | {"cka/__main__.py", "transport/pty.py"}
    library = [file for file in SW.rglob("*.py") if file.relative_to(SW).as_posix() not in programs]
    own = {f"sw.{name}" for name in PROGRAMS} | {"sw.cka.__main__", "sw.transport.pty"}
    pairs = [(str(file.relative_to(SW)), name) for file in library for name in imported(file)]
    assert pairs and not [(file, name) for file, name in pairs if {name, name.rpartition(".")[0]} & own]


def test_packages_of_sw_import_one_another_in_one_direction():
    """What remains when the packages that need no other are taken away, again and again, are those in a cycle."""
    needs = {
        package: {name.split(".")[1] for file in (SW / package).rglob("*.py") for name in imported(file) if name.startswith("sw.")}
        - {package}
        for package in PACKAGES
    }
    assert {"golden", "driver"} <= needs.keys() and needs["driver"] and set().union(*needs.values()) <= PACKAGES
    while free := [package for package, others in needs.items() if not others & needs.keys()]:
        for package in free:
            del needs[package]
    assert not needs
