"""The table of a cohort as CSV and Parquet, a row for each segment of each case; how far it has come; means over cases."""

from __future__ import annotations

import csv
import io
import statistics
from pathlib import Path

from ..errors import EngineError
from ..files import replaced_when_whole, write_text
from .report import FAILED, rows_of

TEXTS = {
    "case",
    "state",
    "segment",
    "quality",
    "error",
    "notices",
    "fit",
    "fit_reasons",
    "device",
    "model",
    "version",
    "written",
    "output",
    "inputs",
}
WHOLE = {"label", "voxels"}


def write_csv(path: Path, report: dict) -> None:
    """UTF-8, a header, empty cells for what is not known; whole or not at all."""
    rows, text = rows_of(report), io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["case"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_parquet(path: Path, report: dict) -> None:
    """With the types text, whole number and number. EngineError where pyarrow is not there."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        why = "Parquet files need the package pyarrow, which is not installed."
        raise EngineError("bad_output", why, "Install it with: pip install pyarrow. Or write --csv.") from error
    rows = rows_of(report)
    columns = list(rows[0]) if rows else ["case"]
    schema = pyarrow.schema([(column, _type_of(pyarrow, column)) for column in columns])
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_when_whole(path) as temporary:
        parquet.write_table(pyarrow.Table.from_pylist(rows, schema), temporary)


def _type_of(pyarrow, column: str):
    if column in TEXTS or column.endswith("_sha256"):
        return pyarrow.string()
    return pyarrow.int64() if column in WHOLE or column.endswith(("_low", "_high")) else pyarrow.float64()


def summary(report: dict) -> str:
    """One sentence on how far the batch has come."""
    cases = report["cases"]
    states = [case["state"] for case in cases]
    failed = states.count(FAILED)
    parts = [f"{len(cases) - failed} of {len(cases) + report['not_tried']} cases are done"]
    for count, what in (
        (states.count("edited"), "edited since"),
        (states.count("missing"), "gone since"),
    ):
        if count:
            parts[0] += f" ({count} {what})"
    if failed:
        parts.append(f"{failed} failed")
    if report["not_tried"]:
        parts.append(f"{report['not_tried']} have not been tried or are at work")
    return ", ".join(parts) + "."


def spread(rows: list[dict]) -> list[dict]:
    """For each segment how many cases have it, and mean, deviation (sample), least and most of its size over those."""
    found: dict[tuple, list[float]] = {}
    for row in rows:
        if row["voxels"]:
            unit = "voxels" if row["ml"] is None else "ml"
            found.setdefault((row["model"], row["segment"], unit), []).append(row[unit])
    return [
        {
            "model": model,
            "segment": segment,
            "in": unit,
            "cases": len(sizes),
            "mean": round(statistics.fmean(sizes), 4),
            "deviation": round(statistics.stdev(sizes), 4) if len(sizes) > 1 else None,
            "least": min(sizes),
            "most": max(sizes),
        }
        for (model, segment, unit), sizes in found.items()
    ]
