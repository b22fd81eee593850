"""Headless Chromium for the tests, found or got: `make browser`.

Any that shows a page is taken. Where there is none, apt-get downloads Debian's, with the libraries and the font that are not
installed, and it is unpacked into the virtual environment. That takes no root and changes nothing else. Exit code 1 and one line
on what to run if neither works.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from chromium import HERE, NAMES, find, works

PACKAGES = ("chromium-headless-shell", "fonts-dejavu-core")
UNPACKED = Path(sys.prefix) / "chromium"
FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig><dir>{tree}/usr/share/fonts</dir><dir>/usr/share/fonts</dir><cachedir>{tree}/cache</cachedir></fontconfig>
"""
MISSING = (
    f"headless Chromium is missing ({{}}): run `sudo apt-get install {NAMES[0]}`, or install Chromium in another way"
    " and name its command in the environment variable CHROMIUM"
)
START = """#!/bin/sh
export LD_LIBRARY_PATH={libraries} FONTCONFIG_FILE={fonts}
exec {binary} "$@"
"""


class NotGot(Exception):
    """apt-get cannot get a browser, and why."""


def run(*command: str | Path, check: bool = True) -> None:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if check and done.returncode:
        raise NotGot((done.stderr.strip().splitlines() or [f"{command[0]} ended with {done.returncode}"])[0])


def download(folder: Path) -> list[Path]:
    """Debian's packages, less those that are installed. apt-get's lists and cache are in `folder`: the machine's are root's."""
    if not shutil.which("apt-get"):
        raise NotGot("there is no apt-get")
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    settings = (f"Dir::State::Lists={folder}/lists", f"Dir::Cache={folder}/cache", "Debug::NoLocking=1", "APT::Sandbox::User=root")
    apt = ("apt-get", "-qq", *(part for setting in settings for part in ("-o", setting)))
    run(*apt, "update", check=False)  # one source of several may be out of reach
    run(*apt, "install", "--yes", "--no-install-recommends", "--download-only", *PACKAGES)
    return sorted((folder / "cache/archives").glob("*.deb"))


def unpack() -> str:
    """Downloads and unpacks; returns the command, which is in the virtual environment's own folder of commands."""
    shutil.rmtree(UNPACKED, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        for package in download(Path(folder)):
            run("dpkg-deb", "-x", package, UNPACKED)
    binary = next(UNPACKED.glob(f"usr/lib/*/{NAMES[0]}"), None)
    if binary is None:
        raise NotGot(f"Debian's package holds no {NAMES[0]}")
    libraries = ":".join(sorted({str(path.parent) for path in UNPACKED.rglob("*.so*")}))
    fonts = UNPACKED / "fonts.conf"
    fonts.write_text(FONTS.format(tree=UNPACKED))
    places = {"libraries": libraries, "fonts": str(fonts), "binary": str(binary)}
    command = HERE / NAMES[0]
    command.write_text(START.format(**{name: shlex.quote(place) for name, place in places.items()}))
    command.chmod(0o755)
    return str(command)


def main() -> int:
    if not (command := find()):
        try:
            if named := os.environ.get("CHROMIUM"):
                raise NotGot(f"{named}, which CHROMIUM names, shows no page")
            command = unpack()
            if not works(command):
                raise NotGot(f"Debian's, unpacked, shows no page: {command}")
        except NotGot as why:
            print(MISSING.format(why), file=sys.stderr)
            return 1
    print(command)
    return 0


if __name__ == "__main__":
    sys.exit(main())
