"""`prosma dicomweb` against a real PACS: every series once, whatever breaks off, and nothing told that is secret."""

import base64
import json
import os
import subprocess
import sys
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_writing import OBLIQUE, SAGITTAL, noise, write_series
from pydicom.uid import generate_uid

from judges import dcmqi_labels, dice
from orthanc import PASSWORD, TIMEOUT, USER, Orthanc
from prosma import read_image
from prosma.batch.records import RECORDS
from prosma.cli import exit_codes, main
from prosma.inference.segmenter import Segmenter
from tiny_model import make_tiny_package

pytest.importorskip("dicomweb_client")
pytest.importorskip("highdicom")
ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills processes as on POSIX")
UNCOMPRESSED, RLE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5"
HEADS = [  # three series to be segmented, in two studies
    {"axes": OBLIQUE, "description": "T2 schräg", "study": "1", "syntax": UNCOMPRESSED},
    {"axes": SAGITTAL, "description": "T2 sag", "study": "1", "syntax": UNCOMPRESSED},
    {"axes": OBLIQUE, "description": "T2 (again)", "study": "2", "syntax": RLE},
]
OTHERS = [
    {"axes": OBLIQUE, "description": "T2 sag", "study": "3", "date": "20250101"},
    {"axes": OBLIQUE, "description": "T1", "study": "1"},
    {"axes": OBLIQUE, "description": "T2 sag", "study": "2", "part": "FOOT"},
    {"axes": OBLIQUE, "description": "T2 sag", "study": "1", "modality": "CT"},
    {"axes": OBLIQUE, "description": "T2 sag", "study": "4", "patient": "P-2", "date": "20260505"},
]
QUERY = ["--study-date", "20260101-20261231", "--series-description", "T2 *", "--body-part", "HEAD"]
QUERY += ["--patient-id", "P-1", "--study-description", "Köpfe"]


