"""Tables of a cohort: the numbers, computed anew from the files by other means, and what has become of each case."""

import csv
import json
import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from test_cli import oblique, run, write_image
from test_many_cases import make_images

from prosma.cli import exit_codes
from small_volumes import smooth_volume
from tiny_model import make_tiny_package

ROOT = Path(__file__).resolve().parents[3]


def told(capsys, out: Path) -> dict:
    capsys.readouterr()
    assert run("report", out, "--json") == 0
    return json.loads(capsys.readouterr().out)


def expected(image_path: Path, labels_path: Path, value: int) -> dict:
    """By ITK's own geometry, voxel by voxel."""
    image, labels = sitk.ReadImage(str(image_path)), sitk.ReadImage(str(labels_path))
    voxels = np.argwhere(sitk.GetArrayFromImage(labels) == value)[:, ::-1]
    points = np.array([image.TransformIndexToPhysicalPoint(voxel.tolist()) for voxel in voxels]) * [-1, -1, 1]
    values = [float(image.GetPixel(*voxel.tolist())) for voxel in voxels]
    mean = sum(values) / len(values)
    return {
        "voxels": len(voxels),
        "ml": len(voxels) * float(np.prod(image.GetSpacing())) / 1000,
        "centroid": points.mean(axis=0),
        "box": [[int(voxels[:, n].min()), int(voxels[:, n].max()) + 1] for n in range(3)],
        "mean": mean,
        "deviation": (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5,
    }


def test_measures_are_those_of_the_files(tiny, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    write_image(images / "a.nrrd", smooth_volume((14, 12, 11), seed=2, matrix=oblique()))
    out = tmp_path / "out"
    assert run("segment", images, "-m", tiny.folder, "-o", out, "--statistics") == 0
    (case,) = told(capsys, out)["cases"]
    assert [segment["value"] for segment in case["segments"]] == [1, 2]
    for segment in case["segments"]:
        right = expected(images / "a.nrrd", out / "a.seg.nrrd", segment["value"])
        assert segment["voxels"] == right["voxels"] > 0
        assert segment["ml"] == pytest.approx(right["ml"], abs=1e-5)
        assert segment["centroid_ras"] == pytest.approx(right["centroid"], abs=2e-4)
        assert segment["box"] == right["box"]
        assert segment["mean"] == [pytest.approx(right["mean"])]
        assert segment["deviation"] == [pytest.approx(right["deviation"])]
    assert case["model"] == {"id": "tiny", "version": "1.0.0", "sha256": tiny.sha256}


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text elsewhere")
def test_a_name_that_is_no_text_ends_neither_a_batch_nor_its_tables(tiny, tmp_path):
    images = make_images(tmp_path / "images", "b")
    odd = os.fsdecode(b"a\xe9")
    sitk.WriteImage(sitk.ReadImage(images / "b.nrrd"), tmp_path / "a.nii.gz")
    shutil.move(tmp_path / "a.nii.gz", images / f"{odd}.nii.gz")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "training"), "PYTHONIOENCODING": "utf-8:strict"}

    def prosma(*words):
        command = [sys.executable, "-m", "prosma.cli", *map(str, words)]
        return subprocess.run(command, env=environment, capture_output=True, timeout=300, check=False)

    done = prosma("segment", images, "-m", tiny.folder, "-o", tmp_path / "out", "--log", tmp_path / "log.txt")
    assert done.returncode == 0 and b"a\\udce9" in done.stdout and b"b.seg.nrrd" in done.stdout
    assert "a\\udce9" in (tmp_path / "log.txt").read_text("utf-8")
    tables = ("--csv", tmp_path / "t.csv", "--html", tmp_path / "t.html")
    assert prosma("report", tmp_path / "out", *tables).returncode == 0
    with (tmp_path / "t.csv").open(encoding="utf-8") as file:
        assert {row["case"] for row in csv.DictReader(file)} == {"a\\udce9", "b"}
    page = (tmp_path / "t.html").read_text("utf-8")
    assert "a\\udce9" in page and "holds bytes that are no text in UTF-8. Rename the file or its folder." in page


