"""Cases, outputs and options that are refused, and what the refusals say is to be done (batch, cli, outputs)."""

import os
import shutil
import signal
import sys

import nibabel as nib
import numpy as np
import pytest
from dicom_writing import noise, write_series

from prosma import Segmenter, read_image
from prosma.batch import image_reader_process
from prosma.batch.claims import Claims
from prosma.batch.image_reader import ImageReader
from prosma.batch.least_sure import picture_of
from prosma.batch.report import Report
from prosma.batch.result_file import ResultFile
from prosma.batch.run_case import run_case
from prosma.cli.app import main
from prosma.cli.benchmark import same_processor
from prosma.image.reading import read_labels
from prosma.outputs.dicom_header import refuse_unknown_labels
from prosma.outputs.results import Content, write_beside
from prosma.outputs.source import read_source
from remedies import complained, refused, tries
from small_volumes import smooth_volume
from tiny_model import make_tiny_package

VOXELS = smooth_volume((16, 16, 16)).array[0]


@pytest.fixture
def scan(tmp_path):
    nib.Nifti1Image(VOXELS, np.eye(4)).to_filename(tmp_path / "scan.nii.gz")
    return tmp_path / "scan.nii.gz"


def segment(image, tiny, output, *more):
    return list(map(str, ["segment", image, "-m", tiny.folder, "-o", output, "--device", "cpu", "--force", *more]))


def works(arguments, *files):
    assert main(list(map(str, arguments))) == 0
    assert all(file.exists() for file in files)


# --- where a result may lie


def test_a_result_goes_where_it_harms_nothing(scan, tiny, tmp_path, capsys):
    complained("batch/cases.py: would overwrite the image", "Choose another output", segment(scan, tiny, scan), capsys)
    folder = tmp_path / "mr"
    write_series(folder, noise((16, 16, 16)))
    inside = segment(folder, tiny, folder / "a.nrrd")
    complained("batch/cases.py: would lie among the files", "Choose another output", inside, capsys)
    works(segment(folder, tiny, tmp_path / "a.nrrd"), tmp_path / "a.nrrd")
    name = "outputs/results.py: does not end like a result"
    told = complained(name, "Choose one of", segment(scan, tiny, tmp_path / "b.txt"), capsys)
    assert ".nii.gz" in told
    works(segment(scan, tiny, tmp_path / "b.nii.gz", "--also", ".preview.png"), tmp_path / "b.preview.png")
    name = "outputs/results.py: would be a file beside a result"
    told = complained(
        name, "Name a label map with -o, and say --also .stl", segment(scan, tiny, tmp_path / "b.stl"), capsys
    )
    works(segment(scan, tiny, tmp_path / "c.nrrd", "--also", ".stl"), tmp_path / "c.stl")


