"""Many cases on the command line: whatever one of them does, the others are done, and everything is told as it happens."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from test_cli import names_in, run, write_image

from prosma.batch.image_reader import ImageReader
from prosma.batch.records import RECORDS
from prosma.cli import exit_codes
from prosma.errors import UserFacingError
from prosma.image.geometry import ImageError
from prosma.image.reading import read_image
from small_volumes import smooth_volume

ROOT = Path(__file__).resolve().parents[3]
# What a crash in the image library does, at files with these names; in the process that reads, and only there.
CRASHES = """
import os, sys, time
if "prosma.batch.image_reader_process" in sys.orig_argv:
    sys.path.insert(0, os.environ["PROSMA_TEST_CODE"])
    from prosma.image import reading
    original = reading.read_image
    def read_image(paths, series=None):
        name = os.path.basename(str(paths[0]))
        if name.startswith("aborts"):
            os.abort()
        if name.startswith("killed"):
            os.kill(os.getpid(), 9)
        if name.startswith("hangs"):
            time.sleep(1000)
        return original(paths, series)
    reading.read_image = read_image
"""


@pytest.fixture
def crashes(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("crashes")
    (folder / "sitecustomize.py").write_text(CRASHES)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("PROSMA_TEST_CODE", str(ROOT / "training"))


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """An empty temporary folder for all processes."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def make_images(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(names):
        write_image(folder / f"{name}.nrrd", smooth_volume((14, 12, 12), seed=seed))
    return folder


def report_of(captured: str) -> dict:
    return json.loads(captured.splitlines()[-1])


# --- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="signals as on POSIX")
def test_a_death_of_the_image_library_is_one_named_failure(tiny, tmp_path, capfd, crashes, temporary):
    images = make_images(tmp_path / "images", "a", "aborts", "b", "hangs", "killed", "z")
    code = run("segment", images, "-m", tiny.folder, "-o", tmp_path / "out", "--json", "--read-limit", "3")
    said = capfd.readouterr()
    assert code == exit_codes.SOME_FAILED
    cases = {case["case"]: case for case in report_of(said.out)["cases"]}
    assert [name for name, case in cases.items() if "error" in case] == ["aborts", "hangs", "killed"]
    assert "aborts.nrrd could not be read: the image library died (SIGABRT)" in cases["aborts"]["error"]["message"]
    assert "hangs.nrrd was not read within 3 s" in cases["hangs"]["error"]["message"]
    assert "--read-limit" in cases["hangs"]["error"]["message"]
    assert "died (SIGKILL)" in cases["killed"]["error"]["message"]
    assert {case["error"]["code"] for case in cases.values() if "error" in case} == {"bad_input"}
    assert said.err.splitlines()[-1] == "prosma: 3 of 6 cases failed: aborts, hangs, killed."
    assert [name for name in names_in(tmp_path / "out") if name != RECORDS] == [f"{n}.seg.nrrd" for n in "abz"]
    assert not list(temporary.iterdir()), "voxels are not left behind"


@pytest.mark.skipif(os.name == "nt", reason="signals as on POSIX")
def test_a_single_image_at_which_the_library_dies_is_one_sentence(tiny, tmp_path, capfd, crashes):
    images = make_images(tmp_path / "images", "aborts")
    assert run("segment", images / "aborts.nrrd", "-m", tiny.folder, "-o", tmp_path / "a.nrrd") == exit_codes.FAILED
    sentences = [line for line in capfd.readouterr().err.splitlines() if line.startswith("prosma: ")]
    assert len(sentences) == 1
    assert "died (SIGABRT)" in sentences[0]
    assert names_in(tmp_path) == ["images"]


def test_the_process_gives_the_image_itself_and_the_same_errors(tmp_path, temporary):
    write_image(
        tmp_path / "a.nrrd",
        smooth_volume((14, 12, 10), matrix=np.array([[0, 2, 0, 5], [1, 0, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1.0]])),
    )
    (tmp_path / "broken.nii.gz").write_bytes(b"not an image")
    reader = ImageReader()
    there, here = reader.read([tmp_path / "a.nrrd"]), read_image(tmp_path / "a.nrrd")
    assert there.array.dtype == here.array.dtype
    assert (there.array == here.array).all()
    assert there.array.strides[1:] == here.array.strides[1:], "the order in memory that the file has"
    assert there.ijk_to_ras.tobytes() == here.ijk_to_ras.tobytes()
    assert there.notices == here.notices
    for path in (tmp_path / "broken.nii.gz", tmp_path / "nothing.nrrd"):
        with pytest.raises(ImageError) as ours:
            read_image(path)
        with pytest.raises(ImageError) as theirs:
            reader.read([path])
        assert str(theirs.value) == str(ours.value)
    reader.close()
    assert there.array.any(), "what was read stays"
    assert not list(temporary.iterdir())
    with pytest.raises(UserFacingError):
        reader.read([tmp_path / "a.nrrd"])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="file size limits as on Linux")
