"""What was learned on the chip as a NIR graph: `python -m sw.export IMAGE.npz --nir out.nir`.

The image is that of `sw.deploy`, with what became of it: `Image.learned(core.read())`, or `sim.cosim --image ... --save`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import nir

from hw.options import output
from sw.files.image import Image
from sw.nir.export import graph


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m sw.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("image", type=Path, metavar="IMAGE.npz", help="the network, as sw.deploy or sim.cosim --save wrote it")
    p.add_argument("--nir", type=output, required=True, metavar="FILE", help="where the graph goes")
    return p


def main(arguments: list[str] | None = None) -> int:
    p = parser()
    options = p.parse_args(arguments)
    try:
        out = graph(Image.load(options.image))
    except ValueError as e:
        p.error(str(e))
    nir.write(options.nir, out)
    for name, node in out.nodes.items():
        print(f"{name:<15} {type(node).__name__}")
    print(f"graph           {options.nir}")
    print("its reset       subtracts the threshold, before the next leak: tell the framework, NIR cannot")
    return 0


if __name__ == "__main__":
    sys.exit(main())
