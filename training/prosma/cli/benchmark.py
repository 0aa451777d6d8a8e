"""`prosma benchmark`: whole volumes beside other tools, growth, and a click; JSON and Markdown."""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from ..benchmarking.click import measure_click
from ..benchmarking.machine import describe_machine
from ..benchmarking.process import measured_apart
from ..benchmarking.report import markdown
from ..benchmarking.subjects import WARM_TILES
from ..errors import UserFacingError
from ..inference.devices import core_count, import_torch
from ..inference.segmenter import TIDIED_EVERY

SHAPE, CLASSES = (256, 256, 160), 5
PARTS = ("forward", "whole", "growth", "click")
TIMED_TILES = WARM_TILES + TIDIED_EVERY  # of each run, unless --full: one round of what our tiles do in turn
SIZES = ((64, 64, 64), (96, 96, 96), (128, 128, 96), (192, 192, 128), SHAPE)
LARGE = (512, 512, 300)
MANY_CLASSES = 25
CLICK_SHAPE = (128, 128, 96)
ROWS = (
    ("ProSMA, defaults", {"subject": "prosma"}),
    ("ProSMA, defaults, gate on the skip's grid", {"subject": "prosma", "field_grid": "skip"}),
    ("ProSMA, bfloat16", {"subject": "prosma", "half": True}),
    ("MONAI, as shipped", {"subject": "monai", "overlap": 0.5}),
    ("MONAI, allocator fixed", {"subject": "monai", "overlap": 0.5, "allocator": True}),
    ("nnU-Net, as shipped", {"subject": "nnunet", "overlap": 0.5}),
)
MORE_ROWS = (
    ("ProSMA, whole volume, overlap 0.5", {"subject": "prosma", "overlap": 0.5, "shortcuts": False}),
    ("MONAI, allocator fixed, overlap 0.25", {"subject": "monai", "overlap": 0.25, "allocator": True}),
    ("nnU-Net, allocator fixed", {"subject": "nnunet", "overlap": 0.5, "allocator": True}),
)


def add_benchmark_parser(commands) -> None:
    parser = commands.add_parser(
        "benchmark",
        help="measure the speed on this computer, beside MONAI and nnU-Net where they are installed",
        description="Forward passes, whole volumes, growth and a click, side by side in one run. Quick: the network runs "
        "on the first tiles of each volume and the rest is counted.",
    )
    parser.add_argument("--full", action="store_true", help="compute every tile, in three rounds")
    parser.add_argument("--rounds", type=int, help="of forward passes (3) and whole volumes (1; with --full 3)")
    parser.add_argument(
        "--only", nargs="*", choices=PARTS, default=PARTS, help="what to measure (all; none: tables of --json)"
    )
    parser.add_argument("--shape", nargs=3, type=int, default=SHAPE, help="of the whole volume (256 256 160)")
    parser.add_argument("--classes", type=int, default=CLASSES, help="with background (%(default)s)")
    parser.add_argument(
        "--threads",
        type=int,
        default=core_count(),
        help="of each process (all cores); with 1 processor time is compared",
    )
    parser.add_argument("--python", default=sys.executable, help="interpreter that has MONAI and nnU-Net (this one)")
    parser.add_argument(
        "--json", type=Path, help="write everything there, beside parts that an earlier --only left in it"
    )
    parser.add_argument("--markdown", type=Path, help="write the tables there, else they are printed")
    parser.set_defaults(run=run_benchmark)


def run_benchmark(options: argparse.Namespace) -> int:
    from ..files import write_json

    threads, full = options.threads, options.full
    report = {
        "date": datetime.date.today().isoformat(),
        "machine": describe_machine(threads),
        "clock": "processor" if threads == 1 else "wall",
        "full": full,
        "rounds": options.rounds or (3 if full else 1),
    }

    def tell(text: str) -> None:
        print(f"prosma: {text}", file=sys.stderr, flush=True)

    def whole() -> list[dict]:
        shape, rounds = tuple(options.shape), report["rounds"]
        return measure_whole(shape, options.classes, threads, options.python, full, tell, rounds=rounds)

    def forward() -> dict:
        from ..benchmarking.forward import measure_forward

        return measure_forward(options.rounds or 3, threads)

    measure = {
        "forward": forward,
        "whole": whole,
        "growth": lambda: measure_growth(growth_cases(), threads, full),
        "click": lambda: measure_click(SHAPE if full else CLICK_SHAPE, CLASSES, threads),
    }
    if options.json:
        earlier = earlier_parts(options.json)
        report = {**same_processor(earlier, report, options.json), **report} if options.only else {**report, **earlier}
    for part in options.only:
        tell(f"measuring: {part}")
        report[part] = measure[part]()
        if options.json:  # at once: the next part may take long
            write_json(options.json, report)
    if options.markdown:
        options.markdown.write_text(markdown(report), encoding="utf-8")
    else:
        print(markdown(report))
    return 0