def test_no_room_for_the_voxels_is_told(tmp_path, temporary, monkeypatch):
    write_image(tmp_path / "a.nrrd", smooth_volume((40, 40, 40)))
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
    folder = tmp_path / "limit"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        f"import sys\nif 'prosma.batch.image_reader_process' in sys.orig_argv:\n    {limited}"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder))
    reader = ImageReader()
    with pytest.raises(ImageError, match=r"There is no room for the image in .*TMPDIR"):
        reader.read([tmp_path / "a.nrrd"])
    write_image(tmp_path / "b.nrrd", smooth_volume((5, 5, 5)))
    assert reader.read([tmp_path / "b.nrrd"]).shape == (5, 5, 5)
    reader.close()


# --- what is told ----------------------------------------------------------------------------------------------------


def test_exit_codes_tell_all_some_and_none(tiny, tmp_path, capsys):
    images = make_images(tmp_path / "images", "a", "b")
    command = ["segment", images, "-m", tiny.folder, "-o"]
    assert run(*command, tmp_path / "one") == exit_codes.DONE == 0
    (images / "broken.nii.gz").write_bytes(b"x")
    assert run(*command, tmp_path / "one") == exit_codes.SOME_FAILED == 3
    (images / "a.nrrd").write_bytes(b"x")
    (images / "b.nrrd").write_bytes(b"x")
    assert run(*command, tmp_path / "two") == exit_codes.FAILED == 1
    assert capsys.readouterr().err.splitlines()[-1] == "prosma: 3 of 3 cases failed: a, b, broken."


def test_a_batch_stops_at_the_failures_that_were_allowed(tiny, tmp_path, capsys):
    images = make_images(tmp_path / "images", "a", "z")
    for name in ("b", "c", "d"):
        (images / f"{name}.nrrd").write_bytes(b"x")
    code = run("segment", images, "-m", tiny.folder, "-o", tmp_path / "out", "--max-failures", "2", "--json")
    said = capsys.readouterr()
    assert code == exit_codes.SOME_FAILED
    assert [case["case"] for case in report_of(said.out)["cases"]] == ["a", "b", "c"]
    assert "Stopped after 2 failures; 2 cases were not tried." in said.err
    assert names_in(tmp_path / "out") == ["a.seg.nrrd", RECORDS], "nothing is left of the case that was read ahead"


def test_lines_come_as_cases_end_also_in_a_pipe_and_in_the_log(tiny, tmp_path, crashes):
    """The second image hangs, so only a line that is sent at once can come before the command is killed."""
    images = make_images(tmp_path / "images", "a", "hangs")
    log = tmp_path / "log.txt"
    command = [sys.executable, "-m", "prosma.cli", "segment", images, "-m", tiny.folder, "-o", tmp_path / "out"]
    process = subprocess.Popen([*command, "--log", log], cwd=ROOT / "training", stdout=subprocess.PIPE, text=True)
    first = process.stdout.readline()
    assert first.startswith(f"{tmp_path / 'out' / 'a.seg.nrrd'}  (")
    end = time.monotonic() + 60  # the log's line comes after that on stdout
    while not log.read_text() and time.monotonic() < end:
        time.sleep(0.05)
    assert log.read_text().startswith(first)
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_log_has_failures_too_and_grows(tiny, tmp_path, capsys):
    images = make_images(tmp_path / "images", "a")
    (images / "b.nrrd").write_bytes(b"x")
    log = tmp_path / "log.txt"
    run("segment", images, "-m", tiny.folder, "-o", tmp_path / "out", "--log", log)
    lines = log.read_text().splitlines()
    assert lines[0].endswith(" on cpu)")
    assert any(line.startswith("b: b.nrrd is damaged, cut off or no NRRD") for line in lines)
    run("segment", images, "-m", tiny.folder, "-o", tmp_path / "out", "--log", log, "--json")
    more = [json.loads(line) for line in log.read_text().splitlines()[len(lines) :]]
    assert [line["event"] for line in more] == ["case", "case", "report"]
    assert run("segment", images, "-m", tiny.folder, "-o", tmp_path / "out", "--log", tmp_path / "no" / "log") == 1
    assert "could not be written" in capsys.readouterr().err


