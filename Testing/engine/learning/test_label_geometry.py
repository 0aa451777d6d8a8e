"""Labels on another grid than their image: resampled by place, or refused (training/prosma/learning/data/label_grid.py)."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from prosma.cli import main
from prosma.learning.checkpoints import read_checkpoint
from prosma.learning.data.dataset import DatasetError, LabelledFolder, read_files
from prosma.package import write_package
from tiny_model import make_tiny_package

LABELS = {"background": 0, "one": 1, "two": 2}


@pytest.fixture
def folder(tmp_path):
    """Three cases of 20 x 24 x 16 voxels of 1 x 1.5 x 2 mm, not at the origin; labels with a part at each end."""
    rng = np.random.default_rng(0)
    for case in "abc":
        image = SimpleITK.GetImageFromArray(rng.normal(size=(16, 24, 20)).astype(np.float32))
        labels = np.zeros((16, 24, 20), np.uint8)
        labels[2:6, 3:9, 4:8], labels[10:13, 15:20, 11:18] = 1, 2
        labels = SimpleITK.GetImageFromArray(labels)
        for grid in (image, labels):
            grid.SetSpacing((1.0, 1.5, 2.0))
            grid.SetOrigin((-30.0, 12.0, 55.0))
        write(image, tmp_path / "data/imagesTr" / f"{case}_0000.nii.gz")
        write(labels, tmp_path / "data/labelsTr" / f"{case}.nii.gz")
    describe(tmp_path / "data", labels=LABELS)
    return tmp_path / "data"


def write(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(path))


def describe(folder, **content):
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")


def change_labels(folder, change, case="a"):
    path = folder / "labelsTr" / f"{case}.nii.gz"
    write(change(SimpleITK.ReadImage(str(path))), path)


def read(folder, case="a"):
    return read_files(LabelledFolder.open(folder).cases[case])[1]


def moved(**changes):
    def change(labels):
        for name, value in changes.items():
            getattr(labels, f"Set{name.capitalize()}")(value)
        return labels

    return change


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "PIR", "SLA", "ASL"])
def test_labels_stored_in_another_order_are_the_same_labels(folder, orientation, caplog):
    expected = read(folder)
    change_labels(folder, lambda labels: SimpleITK.DICOMOrient(labels, orientation))
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(read(folder), expected)
    assert orientation == "LPS" or f"another orientation ({orientation}) than the image (LPS)" in caplog.text


def test_what_was_assumed_about_images_is_told_once_of_each_kind(folder, caplog):
    """Two images in microns, one with voxels that are no numbers: what reading says reaches whoever trains or measures."""
    for case in "ab":
        path = folder / "imagesTr" / f"{case}_0000.nii.gz"
        image = nibabel.load(path)
        voxels = np.array(image.dataobj, np.float32)
        voxels[0, 0, 0] = np.nan if case == "b" else 0
        new = nibabel.Nifti1Image(voxels, np.diag([1000, 1000, 1000, 1]) @ image.affine)
        new.header.set_xyzt_units("micron")
        new.to_filename(path)
    with caplog.at_level(logging.WARNING):
        read(folder, "a"), read(folder, "b"), read(folder, "c")
    assert caplog.text.count("lengths in microns; they were converted to mm") == 1
    assert caplog.text.count("1 voxels that were not finite numbers were replaced") == 1


def test_labels_cropped_to_what_they_mark_are_put_in_their_place(folder):
    expected = read(folder)
    change_labels(folder, lambda labels: labels[3:19, 2:22, 1:14])
    assert np.array_equal(read(folder), expected)


def test_labels_of_twice_the_resolution_are_sampled_at_the_voxels_centres(folder):
    expected = read(folder)
    change_labels(folder, lambda labels: SimpleITK.Expand(labels, (2, 2, 2), SimpleITK.sitkNearestNeighbor))
    assert np.array_equal(read(folder), expected)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (moved(origin=(170.0, 12.0, 55.0)), "corners.*apart"),
        (moved(spacing=(1.0, 1.5, 6.0)), "corners.*apart"),
        (moved(origin=(0.0, 0.0, 0.0), spacing=(1.0, 1.0, 1.0)), "corners.*apart"),
        (lambda labels: moved(origin=(-45.0, 12.0, 55.0))(labels[3:19, 2:22, 1:14]), "marked voxels.*outside"),
    ],
)
def test_labels_that_lie_elsewhere_are_refused_and_the_remedy_works(folder, change, words):
    expected = read(folder)
    change_labels(folder, change)
    with pytest.raises(DatasetError, match=f"a.nii.gz.*{words}.*CopyInformation"):
        read(folder)
    image = SimpleITK.ReadImage(str(folder / "imagesTr/a_0000.nii.gz"))

    def copied(labels):
        labels.CopyInformation(image)
        return labels

    if "corners" in words:
        change_labels(folder, copied)
        assert np.array_equal(read(folder), expected)


def test_rounding_of_headers_is_no_difference(folder, caplog):
    expected = read(folder)
    change_labels(folder, moved(origin=(-30.00002, 12.0, 55.0), spacing=(1.000001, 1.5, 2.0)))
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(read(folder), expected)
    assert not caplog.text


def test_real_labels_in_another_order_give_the_same_dice(shared, tmp_path):
    """The bundled model on two real cases, whose labels are stored RAS and then LPS."""
    source = shared / "hippocampus"
    cases = json.loads((source / "splits.json").read_text())["val"][:2]
    dice = []
    for orientation in (None, "LPS"):
        folder = tmp_path / str(orientation)
        for case in cases:
            write(
                SimpleITK.ReadImage(str(source / f"imagesTr/{case}_0000.nii.gz")),
                folder / f"imagesTr/{case}_0000.nii.gz",
            )
            labels = SimpleITK.ReadImage(str(source / f"labelsTr/{case}.nii.gz"))
            labels = SimpleITK.DICOMOrient(labels, orientation) if orientation else labels
            write(labels, folder / f"labelsTr/{case}.nii.gz")
        report = folder / "report.json"
        assert main(["evaluate", "hippocampus-mr", "--data", str(folder), "--split", "all", "--json", str(report)]) == 0
        dice.append(json.loads(report.read_text())["mean"]["dice"])
    assert dice[0] == dice[1] > 0.8


# --- names, splits, files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [("1", "2"), (1.0, 2.0), ("1.0", " 2 ")])
def test_values_written_as_text_or_fractions_are_numbers(folder, values):
    describe(folder, labels={"background": "0", "one": values[0], "two": values[1]})
    assert main(["plan", "--data", str(folder), "-o", str(folder / "recipe.yaml")]) == 0
    assert "name: two" in (folder / "recipe.yaml").read_text()


@pytest.mark.parametrize("value", [1.5, "one", None, True, -1, {}])
def test_other_values_are_refused_with_the_label_s_name(folder, value, capsys):
    describe(folder, labels={"background": 0, "one": value, "two": 2})
    assert main(["plan", "--data", str(folder), "-o", str(folder / "recipe.yaml")]) == 1
    assert "'one'" in capsys.readouterr().err
    assert not (folder / "recipe.yaml").exists()


def test_a_byte_order_mark_and_a_list_of_channels_are_read(folder):
    text = json.dumps({"labels": LABELS, "channel_names": ["contrast"]})
    (folder / "dataset.json").write_text("\ufeff" + text, encoding="utf-8")
    assert main(["plan", "--data", str(folder), "-o", str(folder / "recipe.yaml")]) == 0
    assert "name: contrast" in (folder / "recipe.yaml").read_text()


@pytest.mark.parametrize("command", ["evaluate", "finetune"])
def test_swapped_names_are_refused(folder, tmp_path, capsys, command):
    labels = [
        {"value": n, "name": name, "color": [n, 0, 0]} for n, name in ((1, "anterior part"), (2, "posterior part"))
    ]
    package = make_tiny_package(tmp_path / "model", spacing=None, patch_size=[16, 16, 16], labels=2)
    package = write_package(
        tmp_path / "named", {**package.model, "labels": labels}, package.weights_path.read_bytes(), "#"
    )
    describe(folder, labels={"background": 0, "posterior": 1, "anterior": 2})
    more = ["--split", "all"] if command == "evaluate" else ["-o", str(tmp_path / "new")]
    assert main([command, str(package.folder), "--data", str(folder), *more]) == 1
    error = capsys.readouterr().err
    assert "'posterior'" in error and "'posterior part' is 2" in error
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("splits", "words"),
    [
        ({"train": ["a", "b"], "val": ["b"], "test": ["c"]}, "'b' in its train and its val split"),
        ({"train": ["a", "c"], "val": ["b"], "test": ["c"]}, "'c' in its train and its test split"),
        ({"train": ["a", "a"], "val": ["b"], "test": ["c"]}, "'a' twice in its train split"),
    ],
)
def test_a_case_in_two_splits_is_refused(folder, splits, words, capsys):
    (folder / "splits.json").write_text(json.dumps(splits))
    assert main(["plan", "--data", str(folder), "-o", str(folder / "recipe.yaml")]) == 1
    assert words in capsys.readouterr().err


def test_two_label_files_of_one_case_are_refused(folder):
    write(SimpleITK.ReadImage(str(folder / "labelsTr/a.nii.gz")) * 0, folder / "labelsTr/a.nii")
    with pytest.raises(DatasetError, match=r"two label files.*a\.nii.*a\.nii\.gz"):
        LabelledFolder.open(folder)


def test_other_files_beside_the_labels_do_not_matter(folder):
    (folder / "labelsTr/a.txt").write_text("seen by two readers")
    (folder / "labelsTr/._a.nii.gz").write_bytes(b"")
    assert read(folder).sum() == read(folder, "b").sum()


def test_numbered_pictures_are_not_taken_for_channels(tmp_path):
    for number in range(3):
        picture = SimpleITK.GetImageFromArray(np.full((20, 20), number, np.uint8))
        for part in ("imagesTr", "labelsTr"):
            write(picture > 0, tmp_path / part / f"frame_{number:04d}.png")
    with pytest.raises(DatasetError, match=r"named like a channel.*frame0000_0000"):
        LabelledFolder.open(tmp_path)
    for part, ending in (("imagesTr", "_0000"), ("labelsTr", "")):
        for number in range(3):
            old = tmp_path / part / f"frame_{number:04d}.png"
            old.rename(tmp_path / part / f"frame{number:04d}{ending}.png")
    assert sorted(LabelledFolder.open(tmp_path).cases) == ["frame0000", "frame0001", "frame0002"]


SMALL_SHARED_MEMORY = (
    "mount -t tmpfs -o size=64k tmpfs /dev/shm && exec {python} -m prosma.cli train --data {data} --out {run} {more}"
)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, for a mount of its own")
def test_too_little_shared_memory_is_said_and_the_remedy_works(folder, tmp_path):
    """In a mount namespace whose /dev/shm holds 64 kB, as in a container."""

    def train(more):
        shell = SMALL_SHARED_MEMORY.format(python=sys.executable, data=folder, run=tmp_path / "run", more=more)
        command = ["unshare", "--mount", "sh", "-c", shell]
        return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)

    done = train("--workers 2 --max-epochs 1")
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("no mount namespace here")
    assert done.returncode == 1
    assert "shared memory" in done.stderr and "--workers 0" in done.stderr.splitlines()[-1]
    assert train("--workers 0 --max-epochs 1 --resume").returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the processes in /proc")
def test_a_killed_process_that_prepares_patches_is_said_and_the_remedy_works(folder, tmp_path):
    command = [sys.executable, "-m", "prosma.cli", "train", "--data", str(folder), "--out", str(tmp_path / "run")]
    with open(tmp_path / "log", "w") as log:
        training = subprocess.Popen([*command, "--workers", "1", "--max-epochs", "50"], stderr=log, stdout=log)
        try:
            within(240, lambda: (tmp_path / "run/last.ckpt").is_file() and forked(training.pid))
            for child in forked(training.pid):
                os.kill(child, signal.SIGKILL)
            assert training.wait(120) == 1
        finally:
            training.kill()
    said = (tmp_path / "log").read_text()
    assert "A process that prepares patches was ended from outside" in said and "fault of ProSMA" not in said
    epochs = read_checkpoint(tmp_path / "run/last.ckpt")["epoch"] + 2
    again = [*command, "--workers", "0", "--resume", "--max-epochs", str(epochs)]
    assert subprocess.run(again, capture_output=True, timeout=240, check=False).returncode == 0


def forked(pid):
    """Children of a process that have its command line, as the loader's workers do."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    same = Path(f"/proc/{pid}/cmdline").read_bytes()
    return [int(child) for child in children if Path(f"/proc/{child}/cmdline").read_bytes() == same]


def within(seconds, what):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)
