"""A simulated person strokes objects, from nothing or from a model's mask, with several tools and the same first stroke.

    python Testing/benchmarks/strokes.py DATA --package PACKAGE [--split val] [--most 4] [--person scribbler|dabber] \\
        [--start nothing|MODEL] [--first stroke|box|lasso] [--dimension 2] [--parts 2] [--left-out] [--markdown FILE]
        [--json FILE] [--against PACKAGE]

DATA is a data set or a folder of them. Each label of each case is an object, or with --parts each of its largest parts.
The person says what is inside first, then where the tool's mask is most wrong, so that after the first stroke each tool gets
strokes for its own mask. The scribbler has the habits that the network was trained with; the dabber paints the largest round
dab that fits where the largest wrong region is deepest, as in simulated_user.py. With `--first` the person begins with a box
around the whole object, or a lasso around its largest slice, both inexact, which ours alone answers.

- brush: the strokes alone.
- grow from seeds: Slicer's vtkImageGrowCutSegment. Strokes are the seeds; as it needs seeds of the background, the faces of a
  cube four times as long as the object's strokes are such seeds, too.
- random walker: scikit-image's (pip install scikit-image), with the same seeds in the same cube, of at most 48^3 voxels (beta
  130, conjugate gradients).
- refine: `prosma.correct.refine`, which needs a mask; from nothing it paints.
- ours: the package, through `Segmenter.prompt`.

`--against` names a package for each `--package`, such as the one of the same seed with plain skips: the paired differences
between the two are told, too, with intervals over objects and seeds (`prosma.learning.compare.paired`).

From a model's mask, what is deeper than two voxels inside or outside of it is a seed for the two tools that need seeds.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import ndimage
from simulated_user import Brush, dice, next_stroke

from prosma import Image, Prompts, Segmenter
from prosma.correct.crop import LEAST_VOXELS, cube, inside, longest
from prosma.correct.refine import refine
from prosma.correct.stroke_features import log_odds
from prosma.files import write_json
from prosma.image.box import slices, smallest
from prosma.image.resampling import resample
from prosma.learning.compare.paired import paired
from prosma.learning.data.dataset import LabelledFolder, label_values, read_case, read_files, words
from prosma.learning.judge.evaluation import bootstrap_interval
from prosma.learning.strokes.person import boxed, lassoed, next_remark, on_grid
from prosma.learning.strokes.sets import folders_of

ENOUGH = 0.95
REPORTED = (0, 1, 3, 5)
SEED_CUBE = 4.0  # edge of the cube of the other tools, in lengths of the object's strokes
WALKED = 48  # voxels along each side of the cube in which the random walker walks, at most: it is slow
DEEP = 2  # voxels from a mask's border, from which on it is a seed
LEFT_OUT_SETS = ("promise12_lowres", "acdc_ed", "glas")
LEFT_OUT_LABELS = {"spleen", "pancreas"}


@dataclass
class Subject:
    """An object: the image, what the person has in mind, and the mask to begin with; arrays (I, J, K)."""

    set: str
    name: str
    image: Image
    truth: np.ndarray
    mask: np.ndarray
    probability: np.ndarray | None = None
    left_out: bool = False

    @property
    def spacing(self) -> tuple[float, float, float]:
        """In mm, 1 for pictures."""
        return self.image.spacing if self.image.spacing_known else (1.0, 1.0, 1.0)


@dataclass
class State:
    """The mask, what was said before, and the newest stroke."""

    mask: np.ndarray
    add: np.ndarray
    remove: np.ndarray
    newest: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    adds: bool = True
    region: np.ndarray | None = None  # a box or a lasso

    def with_newest(self) -> tuple[np.ndarray, np.ndarray]:
        """All that was said: what belongs, and what does not."""
        if self.adds:
            return self.add | self.newest, self.remove & ~self.newest
        return self.add & ~self.newest, self.remove | self.newest


Tool = Callable[[Subject, State], np.ndarray]


# --- tools


def brush(subject: Subject, state: State) -> np.ndarray:
    """The stroke alone."""
    return state.mask | state.newest if state.adds else state.mask & ~state.newest


def refining(subject: Subject, state: State) -> np.ndarray:
    """Today's Refine, with the model's probabilities where there are any."""
    return (
        refine(
            state.mask.T,
            subject.image.array.transpose(0, 3, 2, 1),
            state.newest.T if state.adds else None,
            None if state.adds else state.newest.T,
            subject.spacing[::-1],
            None if subject.probability is None else subject.probability.T,
            None,
            (state.add | state.remove).T,
        )
        .on(state.mask.T)
        .T
    )


def seeds(subject: Subject, state: State) -> tuple[tuple[slice, ...], np.ndarray]:
    """Where the other tools work, and their seeds there: 1 object, 2 background, 0 open."""
    add, remove = state.with_newest()
    place = smallest(add | subject.mask) or smallest(remove)
    assert place is not None
    steps, shape = np.array(subject.spacing), state.mask.shape
    edge = max(SEED_CUBE * longest(place, steps), LEAST_VOXELS * steps[np.array(shape) > 1].min())
    if subject.mask.any():
        edge = 1.3 * longest(place, steps) + 8 * steps.min()
    box = slices(inside(cube(place, edge, steps, shape), shape))
    values = np.zeros(state.mask[box].shape, np.uint8)
    if subject.mask.any():
        start = subject.mask[box]
        wide = np.ones([3 if n > 1 else 1 for n in start.shape], bool)
        values[ndimage.binary_erosion(start, wide, DEEP, border_value=1)] = 1
        values[~ndimage.binary_dilation(start, wide, DEEP)] = 2
    else:
        for axis, n in enumerate(values.shape):
            if n > 2:
                values[(slice(None),) * axis + ([0, -1],)] = 2
    values[add[box]] = 1
    values[remove[box]] = 2
    return box, values


def grown(subject: Subject, state: State) -> np.ndarray:
    """Slicer's Grow from seeds."""
    from slicer_core.vtkSlicerSegmentationsModuleLogic import vtkImageGrowCutSegment

    box, values = seeds(subject, state)
    if not ((values == 1).any() and (values == 2).any()):
        return brush(subject, state)
    copies = 3 if values.shape[2] == 1 else 1  # it takes no fewer slices
    image, labels = (np.repeat(array, copies, axis=2) for array in (subject.image.array[0][box], values))
    growing = vtkImageGrowCutSegment()
    growing.SetIntensityVolume(vtk_image(image.astype(np.float32), subject.spacing))
    growing.SetSeedLabelVolume(vtk_image(labels, subject.spacing))
    growing.Update()
    return with_strokes(state, box, vtk_values(growing.GetOutput())[..., copies // 2 :][..., : values.shape[2]] == 1)


def vtk_image(array: np.ndarray, spacing):
    """An array (I, J, K) as vtkImageData."""
    from vtkmodules.util.numpy_support import numpy_to_vtk
    from vtkmodules.vtkCommonDataModel import vtkImageData

    image = vtkImageData()
    image.SetDimensions(array.shape)
    image.SetSpacing(spacing)
    image.GetPointData().SetScalars(numpy_to_vtk(array.ravel(order="F"), deep=True))
    return image


def vtk_values(image) -> np.ndarray:
    """The voxels of a vtkImageData (I, J, K)."""
    from vtkmodules.util.numpy_support import vtk_to_numpy

    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions(), order="F")


def walked(subject: Subject, state: State) -> np.ndarray:
    """scikit-image's random walker."""
    from skimage.segmentation import random_walker

    box, values = seeds(subject, state)
    if not ((values == 1).any() and (values == 2).any() and (values == 0).any()):
        return brush(subject, state)
    size = [min(n, WALKED) for n in values.shape]
    step = [n / m for n, m in zip(values.shape, size, strict=True)]
    few = np.zeros(size, int)
    for value in (2, 1):  # the object's seeds are few and must not be lost where voxels are taken together
        few[tuple((np.argwhere(values == value) / step).astype(int).T)] = value
    seen = resample(subject.image.array[0][box], size).astype(np.float64)
    low, high = np.percentile(seen, (0.5, 99.5))
    scaled = np.clip((seen - low) / max(1e-6, high - low), 0, 1)
    spacing = [s * n for s, n in zip(subject.spacing, step, strict=True)]
    odds = random_walker(scaled, few, beta=130, mode="cg_j", tol=1e-3, spacing=spacing, return_full_prob=True)
    return with_strokes(state, box, resample(odds[0].astype(np.float32), values.shape) > 0.5)


def with_strokes(state: State, box: tuple[slice, ...], found: np.ndarray) -> np.ndarray:
    """The mask with what was found in a box, and the strokes."""
    mask = state.mask.copy()
    mask[box] = found
    add, remove = state.with_newest()
    return (mask | add) & ~remove


def prompting(segmenter: Segmenter, with_odds: bool) -> Tool:
    """Ours; with the model's log odds or without."""

    def tool(subject: Subject, state: State) -> np.ndarray:
        odds = log_odds(subject.probability) if with_odds and subject.probability is not None else None
        stroked = state.newest.any()
        prompts = Prompts(
            add=state.newest if stroked and state.adds else None,
            remove=state.newest if stroked and not state.adds else None,
            region=state.region,
            earlier_add=state.add,
            earlier_remove=state.remove,
            mask=state.mask,
            log_odds=odds,
        )
        return segmenter.prompt(subject.image, prompts).on(state.mask)

    return tool


# --- people


def scribbler(subject: Subject, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, bool]:
    """The next stroke of the person that the network was trained with, and whether it adds."""
    while True:
        remark = next_remark(subject.truth, mask, subject.spacing, rng, first=not mask.any())
        assert remark is not None
        if not remark.region:
            stroke = np.zeros(mask.shape, bool)
            stroke[slices(remark.box)] = remark.voxels
            return stroke, remark.belongs


def dabber(subject: Subject, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, bool]:
    """The largest round dab that fits, up to an eighth of the object's length."""
    place = smallest(subject.truth)
    assert place is not None
    radius = longest(place, np.array(subject.spacing)) / 8
    stroke, adds = next_stroke(mask.T, subject.truth.T, subject.spacing[::-1], Brush(radius))
    return stroke.T, adds


PEOPLE = {"scribbler": scribbler, "dabber": dabber}


def around(subject: Subject, first: str, rng: np.random.Generator) -> np.ndarray:
    """The voxels inside of a box around the object, or of a lasso around its largest slice."""
    truth, shape = subject.truth, subject.truth.shape
    place = smallest(truth)
    assert place is not None
    if first == "box":
        remark = boxed(place, shape, rng)
    else:
        axis = shape.index(1) if 1 in shape else int(np.argmax(subject.spacing))
        part = truth[slices(place)]
        number = int(part.sum(tuple(n for n in range(3) if n != axis)).argmax())
        steps = np.delete(subject.spacing, axis)
        remark = on_grid(lassoed(np.take(part, number, axis), steps, rng), place, axis, number, shape, region=True)
    region = np.zeros(shape, bool)
    region[slices(remark.box)] = remark.voxels
    return region


def curve_of(
    subject: Subject, tool: Tool, person, strokes: int, seed: int, first: str = "stroke"
) -> tuple[list[float], list[float]]:
    """Dice before the first stroke and after each, and the seconds of each; a box or a lasso counts as a stroke."""
    nothing = np.zeros(subject.mask.shape, bool)
    state = State(subject.mask, nothing, nothing)
    curve, seconds = [dice(state.mask, subject.truth)], []
    for number in range(strokes):
        if curve[-1] >= ENOUGH and (state.mask == subject.truth).all():
            break
        rng = np.random.default_rng((seed, number))
        if first != "stroke" and not number:
            state.newest, state.region = nothing, around(subject, first, rng)
        else:
            state.newest, state.adds = person(subject, state.mask, rng)
        began = time.perf_counter()
        state.mask = tool(subject, state)
        seconds.append(time.perf_counter() - began)
        state.add, state.remove = state.with_newest()
        curve.append(dice(state.mask, subject.truth))
    return curve, seconds


# --- subjects


def from_nothing(
    data: str, split: str, most: int, dimension: int, parts: int = 0, left_out: bool = False
) -> Iterator[Subject]:
    """Every label of evenly spread cases of every set of volumes (3) or pictures (2); or its largest parts, each alone.

    `left_out`: only what training did not see.
    """
    for path in folders_of(data, ()):
        folder = LabelledFolder.open(path)
        if next(iter(folder.cases.values())).is_photograph != (dimension == 2):
            continue
        names = {value: name for name, value in label_values(folder.description).items() if isinstance(value, int)}
        for case in spread(folder.split(split), most):
            image, labels = read_files(case)
            labels = (labels > 127).astype(np.uint8) if labels.max() == 255 else labels
            for value in np.unique(labels[labels > 0]).tolist():
                name, truth = names.get(int(value), str(value)), labels == value
                out = path.name in LEFT_OUT_SETS or bool(words(name) & LEFT_OUT_LABELS)
                if left_out and not out:
                    continue
                nothing = np.zeros(truth.shape, bool)
                for meant in largest_parts(truth, parts) if parts else [truth]:
                    yield Subject(path.name, f"{case.id} {name}", image, meant, nothing, left_out=out)


def largest_parts(truth: np.ndarray, count: int) -> list[np.ndarray]:
    """The largest connected parts of a mask, at most so many."""
    numbered, found = ndimage.label(truth, np.ones((3, 3, 3)))
    order = np.argsort(-np.bincount(numbered.ravel(), minlength=found + 1)[1:], kind="stable")
    return [numbered == 1 + number for number in order[:count]]


def from_model(model: str, data: str, split: str, most: int) -> Iterator[Subject]:
    """Every label of a bundled model on its own data, with the model's mask and probabilities."""
    segmenter = Segmenter(model, "cpu")
    for case in spread(LabelledFolder.open(data).split(split), most):
        image, reference = read_case(case, segmenter.package.model)
        result = segmenter.segment(image, ["probabilities"])
        for label in segmenter.package.labels:
            truth = reference == label["value"]
            if truth.any() and result.probabilities is not None:
                mask, name = result.labels == label["value"], f"{case.id} {label['name']}"
                yield Subject(model, name, image, truth, mask, result.probabilities[label["value"]])


def spread(cases: list, most: int) -> list:
    """At most so many, evenly spread; 0 for all."""
    return cases if not most or len(cases) <= most else [cases[n * len(cases) // most] for n in range(most)]


# --- reports


def measured(subjects: Iterator[Subject], tools: dict[str, Tool], options: argparse.Namespace) -> list[dict]:
    """A record for each object, with the curve and the seconds of each tool."""
    records = []
    for number, subject in enumerate(subjects):
        person = PEOPLE[options.person]
        found = {
            name: curve_of(subject, tool, person, options.strokes, number, options.first)
            for name, tool in tools.items()
        }
        records.append(
            {
                "set": subject.set,
                "name": subject.name,
                "left_out": subject.left_out,
                "curves": {name: curve for name, (curve, _) in found.items()},
                "seconds": {name: times for name, (_, times) in found.items()},
            }
        )
        print(f"\r{number + 1} objects", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return records


def groups_of(records: list[dict]) -> dict[str, list[dict]]:
    """The records of each set and label, and of all that training saw and did not see."""
    groups: dict[str, list[dict]] = {}
    for record in records:
        label = record["name"].partition(" ")[2]
        groups.setdefault(f"{record['set']} {label}", []).append(record)
    for title, out in (("mean of what training saw", False), ("mean of what was left out", True)):
        chosen = [record for record in records if record["left_out"] == out]
        if chosen:
            groups[title] = chosen
    return groups


def table(records: list[dict], tools: list[str]) -> str:
    """Markdown: Dice after strokes, mean over objects."""
    lines = [
        f"| objects | n | tool | Dice after {', '.join(map(str, REPORTED))} strokes | 95 % after the last | raise Dice | "
        "seconds a stroke, median (95 %) |",
        "|---|---|---|---|---|---|---|",
    ]
    for title, group in groups_of(records).items():
        for tool in tools:
            curves = [record["curves"][tool] for record in group]
            at = {n: after(n, curves) for n in REPORTED}
            rises = [b > a for curve in curves for a, b in itertools.pairwise(curve)]
            times = [t for record in group for t in record["seconds"][tool]]
            low, high = bootstrap_interval(at[REPORTED[-1]]) if len(curves) > 1 else (float("nan"),) * 2
            dices = ", ".join(f"{np.mean(at[n]):.3f}" for n in REPORTED)
            speed = f"{np.median(times):.2f} ({np.quantile(times, 0.95):.2f})" if times else ""
            share = f"{np.mean(rises):.0%}" if rises else ""
            lines.append(f"| {title} | {len(group)} | {tool} | {dices} | {low:.3f} to {high:.3f} | {share} | {speed} |")
    return "\n".join(lines) + "\n"


def after(strokes: int, curves: list[list[float]]) -> list[float]:
    """Dice after so many strokes; whoever was done before made no more."""
    return [curve[min(strokes, len(curve) - 1)] for curve in curves]


def pairs_table(records: list[dict], tools: list[str], others: list[str]) -> str:
    """Markdown: differences between the first tools and the second, one pair a seed, mean over objects and seeds."""
    counts = REPORTED[1:]
    heads = [f"after {n}" for n in counts]
    lines = [f"| difference in Dice | n | {' | '.join(heads)} |", f"|---|---|{'---|' * len(heads)}"]
    for title, group in groups_of(records).items():
        cells = []
        for n in counts:
            one, other = ([after(n, [r["curves"][name] for r in group]) for name in names] for names in (tools, others))
            found = paired(np.array(one), np.array(other))
            low, high = found["interval"]
            cells.append(f"{found['mean']:+.3f} ({low:+.3f} to {high:+.3f})")
        lines.append(f"| {title} | {len(group)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def title_of(package: str) -> str:
    """What a package is called in tables."""
    return f"ours ({Path(package).name})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--package", action="append", default=[], help="a promptable package; several to compare")
    parser.add_argument("--against", action="append", default=[], help="for each --package one to compare it with")
    parser.add_argument("--left-out", action="store_true", help="only objects of kinds that training did not see")
    parser.add_argument("--split", default="val")
    parser.add_argument("--most", type=int, default=4, help="cases of each set; 0 for all")
    parser.add_argument("--strokes", type=int, default=REPORTED[-1])
    parser.add_argument("--person", choices=PEOPLE, default="scribbler")
    parser.add_argument("--first", choices=("stroke", "box", "lasso"), default="stroke", help="what is said first")
    parser.add_argument("--start", default="nothing", help="nothing, or a bundled model whose data DATA is")
    parser.add_argument("--dimension", type=int, choices=(2, 3), default=3)
    parser.add_argument(
        "--parts", type=int, default=0, help="the largest connected parts of each label, each an object; 0: labels"
    )
    known = {"brush": brush, "grow from seeds": grown, "random walker": walked, "refine": refining}
    parser.add_argument("--tools", nargs="*", choices=known, default=list(known), help="to compare the packages with")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    if options.first != "stroke" and (options.tools or options.start != "nothing"):
        parser.error("boxes and lassos are answered by packages alone, from nothing: give --tools without names")
    if options.against and (len(options.against) != len(options.package) or options.start != "nothing"):
        parser.error("--against takes one package for each --package, from nothing")
    tools: dict[str, Tool] = {name: known[name] for name in options.tools}
    packages = [*options.package, *options.against]
    if len({title_of(path) for path in packages}) < len(packages):
        parser.error("two packages lie in folders of one name, which tables could not tell apart")
    for path in packages:
        segmenter = Segmenter(path, "cpu")
        tools[title_of(path)] = prompting(segmenter, False)
        if options.start != "nothing":
            tools[f"{title_of(path)} with log odds"] = prompting(segmenter, True)
    if options.start == "nothing":
        subjects = from_nothing(
            options.data, options.split, options.most, options.dimension, options.parts, options.left_out
        )
    else:
        subjects = from_model(options.start, options.data, options.split, options.most)
    records = measured(subjects, tools, options)
    text = table(records, list(tools))
    if options.against:
        text += "\n" + pairs_table(records, *([*map(title_of, paths)] for paths in (options.package, options.against)))
    print(text)
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")
    if options.json:
        chosen = {name: str(value) for name, value in vars(options).items()}
        write_json(options.json, {"options": chosen, "records": records})


if __name__ == "__main__":
    main()
