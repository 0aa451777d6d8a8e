"""What the runs of a comparison show: paired differences, degradations, sparsity, as JSON, Markdown and a figure."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ... import __version__
from ...files import write_json, write_text
from ..compare.comparing import CLEAN, METRICS, ComparisonError, all_runs, condition_name
from ..compare.grid import Grid
from ..compare.paired import estimate, paired
from .curves import draw
from .tables import comparison_text


def write_report(grid: Grid, out: str | os.PathLike) -> Path:
    """Write comparison.json, .md and .png from the finished runs in ``out``; the path of the Markdown file.

    Raises ComparisonError if there is nothing to compare yet.
    """
    out = Path(out)
    content = comparison(grid, out)
    write_json(out / "comparison.json", content)
    draw(content, out / "comparison.png")
    text = out / "comparison.md"
    write_text(text, comparison_text(content) + "\n")
    return text


class Scores:
    """Scores of all finished runs as arrays over seeds and cases."""

    def __init__(self, grid: Grid, out: Path) -> None:
        found = {(run.variant, run.seed): run.scores() for run in all_runs(grid, out)}
        self.runs = {key: scores for key, scores in found.items() if scores}
        self.late_gains = {(run.variant, run.seed): run.late_gain() for run in all_runs(grid, out)}
        self.missing = [run.name for run in all_runs(grid, out) if (run.variant, run.seed) not in self.runs]
        if not any(variant == grid.reference for variant, _ in self.runs):
            raise ComparisonError(
                f"'{out}' holds no finished run of '{grid.reference}', which others are compared with."
            )
        first = next(iter(self.runs.values()))
        if any(scores["cases"] != first["cases"] for scores in self.runs.values()):
            raise ComparisonError(
                f"The runs in '{out}' were scored on different cases. Use one --out for each data set."
            )
        self.cases, self.data = first["cases"], first["data"]
        self.labelled = np.array(first["labelled"])
        self.variants = [name for name in grid.variants if self.seeds(name)]

    def seeds(self, *variants: str) -> list[int]:
        """Seeds that all of these variants have finished."""
        seeds = list(dict.fromkeys(seed for _, seed in self.runs))
        return [seed for seed in seeds if all((variant, seed) in self.runs for variant in variants)]

    def array(self, variant: str, seeds: list[int], condition: str, measure: str) -> np.ndarray:
        """(seeds, cases); the cases of a measure are all, or those that have a label."""
        metric, _, labelled = measure.partition("_")
        array = np.array([self.runs[variant, seed]["scores"][condition][metric] for seed in seeds])
        return array[:, self.labelled] if labelled else array

    @property
    def measures(self) -> list[str]:
        """Each metric over all cases; where some of them have a label, and others none, also over those that have one."""
        return [*METRICS, *((f"{metric}_labelled" for metric in METRICS) if self.differ else ())]

    @property
    def differ(self) -> bool:
        """Whether some cases have a label and others none."""
        return bool(self.labelled.any() and not self.labelled.all())

    def each(self, variant: str, key: str) -> list:
        """An entry of each finished run of a variant."""
        return [self.runs[variant, seed][key] for seed in self.seeds(variant)]

    def late_gain(self, variant: str) -> float | None:
        """Mean over the seeds of what validation gained in the last third of the training; None where that is not known."""
        gains = [self.late_gains[variant, seed] for seed in self.seeds(variant)]
        known = [gain for gain in gains if gain is not None]
        return round(float(np.mean(known)), 4) if len(known) == len(gains) else None

    def estimates(self, variant: str, condition: str, measures: list[str]) -> dict:
        seeds = self.seeds(variant)
        return {measure: estimate(self.array(variant, seeds, condition, measure)) for measure in measures}

    def differences(self, variant: str, other: str, condition: str, measures: list[str]) -> dict:
        seeds = self.seeds(variant, other)
        return {
            measure: paired(*(self.array(name, seeds, condition, measure) for name in (variant, other)))
            for measure in measures
        }


def comparison(grid: Grid, out: Path) -> dict:
    """Content of comparison.json; it holds everything that tables and figure are made from."""
    scores = Scores(grid, out)
    metric = "dice" if grid.base["model"]["dimension"] == 3 else "iou"
    measure = f"{metric}_labelled" if scores.differ else metric
    pairs = [pair for pair in grid.comparisons if scores.seeds(*pair)]
    return {
        "kind": "comparison",
        "name": grid.name,
        "title": grid.title,
        "prosma": __version__,
        "data": scores.data,
        "split": grid.split,
        "cases": len(scores.cases),
        "labelled": int(scores.labelled.sum()),
        "measure": measure,
        "reference": grid.reference,
        "missing": scores.missing,
        "hardware": sorted({run["hardware"] for run in scores.runs.values()}),
        "settings": settings(grid),
        "variants": {name: variant_results(scores, name) for name in scores.variants},
        "differences": [
            {
                "variant": name,
                "reference": other,
                "seeds": scores.seeds(name, other),
                **scores.differences(name, other, CLEAN, scores.measures),
            }
            for name, other in pairs
        ],
        "degradations": [degraded(scores, pairs, measure, *condition) for condition in grid.conditions],
        "per_case": per_case(scores, metric),
    }


def settings(grid: Grid) -> dict:
    """What all variants share."""
    model, fitting = grid.base["model"], grid.base["fitting"]
    return {
        "features": grid.base["network"].get("features"),
        "patch_size": model["patch_size"],
        "resize": model.get("resize"),
        "spacing": model.get("spacing"),
        "steps": fitting["epochs"] * fitting["iterations"],
        "batch_size": fitting["batch_size"],
        "optimizer": fitting["optimizer"],
        "learning_rate": fitting["learning_rate"],
    }


def variant_results(scores: Scores, name: str) -> dict:
    gates = [gate[CLEAN] for gate in scores.each(name, "gates")]
    levels = [[level["zeros"] for level in gate["levels"]] for gate in gates]
    found = scores.estimates(name, CLEAN, scores.measures)
    for measure in found:
        means = scores.array(name, scores.seeds(name), CLEAN, measure).mean(axis=1)
        found[measure]["seeds"] = [round(float(mean), 5) for mean in means]
    return {
        "network": scores.each(name, "network")[0],
        "seeds": scores.seeds(name),
        "parameters": scores.each(name, "parameters")[0],
        "late_gain": scores.late_gain(name),
        "seconds": round(float(np.mean(scores.each(name, "seconds")))),
        "seconds_per_case": round(float(np.mean(scores.each(name, "seconds_per_case"))), 3),
        "zeros": [round(float(share), 4) for share in np.mean(levels, axis=0)],
        "false_alarms": false_alarms(scores, name),
        **found,
    }


def false_alarms(scores: Scores, name: str) -> float | None:
    """Share of the cases without any label in which something was found; None where all cases have one."""
    if scores.labelled.all():
        return None
    dice = scores.array(name, scores.seeds(name), CLEAN, "dice")[:, ~scores.labelled]
    return round(float((dice < 1).mean()), 4)


def degraded(scores: Scores, pairs: list[tuple[str, str]], measure: str, kind: str, level: float) -> dict:
    """Scores and differences in this measure, under one condition."""
    condition = condition_name(kind, level)
    return {
        "kind": kind,
        "level": level,
        "variants": {name: scores.estimates(name, condition, [measure]) for name in scores.variants},
        "differences": [
            {"variant": name, "reference": other, **scores.differences(name, other, condition, [measure])}
            for name, other in pairs
        ],
    }


def per_case(scores: Scores, metric: str) -> dict:
    """The score of each case in each run, on images as they are."""
    return {
        "cases": scores.cases,
        "labelled": scores.labelled.astype(int).tolist(),
        metric: {f"{variant}-seed{seed}": run["scores"][CLEAN][metric] for (variant, seed), run in scores.runs.items()},
    }