def earlier_parts(path: Path) -> dict:
    """What earlier runs wrote to the same file, and `notes` that a person added."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def same_processor(earlier: dict, report: dict, path: Path) -> dict:
    """`earlier`; UserFacingError where it was measured on another processor than the report: tables never mix two."""
    before, now = (each.get("machine", {}).get("processor") for each in (earlier, report))
    if earlier and before != now:
        raise UserFacingError(
            f"{path} holds what was measured on another processor ({before or 'unknown'}), which would be lost. "
            "Name another file, or remove this one."
        )
    return earlier


def measure_whole(
    shape,
    classes: int,
    threads: int,
    python: str,
    full: bool,
    tell: Callable[[str], None],
    extra: dict | None = None,
    rounds: int = 1,
) -> list[dict]:
    """Each of ROWS, with `full` of MORE_ROWS too, in turn for each round; medians over the rounds.

    The first of ROWS runs again before each other tool: `..._ratio` is how many times as long as just before that a row
    took. `extra` goes into every task. Half precision is left out where the processor does not compute in it.
    """
    from ..fast.network import computes_in_half

    half = computes_in_half(import_torch().device("cpu"))
    chosen = [row for row in ((*ROWS, *MORE_ROWS) if full else ROWS) if half or "half" not in row[1]]
    common = {"shape": shape, "classes": classes, "timed_tiles": None if full else TIMED_TILES, **(extra or {})}

    def measured(name: str, task: dict) -> dict:
        tell(f"whole volume: {name}")
        interpreter = sys.executable if task["subject"] == "prosma" else python
        return {"name": name, **measured_apart([{**task, **common}], threads, interpreter)[0]}

    found = []
    for _ in range(rounds):
        rows = []
        for name, task in chosen:
            if not rows or task["subject"] != "prosma":
                ours = measured(*ROWS[0])
            row = measured(name, task) if rows else ours
            rows.append({**row, **ratios(row, ours)})
        found.append(rows)
    return [median_row(rows) for rows in zip(*found, strict=True)]


def ratios(row: dict, ours: dict) -> dict:
    """How many times as long as ours a row took, for both clocks; nothing where one has no result."""
    if "problem" in row or "problem" in ours:
        return {}
    return {f"{clock}_ratio": row[f"{clock}_seconds"] / ours[f"{clock}_seconds"] for clock in ("processor", "wall")}


def median_row(rows) -> dict:
    """The medians of what differs between rows of one name; the problem where one has any."""
    if problems := [row for row in rows if "problem" in row]:
        return problems[0]
    varying = [name for name in rows[0] if name.endswith(("_seconds", "_network", "_rest", "_bytes", "_ratio"))]
    return {**rows[0], **{name: statistics.median(row[name] for row in rows) for name in varying}}


def growth_cases() -> list[tuple[tuple[int, int, int], int]]:
    """Growing volumes with as many classes, a growing number of classes, and the largest of both."""
    sizes = [(size, CLASSES) for size in (*SIZES, LARGE)]
    return [*sizes, *[((128, 128, 96), classes) for classes in (2, 15, MANY_CLASSES)], (LARGE, MANY_CLASSES)]


def measure_growth(cases, threads: int, full: bool, extra: dict | None = None) -> list[dict]:
    """Our own path for each (shape, classes), each in a process of its own."""
    common = {"subject": "prosma", "timed_tiles": None if full else TIMED_TILES, **(extra or {})}
    tasks = [{**common, "shape": shape, "classes": classes} for shape, classes in cases]
    return [measured_apart([task], threads)[0] for task in tasks]