# --- noticed before the work -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "why"),
    [
        ("series", "would lie among the files of the image"),
        ("series/out", "would lie among the files of the image"),
        ("series/out.seg.nrrd", "would lie among the files of the image"),
        ("file/out", "could not be written"),
        ("file/out.seg.nrrd", "could not be written"),
        ("file.nrrd", "not written by a batch of ProSMA"),
    ],
)
def test_outputs_that_cannot_be_are_told_before_the_model_is_loaded(tiny, tmp_path, capsys, monkeypatch, output, why):
    series = tmp_path / "series"
    series.mkdir()
    (series / "1.dcm").write_bytes(b"never read")
    (tmp_path / "file").write_text("a file where a folder should be")
    (tmp_path / "file.nrrd").write_text("somebody else's")
    monkeypatch.setattr("prosma.inference.segmenter.Segmenter.__init__", None)
    before = sorted(tmp_path.rglob("*"))
    assert run("segment", series, "-m", tiny.folder, "-o", tmp_path / output) == exit_codes.FAILED
    said = capsys.readouterr()
    assert said.err.startswith("prosma: ")
    assert why in said.err
    assert len(said.err.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="everybody may write everything as root")
def test_a_folder_that_may_not_be_written_is_told(tiny, tmp_path, capsys):
    images = make_images(tmp_path / "images", "a")
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    assert run("segment", images, "-m", tiny.folder, "-o", locked) == exit_codes.FAILED
    assert "could not be written" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_folders_that_hold_images_and_are_passed_over_are_named(tiny, tmp_path, capsys):
    images = make_images(tmp_path / "images", "a")
    make_images(images / "later", "b")
    (images / "notes").mkdir()
    (images / "notes" / "read.txt").write_text("nothing")
    out = images / "results"
    for _ in range(2):
        assert run("segment", images, "-m", tiny.folder, "-o", out) == exit_codes.DONE
        assert "Not looked into: 'later'. They hold images, too" in capsys.readouterr().err
    assert run("segment", images / "later", "-m", tiny.folder, "-o", out) == exit_codes.DONE
    assert "Not looked into" not in capsys.readouterr().err
    assert {file.name.partition(".")[0] for file in out.iterdir() if file.suffix == ".nrrd"} == {"a", "b"}


def test_links_to_nothing_and_to_themselves_are_named_and_hide_no_other_case(tiny, tmp_path, capsys):
    images = make_images(tmp_path / "images", "a", "z")
    (images / "gone.nrrd").symlink_to(tmp_path / "nowhere.nrrd")
    (images / "loop.nrrd").symlink_to(images / "loop.nrrd")
    (images / "linked.nrrd").symlink_to(images / "a.nrrd")
    assert run("segment", images, "-m", tiny.folder, "-o", tmp_path / "out", "--json") == exit_codes.SOME_FAILED
    cases = {case["case"]: case.get("error", {}).get("code") for case in report_of(capsys.readouterr().out)["cases"]}
    assert cases == {"a": None, "gone": "bad_input", "linked": None, "loop": "bad_input", "z": None}


def test_a_fault_of_ours_at_one_case_ends_that_case_alone(tiny, tmp_path, capsys, monkeypatch):
    images = make_images(tmp_path / "images", "a", "b", "c")
    from prosma.inference.segmenter import Segmenter

    def segment(self, image, original=Segmenter.segment, calls=[], **options):  # noqa: B006
        calls.append(image)
        if len(calls) == 2:
            raise ZeroDivisionError("nobody thought of this")
        return original(self, image, **options)

    monkeypatch.setattr(Segmenter, "segment", segment)
    assert run("segment", images, "-m", tiny.folder, "-o", tmp_path / "out", "--json") == exit_codes.SOME_FAILED
    cases = report_of(capsys.readouterr().out)["cases"]
    assert ["error" in case for case in cases] == [False, True, False]
    assert cases[1]["error"]["code"] == "internal"
    assert "ZeroDivisionError: nobody thought of this" in cases[1]["error"]["message"]


def test_a_notice_about_the_device_is_told_once(tiny, tmp_path, capsys, monkeypatch):
    images = make_images(tmp_path / "images", "a", "b", "c")
    monkeypatch.setattr("prosma.inference.segmenter.choose_device", lambda wanted: ("cpu", ["CUDA was not used: why."]))
    assert run("segment", images, "-m", tiny.folder, "-o", tmp_path / "out") == 0
    assert capsys.readouterr().err.count("CUDA was not used") == 1
