"""`prosma benchmark`: whole volumes and training steps beside other tools, growth, and a click; JSON and Markdown."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import sys
from pathlib import Path

from ..benchmarking import CLASSES, SHAPE
from ..errors import UserFacingError
from .common import MOST_THREADS, add_command, whole_number

PARTS = ("forward", "whole", "growth", "click", "training")
CLICK_SHAPE = (128, 128, 96)


def add_parser(commands) -> None:
    parser = add_command(
        commands,
        "benchmark",
        run,
        "measure the speed on this computer, beside MONAI and nnU-Net where they are installed",
        ["prosma benchmark", "prosma benchmark --only forward whole --json speed.json -o speed.md"],
        "Forward passes, whole volumes, growth, a click and training steps, side by side in one run. Quick: the network runs "
        "on the first tiles of each volume and the rest is counted.",
    )
    parser.add_argument("--full", action="store_true", help="compute every tile, in three rounds")
    parser.add_argument(
        "--rounds",
        type=whole_number(1),
        help="of forward passes (3), training steps (5), whole volumes (1; with --full 3)",
    )
    parser.add_argument(
        "--only", nargs="*", choices=PARTS, default=PARTS, help="what to measure (default: all; none: tables of --json)"
    )
    parser.add_argument(
        "--shape", nargs=3, type=whole_number(1), default=SHAPE, help="of the whole volume (default: 256 256 160)"
    )
    parser.add_argument("--classes", type=whole_number(2), default=CLASSES, help="with background")
    parser.add_argument(
        "--threads",
        type=whole_number(1, MOST_THREADS),
        help="of each process (default: all cores); with 1 processor time is compared",
    )
    parser.add_argument(
        "--python",
        type=_interpreter,
        default=sys.executable,
        help="interpreter that has MONAI and nnU-Net (default: this)",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write everything there, beside parts that an earlier --only left in it",
    )
    parser.add_argument(
        "-o",
        "--output",
        "--markdown",
        dest="markdown",
        type=Path,
        metavar="FILE",
        help="write the tables there, else they are printed",
    )


def _interpreter(text: str) -> str:
    """A path is taken from the folder where the command was given; its processes are started in another."""
    if shutil.which(text) is None:
        raise argparse.ArgumentTypeError(f"'{text}' is no program that can be started")
    return os.path.abspath(text) if os.path.dirname(text) else text


def run(options: argparse.Namespace) -> int:
    from ..batch.result_file import check_writable
    from ..benchmarking.machine import describe_machine
    from ..benchmarking.report import markdown
    from ..files import write_json, write_text
    from ..inference.devices import core_count

    for file in filter(None, (options.json, options.markdown)):  # before hours of work
        check_writable(file.parent)
    threads = options.threads or core_count()
    report = {
        "date": datetime.date.today().isoformat(),
        "machine": describe_machine(threads),
        "clock": "processor" if threads == 1 else "wall",
        "full": options.full,
        "rounds": options.rounds or (3 if options.full else 1),
    }
    if options.json:
        earlier = earlier_parts(options.json)
        report = {**same_processor(earlier, report, options.json), **report} if options.only else {**report, **earlier}
    for part in options.only:
        tell(f"measuring: {part}")
        report[part] = measured(part, options, threads, report["rounds"])
        if options.json:  # at once: the next part may take long
            write_json(options.json, report)
    if options.markdown:
        write_text(options.markdown, markdown(report))
    else:
        print(markdown(report))
    return 0


def tell(text: str) -> None:
    print(f"prosma: {text}", file=sys.stderr, flush=True)


def measured(part: str, options: argparse.Namespace, threads: int, rounds: int):
    """What one of PARTS measures."""
    from ..benchmarking.click import measure_click
    from ..benchmarking.forward import measure_forward
    from ..benchmarking.rounds import growth_cases, measure_growth, measure_whole
    from ..benchmarking.training import measure_training

    if part == "forward":
        return measure_forward(options.rounds or 3, threads)
    if part == "whole":
        shape = tuple(options.shape)
        return measure_whole(shape, options.classes, threads, options.python, options.full, tell, rounds=rounds)
    if part == "training":
        numbers = [options.threads] if options.threads else sorted({1, threads})
        return measure_training(options.rounds or 5, numbers, options.python, tell)
    if part == "growth":
        return measure_growth(growth_cases(), threads, options.full)
    return measure_click(SHAPE if options.full else CLICK_SHAPE, CLASSES, threads)


def earlier_parts(path: Path) -> dict:
    """What earlier runs wrote to the same file, and `notes` that a person added; UserFacingError for any other file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict) or "machine" not in content:
        raise UserFacingError(f"{path} holds something else than measurements of prosma benchmark. Name another file.")
    return content


def same_processor(earlier: dict, report: dict, path: Path) -> dict:
    """`earlier`; UserFacingError where it was measured on another processor than the report: tables never mix two."""
    before, now = (each.get("machine", {}).get("processor") for each in (earlier, report))
    if earlier and before != now:
        raise UserFacingError(
            f"{path} holds what was measured on another processor ({before or 'unknown'}), which would be lost. "
            "Name another file, or remove this one."
        )
    return earlier