def test_a_folder_that_cannot_be_written_is_another_one(scan, tiny, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    bad = segment(scan, tiny, tmp_path / "file" / "a.nrrd")
    complained("batch/result_file.py: could not be written", "or choose another folder", bad, capsys)
    works(segment(scan, tiny, tmp_path / "folder" / "a.nrrd"), tmp_path / "folder" / "a.nrrd")
    bad = segment(scan, tiny, tmp_path / "b.nrrd", "--log", tmp_path / "file" / "log")
    complained("cli/telling.py: The log", "Name another file", bad, capsys)
    works([*bad[:-1], tmp_path / "log"], tmp_path / "log")


def test_files_of_others_are_left_and_results_are_made_again(scan, tiny, tmp_path, capsys):
    output = tmp_path / "a.nrrd"
    output.write_text("somebody's")
    told = complained(
        "batch/output_file.py: EngineError('bad_output', reason, remedy)", "", segment(scan, tiny, output), capsys
    )
    assert (output.read_text() == "somebody's" and "another name" in told.lower()) or "move" in told.lower(), told
    output.rename(tmp_path / "theirs")
    works(segment(scan, tiny, output), output)


# --- which images


def test_folders_and_images_are_given_that_are_there(scan, tiny, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    none = segment(tmp_path / "empty", tiny, tmp_path / "out")
    complained("batch/cases.py: holds no images", "Known formats: DICOM folders, .nrrd", none, capsys)
    shutil.copy(scan, tmp_path / "empty")
    works(none, tmp_path / "out" / "scan.seg.nrrd")
    none = segment(tmp_path / "scn.nii.gz", tiny, tmp_path / "a.nrrd")
    complained("cli/segment.py: does not exist", "Check its name", none, capsys)
    works(segment(scan, tiny, tmp_path / "a.nrrd"), tmp_path / "a.nrrd")


def test_files_of_one_name_and_of_wrong_channels_are_named_anew(scan, tmp_path, tiny):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.nii.gz", "b_0001.nii.gz"):
        shutil.copy(scan, folder / name)
    nib.load(scan).to_filename(folder / "a.nii")
    from prosma.batch.cases import find_cases

    def found():
        return {case.name: case for case in find_cases([folder], tmp_path / "out", ".nrrd", 1)}

    name = "batch/cases.py: ImageError(self.problem)"
    refused(name, "Rename all but one of them", found()["a"].checked_images)
    (folder / "a.nii").rename(folder / "c.nii")
    assert len(found()["a"].checked_images()) == 1 and len(found()["c"].checked_images()) == 1
    refused(name, "the model takes _0000. Number its files so", found()["b"].checked_images)
    (folder / "b_0001.nii.gz").rename(folder / "b_0000.nii.gz")
    assert len(found()["b"].checked_images()) == 1


def test_an_image_that_nobody_may_read_or_that_is_gone(scan, tiny, tmp_path):
    images = [tmp_path / "gone" / "a.nii.gz"]
    refused("batch/result_file.py: could not be read", "Check its name, and whether you may read it",
            ResultFile.from_files, tmp_path / "a.nrrd", tiny, {}, images)  # fmt: skip
    assert not ResultFile.from_files(tmp_path / "a.nrrd", tiny, {}, [scan]).is_finished


# --- reading in a process of its own


def test_an_image_that_takes_too_long_gets_more_time(scan):
    reader = ImageReader(limit=60)
    reader.read([scan])  # the process is there
    os.kill(reader._process.pid, signal.SIGSTOP)  # it takes for ever
    reader.limit = 0.1
    refused("batch/image_reader.py: was not read within", "give it more time with --read-limit", reader.read, [scan])
    reader.limit = 60
    np.testing.assert_array_equal(reader.read([scan]).array[0], VOXELS)
    reader.close()


def test_the_death_of_the_library_is_answered_by_a_good_copy(scan, monkeypatch):
    reader = ImageReader()
    reader.read([scan])

    def dies(self, limit):
        self._process.kill()
        raise EOFError

    with monkeypatch.context() as patched:
        patched.setattr(ImageReader, "_answer", dies)
        refused("batch/image_reader.py: the image library", "copy or export it again", reader.read, [scan])
    np.testing.assert_array_equal(reader.read([scan]).array[0], VOXELS)
    reader.close()


def test_no_room_for_the_voxels_is_answered_by_another_folder(tmp_path):
    name = "batch/image_reader_process.py: There is no room for the image"
    refused(
        name,
        "name another folder in the environment variable TMPDIR",
        image_reader_process.save,
        tmp_path / "none" / "a.npy",
        VOXELS,
    )
    image_reader_process.save(tmp_path / "a.npy", VOXELS)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), VOXELS)


# --- results that are there


@pytest.fixture
def made(scan, tiny, tmp_path):
    works(segment(scan, tiny, tmp_path / "out", "--statistics"))
    return tmp_path / "out"


def test_reports(made, tmp_path, capsys, monkeypatch):
    none = ["report", tmp_path]
    complained("batch/report.py: There is no", "Give the folder that segment -o named", none, capsys)
    works(["report", made, "--csv", tmp_path / "a.csv"], tmp_path / "a.csv")
    parquet = ["report", made, "--parquet", tmp_path / "a.parquet"]
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "pyarrow", None)
        complained("batch/tables.py: Parquet files need the package pyarrow", "Or write --csv", parquet, capsys)
    works(["report", made, "--csv", tmp_path / "b.csv"])
    assert (tmp_path / "b.csv").read_text() == (tmp_path / "a.csv").read_text()


