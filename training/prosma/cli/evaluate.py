"""`prosma evaluate`: a model measured on labelled images."""

from __future__ import annotations

import argparse

from .common import (
    ALL_PARTS_HELP,
    FOLD_HELP,
    MODEL_HELP,
    SEVERAL_HELP,
    add_command,
    add_device,
    add_licence,
    check_data,
    insist_on_device,
    positive,
    print_case,
    whole_number,
)


def add_parser(commands) -> None:
    examples = ["prosma evaluate hippocampus-mr --data DATA --split test -o results.json --csv results.csv"]
    evaluate = add_command(commands, "evaluate", run, "measure a model on a labelled folder", examples)
    evaluate.add_argument("model", help=MODEL_HELP)
    evaluate.add_argument("--data", required=True, action="append", help=SEVERAL_HELP)
    evaluate.add_argument("--split", default="test", help="train, val, test or all")
    evaluate.add_argument("--fold", type=whole_number(0), default=0, help=FOLD_HELP)
    add_device(evaluate)
    add_licence(evaluate)
    evaluate.add_argument("--nsd-mm", type=positive, default=1.0, help="tolerance of the surface Dice, in mm")
    evaluate.add_argument("--all-parts", action="store_true", help=ALL_PARTS_HELP)
    evaluate.add_argument(
        "-o", "--output", "--json", dest="json", metavar="FILE", help="write the full report here (JSON)"
    )
    evaluate.add_argument("--csv", metavar="FILE", help="write a row for each case and label here")
    evaluate.add_argument("--sheet", metavar="FILE", help="draw the best, median and worst case here (PNG)")


def run(options: argparse.Namespace) -> int:
    from ..package import resolve
    from .licence_question import check_licence

    package = resolve(options.model)
    check_licence(package, options.accept_licence)
    check_data(options.data, options.fold)
    insist_on_device(options.device)
    from ..files import write_json
    from ..learning.judge.evaluation import describe, evaluate, write_csv

    report = evaluate(
        package,
        options.data,
        options.split,
        fold=options.fold,
        device=options.device,
        nsd_tolerance=options.nsd_mm,
        all_parts=options.all_parts,
        progress=print_case,
    )
    print(describe(report))
    if options.json:
        write_json(options.json, report)
    if options.csv:
        write_csv(options.csv, report)
    if options.sheet:
        draw_sheet(package, options, report)
    return 0


def draw_sheet(package, options: argparse.Namespace, report: dict) -> None:
    from ..inference.segmenter import Segmenter
    from ..learning.data.dataset import LabelledFolder
    from ..learning.report.sheet import write_sheet

    segmenter = Segmenter(package, options.device)
    write_sheet(options.sheet, segmenter, LabelledFolder.open(options.data, options.fold), report)
