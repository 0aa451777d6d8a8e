"""`prosma compare`: variants of the skip, trained and measured side by side."""

from __future__ import annotations

import argparse
import sys
import warnings

from .common import SEVERAL_HELP, add_command, check_data, check_file


def add_parser(commands) -> None:
    examples = [
        "prosma compare training/comparisons/hippocampus.yaml --data DATA -o RUNS",
        "prosma compare training/comparisons/hippocampus.yaml -o RUNS --report",
    ]
    summary = "train variants of the skip with several seeds and compare them"
    compare = add_command(commands, "compare", run, summary, examples)
    compare.add_argument("grid", metavar="GRID", help="YAML file: recipe, variants, seeds, degradations of test images")
    compare.add_argument("--data", action="append", help=SEVERAL_HELP)
    compare.add_argument(
        "-o", "--output", "--out", dest="out", required=True, metavar="RUNS", help="folder for the runs and the report"
    )
    compare.add_argument("--only", nargs="+", metavar="VARIANT", help="make the runs of these variants alone")
    compare.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="make the runs of these seeds alone")
    compare.add_argument("--report", action="store_true", help="train nothing: report on the runs that are there")
    compare.add_argument("--threads", type=int, help="processor cores to use (default: all)")
    compare.add_argument("--workers", type=int, default=1, help="processes that prepare patches")


def run(options: argparse.Namespace) -> int:
    check_file(options.grid, "comparison")
    check_data(options.data)
    from ..learning.compare.comparing import ComparisonError, compare
    from ..learning.compare.grid import Grid
    from ..learning.report.reporting import write_report

    warnings.filterwarnings("ignore", message="Checkpoint directory")  # made before, by `compare`
    grid = Grid.read(options.grid)
    if not options.report:
        if not options.data:
            raise ComparisonError("Say with --data what to train on, or report on finished runs with --report.")
        missing = compare(
            grid,
            options.data,
            options.out,
            variants=options.only,
            seeds=options.seeds,
            workers=options.workers,
            threads=options.threads,
            say=lambda text: print(text, file=sys.stderr),
        )
        if missing:
            print(f"Still missing: {', '.join(missing)}. --report compares what is there.")
            return 0
    print(write_report(grid, options.out).read_text(encoding="utf-8"))
    return 0
