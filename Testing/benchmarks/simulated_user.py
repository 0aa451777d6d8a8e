"""A simulated user corrects a model's masks, stroke by stroke, with Refine and with a plain brush.

    python Testing/benchmarks/simulated_user.py hippocampus-mr DIR 4 0 head-neck-oar-ct DIR 12 0 \\
        polyp-colonoscopy DIR 15 0 --stroke fitted cut --markdown Testing/benchmarks/REFINE.md

For each MODEL, the DIR of its data, the radius of the brush and how many cases to take, evenly spread (0: all).
Each stroke lies in the largest wrong region (what is missing or too much, compared with the reference) and never leaves
it. The brush is round: a disc in the slice, as Slicer paints by default, or a ball with --shape ball; its radius is in
mm, in pixels for photographs. There are two kinds of strokes:

- fitted: a round dab where the region is deepest, as large as fits into it there, and at most as large as the brush. A
  brush really paints this, with its size set to the region as a careful person does. In a region one or two voxels thin
  it is a single voxel.
- cut: the brush where it covers most of the region, without what lies outside. No round brush paints this: it is worth
  many fitted dabs, the most generous to the brush. It also tells Refine, by its shape, where the region ends.

Strokes follow each other until Dice passes 0.95 or there were 20. Each label is a segment of its own. The brush paints
the stroke, Refine takes it as its hint, with the reach that belongs to a brush of the stroke's size; each follows its own
mask. Masks that pass from the start need no stroke and enter no average. Where 0.95 was not reached, 20 strokes count as
needed: where most of the brush's corrections end so, half of its strokes are at most 10. What that hides is told
beside it: how many strokes the brush needs to come where Refine ended; and what a tool would need that knows the
reference and with each stroke corrects the whole wrong region that it lies in, and nothing that it does not lie in.
Fitted is the default: it is what a person can do; but as it leaves thin regions to many dabs, Refine's lead over the
brush is larger with it, so that cut, where the brush is better than it is, belongs beside it.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from prosma.correct.refine import REACH, refine
from prosma.correct.stroke_features import distance_to
from prosma.files import write_json
from prosma.image.box import slices, smallest
from prosma.inference.segmenter import Segmenter
from prosma.learning.data.dataset import LabelledFolder, read_case
from prosma.learning.judge.evaluation import bootstrap_interval

ENOUGH = 0.95
MOST_STROKES = 20
PATIENCE = 100  # strokes of the brush to come where Refine came in 20
REPORTED_STROKES = (1, 3, 5, 10)
HALVES = {"": slice(None), "even": slice(0, None, 2), "odd": slice(1, None, 2)}


@dataclass(frozen=True)
class Subject:
    """One segment of one case: arrays (K, J, I), the image (C, K, J, I), spacing along K, J, I."""

    name: str
    image: np.ndarray
    reference: np.ndarray
    mask: np.ndarray
    probability: np.ndarray
    spacing: tuple[float, float, float]


@dataclass(frozen=True)
class Brush:
    """A round brush with its radius in mm, at most; a disc in the slice, or a ball. `cut`: see above."""

    radius: float
    ball: bool = False
    cut: bool = False

    def footprint(self, spacing, shape) -> np.ndarray:
        """The brush as a mask with odd sides."""
        radii = [self.radius if (axis or self.ball) and n > 1 else 0.0 for axis, n in enumerate(shape)]
        reach = [int(radius / s + 1e-6) for radius, s in zip(radii, spacing, strict=True)]
        grid = np.ogrid[tuple(slice(-n, n + 1) for n in reach)]
        return sum((g * s) ** 2 for g, s in zip(grid, spacing, strict=True)) <= self.radius**2 + 1e-6


# a way of correcting: (subject, present mask, stroke, whether it adds, earlier strokes) -> new mask
Method = Callable[[Subject, np.ndarray, np.ndarray, bool, np.ndarray], np.ndarray]


def paint(subject: Subject, mask: np.ndarray, stroke: np.ndarray, adds: bool, earlier: np.ndarray) -> np.ndarray:
    """The plain brush."""
    return mask | stroke if adds else mask & ~stroke


def correct_region(
    subject: Subject, mask: np.ndarray, stroke: np.ndarray, adds: bool, earlier: np.ndarray
) -> np.ndarray:
    """What is possible at best: the whole connected wrong region in which the stroke lies."""
    region, _ = largest_region(subject.reference & ~mask if adds else mask & ~subject.reference)
    return paint(subject, mask, region, adds, earlier)


def refining(brush: Brush, with_probabilities: bool) -> Method:
    """Refine with the strokes of this brush."""

    def method(subject: Subject, mask: np.ndarray, stroke: np.ndarray, adds: bool, earlier: np.ndarray) -> np.ndarray:
        return refine(
            mask,
            subject.image,
            stroke if adds else None,
            None if adds else stroke,
            subject.spacing,
            subject.probability if with_probabilities else None,
            reach_given(brush),
            earlier,
        ).on(mask)

    return method


def reach_given(brush: Brush) -> float | None:
    """The reach of Refine in mm as the effect would give it: a stroke that fits was painted with a smaller brush, so that
    Refine takes the reach from the stroke itself (None)."""
    return REACH * brush.radius if brush.cut else None


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Of two boolean arrays that are not both empty."""
    return float(2 * np.count_nonzero(first & second) / (np.count_nonzero(first) + np.count_nonzero(second)))