@tries("batch/least_sure.py: Export it as one label map", "batch/run_case.py: Export it as one label map")
def test_a_result_on_another_grid_is_exported_on_that_grid(made, scan, tiny, capsys, tmp_path):
    result = made / "scan.seg.nrrd"
    good = result.read_bytes()
    labels = read_labels(result)
    small = tmp_path / "small.seg.nrrd"
    from prosma.image.writing import write_labels

    write_labels(small, labels.array[0, :8].astype(np.uint8), labels.cropped(((0, 8), (0, 16), (0, 16))), tiny.labels)
    shutil.copy(small, result)
    (case,) = Report(made).cases()
    reader = ImageReader()
    shown = picture_of(case, reader)
    assert shown.picture is None and "does not lie on the grid of its image. Export it as one label map" in shown.reason
    again = segment(scan, tiny, made, "--statistics")
    assert main(again) == 1
    assert "does not lie on the grid of its image. Export it as one label map on that grid" in capsys.readouterr().err
    write_labels(result, np.roll(labels.array[0], 1, 0).astype(np.uint8), read_image(scan), tiny.labels)
    works(again)
    assert picture_of(next(Report(made).cases()), reader).picture
    reader.close()
    assert good != result.read_bytes()


# --- options


def test_options_are_what_is_said(scan, tiny, tmp_path, capsys):
    labelmap = segment(scan, tiny, tmp_path / "a.nrrd", "--seg-type", "labelmap")
    complained("cli/segment.py: is for DICOM segmentations", "End the output in .dcm", labelmap, capsys)
    write_series(tmp_path / "mr", noise((16, 16, 16)))
    dicom = segment(tmp_path / "mr", tiny, tmp_path / "a.dcm", "--seg-type", "labelmap")
    if "highdicom" in sys.modules or __import__("importlib").util.find_spec("highdicom"):
        works(dicom, tmp_path / "a.dcm")
    part = segment(scan, tiny, tmp_path / "out", "--part", "3/2")
    complained("cli/segment.py: names no part", "Say K/N, such as 1/4", part, capsys)
    works([*part[:-1], "1/4"])
    device = segment(scan, tiny, tmp_path / "b.nrrd")
    device[device.index("cpu")] = "gpu"
    complained("inference/devices.py: There is no device", "Choose auto, cpu or cuda", device, capsys)
    works(segment(scan, tiny, tmp_path / "b.nrrd"), tmp_path / "b.nrrd")


def test_a_licence_is_accepted_as_it_is_said(scan, tmp_path, capsys):
    package = make_tiny_package(tmp_path / "licensed", spacing=None, patch_size=[16, 16, 16], accept_licence=True)
    arguments = segment(scan, package, tmp_path / "a.nrrd")
    complained("cli/licence_question.py: has to be accepted first", "Add --accept-licence", arguments, capsys)
    works([*arguments, "--accept-licence"], tmp_path / "a.nrrd")


def test_commands_name_files_that_are_there(tmp_path, capsys, scan):
    none = ["train", tmp_path / "recipe.yml", "--data", tmp_path, "-o", tmp_path / "run"]
    complained("cli/common.py: There is no ... ...", "Check its name", none, capsys)
    (tmp_path / "recipe.yml").write_text("{}")
    assert main(list(map(str, none))) and "There is no recipe" not in capsys.readouterr().err


def test_measures_of_another_processor_go_to_another_file(tmp_path):
    earlier, now = ({"machine": {"processor": name}} for name in ("one", "another"))
    name = "cli/benchmark.py: what was measured on another processor"
    refused(name, "Name another file, or remove this one", same_processor, earlier, now, tmp_path / "a.json")
    assert same_processor({}, now, tmp_path / "b.json") == {}


# --- prosma prompt


@pytest.fixture
def strokes(tmp_path):
    package = promptable(tmp_path / "strokes")
    stroke = np.zeros((16, 16, 16), np.uint8)
    stroke[6:9, 6:9, 8] = 1
    nib.Nifti1Image(stroke, np.eye(4)).to_filename(tmp_path / "stroke.nii.gz")
    return package


def promptable(folder, dimension=3):
    """A model that answers strokes, with random weights."""
    channels = ["likeness", "mask", "belongs", "does not belong", "region", "log odds"]
    network = {"spatial_dims": dimension, "in_channels": 7, "out_channels": 2, "features": [4, 8]}
    return make_tiny_package(folder, dimension, labels=1, network=network, prompt={"channels": channels}, id=folder.name,
                             spacing=None, patch_size=[16] * dimension)  # fmt: skip


