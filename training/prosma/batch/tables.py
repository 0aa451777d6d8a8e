"""The table of a cohort as CSV and Parquet, a row for each segment of each case; how far it has come; means over cases."""

from __future__ import annotations

import csv
import itertools
import json
import statistics
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ..errors import EngineError
from ..files import as_utf8, replaced_when_whole
from .report import FAILED

GROUP = 10_000  # rows of a Parquet file that are in memory at once

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


class Rows:
    """Rows of a table on their way to files: they lie on a disk, and may have different columns. Use it in a `with`.

    `columns`: those of all rows, in the order in which they came.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile("w+", encoding="utf-8", dir=folder)  # noqa: SIM115 - `__exit__` closes it
        self._columns: dict[str, None] = {}
        self._count = 0

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *_exception) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._count

    @property
    def columns(self) -> list[str]:
        return list(self._columns) or ["case"]

    def add(self, row: dict) -> None:
        self._file.write(f"{json.dumps(row)}\n")
        self._columns.update(dict.fromkeys(row))
        self._count += 1

    def __iter__(self) -> Iterator[dict]:
        """Each row with all columns."""
        self._file.seek(0)
        for line in self._file:
            row = json.loads(line)
            yield {column: as_utf8(row.get(column)) for column in self.columns}


def write_csv(path: Path, rows: Rows) -> None:
    """UTF-8, a header, empty cells for what is not known; whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_when_whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def need_pyarrow():
    """The package; EngineError where it is not there."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        why = "Parquet files need the package pyarrow, which is not installed."
        raise EngineError("bad_output", why, "Install it with: pip install pyarrow. Or write --csv.") from error
    return pyarrow


def write_parquet(path: Path, rows: Rows) -> None:
    """With the types text, whole number and number, in groups of rows. EngineError where pyarrow is not there."""
    pyarrow = need_pyarrow()
    schema = pyarrow.schema([(column, _type_of(pyarrow, column)) for column in rows.columns])
    path.parent.mkdir(parents=True, exist_ok=True)
    every = iter(rows)
    with replaced_when_whole(path) as temporary, pyarrow.parquet.ParquetWriter(temporary, schema) as writer:
        while group := list(itertools.islice(every, GROUP)):
            writer.write_table(pyarrow.Table.from_pylist(group, schema))


def _type_of(pyarrow, column: str):
    if column in TEXTS or column.endswith("_sha256"):
        return pyarrow.string()
    return pyarrow.int64() if column in WHOLE or column.endswith(("_low", "_high")) else pyarrow.float64()


def summary(states: Counter[str], not_tried: int) -> str:
    """One sentence on how far the batch has come."""
    cases, failed = states.total(), states[FAILED]
    parts = [f"{cases - failed} of {cases + not_tried} cases are done"]
    for state, what in (("edited", "edited since"), ("missing", "gone since")):
        if states[state]:
            parts[0] += f" ({states[state]} {what})"
    if failed:
        parts.append(f"{failed} failed")
    if not_tried:
        parts.append(f"{not_tried} have not been tried or are at work")
    return ", ".join(parts) + "."


def spread(rows: Iterable[dict]) -> list[dict]:
    """For each segment how many cases have it, and mean, deviation (sample), least and most of its size over those."""
    found: dict[tuple, array] = {}
    for row in rows:
        if row["voxels"]:
            unit = "voxels" if row["ml"] is None else "ml"
            found.setdefault((row["model"], row["segment"], unit), array("d")).append(row[unit])
    return [
        {
            "model": model,
            "segment": segment,
            "in": unit,
            "cases": len(sizes),
            "mean": round(statistics.fmean(sizes), 4),
            "deviation": round(float(np.std(sizes, ddof=1)), 4) if len(sizes) > 1 else None,
            "least": min(sizes),
            "most": max(sizes),
        }
        for (model, segment, unit), sizes in found.items()
    ]
