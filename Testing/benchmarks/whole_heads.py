"""What `finder.py` measures of whole real heads: storage orders, boxes that a person may draw, and what a head costs."""

import itertools
import json
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from prosma import Image, ModelPackage, Segmenter, read_image
from prosma.image.geometry import plan_canonical
from prosma.image.labels import label_extents
from prosma.inference.finder import find_regions

ORDERS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))  # all 48
SHIFT_MM = 10.0
MARGINS_MM = {"tight": 0.0, "usual": 5.0, "generous": 20.0}  # beyond what the model marks of one side
ROUNDS = 5


def stored(image: Image, order) -> Image:
    """The image with its axes in another order and direction; every voxel keeps its place."""
    axes, signs = order
    array = image.array.transpose(0, *(1 + axis for axis in axes))
    array = array[(slice(None), *(slice(None, None, sign) for sign in signs))]
    matrix = image.ijk_to_ras[:, [*axes, 3]].copy()
    for axis, sign in enumerate(signs):
        if sign < 0:
            matrix[:3, 3] += matrix[:3, axis] * (array.shape[1 + axis] - 1)
            matrix[:3, axis] *= -1
    return replace(image, array=np.ascontiguousarray(array), ijk_to_ras=matrix)


def multi_dice(one: np.ndarray, other: np.ndarray) -> float:
    """Of two label maps: voxels with the same label, against those with any."""
    return float(2 * ((one > 0) & (one == other)).sum() / ((one > 0).sum() + (other > 0).sum()))


def canonical_labels(segmenter: Segmenter, image: Image) -> np.ndarray:
    """The result of a head without a box, in RAS order."""
    labels = segmenter.segment(image, refuse_unfit=False).labels
    return np.array(plan_canonical(image, {"dimension": 3, "orientation": "RAS"}).view(labels))


def measure_orders(segmenter: Segmenter, finder: Segmenter, folder: Path) -> dict:
    """The files of one head in several storage orders, and one of them in all 48: do results and centres agree?"""
    images = [read_image(path) for path in sorted(folder.glob("*.nii.gz"))]
    maps = [canonical_labels(segmenter, image) for image in images]
    centres, seconds, swapped = [], [], 0
    for order in ORDERS:
        image = stored(images[-1], order)
        began = time.perf_counter()
        regions = {region.number: np.array(region.centre) for region in find_regions(finder, image)}
        seconds.append(time.perf_counter() - began)
        centres.append(np.concatenate([regions[1], regions[2]]))
        swapped += not regions[1][0] < regions[2][0]
    spread = np.abs(np.array(centres) - centres[0]).reshape(-1, 2, 3)
    return {
        "files": len(images),
        "least_pairwise_dice": min(multi_dice(one, other) for one, other in itertools.combinations(maps, 2)),
        "orders": len(ORDERS),
        "swapped": swapped,
        "centres_apart_mm": float(np.linalg.norm(spread, axis=2).max()),
        "median_seconds": float(np.median(seconds)),
    }


def boxes_around(image: Image, labels: np.ndarray, values: tuple[int, ...]) -> dict[str, list]:
    """By kind, boxes of voxels that a person may draw around the labels of one side."""
    extents = [each.box for each in label_extents(labels, max(values)) if each.box]
    inner = [
        (min(box[axis][0] for box in extents), max(box[axis][1] for box in extents)) for axis in range(3)
    ]  # other sides are 0 in `labels`

    def box(margin: float, shift=(0.0, 0.0, 0.0)):
        found = []
        for axis, (low, high) in enumerate(inner):
            wide, moved = (round(mm / image.spacing[axis]) for mm in (margin, shift[axis]))
            size = image.shape[axis]
            found.append((max(0, min(low - wide + moved, size - 1)), min(size, high + wide + moved)))
        return tuple(found)

    boxes = {name: [box(margin)] for name, margin in MARGINS_MM.items()}
    moves = [tuple(sign * SHIFT_MM * (axis == n) for n in range(3)) for axis in range(3) for sign in (-1, 1)]
    for name, margin in MARGINS_MM.items():
        boxes[f"{name}, shifted by {SHIFT_MM:.0f} mm"] = [box(margin, move) for move in moves]
    return boxes


def measure_boxes(segmenter: Segmenter, image: Image) -> dict:
    """By kind of box: Dice of the result of one side with that of the whole head without a box."""
    whole = segmenter.segment(image, refuse_unfit=False)
    count, found = len(segmenter.package.labels), {}
    for number in (1, 2):
        values = tuple(range(1 + number * count, 1 + number * count + count))
        side = np.where(np.isin(whole.labels, values), whole.labels, 0)
        for kind, boxes in boxes_around(image, side, values).items():
            for box in boxes:
                result = segmenter.segment(image, roi=box, refuse_unfit=False).labels
                seen = np.where((result > 0) & (result <= count), result + number * count, result)  # without a finder
                found.setdefault(kind, []).append(multi_dice(side, seen))
    return {
        kind: {"boxes": len(dice), "least_dice": min(dice), "mean_dice": float(np.mean(dice))}
        for kind, dice in found.items()
    }


def measure_cost(package: ModelPackage, image: Image) -> dict:
    """Warm seconds and tiles of a head without a box, with the package's finder and without one."""
    report = {}
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare"
        shutil.copytree(package.folder, bare, ignore=shutil.ignore_patterns("finder.*"))
        model = json.loads((bare / "model.json").read_text(encoding="utf-8"))
        model.pop("finder")
        (bare / "model.json").write_text(json.dumps(model), encoding="utf-8")
        for name, each in (("with", package), ("without", ModelPackage.open(bare))):
            segmenter = Segmenter(each, "cpu")
            rounds = ROUNDS if name == "with" else 1  # the other takes long
            runs = [segmenter.segment(image, force=True) for _ in range(1 + rounds)][1:]
            ml = float((runs[-1].labels > 0).sum() * image.voxel_ml)
            seconds = float(np.median([run.seconds["total"] for run in runs]))
            report[name] = {"tiles": runs[-1].statistics["of_tiles"], "seconds": seconds, "ml": ml}
    return report