def test_strokes_are_answered_into_a_new_file(scan, strokes, tmp_path, capsys):
    def prompt(output, image=scan, stroke=tmp_path / "stroke.nii.gz", *more):
        return list(
            map(str, ["prompt", image, "-m", strokes.folder, "--add", stroke, "-o", output, "--device", "cpu", *more])
        )

    complained(
        "cli/prompt.py: is what the result is made from",
        "Choose another name",
        prompt(tmp_path / "stroke.nii.gz"),
        capsys,
    )
    works(prompt(tmp_path / "a.nii.gz"), tmp_path / "a.nii.gz")
    complained("cli/prompt.py: is there already", "or say --again", prompt(tmp_path / "a.nii.gz"), capsys)
    works(prompt(tmp_path / "a.nii.gz", scan, tmp_path / "stroke.nii.gz", "--again"))
    (tmp_path / "f.nrrd").mkdir()
    complained("cli/prompt.py: is a folder", "Choose another name", prompt(tmp_path / "f.nrrd"), capsys)
    complained(
        "cli/prompt.py: There is no folder",
        "Make it, or choose another one",
        prompt(tmp_path / "new" / "a.nrrd"),
        capsys,
    )
    (tmp_path / "new").mkdir()
    works(prompt(tmp_path / "new" / "a.nrrd"), tmp_path / "new" / "a.nrrd")
    complained(
        "cli/prompt.py: does not exist", "Check its name", prompt(tmp_path / "b.nrrd", tmp_path / "none.nii"), capsys
    )
    nib.Nifti1Image(np.ones((8, 16, 16), np.uint8), np.eye(4)).to_filename(tmp_path / "other.nii.gz")
    name = "cli/prompt.py: does not lie on the image's grid"
    complained(
        name, "Make the label map from this image", prompt(tmp_path / "b.nrrd", scan, tmp_path / "other.nii.gz"), capsys
    )
    works(prompt(tmp_path / "b.nrrd"), tmp_path / "b.nrrd")


def test_a_model_for_strokes_is_given_where_none_is_installed(scan, strokes, tmp_path, capsys, monkeypatch):
    from prosma import package

    monkeypatch.setattr(package, "model_folders", list)
    arguments = list(
        map(str, ["prompt", scan, "--add", tmp_path / "stroke.nii.gz", "-o", tmp_path / "a.nrrd", "--device", "cpu"])
    )
    complained("cli/prompt.py: No model for strokes", "Give the path of one with --model", arguments, capsys)
    works([*arguments, "--model", strokes.folder], tmp_path / "a.nrrd")


# --- files beside results, and DICOM objects


def test_what_a_model_does_not_give_is_left_out(scan, tiny, tmp_path):
    content = Content(np.zeros((16, 16, 16), np.uint8), read_image(scan), tiny.labels)
    name = "outputs/results.py: The model gives no"
    refused(
        name,
        "Leave out --also .gate_map.nrrd" if False else "Leave out --also",
        write_beside,
        tmp_path / "a.nrrd",
        ending_of("gate_map"),
        content,
    )
    write_beside(tmp_path / "a.png", ".preview.png", content)
    from prosma.outputs.results import paths_beside

    refused(
        "outputs/results.py: can be written beside a result",
        "Choose among",
        paths_beside,
        tmp_path / "a.nrrd",
        [".txt"],
    )
    refused(
        "outputs/results.py: cannot lie beside itself",
        "Leave out --also .nrrd" if False else "Leave out --also",
        paths_beside,
        tmp_path / "a.dcm",
        [".dcm"],
    )
    assert paths_beside(tmp_path / "a.dcm", [".stl"]) == [tmp_path / "a.stl"]


def ending_of(volume):
    from prosma.outputs.choices import VOLUMES

    return next(ending for ending, name in VOLUMES.items() if name == volume)


