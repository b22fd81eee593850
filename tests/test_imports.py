"""Imports go one way: hw knows neither sw nor sim, sw knows no sim."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def imported(file):
    """Names of the modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("package, above", [("hw", {"sw", "sim"}), ("boards", {"sw", "sim"}), ("sw", {"sim"})])
def test_imports_go_one_way(package, above):
    files = list((ROOT / package).rglob("*.py"))
    wrong = [f"{file.relative_to(ROOT)}: {name}" for file in files for name in imported(file) if name.partition(".")[0] in above]
    assert files and not wrong