def largest_region(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """The largest connected part of a mask and its number of voxels."""
    parts = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), False))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return parts == sizes.argmax(), int(sizes.max())


def next_stroke(mask: np.ndarray, reference: np.ndarray, spacing, brush: Brush) -> tuple[np.ndarray, bool]:
    """The next stroke and whether it adds; mask and reference differ."""
    (missing, lacks), (surplus, exceeds) = largest_region(reference & ~mask), largest_region(mask & ~reference)
    adds = lacks >= exceeds
    region = missing if adds else surplus
    place = slices(smallest(region))
    part = region[place]
    footprint = brush.footprint(spacing, mask.shape)
    amount = np.where(part, covered(part, footprint), 0)
    if not brush.cut:
        room = room_for(part, spacing, brush.radius, not brush.ball or len(mask) == 1)
        amount[room < room.max() - 1e-6] = 0
    centre = np.unravel_index(amount.argmax(), part.shape)
    if not brush.cut and room[centre] < brush.radius:
        footprint = replace(brush, radius=room[centre]).footprint(spacing, mask.shape)
    stroke = np.zeros(mask.shape, bool)
    stroke[place] = part & placed(footprint, centre, part.shape)
    return stroke, adds


def room_for(part: np.ndarray, spacing, radius: float, flat: bool) -> np.ndarray:
    """For each voxel of `part`, the radius in mm up to which a brush fits into it there, at most `radius`; 0 outside.

    What lies beyond the array is outside. `flat`: slices are looked at one by one, by moving them out of reach.
    """
    apart = (2 * radius, *spacing[1:]) if flat else spacing
    distance = distance_to(~np.pad(part, 1), np.asarray(apart, float))[1:-1, 1:-1, 1:-1]
    return np.minimum(distance * (1 - 1e-5), radius)  # a brush paints the voxels at its rim; those outside are no part


