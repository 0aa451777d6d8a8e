"""How many of the really wrong voxels lie in the regions that Review shows first.

    python Testing/benchmarks/review.py MODEL --data FOLDER [--split test] [--draws 20] [--json FILE]

For each case the first regions are compared with as many random border regions of the same numbers of voxels: round a
random voxel of the border, the nearest voxels of the border (those with a neighbour of another label, on either side);
where the border has not enough left, the nearest other voxels. The shares are of all wrong voxels of the split.
"""

import argparse
import sys

import numpy as np

from prosma.errors import EngineError
from prosma.learning.dataset import IGNORED, DatasetError, LabelledFolder, read_case
from prosma.learning.files import write_json
from prosma.review import find_regions
from prosma.segmenter import Segmenter

REGIONS = 10


def main() -> int:
    options = parse()
    try:
        segmenter = Segmenter(options.model, options.device)
        cases = LabelledFolder.open(options.data).split(options.split)
    except (EngineError, DatasetError) as error:
        print(error, file=sys.stderr)
        return 1
    rows = []
    for number, case in enumerate(cases):
        image, reference = read_case(case, segmenter.package.model)
        result = segmenter.segment(image, outputs=("probabilities",))
        spacing = (1.0, 1.0, 1.0) if case.is_photograph else image.spacing
        measured = measure(result.probabilities, result.labels, reference, spacing, options.draws, seed=number)
        rows.append({"case": case.id, **measured})
    report = {"model": segmenter.package.id, "split": options.split, "regions": REGIONS, **summary(rows), "rows": rows}
    print(describe(report))
    if options.json:
        write_json(options.json, report)
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="id of a model or path of a package")
    parser.add_argument("--data", required=True, nargs="+", help="folder of labelled images, or several")
    parser.add_argument("--split", default="test")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--draws", type=int, default=20, help="of random regions, for each case")
    parser.add_argument("--json", metavar="FILE", help="write the report, case by case")
    return parser.parse_args()


def measure(probabilities, labels, reference, spacing, draws: int, seed: int) -> dict:
    """One case: wrong voxels in all, in the first regions, and on average in random border regions. Arrays (I, J, K)."""
    wrong = (labels != reference) & (reference != IGNORED)
    regions = find_regions(probabilities, labels, spacing, most=REGIONS)
    hit = sum(int(wrong[tuple(region.index)].sum()) for region in regions)
    sizes = [region.voxels for region in regions]
    random = RandomRegions(labels, spacing, np.random.default_rng(seed))
    by_chance = [int(wrong.ravel()[random.draw(sizes)].sum()) for _ in range(draws)] if wrong.any() else [0]
    return {
        "wrong": int(wrong.sum()),
        "found": hit,
        "by_chance": float(np.mean(by_chance)),
        "expected": round(sum(region.error for region in regions), 1),
        "sizes": sizes,
    }


class RandomRegions:
    """Draws disjoint regions on the border of a label map."""

    def __init__(self, labels: np.ndarray, spacing, random: np.random.Generator) -> None:
        self.random = random
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
        return np.stack(np.unravel_index(where, shape), axis=1) * np.asarray(spacing)

    def draw(self, sizes: list[int]) -> np.ndarray:
        """Flat indices of the voxels of regions with so many voxels each."""
        free = {key: np.ones(len(where), bool) for key, where in self._voxels().items()}
        drawn = []
        for size in sizes:
            candidates = np.flatnonzero(free["border"])
            start = self.random.choice(candidates if len(candidates) else len(self.border))
            missing = size
            for key, where in self._voxels().items():
                left = np.flatnonzero(free[key])
                take = min(missing, len(left))
                if not take:
                    continue
                far = ((self.place[key][left] - self.place["border"][start]) ** 2).sum(axis=1)
                chosen = left[np.argpartition(far, take - 1)[:take]]
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
    """Shares of all wrong voxels of the split, and their ratio."""
    wrong = max(1, sum(row["wrong"] for row in rows))
    found, by_chance = (sum(row[key] for row in rows) / wrong for key in ("found", "by_chance"))
    return {
        "cases": len(rows),
        "wrong_voxels": wrong,
        "share_in_regions": round(found, 4),
        "share_by_chance": round(by_chance, 4),
        "ratio": round(found / by_chance, 3) if by_chance else None,
    }


def describe(report: dict) -> str:
    return (
        f"{report['model']}, {report['cases']} cases of '{report['split']}', {report['wrong_voxels']} wrong voxels: "
        f"the first {report['regions']} regions hold {report['share_in_regions']:.1%}, as many random border regions of "
        f"the same size {report['share_by_chance']:.1%}, ratio {report['ratio']}"
    )


if __name__ == "__main__":
    sys.exit(main())
