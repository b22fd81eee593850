"""What networks represent, compared by centered kernel alignment (docs/cka.md).

    python -m sw.cka run default            # or a file of your own: trains, measures,
                                            # writes results.json, figures/*.png, index.html
    python -m sw.cka run default --only residual,time
    python -m sw.cka report build/cka/default
    python -m sw.cka memory                 # 20 layers pairwise: peak memory at 2,000 and at 10,000 samples
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from sw.cka import memory
from sw.cka.config import Plan, read
from sw.cka.report import page, run

CONFIGS = Path(__file__).parent / "configs"


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m sw.cka", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = p.add_subparsers(dest="part", required=True)
    ready = ", ".join(sorted(c.stem for c in CONFIGS.glob("*.toml")))
    q = parts.add_parser("run", help="train, measure and write the page", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    q.add_argument("config", metavar="CONFIG", help=f"a TOML file, or one of {ready}")
    q.add_argument("--only", metavar="KIND,KIND", help="these studies of it alone")
    q.add_argument("--out", type=Path, metavar="FOLDER", help="where to; build/cka/CONFIG if not given, with the kinds of --only")
    q.add_argument(
        "--models", type=Path, default=Path("build/cka/models"), metavar="FOLDER", help="where trained networks are kept"
    )
    q.add_argument("--jobs", type=int, default=2, metavar="N", help="processes that train")
    q.add_argument("--quiet", action="store_true", help="no progress")
    q = parts.add_parser("report", help="write the page of a finished run again")
    q.add_argument("folder", type=Path, metavar="DIR", help="the folder of the run")
    memory.add_to(parts)
    return p


def only(plan: Plan, kinds: list[str]) -> Plan:
    """The plan with its studies of these kinds."""
    there = [study.kind for study in plan.studies]
    for kind in kinds:
        if kind not in there:
            raise ValueError(f"--only: {kind} is not legal; legal is {' or '.join(dict.fromkeys(there))}")
    return replace(plan, studies=tuple(study for study in plan.studies if study.kind in kinds))


def main(arguments: list[str] | None = None) -> int:
    p = parser()
    a = p.parse_args(arguments)
    try:
        if a.part == "report":
            print(f"report: {page(a.folder)}")
            return 0
        if a.part == "memory":
            return memory.main(a)
        config = CONFIGS / f"{a.config}.toml" if (CONFIGS / f"{a.config}.toml").is_file() else Path(a.config)
        if a.jobs < 1:
            raise ValueError(f"--jobs: {a.jobs} is not legal; legal is at least 1")
        plan = read(config)
        if a.only:
            plan = only(plan, a.only.split(","))
        folder = a.out or Path("build/cka") / "-".join([config.stem, *(a.only.split(",") if a.only else [])])
        folder.mkdir(parents=True, exist_ok=True)
        results = run(plan, folder, a.models, jobs=a.jobs, quiet=a.quiet)
    except (ValueError, OSError) as e:
        p.error(str(e))
    for d in results["directions"]:
        print(f"{d['name']}: {d['verdict']} ({', '.join(f'{x:+.3f}' for x in d['differences'])})")
    print(f"report: {page(folder)}, numbers: {folder / 'results.json'}, {results['seconds']} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
