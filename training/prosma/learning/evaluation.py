"""How good a model package is on labelled images: overlap per case and label, with intervals."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Sequence

import numpy as np

from .. import __version__
from ..bundle import ModelPackage
from ..segmenter import Segmenter
from .dataset import Case, LabelledFolder, read_case

METRICS = ("dice", "iou", "precision", "recall", "volume_error")
BOOTSTRAPS = 2000


def overlap_metrics(predicted: np.ndarray, reference: np.ndarray, voxel_ml: float) -> dict[str, float | None]:
    """Of two boolean arrays of one shape. None where a ratio is undefined (both empty, or nothing to divide by).

    ``volume_error`` is predicted minus reference, in ml.
    """
    hit = int(np.count_nonzero(predicted & reference))
    found, there = int(np.count_nonzero(predicted)), int(np.count_nonzero(reference))

    def ratio(part: float, whole: float) -> float | None:
        return part / whole if whole else None

    return {
        "dice": ratio(2 * hit, found + there),
        "iou": ratio(hit, found + there - hit),
        "precision": ratio(hit, found),
        "recall": ratio(hit, there),
        "volume_error": (found - there) * voxel_ml,
    }


def average(values: Sequence[float | None]) -> float | None:
    """Mean of the defined values; None if there is none."""
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def bootstrap_interval(values: Sequence[float | None], seed: int = 0) -> list[float] | None:
    """95 % interval of the mean over cases, from resampling cases with replacement."""
    defined = np.array([value for value in values if value is not None])
    if defined.size == 0:
        return None
    means = np.random.default_rng(seed).choice(defined, (BOOTSTRAPS, defined.size)).mean(axis=1)
    return [float(limit) for limit in np.percentile(means, (2.5, 97.5))]


def evaluate_case(segmenter: Segmenter, case: Case) -> dict:
    """One case through the whole inference path, compared on the image's own grid. Raises DatasetError, EngineError."""
    model = segmenter.package.model
    image, reference = read_case(case, model)
    result = segmenter.segment(image)
    labels = {
        label["name"]: overlap_metrics(result.labels == label["value"], reference == label["value"], image.voxel_ml)
        for label in model["labels"]
    }
    mean = {
        metric: average([values[metric] for values in labels.values()])
        for metric in METRICS
        if metric != "volume_error"
    }
    return {
        "case": case.id,
        "mean": mean,
        "labels": labels,
        "seconds": round(result.seconds["total"], 3),
        "removed_share": result.statistics.get("removed_share"),
        "levels": result.statistics.get("levels", []),
    }


def evaluate(
    package: ModelPackage,
    data: str | os.PathLike,
    split: str = "test",
    *,
    device: str = "auto",
    progress: Callable[[int, int, dict], None] = lambda done, total, case: None,
) -> dict:
    """Evaluate on one split of a labelled folder; returns what `prosma evaluate --json` writes.

    ``mean`` is the mean over cases of each case's mean over labels; ``interval`` its bootstrap 95 % interval.
    """
    cases = LabelledFolder.open(data).split(split)
    segmenter = Segmenter(package, device)
    started = time.monotonic()
    rows = []
    for case in cases:
        rows.append(evaluate_case(segmenter, case))
        progress(len(rows), len(cases), rows[-1])
    names = [label["name"] for label in package.labels]
    return {
        "model": package.id,
        "version": package.version,
        "sha256": package.sha256,
        "prosma": __version__,
        "split": split,
        "cases": len(rows),
        "mean": summary([row["mean"] for row in rows]),
        "labels": {name: summary([row["labels"][name] for row in rows]) for name in names},
        "gate": gate_summary(rows),
        "seconds": {"total": round(time.monotonic() - started, 1), "per_case": average([r["seconds"] for r in rows])},
        "hardware": f"{segmenter.device}, {os.cpu_count()} cores, {platform.machine()}",
        "per_case": [{key: row[key] for key in ("case", "mean", "labels", "seconds")} for row in rows],
    }


def summary(rows: Sequence[dict]) -> dict:
    """For each metric the mean, median and bootstrap 95 % interval over cases."""
    result = {}
    for metric in rows[0] if rows else ():
        values = [row[metric] for row in rows]
        defined = [value for value in values if value is not None]
        result[metric] = average(values)
        result[f"{metric}_median"] = float(np.median(defined)) if defined else None
        result[f"{metric}_interval"] = bootstrap_interval(values)
    return result


def gate_summary(rows: Sequence[dict]) -> dict:
    """Mean over cases of what the gates removed, in all and per level (coarse to fine)."""
    levels = [row["levels"] for row in rows if row["levels"]]
    return {
        "removed_share": average([row["removed_share"] for row in rows]),
        "levels": [
            {key: average([level[key] for level in column]) for key in ("zeros", "ones", "mean")}
            for column in zip(*levels, strict=True)
        ],
    }


def describe(report: dict) -> str:
    """A few lines for a person."""
    lines = [f"{report['model']} {report['version']}, split '{report['split']}', {report['cases']} cases"]
    rows = {"mean over labels": report["mean"], **report["labels"]}
    width = max(map(len, rows))
    for name, values in rows.items():
        dice, interval = values["dice"], values["dice_interval"]
        text = "undefined" if dice is None else f"{dice:.4f}  (95 % {interval[0]:.4f} to {interval[1]:.4f})"
        lines.append(f"  {name:{width}}  Dice {text}")
    removed = report["gate"]["removed_share"]
    if removed is not None and not math.isnan(removed):
        lines.append(f"  the gates removed {100 * removed:.1f} % of the skip features")
    return "\n".join(lines)
