"""`prosma compare`: variants of the skip, or of the bottleneck, trained and measured side by side."""

from __future__ import annotations

import argparse
import os
import sys
import warnings

from ..errors import EngineError
from .common import (
    MOST_THREADS,
    SEVERAL_HELP,
    add_command,
    add_device,
    check_data,
    check_file,
    complain,
    insist_on_device,
    whole_number,
)
from .exit_codes import exit_code


def add_parser(commands) -> None:
    examples = [
        "prosma compare training/comparisons/hippocampus.yaml --data DATA -o RUNS",
        "prosma compare training/comparisons/hippocampus.yaml -o RUNS --report",
    ]
    summary = "train variants of the skip or the bottleneck with several seeds and compare them"
    compare = add_command(commands, "compare", run, summary, examples)
    compare.add_argument("grid", metavar="GRID", help="YAML file: recipe, variants, seeds, degradations of test images")
    compare.add_argument("--data", action="append", help=SEVERAL_HELP)
    compare.add_argument(
        "-o", "--output", "--out", dest="out", required=True, metavar="RUNS", help="folder for the runs and the report"
    )
    compare.add_argument("--only", nargs="+", metavar="VARIANT", help="make the runs of these variants alone")
    compare.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="make the runs of these seeds alone")
    compare.add_argument("--report", action="store_true", help="train nothing: report on the runs that are there")
    add_device(compare)
    compare.add_argument("--threads", type=whole_number(1, MOST_THREADS), help="processor cores to use (default: all)")
    compare.add_argument(
        "--workers",
        type=whole_number(0),
        metavar="N",
        help="processes that prepare patches (default: 1; on a cluster 0, and no others)",
    )
    compare.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="make the runs on a Dask cluster, one task a run: tcp://HOST:PORT of its scheduler, or its JSON file; config: "
        "as in Dask's configuration",
    )


def run(options: argparse.Namespace) -> int:
    check_file(options.grid, "comparison")
    check_data(options.data)
    if options.scheduler and options.workers:
        why = "On a Dask cluster a worker prepares patches itself, for it may start no processes."
        raise EngineError("bad_input", why, "Leave out --workers.")
    if not options.scheduler:  # whose workers are other computers
        insist_on_device(options.device)
    from ..learning.compare.comparing import ComparisonError
    from ..learning.compare.grid import Grid
    from ..learning.report.reporting import write_report

    grid = Grid.read(options.grid)
    if not options.report:
        if not options.data:
            raise ComparisonError("Say with --data what to train on, or report on finished runs with --report.")
        done, failures, missing = on_cluster(grid, options) if options.scheduler else here(grid, options)
        if failures:
            complain(f"{len(failures)} of {done + len(failures)} runs failed: {', '.join(failures)}.")
            return exit_code(done, len(failures))
        if missing:
            print(f"Still missing: {', '.join(missing)}. --report compares what is there.")
            return 0
    print(write_report(grid, options.out).read_text(encoding="utf-8"))
    return 0


def here(grid, options: argparse.Namespace) -> tuple[int, list[str], list[str]]:
    """Make the runs in this process; as `on_cluster`, but that an error ends it."""
    from ..learning.compare.comparing import compare

    warnings.filterwarnings("ignore", message="Checkpoint directory")  # made before, by `compare`
    missing = compare(
        grid,
        options.data,
        options.out,
        variants=options.only,
        seeds=options.seeds,
        workers=1 if options.workers is None else options.workers,
        threads=options.threads,
        device=options.device,
        say=say,
    )
    return 0, [], missing


def on_cluster(grid, options: argparse.Namespace) -> tuple[int, list[str], list[str]]:
    """Make the runs on a cluster; how many were done, which failed, and which of the grid are still missing."""
    from ..batch.cluster import Connection
    from ..learning.compare.comparing import all_runs, checked_runs, one_run

    out = os.path.abspath(options.out)
    data = [os.path.abspath(folder) for folder in options.data]
    runs = checked_runs(grid, data, out, options.only, options.seeds)
    os.makedirs(out, exist_ok=True)
    jobs = {run.name: (grid, data, out, run.variant, run.seed, options.threads, options.device) for run in runs}
    failures = []
    with Connection(options.scheduler, complain) as cluster:
        for name, result in cluster.each(one_run, jobs):
            if not isinstance(result, Exception):
                say(result)
                continue
            failures.append(name)
            died = "the workers that made it died one after the other: most likely the memory did not suffice"
            complain(f"{name}: {died if cluster.is_death(result) else result}")
    return len(jobs) - len(failures), failures, [run.name for run in all_runs(grid, out) if not run.scores()]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
