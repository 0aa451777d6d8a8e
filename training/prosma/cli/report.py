"""`prosma report`: what has become of a batch, as sentences and as tables."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from .common import add_command, whole_number


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
        type=whole_number(0),
        default=12,
        metavar="N",
        help="how many of the cases that the model was least sure of the page shows",
    )
    report.add_argument("--json", action="store_true", help="print everything that is known as JSON")


def run(options: argparse.Namespace) -> int:
    """One pass over the cases, of which none is kept but those that the page shows with pictures."""
    from ..batch.least_sure import LeastSure
    from ..batch.page import write_html
    from ..batch.report import Report, rows_of
    from ..batch.tables import Rows, need_pyarrow, summary, write_csv, write_parquet

    report = Report(options.folder)
    if options.parquet is not None:
        need_pyarrow()
    tables = [path for path in (options.csv, options.parquet, options.html) if path is not None]
    place = tables[0].parent if tables else Path(tempfile.gettempdir())
    doubtful = LeastSure(options.pictures if options.html else 0)
    with Rows(place) as rows, Rows(place) as failures:
        printed = JsonReport(report) if options.json else None
        for case in report.cases():
            for row in rows_of(case) if tables else ():
                rows.add(row)
            if "error" in case:
                failures.add({"case": case["case"], "why": case["error"]["message"]})
            doubtful.add(case)
            if printed:
                printed.add(case)
        if printed:
            printed.close()
        told = summary(report.states, report.not_tried)
        if options.csv is not None:
            write_csv(options.csv, rows)
        if options.parquet is not None:
            write_parquet(options.parquet, rows)
        if options.html is not None:
            write_html(options.html, str(options.folder), told, rows, failures, doubtful.cases)
        if not printed:
            print(told)
            for failure in failures:
                print(f"    {failure['case']}: {failure['why']}")
    return 0


class JsonReport:
    """Prints a report, {"folder", "cases": [...], "not_tried"}, as its cases come."""

    def __init__(self, report) -> None:
        self._report, self._separator = report, "\n"
        print(f'{{"folder": {json.dumps(str(report.folder))}, "cases": [', end="")

    def add(self, case: dict) -> None:
        print(f"{self._separator}{json.dumps(case)}", end="")
        self._separator = ",\n"

    def close(self) -> None:
        print(f'\n], "not_tried": {self._report.not_tried}}}')
