"""DICOM through the doors: the command, a batch of it, and the worker."""

import json

import numpy as np
import pytest
from dicom_writing import SAGITTAL, data_set, noise, write, write_series

from prosma.batch.cases import find_cases
from prosma.cli import main
from prosma.image.reading import read_image, read_labels
from prosma.inference.segmenter import Segmenter

PATIENT = ("Kestrel", "Ophelia", "SECRET-77")


def segment(*arguments) -> int:
    return main(["segment", *map(str, arguments), "--device", "cpu"])


@pytest.fixture
def study(tmp_path):
    """Two series and a localizer in nested folders, beside a report."""
    folder = tmp_path / "study"
    write_series(folder / "a", noise(), SeriesInstanceUID="1.2.3.11", SeriesNumber=3, SeriesDescription="T1 / ax")
    write_series(
        folder / "b", noise((9, 16, 20), 1), SeriesInstanceUID="1.2.3.12", SeriesNumber=2, SeriesDescription="FLAIR"
    )
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesInstanceUID": "1.2.3.13", "SeriesNumber": 1}
    write_series(folder / "c", noise((3, 30, 30)), (2, 2, 2), SAGITTAL, **scout)
    (folder / "report.pdf").write_bytes(b"%PDF")
    return folder


def expected(package, folder, series):
    return Segmenter(package, "cpu").segment(read_image(folder, series)).labels


def test_the_command_lists_series_and_takes_one(study, tiny, tmp_path, capsys):
    output = tmp_path / "out.seg.nrrd"
    assert segment(study, "-m", tiny.folder, "-o", output) == 1
    told = capsys.readouterr()
    assert "2: MR 'FLAIR', 9 images of 20 x 16; 3: MR 'T1 / ax', 12 images of 20 x 16" in told.err
    assert "--series" in told.err
    assert not output.exists()
    for choice in ("3", "T1 / ax", "1.2.3.11"):
        output.unlink(missing_ok=True)
        (tmp_path / "prosma-results.jsonl").unlink(missing_ok=True)
        assert segment(study, "-m", tiny.folder, "-o", output, "--series", choice) == 0
        labels = read_labels(output)
        np.testing.assert_array_equal(labels.array[0], expected(tiny, study, "1.2.3.11"))
        np.testing.assert_allclose(labels.ijk_to_ras, read_image(study, 3).ijk_to_ras, atol=1e-6)
    told += capsys.readouterr()
    assert "13 of 25 files in study were not used" in told[-1]
    for text in (*told, (tmp_path / "prosma-results.jsonl").read_text(), output.read_bytes().decode("latin-1")):
        assert not any(name in text for name in PATIENT)


def test_another_series_is_no_finished_result(study, tiny, tmp_path, capsys):
    output = tmp_path / "out.seg.nrrd"
    assert segment(study, "-m", tiny.folder, "-o", output, "--series", "FLAIR") == 0
    assert segment(study, "-m", tiny.folder, "-o", output, "--series", "T1 / ax") == 0
    assert read_labels(output).shape == (20, 16, 12)
    assert segment(study, "-m", tiny.folder, "-o", output, "--series", "T1 / ax", "--json") == 0
    assert '"skipped"' in capsys.readouterr().out


def test_a_batch_does_each_series(study, tiny, tmp_path, capsys):
    write_series(tmp_path / "all" / "plain", noise((5, 16, 20), 5), SeriesInstanceUID="1.2.3.20")
    study.rename(tmp_path / "all" / "study")
    out = tmp_path / "out"
    assert segment(tmp_path / "all", "-m", tiny.folder, "-o", out) == 0
    results = {file.name: read_labels(file).array[0] for file in out.glob("*.nrrd")}
    assert sorted(results) == ["plain.seg.nrrd", "study-FLAIR.seg.nrrd", "study-T1-ax.seg.nrrd"]
    both = tmp_path / "all" / "study"
    np.testing.assert_array_equal(results["study-FLAIR.seg.nrrd"], expected(tiny, both, "FLAIR"))
    np.testing.assert_array_equal(results["study-T1-ax.seg.nrrd"], expected(tiny, both, "T1 / ax"))
    capsys.readouterr()
    assert segment(tmp_path / "all", "-m", tiny.folder, "-o", out, "--json") == 0
    outcomes = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [outcome["skipped"] for outcome in outcomes if "skipped" in outcome] == ["finished"] * 3
    one = tmp_path / "one"
    assert segment(both, "-m", tiny.folder, "-o", one, "--series", "FLAIR") == 0
    assert [file.name for file in one.glob("*.nrrd")] == ["study.seg.nrrd"]


def test_series_become_the_channels_of_a_model(study, tmp_path):
    from tiny_model import make_tiny_package

    package = make_tiny_package(tmp_path / "two", channels=2, spacing=None, patch_size=[16, 16, 16])
    output = tmp_path / "out.nrrd"
    assert segment(study, "-m", package.folder, "-o", output, "--series", "T1 / ax", "--series", "FLAIR") == 0
    labels = Segmenter(package, "cpu").segment(read_image(study, ["T1 / ax", "FLAIR"])).labels
    np.testing.assert_array_equal(read_labels(output).array[0], labels)


def test_a_thumbnail_does_not_take_the_place_of_its_series(tmp_path, tiny, capsys):
    write_series(tmp_path / "a", noise())
    (tmp_path / "a" / "thumb.jpg").write_bytes(b"\xff\xd8\xff\xd9")
    assert segment(tmp_path / "a", "-m", tiny.folder, "-o", tmp_path / "out") == 0
    assert read_labels(tmp_path / "out" / "a.seg.nrrd").shape == (20, 16, 12)
    assert "1 of 13 files in a were not used: 1 no DICOM file (thumb.jpg)" in capsys.readouterr().err


def test_pictures_alone_are_cases_as_ever(tmp_path):
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_bytes(b"x" * 200)
    assert [case.name for case in find_cases([tmp_path], tmp_path / "out", ".nrrd", 1)] == ["a", "b"]


def test_a_changed_file_in_a_subfolder_makes_the_result_outdated(tmp_path, tiny, capsys):
    folder = tmp_path / "a"
    files = write_series(folder / "deep", noise())
    call = (folder, "-m", tiny.folder, "-o", tmp_path / "out", "--json")
    assert segment(*call) == 0
    assert segment(*call) == 0
    assert '"skipped": "finished"' in capsys.readouterr().out
    plane = np.full((16, 20), 900)
    changed = data_set(plane)
    changed.SOPInstanceUID = "1.2.3.4.5"
    import pydicom

    ds = pydicom.dcmread(files[4])
    ds.PixelData = changed.PixelData
    write(files[4], ds)
    assert segment(*call) == 0
    assert '"skipped"' not in capsys.readouterr().out


def test_without_pydicom_it_is_said(tmp_path, tiny, capsys, monkeypatch):
    import sys

    write_series(tmp_path / "a", noise()[:2])
    monkeypatch.setitem(sys.modules, "pydicom", None)
    from prosma.image.geometry import ImageError

    with pytest.raises(ImageError, match="pydicom 3, which is not installed here") as refusal:
        read_image(tmp_path / "a")
    assert "pip install" in refusal.value.remedy
