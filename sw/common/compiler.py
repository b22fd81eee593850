"""C++ for this machine, cached by content, never by time stamps."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

CACHE = Path(__file__).resolve().parents[2] / "build"
FLAGS = ("-O3", "-march=native", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared")


def cxx() -> str:
    """The C++ compiler's name. RuntimeError if there is none."""
    name = os.environ.get("CXX", "g++")
    if shutil.which(name) is None:
        raise RuntimeError(f"{name} is missing; install a C++ compiler (or name one in the environment variable CXX)")
    return name


def cached(cache: Path, make: Callable[[Path], None], *key: str) -> Path:
    """The folder in `cache` named after the hash of `key`.

    `make` makes it in a temporary place first, so that it is whole or absent.
    """
    folder = cache / hashlib.sha256("\0".join(key).encode()).hexdigest()[:24]
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                with tempfile.TemporaryDirectory(dir=cache, prefix="new-") as temporary:
                    made = Path(temporary) / "made"
                    made.mkdir()
                    make(made)
                    made.rename(folder)
    return folder


def shared_library(source: Path) -> Path:
    """The shared library of one C++ file, compiled for this machine's processor.

    RuntimeError with the compiler's messages if it fails.
    """

    def run(*command: object) -> str:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed:\n{done.stderr}".rstrip())
        return done.stdout

    def make(folder: Path) -> None:
        run(cxx(), *FLAGS, source, "-o", folder / f"{source.stem}.so")

    machine = run(cxx(), "-march=native", "-Q", "--help=target"), run(cxx(), "--version")
    return cached(CACHE / source.parent.name, make, source.read_text(), *FLAGS, *machine) / f"{source.stem}.so"