def write_one(folder: Path, number: int, entry: dict) -> Path:
    """One series of 12 images."""
    studies = {key: f"1.2.826.0.1.3680043.8.498.77.{key}" for key in "1234"}
    own = f"1.2.826.0.1.3680043.8.498.88.{number}"

    def edit(ds, _k):
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = studies[entry["study"]], own, f"{own}.1"
        ds.SpecificCharacterSet, ds.StudyDescription = "ISO_IR 192", "Köpfe"
        ds.SeriesDescription, ds.BodyPartExamined = entry["description"], entry.get("part", "HEAD")
        ds.StudyDate, ds.PatientID = entry.get("date", "20260303"), entry.get("patient", "P-1")
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        if entry.get("syntax") == RLE:
            ds.compress(RLE)

    modality = entry.get("modality", "MR")
    write_series(folder / own, noise(seed=number), axes=entry["axes"], edit=edit, modality=modality)
    return folder / own


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_package(tmp_path_factory.mktemp("models") / "tiny", spacing=None, patch_size=[16, 16, 16], seed=7)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Folders of the series that the query wants, then of the others."""
    folder = tmp_path_factory.mktemp("images")
    return [write_one(folder, number, entry) for number, entry in enumerate([*HEADS, *OTHERS], start=1)]


@pytest.fixture
def server(tmp_path, images, monkeypatch):
    folder = tmp_path / "orthanc"
    folder.mkdir()
    orthanc = Orthanc(folder)
    orthanc.start()
    monkeypatch.setenv("PROSMA_DICOMWEB_USER", USER)
    monkeypatch.setenv("PROSMA_DICOMWEB_PASSWORD", PASSWORD)
    for series in images:
        orthanc.upload(series)
    yield orthanc
    orthanc.kill()


def command(server, model, work, *more) -> list[str]:
    return ["dicomweb", *map(str, (server.url, "-m", model.folder, "-o", work, "--device", "cpu", *more))]


def report_of(said: str) -> dict:
    return json.loads(said.splitlines()[-1])


def written(work: Path) -> Counter:
    """How often the result of each series was computed, by the records."""
    lines = map(json.loads, (work / RECORDS).read_text().splitlines())
    return Counter(line["output"] for line in lines if "sha256" in line)


def by_source(segmentations: dict[str, bytes]) -> dict[str, list[pydicom.Dataset]]:
    """The segmentations by the series that they say they were made from."""
    found: dict[str, list[pydicom.Dataset]] = {}
    for content in segmentations.values():
        ds = pydicom.dcmread(BytesIO(content))
        assert ds.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.4"
        found.setdefault(str(ds.ReferencedSeriesSequence[0].SeriesInstanceUID), []).append(ds)
    return found


def test_three_series_come_back_as_segmentations_and_a_second_call_does_nothing(
    server, model, images, tmp_path, capsys
):
    work, wanted = tmp_path / "work", images[: len(HEADS)]
    assert main(command(server, model, work, *QUERY, "--list")) == 0
    listed = capsys.readouterr().out.splitlines()
    assert sorted(line.split("  ")[:2] for line in listed) == sorted([series.name, "to do"] for series in wanted)
    assert not work.exists()

    assert main(command(server, model, work, *QUERY, "--json")) == 0
    said = capsys.readouterr()
    cases = report_of(said.out)["cases"]
    stored = server.segmentations()
    assert sorted(case["stored"] for case in cases) == sorted(stored)
    assert all("P-1" not in text and "Kestrel" not in text for text in (*said, (work / RECORDS).read_text()))
    found = by_source(stored)
    assert sorted(found) == sorted(series.name for series in wanted)
    for series in wanted:
        (segmentation,) = found[series.name]
        source = pydicom.dcmread(next(series.iterdir()), stop_before_pixels=True)
        for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID"):
            assert segmentation[keyword].value == source[keyword].value
        image = read_image(series)
        labels = Segmenter(model, "cpu").segment(image).labels
        assert len(np.unique(labels)) > 1
        file = tmp_path / f"{series.name}.dcm"
        file.write_bytes(stored[segmentation.SOPInstanceUID])
        seen = dcmqi_labels(file, tmp_path / series.name, image)
        assert all(dice(seen == value, labels == value) >= 0.999 for value in (1, 2))
    assert sorted(file.suffix for file in work.iterdir()) == [".dcm"] * 3 + [".jsonl"], "no image stays"

    before = server.changes()
    for folder in (work, tmp_path / "another"):  # the server alone says that they are done
        assert main(command(server, model, folder, *QUERY, "--json")) == 0
        assert [case["skipped"] for case in report_of(capsys.readouterr().out)["cases"]] == ["finished"] * 3
    assert server.changes() == before
    assert set(written(work).values()) == {1}


def test_a_newer_version_and_another_model_make_their_own(server, model, tmp_path, capsys):
    one = ["--series-uid", "1.2.826.0.1.3680043.8.498.88.1"]
    assert main(command(server, model, tmp_path / "work", *one)) == 0
    for seed, changes in ((7, {"version": "1.0.1"}), (8, {"id": "tiny-two"})):
        other = make_tiny_package(
            tmp_path / "m" / str(seed), spacing=None, patch_size=[16, 16, 16], seed=seed, **changes
        )
        for _time in range(2):
            assert main(command(server, other, tmp_path / "work", *one)) == 0
    assert len(server.segmentations()) == 3
    assert main(command(server, model, tmp_path / "work", *one)) == 0
    assert "was there already" in capsys.readouterr().out.splitlines()[-1]


def started(server, model, work, *more) -> subprocess.Popen:
    words = [sys.executable, "-m", "prosma.cli", *command(server, model, work, *more)]
    return subprocess.Popen(words, cwd=ROOT / "training", text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.slow
def test_a_server_that_goes_in_the_middle_costs_named_failures_and_the_same_call_goes_on(
    server, model, tmp_path, capsys
):
    work = tmp_path / "work"
    process = started(server, model, work, "--json")
    first = json.loads(process.stdout.readline())
    server.kill()
    said, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == exit_codes.SOME_FAILED
    cases = {case["case"]: case for case in report_of(said)["cases"]}
    failures = {name for name, case in cases.items() if "error" in case}
    assert len(cases) == 7 and first["case"] not in failures and len(failures) >= 5
    for name in failures:
        assert "does not answer" in cases[name]["error"]["message"]
        assert f"prosma: {name}: The server" in errors
    assert main(command(server, model, work)) == exit_codes.FAILED
    assert "does not answer" in capsys.readouterr().err

    server.start()
    assert main(command(server, model, work, "--json")) == 0
    report = report_of(capsys.readouterr().out)
    assert report["failed"] == 0 and len(report["cases"]) == 7
    found = by_source(server.segmentations())
    assert sorted(found) == sorted(cases)
    assert {len(own) for own in found.values()} == {1}
    assert set(written(work).values()) == {1}
    before = server.changes()
    assert main(command(server, model, work, "--json")) == 0
    assert server.changes() == before


@pytest.mark.slow
def test_killed_commands_lose_nothing_and_store_nothing_twice(server, model, tmp_path, capsys):
    work = tmp_path / "work"
    for lines in (1, 2):
        process = started(server, model, work, "--json")
        for _line in range(lines):
            process.stdout.readline()
        process.kill()
        process.communicate(timeout=TIMEOUT)
    assert main(command(server, model, work, "--json")) == 0
    found = by_source(server.segmentations())
    assert len(found) == 7 and {len(own) for own in found.values()} == {1}
    assert sum(times - 1 for times in written(work).values()) <= 2, (
        "none but one a kill, between its record and its place"
    )
    assert sorted({file.suffix for file in work.iterdir()}) == [".dcm", ".jsonl"], "no image stays"
    capsys.readouterr()


def test_what_was_made_but_not_stored_is_stored_and_not_computed_again(server, model, tmp_path, capsys):
    work = tmp_path / "work"
    one = ["--series-uid", "1.2.826.0.1.3680043.8.498.88.1", "--json"]
    assert main(command(server, model, work, *one)) == 0
    (uid,) = server.segmentations()
    lines = (work / RECORDS).read_text().splitlines(keepends=True)
    (work / RECORDS).write_text("".join(line for line in lines if "stored" not in line))
    server.remove(uid)
    capsys.readouterr()
    assert main(command(server, model, work, *one)) == 0
    (case,) = report_of(capsys.readouterr().out)["cases"]
    assert (case["skipped"], case["stored"]) == ("finished", uid)
    assert list(server.segmentations()) == [uid]
    assert set(written(work).values()) == {1}


def test_what_somebody_removed_from_the_server_stays_away_unless_asked_for(server, model, tmp_path, capsys):
    work = tmp_path / "work"
    one = ["--series-uid", "1.2.826.0.1.3680043.8.498.88.2"]
    assert main(command(server, model, work, *one)) == 0
    server.remove(next(iter(server.segmentations())))
    capsys.readouterr()
    assert main(command(server, model, work, *one)) == 0
    assert "is not on the server any more; --again makes it" in capsys.readouterr().out
    assert not server.segmentations()
    assert main(command(server, model, work, *one, "--again")) == 0
    assert len(server.segmentations()) == 1


def test_a_result_that_a_person_changed_is_not_stored(server, model, tmp_path, capsys):
    work = tmp_path / "work"
    one = ["--series-uid", "1.2.826.0.1.3680043.8.498.88.2"]
    assert main(command(server, model, work, *one)) == 0
    server.remove(next(iter(server.segmentations())))
    (file,) = work.glob("*.dcm")
    ds = pydicom.dcmread(file)
    ds.ContentDescription = "corrected"
    ds.save_as(file)
    assert main(command(server, model, work, *one, "--again")) == exit_codes.FAILED
    assert "was changed after ProSMA wrote it, so it was not stored" in capsys.readouterr().err
    assert not server.segmentations()
    file.rename(tmp_path / "aside.dcm")
    assert main(command(server, model, work, *one, "--again")) == 0
    assert len(server.segmentations()) == 1


def test_a_limit_takes_those_that_are_not_done(server, model, tmp_path, capsys):
    for count in (2, 3, 3):
        assert main(command(server, model, tmp_path / "work", *QUERY, "--limit", "2")) == 0
        assert len(server.segmentations()) == count
    capsys.readouterr()


QUERIES = [
    (["--study-date", "20260303"], [1, 2, 3, 5, 6]),
    (["--study-date", "-20251231"], [4]),
    (["--study-date", "20260304-"], [8]),
    (["--modality", "CT"], [7]),
    (["--modality", "*", "--study-uid", "1.2.826.0.1.3680043.8.498.77.1"], [1, 2, 5, 7]),
    (["--series-description", "t2 schräg"], [1]),
    (["--series-description", "T2 (*)"], [3]),
    (["--series-description", "T2 s??", "--body-part", "H*"], [2, 4, 8]),
    (["--patient-id", "P-2"], [8]),
    (["--patient-id", "P-3"], []),
]


def test_queries_find_what_they_say(server, model, tmp_path, capsys):
    for words, numbers in QUERIES:
        assert main(command(server, model, tmp_path / "work", *words, "--list")) == 0
        said = capsys.readouterr()
        found = sorted(int(line.split()[0].rpartition(".")[2]) for line in said.out.splitlines())
        assert found == numbers, words
        assert ("No series" in said.err) == (not numbers)


def test_passwords_come_from_netrc_or_the_environment_and_are_never_told(server, model, tmp_path, monkeypatch, capfd):
    work, one = tmp_path / "work", ["--series-uid", "1.2.826.0.1.3680043.8.498.88.1", "--log", tmp_path / "log"]
    secrets = (PASSWORD, base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode())
    asked = ["--debug", *command(server, model, work, *one)]
    monkeypatch.setenv("PROSMA_DICOMWEB_PASSWORD", "wrong")
    assert main(asked) == exit_codes.FAILED
    assert "does not let us in (401)" in capfd.readouterr().err
    monkeypatch.delenv("PROSMA_DICOMWEB_PASSWORD")
    assert main(asked) == exit_codes.FAILED
    assert "only one is set" in capfd.readouterr().err
    assert main(asked) == exit_codes.FAILED
    monkeypatch.delenv("PROSMA_DICOMWEB_USER")
    monkeypatch.setenv("NETRC", str(tmp_path / "nosuch"))
    assert main(asked) == exit_codes.FAILED
    assert "401" in capfd.readouterr().err
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    code = main(asked)
    said = capfd.readouterr()
    assert code == 0, said.err
    assert len(server.segmentations()) == 1
    files = [path.read_text(encoding="utf-8", errors="replace") for path in (work / RECORDS, tmp_path / "log")]
    assert not [secret for secret in secrets for text in (*said, *files) if secret in text]
    address = server.url.replace("://", f"://{USER}:secret@")
    assert main(["dicomweb", address, "-m", str(model.folder), "-o", str(work)]) == exit_codes.FAILED
    told = capfd.readouterr().err
    assert "The address holds a user's name or a password" in told and "secret@" not in told


@pytest.mark.slow
def test_two_calls_on_one_folder_share_the_series(server, model, tmp_path):
    work = tmp_path / "work"
    processes = [started(server, model, work, "--json") for _ in range(2)]
    reports = []
    for process in processes:
        said, errors = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0, errors
        reports.append(report_of(said))
    assert set(written(work).values()) == {1} and len(written(work)) == 7
    found = by_source(server.segmentations())
    assert len(found) == 7 and {len(own) for own in found.values()} == {1}
