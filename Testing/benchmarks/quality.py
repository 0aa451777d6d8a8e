"""How near the expected Dice of segments (training/prosma/inference/quality.py) comes to the true one, and what it needs.

    python Testing/benchmarks/quality.py prior DATA --rows FOLDER > training/prosma/learning/packing/quality_prior.py
    python Testing/benchmarks/quality.py make DATA [MODEL ...] [--rows FOLDER]
    python Testing/benchmarks/quality.py measure DATA [MODEL ...] [--rows FOLDER] [--cases N] [--json FILE]
        [--markdown Testing/benchmarks/QUALITY.md]

DATA holds a folder for each data set, as for fit.py. `make` writes quality.json into the bundled packages, from the val (and
where these are few, some train) cases of each model's own data; `prior` prints what all models have in common, from the same
cases. `measure` segments all cases (or at most N) of the test split, and copies of each with noise, little contrast, coarse
voxels, and cut through the structures (learning/packing/degraded_copies.py); what is neither there nor marked has no Dice and
is left out, but for models that tell the presence of a structure, where an empty segment is right. In the folder of --rows
are kept, and taken from there if they are there, the measures of what was segmented.
"""

import dataclasses
import itertools
import json
import sys
from pathlib import Path

import numpy as np
from curves import svg
from fit import OWN, parser_of

from prosma.errors import UserFacingError
from prosma.files import write_json
from prosma.inference.quality import QualityStatistics
from prosma.inference.quality_meter import Sums
from prosma.inference.segmenter import Segmenter
from prosma.learning.data.dataset import LabelledFolder
from prosma.learning.packing import quality_statistics as making
from prosma.learning.packing.fit_statistics import spread_out
from prosma.package import bundled_models_folder

BINS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of expected Dice, for the reliability
LEAST_IN_BIN = 5  # segments
RIDGE = 0.02  # of the slopes that models have in common
PRIOR = '''"""How the log odds of the true Dice go with what a run tells (`inference.quality.features`), over bundled models.

Packages with few validation cases lean on this. Printed by `Testing/benchmarks/quality.py prior`: within each model, so that
how good a model is does not count; each model counts the same.
"""

from __future__ import annotations

SCALE = (  # of the features: their deviations within a model
{scale}
)
SLOPES = (  # of the log odds of the Dice, for one scale
{slopes}
)'''


def main() -> int:
    parser = parser_of(__doc__.splitlines()[0], ("prior", "make", "measure"))
    parser.add_argument("--rows", metavar="FOLDER", type=Path, help="keep what was segmented, and use it")
    parser.add_argument("--cases", metavar="N", type=int, help="at most so many of a set, evenly spread; all")
    options = parser.parse_args()
    models = options.models or list(OWN)
    try:
        if options.action == "prior":
            print(prior([Source(name, options) for name in models]))
        if options.action == "make":
            for name in models:
                make(Source(name, options))
        if options.action != "measure":
            return 0
        reports = [measure(Source(name, options)) for name in models]
    except UserFacingError as error:
        print(error, file=sys.stderr)
        return 1
    if options.json:
        write_json(options.json, {"models": reports})
    if options.markdown:
        options.markdown.write_text(page(reports, options.markdown.stem), encoding="utf-8")
        curves = {report["model"]: report["reliability"] for report in reports}
        options.markdown.with_suffix(".svg").write_text(svg(curves, "expected Dice", "true Dice"), encoding="utf-8")
    return 0


class Source:
    """A bundled model with its own data, and the rows that were measured of them."""

    def __init__(self, model, options) -> None:
        self.model, self._rows, self._cases = model, options.rows, options.cases
        self.folder = LabelledFolder.open(options.data / OWN[model])
        self.segmenter = Segmenter(bundled_models_folder() / model, "cpu")
        self.statistics = QualityStatistics.of_package(
            self.segmenter.package.quality_path, self.segmenter.package.sha256
        )

    def rows(self, split: str) -> list[making.Row]:
        """Of the `val` cases as many as a package is made from, with two rounds of copies; else of the first with one."""
        if split == "val":
            return self._kept(split, lambda: making.validation_rows(self.segmenter, self.folder))
        ids = spread_out(self.folder.splits[split], self._cases or len(self.folder.splits[split]))
        return self._kept(split, lambda: making.measured_rows(self.segmenter, self.folder, ids))

    def _kept(self, split: str, measured) -> list[making.Row]:
        if self._rows is None:
            return measured()
        path = self._rows / f"{self.model}.{split}.json"
        if not path.is_file():
            self._rows.mkdir(parents=True, exist_ok=True)
            write_json(path, [dataclasses.asdict(row) for row in measured()])
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [making.Row(**{**row, "sums": Sums(**row["sums"])}) for row in rows]


