"""How many of the really wrong voxels lie in the regions that Review shows first.

    python Testing/benchmarks/review.py MODEL DIR [MODEL DIR ...] [--split test] [--draws 20] [--json FILE] \\
        [--markdown Testing/benchmarks/REVIEW.md]

For each MODEL the folder of its data; several folders in one DIR have a colon between them (a semicolon on Windows).
Counted in two ways; the shares are of all wrong voxels of the split:
- places: everything within a region's radius of its middle, as a person sees it, against as many balls of the same radius
  round random voxels of the border;
- voxels: the uncertain voxels of the regions alone, against as many voxels of the border itself (those with a neighbour of
  another label, on either side), nearest to random ones of them; where the border has not enough left, the nearest others.
At best: places of the same radius for which the errors are known, chosen greedily as the regions are; and as many voxels,
wherever they are, all of them wrong as long as there are wrong ones.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np

from prosma.correct.review import find_regions
from prosma.errors import UserFacingError
from prosma.files import write_json
from prosma.inference.segmenter import Segmenter
from prosma.learning.data.dataset import IGNORED, LabelledFolder, read_case

REGIONS = 10


def main() -> int:
    options = parse()
    reports = []
    try:
        for model, data in zip(options.pairs[::2], options.pairs[1::2], strict=True):
            reports.append(measure_split(model, data.split(os.pathsep), options))
            print(describe(reports[-1]), flush=True)
    except UserFacingError as error:
        print(error, file=sys.stderr)
        return 1
    if options.json:
        write_json(options.json, {"models": reports})
    if options.markdown:
        options.markdown.write_text(page(reports, options), encoding="utf-8")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", nargs="+", metavar="MODEL DIR", help="id of a model or path of a package, its data")
    parser.add_argument("--split", default="test")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--draws", type=int, default=20, help="of random regions, for each case")
    parser.add_argument("--json", metavar="FILE", help="write the report, case by case")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="write the tables to a page")
    options = parser.parse_args()
    if len(options.pairs) % 2:
        parser.error("each MODEL needs its DIR")
    return options


def measure_split(model: str, folders: list[str], options: argparse.Namespace) -> dict:
    """All cases of one model's split."""
    segmenter = Segmenter(model, options.device)
    rows = []
    for number, case in enumerate(LabelledFolder.open(folders).split(options.split)):
        image, reference = read_case(case, segmenter.package.model)
        result = segmenter.segment(image, outputs=("probabilities",))
        spacing = (1.0, 1.0, 1.0) if case.is_photograph else image.spacing
        measured = measure(result.probabilities, result.labels, reference, spacing, options.draws, seed=number)
        rows.append({"case": case.id, **measured})
    return {"model": segmenter.package.id, "split": options.split, "regions": REGIONS, **summary(rows), "rows": rows}


def measure(probabilities, labels, reference, spacing, draws: int, seed: int) -> dict:
    """One case: wrong voxels in all, in the first regions, and on average in random border regions. Arrays (I, J, K)."""
    wrong = (labels != reference) & (reference != IGNORED)
    regions = find_regions(probabilities, labels, spacing, most=REGIONS)
    hit = sum(int(wrong[tuple(region.index)].sum()) for region in regions)
    sizes = [region.voxels for region in regions]
    random = RandomRegions(labels, spacing, np.random.default_rng(seed))
    by_chance = [int(wrong.ravel()[random.draw(sizes)].sum()) for _ in range(draws)] if wrong.any() else [0]
    ball = Ball(regions[0].radius if regions else 0, spacing)
    places = [np.rint(region.centre).astype(int) for region in regions]
    random_places = [random.places(len(regions)) for _ in range(draws)]
    best = regions_of_errors(wrong, spacing, regions[0].radius) if regions else []
    best_places = [np.rint(region.centre).astype(int) for region in best]
    return {
        "wrong": int(wrong.sum()),
        "found": hit,
        "by_chance": float(np.mean(by_chance)),
        "found_in_places": ball.count(wrong, places),
        "by_chance_in_places": float(np.mean([ball.count(wrong, each) for each in random_places])),
        "at_best": min(int(wrong.sum()), sum(sizes)),
        "at_best_in_places": ball.count(wrong, best_places),
        "expected": round(sum(region.error for region in regions), 1),
        "sizes": sizes,
    }


def regions_of_errors(wrong: np.ndarray, spacing, radius: float) -> list:
    """The regions that a model would give that knows which voxels are wrong."""
    known = np.stack([~wrong, wrong]).astype(np.uint8) * 255
    return find_regions(known, np.zeros(wrong.shape, np.uint8), spacing, most=REGIONS, radius=radius)


class Ball:
    """Everything within a radius."""

    def __init__(self, radius: float, spacing) -> None:
        reach = [int(radius / s) for s in spacing]
        offsets = np.indices([2 * n + 1 for n in reach]).reshape(len(reach), -1) - np.array(reach)[:, None]
        near = ((offsets * np.asarray(spacing)[:, None]) ** 2).sum(axis=0) <= radius**2
        self.offsets = offsets[:, near]

    def count(self, wrong: np.ndarray, places) -> int:
        """Wrong voxels in the union of the balls round some places (indices)."""
        seen = np.zeros(wrong.shape, bool)
        for place in places:
            index = self.offsets + np.asarray(place)[:, None]
            index = index[:, ((index >= 0) & (index < np.array(wrong.shape)[:, None])).all(axis=0)]
            seen[tuple(index)] = True
        return int((wrong & seen).sum())


