"""`prosma report`: what has become of a batch, as sentences and as tables."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .common import add_command


def add_parser(commands) -> None:
    report = add_command(
        commands,
        "report",
        run,
        "tell what has become of a batch, and write its measures as tables",
        ["prosma report results/", "prosma report results/ --csv cohort.csv --html cohort.html"],
        "From the records in the folder of results: also of a batch that was killed or is still at work. Surface, centroid, "
        "bounding box and intensities are in it after `prosma segment --statistics`.",
    )
    report.add_argument("folder", type=Path, metavar="RESULTS", help="folder that segment -o named")
    report.add_argument(
        "-o", "--csv", dest="csv", type=Path, metavar="FILE", help="write a row for each case and segment"
    )
    report.add_argument("--parquet", type=Path, metavar="FILE", help="the same as Parquet; needs pyarrow")
    report.add_argument("--html", type=Path, metavar="FILE", help="the same as a page, with means over the cases")
    report.add_argument(
        "--pictures",
        type=int,
        default=12,
        metavar="N",
        help="how many of the cases that the model was least sure of the page shows",
    )
    report.add_argument("--json", action="store_true", help="print everything that is known as JSON")


def run(options: argparse.Namespace) -> int:
    from ..batch.report import report_on
    from ..batch.tables import summary, write_csv, write_parquet

    report = report_on(options.folder)
    for path, write in ((options.csv, write_csv), (options.parquet, write_parquet)):
        if path is not None:
            write(path, report)
    if options.html is not None:
        from ..batch.page import write_html

        write_html(options.html, report, options.pictures)
    if options.json:
        print(json.dumps(report, indent=1))
        return 0
    print(summary(report))
    for case in report["cases"]:
        if "error" in case:
            print(f"    {case['case']}: {case['error']['message']}")
    return 0
