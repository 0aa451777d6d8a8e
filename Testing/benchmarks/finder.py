"""How well the finder of hippocampus-mr finds: painted test heads in any of 48 orientations, and real heads.

    python Testing/benchmarks/finder.py --data head_labelmaps --heads FOLDER [--count 200] [--json FILE]

Painted heads come from label maps that no training saw (split `test`): random contrast, field, noise, resolution, cuts and
skull stripping as in the recipe, then stored in a random one of the 48 orders of axes and directions. A side counts where at
least nine tenths of it lie inside the picture. The error is the distance from the marked region's centre to the true one.
Real heads have no labels here: their centres are printed, with the distance to where the atlas has them for those in its
space (files whose name holds `avg152`), and whether left is left.
"""

import argparse
import itertools
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from prosma import Image, Segmenter, read_image, resolve
from prosma.files import write_json
from prosma.inference.finder import find_regions
from prosma.learning.data.painting import PaintedPatch, label_maps
from prosma.learning.recipe import Recipe

RECIPE = Path(__file__).resolve().parents[2] / "training/recipes/hippocampus-finder.yaml"
GRID, SPACING = (64, 80, 80), (3.0, 3.0, 3.0)  # of the painted pictures
WITHIN_MM = 8.0
SEED = 50_000  # of the first head
SEEN = 0.9  # of a side's voxels inside the picture, else it is not asked for
ATLAS = {1: (-26.0, -21.0, -15.0), 2: (27.0, -21.0, -15.0)}  # centres of the hippocampi in MNI space, mm


def painted_heads(data, count, split="test", seed=SEED):
    """Image, {label: true centre in RAS mm} of each painted head."""
    painting = replace(Recipe.read(RECIPE).painting, deformation=0.0)  # heads as they were
    maps = label_maps(data, split)
    paint = PaintedPatch(painting, GRID, SPACING, {"rule": "clip-zscore", "percentiles": [0.5, 99.5]})
    orders = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))
    for number in range(count):
        head = maps[number % len(maps)]
        paint.set_random_state(seed + number)
        patch = paint(head)
        array, label = patch["image"].numpy(), patch["label"][0].numpy()
        centres = {}
        for value, numbers in enumerate(painting.structures, start=1):
            whole = sum(int((head["structures"] == n).sum()) for n in numbers) * float(np.prod(head["spacing"]))
            if (label == value).sum() * np.prod(
                SPACING
            ) >= SEEN * 0.7 * whole:  # 0.7: heads are scaled, borders are lost
                centres[value] = np.argwhere(label == value).mean(0) * SPACING
        yield stored(array, orders[number % len(orders)]), centres


def stored(array, order):
    """The picture with its axes in another order and direction; every voxel keeps its place."""
    axes, signs = order
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1
    for target, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
        matrix[axis, target] = sign * SPACING[axis]
        if sign < 0:
            matrix[axis, 3] = (array.shape[1 + axis] - 1) * SPACING[axis]
    turned = array.transpose(0, *(1 + axis for axis in axes))
    turned = turned[(slice(None), *(slice(None, None, sign) for sign in signs))]
    return Image(np.ascontiguousarray(turned), matrix)


def measure_painted(finder, data, count, split, seed):
    errors, missed, asked, seconds = [], 0, 0, []
    for image, centres in painted_heads(data, count, split, seed):
        began = time.perf_counter()
        regions = {region.number: np.array(region.centre) for region in find_regions(finder, image)}
        seconds.append(time.perf_counter() - began)
        for value, centre in centres.items():
            asked += 1
            if value in regions:
                errors.append(float(np.linalg.norm(regions[value] - centre)))
            else:
                missed += 1
    near = sum(error <= WITHIN_MM for error in errors)
    return {
        "heads": count,
        "sides": asked,
        "missed": missed,
        "within_8_mm": near / asked,
        "median_mm": float(np.median(errors)),
        "95_percent_mm": float(np.percentile(errors, 95)),
        "largest_mm": max(errors),
        "median_seconds": float(np.median(seconds)),
    }


def measure_real(finder, folder):
    rows = []
    for path in sorted(path for path in Path(folder).rglob("*") if path.name.endswith((".nii.gz", ".nrrd"))):
        image = read_image(path)
        began = time.perf_counter()
        regions = find_regions(finder, image)
        row = {"file": path.name, "seconds": round(time.perf_counter() - began, 2), "regions": {}}
        for region in regions:
            row["regions"][region.number] = {"centre": [round(v, 1) for v in region.centre], "ml": round(region.ml, 2)}
            if "avg152" in path.name:
                distance = float(np.linalg.norm(np.subtract(region.centre, ATLAS[region.number])))
                row["regions"][region.number]["mm_to_atlas"] = round(distance, 1)
        rows.append(row)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of head label maps")
    parser.add_argument("--heads", help="folder of real heads")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--split", default="test", help="val while choosing, test once")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the first painted head; {SEED}")
    parser.add_argument("--model", default="hippocampus-mr")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    finder = Segmenter(resolve(options.model).open_finder(), "cpu")
    report = {"painted": measure_painted(finder, options.data, options.count, options.split, options.seed)}
    if options.heads:
        report["real"] = measure_real(finder, options.heads)
    print(json.dumps(report, indent=1))
    if options.json:
        write_json(options.json, report)


if __name__ == "__main__":
    main()