def test_a_result_that_a_person_corrected_is_measured_as_it_is_now(tiny, tmp_path, capsys):
    """The correction is a ball, of which everything is known."""
    images = make_images(tmp_path / "images", "other")
    write_image(images / "ball.nrrd", smooth_volume((50, 40, 24), matrix=np.diag([1.0, 1.25, 2.0, 1.0])))
    out = tmp_path / "out"
    command = ["segment", images, "-m", tiny.folder, "-o", out]
    assert run(*command) == 0
    i, j, k = np.meshgrid(*map(np.arange, (50, 40, 24)), indexing="ij")
    ball = (i - 25) ** 2 + (1.25 * (j - 20)) ** 2 + (2 * (k - 12)) ** 2 <= 15**2
    picture = sitk.ReadImage(str(out / "ball.seg.nrrd"))
    corrected = sitk.GetImageFromArray(ball.T.astype(np.uint8))
    corrected.CopyInformation(picture)
    sitk.WriteImage(corrected, str(out / "ball.seg.nrrd"))
    before = next(case for case in told(capsys, out)["cases"] if case["case"] == "ball")
    assert (before["state"], before["segments"]) == ("edited", []), "what was measured before is of another mask"
    for _time in range(2):
        assert run(*command, "--statistics") == 0
    cases = {case["case"]: case for case in told(capsys, out)["cases"]}
    one, two = cases["ball"]["segments"]
    assert one["surface_mm2"] == pytest.approx(4 * np.pi * 15**2, rel=0.02)
    assert one["ml"] == pytest.approx(4 / 3 * np.pi * 15**3 / 1000, rel=0.02)
    assert one["centroid_ras"] == pytest.approx([25, 25, 24], abs=1e-6)
    assert one["box"] == [[10, 41], [8, 33], [5, 20]]
    assert two == {**dict.fromkeys(two), "value": 2, "name": "structure 2", "voxels": 0, "ml": 0.0}
    assert (cases["ball"]["state"], cases["other"]["state"]) == ("edited", "done")
    assert cases["other"]["segments"][0]["surface_mm2"] > 0, "measured though it was there already"
    lines = [json.loads(line) for line in (out / "prosma-results.jsonl").read_text().splitlines()]
    assert len([line for line in lines if "measured" in line]) == 2, "once for each result"


def test_pictures_have_pixels_and_slices_have_boundaries_in_mm(tiny_flat, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    array = np.random.default_rng(0).integers(0, 255, (30, 40, 3)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=True), str(images / "a.png"))
    scan = sitk.GetImageFromArray(array, isVector=True)
    scan.SetSpacing((0.5, 0.5))
    sitk.WriteImage(scan, str(images / "b.mha"))
    out = tmp_path / "out"
    assert run("segment", images, "-m", tiny_flat.folder, "-o", out, "--statistics", "--format", ".nrrd") == 0
    picture, scan = (case["segments"] for case in told(capsys, out)["cases"])
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(out / "a.nrrd")))[0]
    for segment, other in zip(picture, scan, strict=True):
        rows, columns = np.nonzero(labels == segment["value"])
        assert segment["voxels"] == len(rows)
        assert segment["ml"] is None
        assert segment["centroid_ij"] == (pytest.approx([columns.mean(), rows.mean()], abs=1e-3) if len(rows) else None)
        assert len(segment["mean"] or "rgb") == 3
        if len(rows):
            assert segment["boundary_pixels"] / 2 == pytest.approx(other["boundary_mm"], rel=1e-3)
            assert other["ml"] == pytest.approx(len(rows) * 0.25 / 1000)
    assert any(segment["voxels"] for segment in picture)


