"""What speed costs in accuracy, case by case: Dice with the defaults (fast network, in half precision where this computer
takes that) against the plain network in float32 with overlap 0.5 and no shortcuts.

    python Testing/benchmarks/shortcuts.py MODEL DATA [--split test] [--cases 3] [--json FILE]

DATA is a labelled folder as for `prosma evaluate`. The bar: a mean Dice within 0.002.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

from prosma.files import write_json
from prosma.inference.segmenter import Segmenter
from prosma.learning.data.dataset import LabelledFolder, read_case
from prosma.learning.judge.evaluation import overlap_metrics
from prosma.package import resolve


def mean_dice(labels: np.ndarray, reference: np.ndarray, values: list[int]) -> float:
    """Mean over the labels of a case; a label that neither has counts nothing, and a case without any has 1."""
    found = [overlap_metrics(labels == value, reference == value, None)["dice"] for value in values]
    return statistics.fmean([dice for dice in found if dice is not None] or [1.0])


def plain(segmenter: Segmenter) -> Segmenter:
    """The same with its network as it was trained, in float32."""
    segmenter.network = segmenter.network.plain
    return segmenter


def compare(segmenter: Segmenter, thorough: Segmenter, case, overlap: float | None) -> dict:
    """One case both ways: Dice, seconds of processor time, tiles, and the share of voxels with another label."""
    image, reference = read_case(case, segmenter.package.model)
    values = [label["value"] for label in segmenter.package.labels]
    labels, row = {}, {"case": case.id}
    ways = {
        "thorough": (thorough, {"overlap": 0.5, "shortcuts": False}),
        "default": (segmenter, {"overlap": overlap}),
    }
    for name, (way, options) in ways.items():
        began = time.process_time()
        result = way.segment(image, **options)
        labels[name] = result.labels
        row[name] = {
            "dice": mean_dice(result.labels, reference, values),
            "processor_seconds": round(time.process_time() - began, 2),
            "tiles": result.statistics["of_tiles"],
            "tile": result.statistics["tile"],
        }
    return {**row, "other_labels": float((labels["thorough"] != labels["default"]).mean())}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--cases", type=int, help="so many from the beginning of the split (default: all)")
    parser.add_argument("--overlap", type=float, help="instead of the default")
    parser.add_argument("--json", type=Path, help="write the report there")
    options = parser.parse_args(arguments)
    segmenter, thorough = Segmenter(resolve(options.model), "cpu"), plain(Segmenter(resolve(options.model), "cpu"))
    print(f"{segmenter.package.id}, defaults in {'half precision' if segmenter.network.half_on else 'float32'}")
    rows = []
    for case in LabelledFolder.open(options.data).split(options.split)[: options.cases]:
        rows.append(compare(segmenter, thorough, case, options.overlap))
        print(json.dumps(rows[-1]), flush=True)
    difference = statistics.fmean(row["default"]["dice"] - row["thorough"]["dice"] for row in rows)
    report = {"model": segmenter.package.id, "overlap": options.overlap, "dice_difference": difference, "cases": rows}
    print(f"Dice with the defaults minus Dice of the plain way: {difference:+.4f}")
    if options.json:
        write_json(options.json, report)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
