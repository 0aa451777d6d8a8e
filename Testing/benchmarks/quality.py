"""How near the expected Dice of segments (training/prosma/inference/quality.py) comes to the true one, and what it needs.

    python Testing/benchmarks/quality.py make DATA [MODEL ...]
    python Testing/benchmarks/quality.py measure DATA [MODEL ...] [--json FILE] [--markdown Testing/benchmarks/QUALITY.md]

DATA holds a folder for each data set, as for fit.py. `make` writes quality.json into the bundled packages, from the val (and
where these are few, some train) cases of each model's own data. `measure` segments at most 20 cases of the test split, and
copies of each with noise, little contrast, coarse voxels, and cut through the structures
(learning/packing/degraded_copies.py).
"""

import itertools
import sys
from pathlib import Path

import numpy as np
from curves import svg
from fit import OWN, parse

from prosma.errors import UserFacingError
from prosma.files import write_json
from prosma.inference.fit import Fit
from prosma.inference.quality import QualityStatistics
from prosma.inference.segmenter import Segmenter
from prosma.learning.data.dataset import LabelledFolder
from prosma.learning.packing.fit_statistics import spread_out
from prosma.learning.packing.quality_statistics import measured_rows, quality_statistics
from prosma.package import bundled_models_folder

MOST = 20  # cases of a set
BINS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of expected Dice, for the reliability
LEAST_IN_BIN = 5  # segments


def main() -> int:
    options = parse(__doc__.splitlines()[0])
    models = options.models or list(OWN)
    try:
        if options.action == "make":
            for name in models:
                make(name, options.data)
            return 0
        reports = [measure(name, options.data) for name in models]
    except UserFacingError as error:
        print(error, file=sys.stderr)
        return 1
    if options.json:
        write_json(options.json, {"models": reports})
    if options.markdown:
        options.markdown.write_text(page(reports, options.markdown.stem), encoding="utf-8")
        curves = {report["model"]: reliability(report["rows"]) for report in reports}
        options.markdown.with_suffix(".svg").write_text(svg(curves, "expected Dice", "true Dice"), encoding="utf-8")
    return 0


def make(model: str, data: Path) -> None:
    """Write quality.json of a bundled model."""
    segmenter = Segmenter(bundled_models_folder() / model, "cpu")
    content = quality_statistics(segmenter, LabelledFolder.open(data / OWN[model]))
    if content is not None:
        segmenter.package.quality_path.write_bytes(content)
    print(f"{model}: {len(content or b'')} bytes", flush=True)


def measure(model: str, data: Path) -> dict:
    """Expected and true Dice of all segments, and what `summary` makes of them."""
    segmenter = Segmenter(bundled_models_folder() / model, "cpu")
    package, folder = segmenter.package, LabelledFolder.open(data / OWN[model])
    statistics = QualityStatistics.of_package(package.quality_path, package.sha256)
    rows = []
    for row in measured_rows(segmenter, folder, spread_out(folder.splits["test"], MOST)):
        fit = Fit("fits", distances=row.distances)
        expected = statistics and statistics.expected(row.label, row.sums, fit, row.removed)
        if expected is not None:
            told = {"case": row.case, "kind": row.kind, "label": row.label, "dice": row.dice}
            rows.append({**told, **expected.as_dict()})
    report = {"model": model, **summary(rows), "rows": rows}
    print({key: value for key, value in report.items() if key != "rows"}, flush=True)
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
        "hold the true one. For each kind of copy: mean true Dice, and in brackets the mean absolute error.",
        "",
        f"| model | segments | correlation | error | inside | {' | '.join(kinds)} |",
        "| --- " * (len(kinds) + 5) + "|",
    ]
    for report in reports:
        cells = [f"{dice:.2f} ({error:.3f})" for dice, error in (report["kinds"][kind] for kind in kinds)]
        numbers = f"{report['pearson']:.2f} | {report['error']:.3f} | {100 * report['inside']:.0f} %"
        lines.append(f"| {report['model']} | {report['segments']} | {numbers} | {' | '.join(cells)} |")
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