def test_a_report_tells_of_all_that_can_become_of_a_case(tiny, tmp_path, capsys):
    images = make_images(tmp_path / "images", "a", "b", "c", "y", "z")
    (images / "m.nrrd").write_bytes(b"x")
    out = tmp_path / "out"
    code = run("segment", images, "-m", tiny.folder, "-o", out, "--max-failures", "1")
    assert code == exit_codes.SOME_FAILED
    (out / "b.seg.nrrd").write_bytes(b"corrected by hand")
    (out / "c.seg.nrrd").unlink()
    report = told(capsys, out)
    assert {case["case"]: case["state"] for case in report["cases"]} == {
        "a": "done",
        "b": "edited",
        "c": "missing",
        "m": "failed",
    }
    assert report["not_tried"] == 2
    assert run("report", out) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == (
        "3 of 6 cases are done (1 edited since) (1 gone since), 1 failed, 2 have not been tried or are at work."
    )
    assert said[1].startswith("    m: m.nrrd is damaged")
    assert run("segment", images, "-m", tiny.folder, "-o", out) == exit_codes.SOME_FAILED
    assert told(capsys, out)["not_tried"] == 0


def test_a_folder_without_records_is_told(tmp_path, capsys):
    for folder in (tmp_path, tmp_path / "nothing"):
        assert run("report", folder) == exit_codes.FAILED
        assert "There is no prosma-results.jsonl in" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


class Cells(HTMLParser):
    """The cells of a page's tables, row by row."""

    def __init__(self):
        super().__init__()
        self.rows, self.inside = [], False

    def handle_starttag(self, tag, _attributes):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self.inside = tag in ("td", "th")

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += data

    def handle_endtag(self, _tag):
        self.inside = False


def test_all_kinds_of_tables_hold_the_same(tiny, tmp_path, capsys):
    parquet = pytest.importorskip("pyarrow.parquet")
    images = make_images(tmp_path / "images", "a", "<b> & co")
    (images / "broken.nrrd").write_bytes(b"x")
    out, kinds = tmp_path / "out", {kind: tmp_path / "new" / f"t.{kind}" for kind in ("csv", "parquet", "html")}
    run("segment", images, "-m", tiny.folder, "-o", out, "--statistics")
    assert run("report", out, *(word for kind, path in kinds.items() for word in (f"--{kind}", path))) == 0
    with kinds["csv"].open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["state"], row["segment"]) for row in rows] == [
        *((case, "done", f"structure {n}") for case in ("<b> & co", "a") for n in (1, 2)),
        ("broken", "failed", ""),
    ]
    facts = [case for case in told(capsys, out)["cases"] for _segment in case.get("segments", "-")]
    segments = [segment for case in told(capsys, out)["cases"] for segment in case.get("segments", [{}])]
    for row, case, segment in zip(rows, facts, segments, strict=True):
        if segment:
            assert float(row["ml"]) == segment["ml"]
            assert float(row["surface_mm2"]) == segment["surface_mm2"]
            assert [float(row[f"centroid_{axis}"]) for axis in "ras"] == segment["centroid_ras"]
            assert [[int(row[f"{axis}_low"]), int(row[f"{axis}_high"])] for axis in "ijk"] == segment["box"]
            assert [float(row["mean"]), float(row["deviation"])] == [segment["mean"][0], segment["deviation"][0]]
            assert (row["model_sha256"], row["input_sha256"]) == (tiny.sha256, case["input"])
            assert row["result_sha256"] == case["sha256"]
        else:
            assert row["error"] == case["error"]["message"]
    table = parquet.read_table(kinds["parquet"])
    assert table.column_names == list(rows[0])
    as_text = [{key: "" if value is None else str(value) for key, value in row.items()} for row in table.to_pylist()]
    assert as_text == rows
    cells = Cells()
    cells.feed(kinds["html"].read_text(encoding="utf-8"))
    start = next(n for n, row in enumerate(cells.rows) if row[:2] == ["case", "state"])
    assert [row[:3] for row in cells.rows[start + 1 :]] == [[row["case"], row["state"], row["segment"]] for row in rows]
    sizes = [float(row["ml"]) for row in rows if row["segment"] == "structure 1"]
    spread = next(row for row in cells.rows if row[1:2] == ["structure 1"])
    assert spread[2:4] == ["ml", "2"]
    assert float(spread[4]) == pytest.approx(np.mean(sizes), abs=1e-4)
    assert float(spread[5]) == pytest.approx(np.std(sizes, ddof=1), abs=1e-4)