def test_dicom_results_come_of_dicom_series(scan, tiny, tmp_path, capsys):
    name = "outputs/source.py: A DICOM result refers to the DICOM series"
    complained(name, "Write the result as .seg.nrrd or .nii.gz", segment(scan, tiny, tmp_path / "a.dcm"), capsys)
    works(segment(scan, tiny, tmp_path / "a.seg.nrrd"), tmp_path / "a.seg.nrrd")
    folder = tmp_path / "mr"

    def unplaced(ds, k):
        del ds.ImagePositionPatient, ds.ImageOrientationPatient

    write_series(folder, noise((4, 16, 16)), edit=unplaced)
    refused("outputs/source.py: tell no places", "Write the result as .seg.nrrd or .nii.gz", read_source, folder)
    shutil.rmtree(folder)
    write_series(folder, noise((4, 16, 16)))
    source = read_source(folder)
    name = "outputs/source.py: The label map has ... voxels, its series"
    refused(name, "Segment the series again", source.check, np.zeros((3, 3, 3), np.uint8))
    works(segment(folder, tiny, tmp_path / "b.nrrd"), tmp_path / "b.nrrd")
    source.check(read_labels(tmp_path / "b.nrrd").array[0])
    labels = np.full((16, 16, 4), 3, np.uint8)
    name = "outputs/dicom_header.py: which no label of the model has"
    refused(name, "Give the descriptions of all its labels", refuse_unknown_labels, labels, tiny.labels)
    refuse_unknown_labels(labels, [*tiny.labels, {"value": 3, "name": "three"}])


def test_a_dicom_segmentation_is_of_a_known_type_and_needs_highdicom(tiny, tmp_path, monkeypatch):
    pytest.importorskip("highdicom")
    from prosma.outputs.dicom_seg import need_highdicom, write_dicom_seg

    write_series(tmp_path / "mr", noise((4, 16, 16)))
    labels = np.zeros((16, 16, 4), np.uint8)
    labels[2:6] = 1
    arguments = [tmp_path / "a.dcm", labels, tmp_path / "mr", tiny]
    name = "outputs/dicom_seg.py: There is no DICOM segmentation of the type"
    refused(name, "Say binary or labelmap", write_dicom_seg, *arguments, seg_type="fractional")
    write_dicom_seg(*arguments, seg_type="labelmap")
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "highdicom", None)
        name = "outputs/dicom_seg.py: DICOM segmentations need the package highdicom"
        refused(name, "Or write .seg.nrrd", need_highdicom)
    need_highdicom()


def test_headers_that_cannot_be_taken_over_are_left_out(tiny, tmp_path, monkeypatch):
    pytest.importorskip("highdicom")
    from prosma.outputs import dicom_seg

    def odd(*_arguments):
        raise ValueError("a value that no program knows")

    write_series(tmp_path / "mr", noise((4, 16, 16)))
    labels = np.ones((16, 16, 4), np.uint8)
    monkeypatch.setattr(dicom_seg, "segmentation_of", odd)
    name = "outputs/dicom_seg.py: cannot be taken over to a DICOM segmentation"
    arguments = [tmp_path / "a.dcm", labels, tmp_path / "mr", tiny]
    refused(name, "Write the result as .seg.nrrd or .nii.gz", dicom_seg.write_dicom_seg, *arguments)
    works(segment(tmp_path / "mr", tiny, tmp_path / "a.seg.nrrd"), tmp_path / "a.seg.nrrd")


# --- results that others make


def test_a_result_that_another_process_makes_is_waited_for(scan, tiny, tmp_path):
    file = ResultFile.from_files(tmp_path / "a.nrrd", tiny, {}, [scan])
    segmenter = Segmenter(tiny, "cpu")
    arguments = [file, lambda: read_image(scan), lambda: segmenter]
    with Claims(tmp_path) as other:
        assert other.take("a.nrrd")
        refused("batch/run_case.py: is being made by another process", "Wait until it has ended", run_case, *arguments)
    assert run_case(*arguments, force=True)["output"] and (tmp_path / "a.nrrd").exists()


def test_a_result_that_another_process_has_taken_over_is_made_by_that(scan, tiny, tmp_path):
    image, labels = read_image(scan), np.ones((16, 16, 16), np.uint8)
    file = ResultFile.from_files(tmp_path / "a.nrrd", tiny, {}, [scan])
    name = "batch/output_file.py: has taken over"
    content = Content(labels, image, tiny.labels)
    refused(name, "the other one makes the result", file.write, content, still_mine=lambda: False)
    assert not (tmp_path / "a.nrrd").exists()
    ResultFile.from_files(tmp_path / "a.nrrd", tiny, {}, [scan]).write(content)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.nrrd").array[0], labels)