def prior(sources: list[Source]) -> str:
    """The content of quality_prior.py."""
    tables = []
    for source in sources:
        rows = [row for row in source.rows("val") if not (row.absent or row.empty)]
        volumes = making.training_volumes(source.segmenter, source.folder, spread_out(source.folder.splits["train"]))
        counts = making.clean_counts_twice(rows)
        values, odds = making.matrix(rows, volumes), making.true_odds(rows)
        weights = counts / counts.sum()
        tables.append((values - weights @ values, odds - weights @ odds, weights))
    scale = np.sqrt(np.mean([weights @ values**2 for values, _, weights in tables], axis=0)) + 1e-6
    gram, aim = RIDGE * np.eye(len(scale)), np.zeros(len(scale))
    for values, odds, weights in tables:
        rows = np.clip(values / scale, -making.FARTHEST, making.FARTHEST)
        gram += (rows * weights[:, None]).T @ rows / len(tables)
        aim += (rows * weights[:, None]).T @ odds / len(tables)
    lists = (
        "\n".join(f"    {making.short(number)}," for number in each) for each in (scale, np.linalg.solve(gram, aim))
    )
    return PRIOR.format(**dict(zip(("scale", "slopes"), lists, strict=True)))


def make(source: Source) -> None:
    """Write quality.json of a bundled model."""
    content = making.statistics_from(source.rows("val"), source.segmenter, source.folder)
    if content is not None:
        source.segmenter.package.quality_path.write_bytes(content)
    print(f"{source.model}: {len(content or b'')} bytes", flush=True)


def measure(source: Source) -> dict:
    """Expected and true Dice of all segments, and what `summary` makes of them."""
    rows = []
    for row in source.rows("test"):
        expected = source.statistics and source.statistics.expected(row.label, row.sums)
        if expected is not None:
            if row.presence is not None:
                expected = expected.if_present(row.presence, row.empty)
            told = {"case": row.case, "kind": row.kind, "label": row.label, "dice": round(row.dice, 4)}
            rows.append({**told, **expected.as_dict()})
    report = {"model": source.model, "cases": len({row["case"] for row in rows}), **summary(rows)}
    print(report, flush=True)
    report["reliability"] = [[round(value, 4) for value in point] for point in reliability(rows)]
    report["rows"] = {name: [round(row[name], 3) for row in rows] for name in ("dice", "mean")}
    return report


def summary(rows: list[dict]) -> dict:
    """Correlation, mean absolute error, share of the intervals that hold the true Dice, and the error of each kind."""
    true, found = (np.array([row[name] for row in rows]) for name in ("dice", "mean"))
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    which = np.array([row["kind"] for row in rows])
    error = np.abs(found - true)
    inside = [row["low"] - 1e-3 <= row["dice"] <= row["high"] + 1e-3 for row in rows]
    return {
        "segments": len(rows),
        "pearson": round(float(np.corrcoef(true, found)[0, 1]), 3),
        "error": round(float(error.mean()), 4),
        "inside": round(float(np.mean(inside)), 3),
        "kinds": {kind: [round(float(part[which == kind].mean()), 3) for part in (true, error)] for kind in kinds},
    }


def page(reports: list[dict], name: str) -> str:
    """The results as Markdown."""
    kinds = list(reports[0]["kinds"])
    lines = [
        "# Expected quality",
        "",
        "Written by `Testing/benchmarks/quality.py measure`, whose docstring says what was segmented. Expected against true "
        "Dice of each segment: Pearson's correlation, mean absolute error, and the share of intervals (made for 80 %) that "
        "hold the true one. For each kind of copy: mean true Dice, and in brackets the mean absolute error. What is neither "
        "there nor marked is left out, for it has no Dice (of breast-lesion-us it counts: an empty segment is right).",
        "",
        f"| model | cases | segments | correlation | error | inside | {' | '.join(kinds)} |",
        "| --- " * (len(kinds) + 6) + "|",
    ]
    for report in reports:
        cells = [f"{dice:.2f} ({error:.3f})" for dice, error in (report["kinds"][kind] for kind in kinds)]
        numbers = f"{report['pearson']:.2f} | {report['error']:.3f} | {100 * report['inside']:.0f} %"
        counts = f"{report['cases']} | {report['segments']}"
        lines.append(f"| {report['model']} | {counts} | {numbers} | {' | '.join(cells)} |")
    pearson, error = (np.mean([report[name] for report in reports]) for name in ("pearson", "error"))
    lines += ["", f"Mean over the models: correlation {pearson:.2f}, error {error:.3f}."]
    lines += ["", f"![True Dice by expected Dice]({name}.svg)", ""]
    return "\n".join(lines)


def reliability(rows: list[dict]) -> list[tuple[float, float]]:
    """Mean expected and mean true Dice of the segments in each bin of expected Dice."""
    points = []
    for low, high in itertools.pairwise(BINS):
        here = [row for row in rows if low <= row["mean"] < high or row["mean"] == high == 1]
        if len(here) >= LEAST_IN_BIN:
            points.append(tuple(float(np.mean([row[name] for row in here])) for name in ("mean", "dice")))
    return points


if __name__ == "__main__":
    sys.exit(main())