class RandomRegions:
    """Draws disjoint regions on the border of a label map."""

    def __init__(self, labels: np.ndarray, spacing, random: np.random.Generator) -> None:
        self.random = random
        self.shape = labels.shape
        border = border_of(labels)
        if not border.any():
            border[...] = True
        self.border = np.flatnonzero(border)
        self.others = np.flatnonzero(~border)
        self.place = {key: self._mm(where, labels.shape, spacing) for key, where in self._voxels().items()}

    def _voxels(self) -> dict[str, np.ndarray]:
        return {"border": self.border, "others": self.others}

    @staticmethod
    def _mm(where: np.ndarray, shape, spacing) -> np.ndarray:
        return np.multiply(np.unravel_index(where, shape), np.asarray(spacing)[:, None]).astype(np.float32)

    def places(self, count: int) -> np.ndarray:
        """Indices of random voxels of the border, (count, axes)."""
        chosen = self.random.choice(self.border, count, replace=len(self.border) < count)
        return np.stack(np.unravel_index(chosen, self.shape), axis=1)

    def draw(self, sizes: list[int]) -> np.ndarray:
        """Flat indices of the voxels of regions with so many voxels each."""
        free = {key: np.ones(len(where), bool) for key, where in self._voxels().items()}
        drawn = []
        for size in sizes:
            candidates = np.flatnonzero(free["border"])
            start = self.random.choice(candidates if len(candidates) else len(self.border))
            missing = size
            for key, where in self._voxels().items():
                take = min(missing, int(free[key].sum()))
                if not take:
                    continue
                middle = self.place["border"][:, start]
                far = sum((along - m) ** 2 for along, m in zip(self.place[key], middle, strict=True))
                far[~free[key]] = np.inf
                chosen = np.argpartition(far, take - 1)[:take]
                free[key][chosen] = False
                drawn.append(where[chosen])
                missing -= take
        return np.concatenate(drawn) if drawn else np.zeros(0, np.int64)


def border_of(labels: np.ndarray) -> np.ndarray:
    """Voxels with a neighbour along an axis that has another label."""
    border = np.zeros(labels.shape, bool)
    for axis in range(labels.ndim):
        before, after = [slice(None)] * labels.ndim, [slice(None)] * labels.ndim
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        differs = labels[tuple(before)] != labels[tuple(after)]
        border[tuple(before)] |= differs
        border[tuple(after)] |= differs
    return border


def summary(rows: list[dict]) -> dict:
    """Shares of all wrong voxels of the split, and their ratios to what random regions hold."""
    wrong = max(1, sum(row["wrong"] for row in rows))
    report = {"cases": len(rows), "wrong_voxels": wrong}
    for name, suffix in {"places": "_in_places", "voxels": ""}.items():
        found, chance, best = (
            sum(row[key + suffix] for row in rows) / wrong for key in ("found", "by_chance", "at_best")
        )
        report[name] = {
            "share": round(found, 4),
            "share_by_chance": round(chance, 4),
            "share_at_best": round(best, 4),
            "ratio": round(found / chance, 3) if chance else None,
            "ratio_at_best": round(best / chance, 3) if chance else None,
        }
    return report


def describe(report: dict) -> str:
    lines = [
        f"{report['model']}, {report['cases']} cases of '{report['split']}', {report['wrong_voxels']} wrong voxels"
    ]
    for name in ("places", "voxels"):
        values = report[name]
        lines.append(
            f"as {name}: the first {report['regions']} regions hold {values['share']:.1%}, as many random ones on the "
            f"border {values['share_by_chance']:.1%}, ratio {values['ratio']}"
        )
        lines.append(f"  at best: {values['share_at_best']:.1%}, ratio {values['ratio_at_best']}")
    return "\n".join(lines)


def page(reports: list[dict], options: argparse.Namespace) -> str:
    """All models as a page in Markdown."""
    lines = [
        "# Review: what the first regions hold",
        "",
        f"Written by `Testing/benchmarks/review.py`, split '{options.split}', {options.draws} random draws for each case. "
        f"Of all wrong voxels of the split, the share in the first {REGIONS} regions of each case; in as many of the same "
        "size at random places of the border; and at best, where the errors are known. The tool's docstring says what places "
        "and voxels are.",
    ]
    for name in ("places", "voxels"):
        lines += [
            "",
            f"## As {name}",
            "",
            "| model | cases | wrong voxels | first regions | random | ratio | at best | ratio at best |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for report in reports:
            values = report[name]
            lines.append(
                f"| {report['model']} | {report['cases']} | {report['wrong_voxels']} | {values['share']:.1%} | "
                f"{values['share_by_chance']:.1%} | {values['ratio']} | {values['share_at_best']:.1%} | "
                f"{values['ratio_at_best']} |"
            )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
