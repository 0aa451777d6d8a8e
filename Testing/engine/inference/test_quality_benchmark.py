"""Testing/benchmarks/quality.py from end to end: what it writes into a package, what all models share, and its page."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from prosma.inference.quality import FEATURES, QualityStatistics
from prosma.package import ModelPackage, bundled_models_folder

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import quality

MODEL = "hippocampus-mr"


@pytest.fixture
def data(shared, tmp_path, monkeypatch) -> Path:
    """A few cases of the model's own data; the model is a copy that does not know what to expect."""
    source, folder = shared / "hippocampus", tmp_path / "data" / "hippocampus"
    splits = json.loads((source / "splits.json").read_text())
    few = {"train": splits["train"][:3], "val": splits["val"][:3], "test": splits["test"][:2]}
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for case in [case for ids in few.values() for case in ids]:
        shutil.copy(source / "imagesTr" / f"{case}_0000.nii.gz", folder / "imagesTr")
        shutil.copy(source / "labelsTr" / f"{case}.nii.gz", folder / "labelsTr")
    shutil.copy(source / "dataset.json", folder)
    (folder / "splits.json").write_text(json.dumps(few))
    ignored = shutil.ignore_patterns("quality.json")
    shutil.copytree(bundled_models_folder() / MODEL, tmp_path / "models" / MODEL, ignore=ignored)
    monkeypatch.setattr(quality, "bundled_models_folder", lambda: tmp_path / "models")
    return folder.parent


def call(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["quality.py", *map(str, arguments)])
    assert quality.main() == 0


@pytest.mark.slow
def test_statistics_are_made_and_measured_and_what_models_share_is_printed(data, tmp_path, monkeypatch, capsys):
    rows, package = tmp_path / "rows", ModelPackage.open(tmp_path / "models" / MODEL)
    call(monkeypatch, "make", data, MODEL, "--rows", rows)
    made = QualityStatistics.of_package(package.quality_path, package.sha256)
    assert [label.value for label in made.labels] == [1, 2]
    kept = json.loads((rows / f"{MODEL}.val.json").read_text())
    assert len({row["case"] for row in kept}) == 6, "few validation cases: training cases help out"
    capsys.readouterr()

    call(monkeypatch, "prior", data, MODEL, "--rows", rows)
    found: dict = {}
    exec(capsys.readouterr().out, found)
    assert len(found["SCALE"]) == len(found["SLOPES"]) == FEATURES
    assert np.isfinite(found["SLOPES"]).all() and min(found["SCALE"]) > 0

    page, report = tmp_path / "QUALITY.md", tmp_path / "QUALITY.json"
    call(monkeypatch, "measure", data, MODEL, "--json", report, "--markdown", page)
    (measured,) = json.loads(report.read_text())["models"]
    dice, mean = (np.array(measured["rows"][name]) for name in ("dice", "mean"))
    assert measured["cases"] == 2 and len(dice) == measured["segments"] > 15
    assert measured["error"] == pytest.approx(np.abs(dice - mean).mean(), abs=1e-3) and measured["error"] < 0.2
    assert measured["pearson"] == pytest.approx(np.corrcoef(dice, mean)[0, 1], abs=1e-3)
    assert f"| {MODEL} | 2 | {len(dice)} |" in page.read_text() and page.with_suffix(".svg").is_file()