def covered(part: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    """For each voxel, how many voxels of `part` the (symmetric) footprint around it covers."""
    shape = [n + m - 1 for n, m in zip(part.shape, footprint.shape, strict=True)]
    axes = (0, 1, 2)
    spectrum = np.fft.rfftn(part, shape, axes) * np.fft.rfftn(footprint, shape, axes)
    whole = np.fft.irfftn(spectrum, shape, axes)
    return np.rint(whole[tuple(slice(m // 2, m // 2 + n) for n, m in zip(part.shape, footprint.shape, strict=True))])


def placed(footprint: np.ndarray, centre, shape) -> np.ndarray:
    """`footprint` around `centre` in an array of `shape`, cut off at its borders."""
    result = np.zeros(shape, bool)
    half = [n // 2 for n in footprint.shape]
    low = [max(0, c - h) for c, h in zip(centre, half, strict=True)]
    high = [min(n, c + h + 1) for n, c, h in zip(shape, centre, half, strict=True)]
    first = [b - c + h for b, c, h in zip(low, centre, half, strict=True)]
    source = tuple(slice(f, f + e - b) for f, b, e in zip(first, low, high, strict=True))
    result[tuple(slice(b, e) for b, e in zip(low, high, strict=True))] = footprint[source]
    return result


def correct(
    subject: Subject, method: Method, brush: Brush, most: int = MOST_STROKES, enough: float = ENOUGH
) -> list[float]:
    """Dice before the first stroke and after each."""
    mask, earlier = subject.mask, np.zeros(subject.mask.shape, bool)
    curve = [dice(mask, subject.reference)]
    while curve[-1] < enough and len(curve) <= most:
        stroke, adds = next_stroke(mask, subject.reference, subject.spacing, brush)
        mask = method(subject, mask, stroke, adds, earlier)
        earlier = earlier | stroke
        curve.append(dice(mask, subject.reference))
    return curve


def subjects(model: str, data: str, split: str, most_cases: int | None = None) -> Iterator[Subject]:
    """Every label of the model that the reference has, in every case of the split (or in some, evenly spread).

    A split may also be one half of another, such as "val-even" and "val-odd", every other case of "val".
    """
    segmenter = Segmenter(model)
    name, _, half = split.partition("-")
    cases = LabelledFolder.open(data).split(name)[HALVES[half]]
    if most_cases and most_cases < len(cases):
        cases = [cases[n * len(cases) // most_cases] for n in range(most_cases)]
    for case in cases:
        image, reference = read_case(case, segmenter.package.model)
        result = segmenter.segment(image, ["probabilities"])
        spacing = (1.0, 1.0, 1.0) if case.is_photograph else image.spacing[::-1]
        for label in segmenter.package.labels:
            value = label["value"]
            if (reference == value).any():
                yield Subject(
                    f"{case.id} {label['name']}",
                    image.array.transpose(0, 3, 2, 1),
                    (reference == value).T,
                    (result.labels == value).T,
                    result.probabilities[value].T,
                    spacing,
                )


def summary(curves: list[list[float]]) -> dict:
    """Of the curves of masks that needed a correction. Where 0.95 was not reached, 20 strokes count as needed."""
    needed = [len(curve) - 1 for curve in curves]
    rose = [[after > before for before, after in itertools.pairwise(curve)] for curve in curves]
    return {
        "strokes_median": float(np.median(needed)),
        "strokes_mean": float(np.mean(needed)),
        "strokes_interval": bootstrap_interval(needed),
        "reached": float(np.mean([curve[-1] >= ENOUGH for curve in curves])),
        "strokes_that_raise_dice": float(np.mean(list(itertools.chain(*rose)))),
        "segments_where_all_strokes_do": float(np.mean([all(each) for each in rose])),
        "dice": {
            str(n): float(np.mean([curve[min(n, len(curve) - 1)] for curve in curves])) for n in (0, *REPORTED_STROKES)
        },
    }


def measured(model: str, data: str, split: str, cases: int | None, brushes: list[Brush]) -> Iterator[dict]:
    """The reports on one model, for each brush."""
    curves: list[dict[str, dict[str, list[float]]]] = [{} for _ in brushes]
    for number, subject in enumerate(subjects(model, data, split, cases), 1):
        for brush, found in zip(brushes, curves, strict=True):
            each = {name: correct(subject, method, brush) for name, method in methods(brush).items()}
            each["brush, as far as refine"] = correct(subject, paint, brush, PATIENCE, each["refine"][-1])
            found[subject.name] = each
        print(f"\r{model}: {number} segments", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    for brush, found in zip(brushes, curves, strict=True):
        wrong = [curve for curve in found.values() if len(curve["brush"]) > 1]
        if not wrong:
            raise SystemExit(f"{model}: no mask needed a correction.")
        yield {
            "model": model,
            "split": split,
            "cases": cases,
            "brush": {"radius": brush.radius, "shape": "ball" if brush.ball else "disc"},
            "stroke": "cut" if brush.cut else "fitted",
            "segments": len(found),
            "corrected": len(wrong),
            "methods": {name: summary([curve[name] for curve in wrong]) for name in methods(brush)},
            "as_far_as_refine": lead(wrong),
            "curves": found,
        }


def lead(curves: list[dict[str, list[float]]]) -> dict:
    """Strokes of Refine, and of the brush until it is as far, at most PATIENCE: medians, and the median of their ratios."""
    refine, brush = (
        np.array([len(each[name]) - 1 for each in curves]) for name in ("refine", "brush, as far as refine")
    )
    return {
        "refine": float(np.median(refine)),
        "brush": float(np.median(brush)),
        "ratio": float(np.median(brush / refine)),
    }


def methods(brush: Brush) -> dict[str, Method]:
    """What is compared."""
    return {
        "brush": paint,
        "refine": refining(brush, True),
        "refine without probabilities": refining(brush, False),
        "the whole region": correct_region,
    }


def verdict(report: dict) -> str:
    """How Refine stands to its bar: at most half of the brush's strokes in the median, 90 % of strokes raise Dice.

    The bar ends at 20 strokes, where both may stand at different places; how far the brush is behind comes first.
    """
    brush, refined, best = (report["methods"][name] for name in ("brush", "refine", "the whole region"))
    allowed, raising = brush["strokes_median"] / 2, refined["strokes_that_raise_dice"]
    words = ["missed", "met"]
    far = report["as_far_as_refine"]
    return (
        f"To where Refine ends, after {far['refine']:g} strokes in the median, the brush needs {far['brush']:g} (at most "
        f"{PATIENCE} were painted), {far['ratio']:.1f} times as many in the median of the segments.\n\n"
        f"Bar: at most {allowed:g} strokes in the median, {refined['strokes_median']:g} needed "
        f"({words[refined['strokes_median'] <= allowed]}; at best {best['strokes_median']:g}); 90 % of the strokes raise "
        f"Dice, {raising:.1%} do ({words[raising >= 0.9]})."
    )


def table(report: dict) -> str:
    """A report as Markdown."""
    brush, counts = report["brush"], [str(n) for n in (0, *REPORTED_STROKES)]
    lines = [
        f"## {report['model']}, {report['stroke']} strokes",
        "",
        f"Split {report['split']}, {report['cases'] or 'all'} cases; a {brush['shape']} of radius {brush['radius']:g}. "
        f"{report['corrected']} of {report['segments']} segments needed a correction.",
        "",
        "| | strokes: median (mean, 95 %) | reach 0.95 | strokes that raise Dice | segments where all do | "
        f"Dice after {', '.join(counts)} strokes |",
        "|---|---|---|---|---|---|",
    ]
    for name, each in report["methods"].items():
        low, high = each["strokes_interval"]
        dices = ", ".join(f"{each['dice'][n]:.3f}" for n in counts)
        lines.append(
            f"| {name} | {each['strokes_median']:g} ({each['strokes_mean']:.1f}, {low:.1f} to {high:.1f}) | "
            f"{each['reached']:.0%} | {each['strokes_that_raise_dice']:.1%} | "
            f"{each['segments_where_all_strokes_do']:.0%} | {dices} |"
        )
    return "\n".join([*lines, "", verdict(report), ""])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="+", help="MODEL DIR RADIUS CASES, once or several times (see above)")
    parser.add_argument("--split", default="test", help="test (default), val, val-odd, ...")
    parser.add_argument("--shape", choices=("disc", "ball"), default="disc", help="default: a disc in the slice")
    parser.add_argument("--stroke", choices=("fitted", "cut"), nargs="+", default=["fitted"], help="default: fitted")
    parser.add_argument("--json", type=Path, help="write the reports there")
    parser.add_argument("--markdown", type=Path, help="write tables there")
    options = parser.parse_args(arguments)
    if len(options.sets) % 4:
        parser.error("Name a model, the folder of its data, a radius and a number of cases, for each set.")
    reports = []
    for model, data, radius, cases in zip(*(options.sets[n::4] for n in range(4)), strict=True):
        brushes = [Brush(float(radius), options.shape == "ball", stroke == "cut") for stroke in options.stroke]
        for report in measured(model, data, options.split, int(cases) or None, brushes):
            reports.append(report)
            print(table(report), flush=True)
    if options.json:
        write_json(options.json, reports)
    if options.markdown:
        head = "# Refine against a plain brush\n\nWritten by `simulated_user.py`, which says how it is measured.\n\n"
        options.markdown.write_text(head + "\n".join(table(report) for report in reports), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
