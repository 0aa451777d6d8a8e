"""How good a model package is on labelled images: overlap and surfaces per case and label, with intervals."""

from __future__ import annotations

import csv
import io
import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ... import __version__
from ...files import write_text
from ...inference.segmenter import Segmenter
from ...package import ModelPackage
from ..data.dataset import IGNORED, Case, LabelledFolder, check_label_names, read_case
from .surfaces import surface_metrics

METRICS = ("dice", "iou", "precision", "recall", "volume_error", "hd95", "nsd")
NSD_TOLERANCE = 1.0
BOOTSTRAPS = 2000


def overlap_metrics(predicted: np.ndarray, reference: np.ndarray, voxel_ml: float | None) -> dict[str, float | None]:
    """Of two boolean arrays of one shape. None where a ratio is undefined (both empty, or nothing to divide by).

    ``volume_error`` is predicted minus reference, in ml; None without ``voxel_ml``, for images without voxel size.
    """
    hit, found, there = counts(predicted, reference)
    return {
        "dice": ratio(2 * hit, found + there),
        "iou": ratio(hit, found + there - hit),
        "precision": ratio(hit, found),
        "recall": ratio(hit, there),
        "volume_error": None if voxel_ml is None else (found - there) * voxel_ml,
    }


def counts(predicted: np.ndarray, reference: np.ndarray) -> tuple[int, int, int]:
    """Voxels in both of two boolean arrays, in the first, in the second."""
    hit, found, there = (int(np.count_nonzero(mask)) for mask in (predicted & reference, predicted, reference))
    return hit, found, there


def ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


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


def distance_unit(cases: Sequence[Case]) -> str:
    """``mm``; ``px`` where the images have no voxel size; ``nominal mm`` where it is a guess and not to be relied on."""
    if any(case.is_photograph for case in cases):
        return "px"
    return "nominal mm" if any(case.nominal_spacing for case in cases) else "mm"


def evaluate_case(
    segmenter: Segmenter, case: Case, unit: str = "mm", nsd_tolerance: float = NSD_TOLERANCE, all_parts: bool = False
) -> dict:
    """One case through the whole inference path, compared on the image's own grid. Raises DatasetError, EngineError.

    Voxels that the reference leaves out (IGNORED) count in no metric. `all_parts`: see `Segmenter.segment`.
    Distances are by the image's own spacing, or in pixels if ``unit`` is ``px``.
    """
    model = segmenter.package.model
    image, reference = read_case(case, model)
    result = segmenter.segment(image, refuse_unfit=False, all_parts=all_parts)
    predicted = np.where(reference == IGNORED, 0, result.labels)
    spacing, voxel_ml = ((1.0, 1.0, 1.0), None) if unit == "px" else (image.spacing, image.voxel_ml)
    labels, voxels = {}, {}
    for label in model["labels"]:
        masks = predicted == label["value"], reference == label["value"]
        labels[label["name"]] = {
            **overlap_metrics(*masks, voxel_ml),
            **surface_metrics(*masks, spacing, nsd_tolerance),
        }
        voxels[label["name"]] = counts(*masks)
    mean = {
        metric: average([values[metric] for values in labels.values()])
        for metric in METRICS
        if metric != "volume_error"
    }
    return {
        "case": case.id,
        "mean": mean,
        "labels": labels,
        "voxels": voxels,
        "seconds": round(result.seconds["total"], 3),
        "removed_share": result.statistics.get("removed_share"),
        "levels": result.statistics.get("levels", []),
    }


def evaluate(
    package: ModelPackage,
    data: str | os.PathLike | Sequence[str | os.PathLike],
    split: str = "test",
    *,
    fold: int = 0,
    device: str = "auto",
    nsd_tolerance: float = NSD_TOLERANCE,
    all_parts: bool = False,
    progress: Callable[[int, int, dict], None] = lambda done, total, case: None,
) -> dict:
    """Evaluate on one split of a labelled folder, or of several; returns what `prosma evaluate --json` writes.

    ``mean`` is the mean over cases of each case's mean over labels; ``interval`` its bootstrap 95 % interval. What is
    undefined is None and enters no mean; ``<metric>_cases`` counts the cases that do. Distances and ``nsd_tolerance``
    are in the unit that ``surface`` names (see `distance_unit`).
    """
    folder = LabelledFolder.open(data, fold)
    check_label_names(folder, package.labels, package.id)
    cases = folder.split(split)
    unit = distance_unit(cases)
    segmenter = Segmenter(package, device)
    started = time.monotonic()
    rows = []
    for case in cases:
        rows.append(evaluate_case(segmenter, case, unit, nsd_tolerance, all_parts))
        progress(len(rows), len(cases), rows[-1])
    names = [label["name"] for label in package.labels]
    return {
        "model": package.id,
        "version": package.version,
        "sha256": package.sha256,
        "prosma": __version__,
        "data": folder.name,
        "split": split,
        "cases": len(rows),
        "mean": summary([row["mean"] for row in rows]),
        "labels": {name: summary([row["labels"][name] for row in rows]) for name in names},
        "presence": {name: presence(rows, name) for name in names},
        "pooled": pooled(rows, names) if package.dimension == 2 else None,
        "surface": {"unit": unit, "nsd_tolerance": nsd_tolerance},
        "gate": gate_summary(rows),
        "seconds": {"total": round(time.monotonic() - started, 1), "per_case": average([r["seconds"] for r in rows])},
        "device": segmenter.device,
        "hardware": f"{segmenter.device}, {os.cpu_count()} cores, {platform.machine()}",
        "per_case": [{key: row[key] for key in ("case", "mean", "labels", "seconds")} for row in rows],
    }