def test_large_tables_are_written_in_groups_and_the_page_shows_the_beginning(tiny, tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("prosma.batch.tables.GROUP", 4)
    monkeypatch.setattr("prosma.batch.page.MOST_ROWS", 3)
    images = make_images(tmp_path / "images", "a", "b", "c")
    (images / "broken.nrrd").write_bytes(b"x")
    out, page = tmp_path / "out", tmp_path / "t.html"
    run("segment", images, "-m", tiny.folder, "-o", out)
    assert run("report", out, "--csv", tmp_path / "t.csv", "--parquet", tmp_path / "t.parquet", "--html", page) == 0
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == ["a", "a", "b", "b", "broken", "c", "c"]
    table = parquet.ParquetFile(tmp_path / "t.parquet")
    assert [table.metadata.row_group(n).num_rows for n in range(table.num_row_groups)] == [4, 3]
    assert [row["case"] for row in table.read().to_pylist()] == [row["case"] for row in rows]
    text, cells = page.read_text(encoding="utf-8"), Cells()
    cells.feed(text)
    start = next(n for n, row in enumerate(cells.rows) if row[:2] == ["case", "state"])
    assert [row[0] for row in cells.rows[start + 1 :]] == ["a", "a", "b"]
    assert "The first 3 of 7 rows; all of them are in the table that --csv writes." in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "out", "t.csv", "t.html", "t.parquet"]


MEASURED = """
import resource, sys
from prosma.cli import main
import prosma.batch.page, prosma.batch.tables
main(["report", sys.argv[1]])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
code = main(["report", sys.argv[2], "--csv", sys.argv[3], "--html", sys.argv[3] + ".html", "--pictures", "2", "--json"])
print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, file=sys.stderr)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kilobytes as Linux counts them")
def test_a_report_keeps_no_case_in_memory(tiny, tmp_path):
    """2,000 cases with 1,000 notices each: kept as objects they would take more than 100 MB."""
    small = tmp_path / "small"
    run("segment", make_images(tmp_path / "images", "a"), "-m", tiny.folder, "-o", small)
    line = json.loads((small / "prosma-results.jsonl").read_text().splitlines()[-1])
    line["report"]["notices"] = [f"notice {number}" for number in range(1000)]
    large = tmp_path / "large"
    large.mkdir()
    with (large / "prosma-results.jsonl").open("w") as file:
        for number in range(2000):
            file.write(json.dumps({**line, "output": f"case{number:04d}.seg.nrrd"}) + "\n")
    command = [sys.executable, "-c", MEASURED, small, large, tmp_path / "t.csv"]
    with (tmp_path / "said.json").open("w") as said:
        done = subprocess.run(
            command, stdout=said, stderr=subprocess.PIPE, cwd=ROOT / "training", text=True, check=True
        )
    code, more = map(int, done.stderr.split())
    assert code == 0 and more < 30_000
    report = json.loads((tmp_path / "said.json").read_text().partition("\n")[2])
    assert len(report["cases"]) == 2000 and {case["state"] for case in report["cases"]} == {"missing"}
    assert sum(1 for _row in (tmp_path / "t.csv").open()) == 1 + 2 * 2000


def test_parquet_without_its_library_is_told_and_csv_works(tiny, tmp_path, capsys, monkeypatch):
    images = make_images(tmp_path / "images", "a")
    run("segment", images, "-m", tiny.folder, "-o", tmp_path / "out")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert run("report", tmp_path / "out", "--parquet", tmp_path / "t.parquet") == exit_codes.FAILED
    assert "pip install pyarrow" in capsys.readouterr().err
    assert run("report", tmp_path / "out", "--csv", tmp_path / "t.csv") == 0
    assert not (tmp_path / "t.parquet").exists()


def test_evaluating_asks_for_the_licence_too(tmp_path, capsys):
    package = make_tiny_package(tmp_path / "m", accept_licence=True)
    assert run("evaluate", package.folder, "--data", tmp_path / "nothing") == exit_codes.FAILED
    assert "--accept-licence" in capsys.readouterr().err
    assert run("evaluate", package.folder, "--data", tmp_path / "nothing", "--accept-licence") == exit_codes.FAILED
    assert "holds no training data" in capsys.readouterr().err