def presence(rows: Sequence[dict], name: str) -> dict:
    """Results on the cases whose reference has a label, and false alarms on those that have none."""
    there = [row["labels"][name] for row in rows if row["voxels"][name][2]]
    absent = [row["voxels"][name] for row in rows if not row["voxels"][name][2]]
    return {
        "cases": len(there),
        "dice": average([values["dice"] for values in there]),
        "iou": average([values["iou"] for values in there]),
        "iou_interval": bootstrap_interval([values["iou"] for values in there]),
        "cases_without": len(absent),
        "false_alarms": sum(found > 0 for _, found, _ in absent),
    }


def pooled(rows: Sequence[dict], names: Sequence[str]) -> dict:
    """IoU and F1 over the pixels of all images together, for each label and as the mean over labels."""
    labels = {}
    for name in names:
        hit, found, there = (sum(column) for column in zip(*(row["voxels"][name] for row in rows), strict=True))
        labels[name] = {"iou": ratio(hit, found + there - hit), "f1": ratio(2 * hit, found + there)}
    mean = {metric: average([values[metric] for values in labels.values()]) for metric in ("iou", "f1")}
    return {"mean": mean, "labels": labels}


def summary(rows: Sequence[dict]) -> dict:
    """For each metric the mean, median and bootstrap 95 % interval over cases, and the number of cases that have it."""
    result: dict[str, Any] = {}
    for metric in rows[0] if rows else ():
        values = [row[metric] for row in rows]
        defined = [value for value in values if value is not None]
        result[metric] = average(values)
        result[f"{metric}_median"] = float(np.median(defined)) if defined else None
        result[f"{metric}_interval"] = bootstrap_interval(values)
        result[f"{metric}_cases"] = len(defined)
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
        rest = other_metrics(values, report["surface"], report["cases"])
        lines.append(", ".join([f"  {name:{width}}  Dice {text}", *rest]))
    for name, found in report["presence"].items():
        if found["cases"] and found["cases_without"]:
            lines.append(
                f"  {name}, {found['cases']} cases that have it: Dice {found['dice']:.4f}, IoU {found['iou']:.4f}; "
                f"{found['false_alarms']} false alarms in {found['cases_without']} cases without it"
            )
    if report["pooled"] and report["pooled"]["mean"]["iou"] is not None:
        mean = report["pooled"]["mean"]
        lines.append(f"  all pixels together: IoU {mean['iou']:.4f}, F1 {mean['f1']:.4f}")
    removed = report["gate"]["removed_share"]
    if removed is not None and not math.isnan(removed):
        lines.append(f"  the gates removed {100 * removed:.1f} % of the skip features")
    return "\n".join(lines)


def other_metrics(values: dict, surface: dict, cases: int) -> list[str]:
    """IoU and surface metrics of a summary, as far as they are defined."""
    parts = []
    if values["iou"] is not None:
        parts.append(f"IoU {values['iou']:.4f}")
    if values["hd95"] is not None:
        some = f" (in {values['hd95_cases']} of {cases} cases)" if values["hd95_cases"] < cases else ""
        parts.append(f"HD95 {values['hd95']:.2f} {surface['unit']}{some}")
    if values["nsd"] is not None:
        parts.append(f"NSD at {surface['nsd_tolerance']:g} {surface['unit']} {values['nsd']:.4f}")
    return parts


def write_csv(path: str | os.PathLike, report: dict) -> None:
    """One row for each case and label; what is undefined stays empty. Distances are in the unit of the last column."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["case", "label", *METRICS, "seconds", "distance_unit"])
    for case in report["per_case"]:
        for label, values in case["labels"].items():
            numbers = ["" if values[metric] is None else values[metric] for metric in METRICS]
            writer.writerow([case["case"], label, *numbers, case["seconds"], report["surface"]["unit"]])
    write_text(path, table.getvalue())
