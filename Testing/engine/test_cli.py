"""The command line: exit codes, files, reports; and that every way in gives the same bytes."""

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from test_worker import Engine

from prosma.batch.cases import find_cases
from prosma.batch.image_reader import ImageReader
from prosma.batch.records import RECORDS
from prosma.cli import exit_codes, main
from prosma.files import replaced_when_whole
from prosma.image.geometry import Image, ImageError
from prosma.image.labels import label_extents
from prosma.image.reading import read_image, read_labels
from prosma.image.tags import provenance
from prosma.image.writing import LABEL_SUFFIXES, nrrd_bytes, write_labels
from prosma.inference.segmenter import Segmenter
from small_volumes import smooth_volume
from tiny_model import make_tiny_package

ROOT = Path(__file__).resolve().parents[2]
SCT = {"category": ["SCT", "123037004", "Anatomical Structure"], "type": ["SCT", "10200004", "Liver"], "modifier": None}


def oblique() -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]]) * [0.9, 1.1, 2.0]
    matrix[:3, 3] = [-12.25, 30.5, 7.125]
    return matrix


def write_image(path: Path, image: Image) -> Path:
    """A scalar volume as an int16 NRRD, written by SimpleITK."""
    import SimpleITK as sitk

    picture = sitk.GetImageFromArray(np.ascontiguousarray(image.array[0].T))
    matrix = np.diag([-1.0, -1, 1, 1]) @ image.ijk_to_ras
    picture.SetSpacing(image.spacing)
    picture.SetDirection((matrix[:3, :3] / image.spacing).ravel().tolist())
    picture.SetOrigin(matrix[:3, 3].tolist())
    sitk.WriteImage(picture, str(path))
    return path


@pytest.fixture
def scan(tmp_path) -> Path:
    return write_image(tmp_path / "scan.nrrd", smooth_volume(matrix=oblique()))


def run(*arguments) -> int:
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code


# --- one image ------------------------------------------------------------------------------------------------------


def test_cli_worker_and_python_give_the_same_bytes(scan, tiny, tmp_path):
    assert run("segment", scan, "-m", tiny.folder, "-o", tmp_path / "out.nrrd") == 0
    by_command = read_labels(tmp_path / "out.nrrd").array[0]

    image = read_image(scan)
    by_python = Segmenter(tiny).segment(image).labels

    folder = tmp_path / "job"
    folder.mkdir()
    np.save(folder / "a.npy", np.ascontiguousarray(image.array[0].T))
    matrix = image.ijk_to_ras + np.random.default_rng(0).uniform(-1e-8, 1e-8, (4, 4))  # Slicer's own arithmetic
    engine = Engine()
    channels = [{"file": "a.npy", "ijk_to_ras": matrix.tolist()}]
    engine.send(id="1", do="segment", model=str(tiny.folder), folder=str(folder), channels=channels)
    result, _ = engine.answer("1")
    engine.close()
    i, j, k = result["labels"]["offset"]
    cropped = np.load(folder / "labels.npy").T
    by_worker = np.zeros_like(by_python)
    by_worker[i : i + cropped.shape[0], j : j + cropped.shape[1], k : k + cropped.shape[2]] = cropped

    assert by_command.dtype == by_python.dtype == np.uint8
    assert by_python.any()
    assert by_command.tobytes() == by_python.tobytes() == by_worker.tobytes()


@pytest.mark.parametrize("suffix", LABEL_SUFFIXES)
def test_every_output_format_lies_on_the_images_grid(scan, tiny, tmp_path, suffix):
    output = tmp_path / "new" / f"out{suffix}"
    assert run("segment", scan, "-m", tiny.folder, "-o", output) == 0
    image, labels = read_image(scan), read_labels(output)
    np.testing.assert_allclose(labels.ijk_to_ras, image.ijk_to_ras, atol=1e-4 if ".nii" in suffix else 1e-9)
    np.testing.assert_array_equal(labels.array[0], Segmenter(tiny).segment(image).labels)
    assert names_in(output.parent) == sorted([output.name, RECORDS])


def test_the_json_report_says_everything(scan, tiny, tmp_path, capsys):
    output = tmp_path / "out.seg.nrrd"
    assert run("segment", scan, "-m", tiny.folder, "-o", output, "--json", "--roi", 2, 20, 0, 15, 3, 99) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["model"] == {"id": "tiny", "version": "1.0.0", "sha256": tiny.sha256}
    assert (report["failed"], report["device"]) == (0, "cpu")
    (case,) = report["cases"]
    labels = read_labels(output).array[0]
    assert case["output"] == str(output)
    assert case["inputs"] == [str(scan)]
    assert [segment["voxels"] for segment in case["segments"]] == np.bincount(labels.ravel(), minlength=3)[1:].tolist()
    assert case["segments"][0]["name"] == "structure 1"
    assert case["segments"][0]["ml"] == pytest.approx(case["segments"][0]["voxels"] * 0.9 * 1.1 * 2 / 1000, abs=1e-5)
    assert 0 <= case["removed_share"] <= 1
    assert case["seconds"]["total"] > 0
    assert not labels[:2].any()
    assert not labels[:, 15:].any()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (["absent.nrrd"], "does not exist"),
        (["-m", "nowhere"], "no model 'nowhere'"),
        (["-o", "out.png"], "Choose one of .seg.nrrd"),
        (["--device", "tpu"], "no device 'tpu'"),
        (["--overlap", "2"], "overlap"),
        (["--roi", "90", "95", "0", "5", "0", "5"], "ROI"),
        (["--colour"], "Unrecognized"),
    ],
)
def test_faults_end_with_one_sentence_and_leave_no_file(scan, tiny, tmp_path, capsys, change, why):
    arguments = ["segment", str(scan), "-m", str(tiny.folder), "-o", str(tmp_path / "out.seg.nrrd"), *change]
    if change == ["absent.nrrd"]:
        arguments = ["segment", "absent.nrrd", *arguments[2:-1]]
    before = sorted(tmp_path.iterdir())
    code = run(*arguments)
    captured = capsys.readouterr()
    assert code != 0
    assert captured.err.startswith("prosma: ")
    assert len(captured.err.strip().splitlines()) == 1
    assert why in captured.err
    assert captured.out == ""
    assert sorted(tmp_path.iterdir()) == before


def test_an_image_is_never_overwritten_by_its_result(scan, tiny, tmp_path, capsys):
    before = scan.read_bytes()
    assert run("segment", scan, "-m", tiny.folder, "-o", scan) == 1
    assert "overwrite" in capsys.readouterr().err
    folder = tmp_path / "folder"
    folder.mkdir()
    scan.rename(folder / "scan.nrrd")
    assert run("segment", folder, "-m", tiny.folder, "-o", folder, "--format", ".nrrd") == 1
    assert (folder / "scan.nrrd").read_bytes() == before
    assert run("segment", folder, "-m", tiny.folder, "-o", folder) == 0
    assert sorted(file.name for file in folder.iterdir()) == ["prosma-results.jsonl", "scan.nrrd", "scan.seg.nrrd"]


def test_a_model_may_ask_for_its_licence_to_be_accepted(scan, tmp_path, capsys):
    package = make_tiny_package(tmp_path / "m", spacing=None, patch_size=[16, 16, 16], accept_licence=True)
    command = ["segment", scan, "-m", package.folder, "-o", tmp_path / "out.nrrd"]
    assert run(*command) == 1
    assert "--accept-licence" in capsys.readouterr().err
    assert not (tmp_path / "out.nrrd").exists()
    assert run(*command, "--accept-licence") == 0


def test_colour_photographs_through_a_2d_model(tmp_path, tiny_flat):
    import SimpleITK as sitk

    array = np.random.default_rng(0).integers(0, 255, (30, 40, 3)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=True), str(tmp_path / "a.png"))
    assert run("segment", tmp_path / "a.png", "-m", tiny_flat.folder, "-o", tmp_path / "a.seg.nrrd") == 0
    assert read_labels(tmp_path / "a.seg.nrrd").array.shape == (1, 40, 30, 1)


# --- folders --------------------------------------------------------------------------------------------------------


def test_a_folder_does_every_case_and_lists_those_that_failed(tiny, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    for index, name in enumerate(("a", "b_0000", "d")):
        write_image(images / f"{name}.nrrd", smooth_volume((18, 16, 16), seed=index))
    (images / "broken.nii.gz").write_bytes(b"not an image")
    (images / "notes.txt").write_text("no image")
    (images / ".hidden.nrrd").write_text("no image")
    code = run("segment", images, "-m", tiny.folder, "-o", tmp_path / "out", "--format", ".nii.gz", "--json")
    captured = capsys.readouterr()
    assert code == exit_codes.SOME_FAILED
    *lines, report = map(json.loads, captured.out.splitlines())
    assert [{"event": "case", **case} for case in report["cases"]] == lines
    assert [case["case"] for case in report["cases"]] == ["a", "b", "broken", "d"]
    assert report["failed"] == 1
    assert report["cases"][2]["error"]["code"] == "bad_input"
    assert names_in(tmp_path / "out") == ["a.nii.gz", "b.nii.gz", "d.nii.gz", "prosma-results.jsonl"]
    assert captured.err.strip().splitlines()[-1] == "prosma: 1 of 4 cases failed: broken."
    assert captured.err.startswith("prosma: broken: ")


def test_the_next_image_is_read_while_the_network_runs_and_no_other(tiny, tmp_path, monkeypatch):
    """The first case is not done before the second has been read; a reader that waits for its turn would hang here."""
    images = tmp_path / "images"
    images.mkdir()
    for index, name in enumerate("abc"):
        write_image(images / f"{name}.nrrd", smooth_volume((18, 16, 16), seed=index))
    read, done, seen = [], [], []
    second_is_read = threading.Event()

    def reading(self, paths, series, run, original=ImageReader.read_ahead):
        found = original(self, paths, series, run)
        read.append(Path(paths[0]).stem)
        if len(read) == 2:
            second_is_read.set()
        return found

    def segmenting(self, *arguments, original=Segmenter.segment, **options):
        assert second_is_read.wait(60)
        result = original(self, *arguments, **options)
        seen.append(len(read) - len(done))
        done.append(result)
        return result

    monkeypatch.setattr(ImageReader, "read_ahead", reading)
    monkeypatch.setattr(Segmenter, "segment", segmenting)
    assert run("segment", images, "-m", tiny.folder, "-o", tmp_path / "out") == 0
    assert read == ["a", "b", "c"]
    assert max(seen) <= 2  # the one at work and the one ahead
    assert names_in(tmp_path / "out") == ["a.seg.nrrd", "b.seg.nrrd", "c.seg.nrrd", "prosma-results.jsonl"]


def names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_numbered_files_are_the_channels_of_a_case(tmp_path):
    package = make_tiny_package(tmp_path / "m", channels=2, spacing=None, patch_size=[16, 16, 16])
    images = tmp_path / "images"
    images.mkdir()
    for name in ("p1_0000", "p1_0001", "p2_0000"):
        write_image(images / f"{name}.nrrd", smooth_volume((16, 16, 16), seed=len(name)))
    assert run("segment", images, "-m", package.folder, "-o", tmp_path / "out") == exit_codes.SOME_FAILED
    assert names_in(tmp_path / "out") == ["p1.seg.nrrd", "prosma-results.jsonl"]
    both = [images / "p1_0000.nrrd", images / "p1_0001.nrrd"]
    assert run("segment", *both, "-m", package.folder, "-o", tmp_path / "p1.nrrd") == 0
    one, two = read_labels(tmp_path / "p1.nrrd"), read_labels(tmp_path / "out" / "p1.seg.nrrd")
    np.testing.assert_array_equal(one.array, two.array)


def test_cases_of_folders(tmp_path):
    dicom = tmp_path / "series"
    dicom.mkdir()
    (dicom / "1.dcm").write_text("x")
    (dicom / "2").write_text("x")
    (case,) = find_cases([dicom], tmp_path, ".nrrd", 1)
    assert (case.name, case.images) == ("series", [dicom])
    (case,) = find_cases([tmp_path], tmp_path, ".nrrd", 1)
    assert case.images == [dicom]
    for name in ("x.nii.gz", "x.nrrd", "old.seg.nrrd"):
        (tmp_path / name).write_text("x")
    (case,) = find_cases([tmp_path], tmp_path, ".nrrd", 1)
    with pytest.raises(ImageError, match="overwrite"):
        case.checked_images()
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ImageError, match="no images"):
        find_cases([tmp_path / "nothing"], tmp_path, ".nrrd", 1)
    with pytest.raises(ImageError, match="Choose one of"):
        find_cases([tmp_path], tmp_path, ".doc", 1)


def test_a_dicom_folder_is_one_image(shared, tiny, tmp_path):
    series = shared / "robust_volumes/dicom/mr_hippocampus_crop"
    assert run("segment", series, "-m", tiny.folder, "-o", tmp_path / "out.seg.nrrd") == 0
    assert read_labels(tmp_path / "out.seg.nrrd").array.shape == (1, 35, 51, 32)


# --- models ---------------------------------------------------------------------------------------------------------


def test_models_lists_what_is_there_and_what_is_broken(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PROSMA_HOME", str(tmp_path))
    make_tiny_package(tmp_path / "models" / "mine", id="mine")
    broken = make_tiny_package(tmp_path / "models" / "broken", id="broken")
    broken.weights_path.write_bytes(b"")
    assert run("models") == 0
    captured = capsys.readouterr()
    assert "mine" in captured.out
    assert "structure 1, structure 2" in captured.out
    assert "broken" in captured.err
    assert run("models", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    mine = next(model for model in report["models"] if model["id"] == "mine")
    assert mine["labels"][0]["name"] == "structure 1"
    assert report["broken"][0]["reason"]


def test_a_model_is_found_by_its_id(tmp_path, monkeypatch, scan):
    monkeypatch.setenv("PROSMA_HOME", str(tmp_path))
    make_tiny_package(tmp_path / "models" / "mine", id="mine", spacing=None, patch_size=[16, 16, 16])
    assert run("segment", scan, "-m", "mine", "-o", tmp_path / "out.nrrd") == 0


# --- written files --------------------------------------------------------------------------------------------------


@pytest.fixture
def labelled(volume):
    labels = np.zeros(volume.shape, np.uint8)
    labels[3:10, 4:15, 2:9] = 1
    labels[12:20, 5:9, 3:4] = 3
    return labels, Image(volume.array, oblique())


def test_slicer_reads_the_segmentation_with_everything(labelled, tmp_path):
    slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    labels, image = labelled
    package = make_tiny_package(tmp_path / "m", labels=3)
    descriptions = [{**label, "terminology": SCT} for label in package.labels]
    descriptions[0]["name"] = "Leber, ganz: \\ größte"
    path = tmp_path / "a.seg.nrrd"
    write_labels(path, labels, image, descriptions, provenance(package, {"overlap": 0.5}))

    scene = slicer.vtkMRMLScene()
    storage, node = slicer.vtkMRMLSegmentationStorageNode(), slicer.vtkMRMLSegmentationNode()
    scene.AddNode(storage)
    scene.AddNode(node)
    storage.SetFileName(str(path))
    assert storage.ReadData(node) == 1
    segmentation = node.GetSegmentation()
    assert segmentation.GetSourceRepresentationName() == "Binary labelmap"
    assert segmentation.GetNumberOfSegments() == 3
    assert segmentation.GetNumberOfLayers() == 1
    geometry = segmentation.GetConversionParameter("Reference image geometry").split(";")
    np.testing.assert_allclose(np.array(geometry[:16], float).reshape(4, 4), image.ijk_to_ras, atol=1e-9)
    assert geometry[16:22] == ["0", "23", "0", "19", "0", "17"]
    for index, label in enumerate(descriptions):
        segment = segmentation.GetNthSegment(index)
        assert segment.GetName() == label["name"]
        assert segment.GetLabelValue() == label["value"]
        np.testing.assert_allclose(np.array(segment.GetColor()) * 255, label["color"], atol=0.01)
        text = vtk.reference("")
        assert segment.GetTag("TerminologyEntry", text)
        assert "SCT^123037004^Anatomical Structure~SCT^10200004^Liver~^^~" in str(text)
        assert segment.GetTag("ProSMA.sha256", text)
        assert str(text) == package.sha256
        assert segment.GetTag("ProSMA.options", text)
        assert json.loads(str(text)) == {"overlap": 0.5}
        assert segment.GetTag("ProSMA.fingerprint", text)
        assert (str(text) == "empty") == (label["value"] == 2)
    picture = segmentation.GetNthSegment(0).GetRepresentation("Binary labelmap")
    matrix = vtk.vtkMatrix4x4()
    picture.GetImageToWorldMatrix(matrix)
    extent = picture.GetExtent()
    found = vtk_to_numpy(picture.GetPointData().GetScalars()).reshape(picture.GetDimensions()[::-1]).T
    whole = np.zeros_like(labels)
    whole[tuple(slice(extent[2 * n], extent[2 * n + 1] + 1) for n in range(3))] = found
    np.testing.assert_array_equal(whole, labels)
    np.testing.assert_allclose(
        [[matrix.GetElement(r, c) for c in range(4)] for r in range(4)], image.ijk_to_ras, atol=1e-9
    )


@pytest.mark.parametrize("suffix", [".seg.nrrd", ".nrrd", ".mha"])
def test_geometry_survives_to_the_last_digits(labelled, tmp_path, suffix):
    labels, image = labelled
    write_labels(
        tmp_path / f"a{suffix}", labels, image, [{"value": v, "name": "x", "color": [1, 2, 3]} for v in (1, 2, 3)]
    )
    np.testing.assert_allclose(read_labels(tmp_path / f"a{suffix}").ijk_to_ras, image.ijk_to_ras, atol=1e-12)


def test_many_labels_need_two_bytes(volume, tmp_path):
    labels = np.arange(volume.array.size, dtype=np.uint16).reshape(volume.shape) % 300
    write_labels(tmp_path / "a.nrrd", labels, volume, [])
    np.testing.assert_array_equal(read_labels(tmp_path / "a.nrrd").array[0], labels)


def test_same_labels_same_file(labelled):
    labels, image = labelled
    assert nrrd_bytes(labels, image, {"a": "b"}) == nrrd_bytes(labels.copy(order="F"), image, {"a": "b"})


@pytest.mark.parametrize("at_once", [1, 100, 1 << 22])
def test_label_extents_equal_a_look_at_every_voxel(labelled, monkeypatch, at_once):
    monkeypatch.setattr("prosma.image.label_runs.BYTES_PER_SLAB", at_once)
    labels, _ = labelled
    for value, extent in enumerate(label_extents(labels, 4), start=1):
        where = np.argwhere(labels == value)
        assert extent.voxels == len(where)
        box = None if not len(where) else tuple(zip(where.min(0).tolist(), (where.max(0) + 1).tolist(), strict=True))
        assert extent.box == box


def test_an_error_while_writing_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.nrrd"
    path.write_text("old")
    with pytest.raises(OSError, match="disk"), replaced_when_whole(path) as temporary:
        temporary.write_text("half")
        raise OSError("disk")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.nrrd"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="file size limits as on Linux")
@pytest.mark.parametrize("suffix", LABEL_SUFFIXES)
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, suffix):
    """The same code as behind `-o`, in a process that may write 3000 bytes to a file."""
    output = tmp_path / f"out{suffix}"
    output.write_text("old")
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "import numpy as np; from prosma import Image, write_labels\n"
        "labels = np.random.default_rng(0).integers(0, 2, (30, 30, 30)).astype(np.uint8)\n"
        "label = {'value': 1, 'name': 'x', 'color': [1, 2, 3]}\n"
        "try: write_labels(sys.argv[1], labels, Image(labels[None], np.eye(4)), [label])\n"
        "except OSError as error: print('REFUSED', error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(output)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "training")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "REFUSED" in done.stdout
    assert output.read_text() == "old"
    assert list(tmp_path.iterdir()) == [output]


SECONDS_TO_BE_AT_WORK = 6  # of processor time; starting takes about 3


def processor_seconds(pid: int) -> float:
    """Processor time that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
@pytest.mark.parametrize(("end", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_a_killed_command_leaves_no_part_of_its_output(tmp_path, end, code):
    # Minutes of work in steps of a second: the command cannot end before it is stopped, and stops soon.
    network = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "features": [64, 64]}
    package = make_tiny_package(tmp_path / "m", spacing=None, patch_size=[48, 48, 48], network=network)
    write_image(tmp_path / "scan.nrrd", smooth_volume((96, 192, 300)))
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "prosma.cli",
            "segment",
            "scan.nrrd",
            "-m",
            str(package.folder),
            "-o",
            "out.seg.nrrd",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "training")},
        stderr=subprocess.PIPE,
        # Tests in the background ignore SIGINT, and what they start inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    deadline = time.monotonic() + 120
    while processor_seconds(process.pid) < SECONDS_TO_BE_AT_WORK:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert process.poll() is None, "the command should still be at work"
    process.send_signal(end)
    _, log = process.communicate(timeout=60)
    assert process.returncode == code
    assert code != 130 or log.strip().splitlines()[-1] == b"prosma: Stopped."
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m", "scan.nrrd"]


def test_nrrd_is_readable_without_this_project(labelled, tmp_path):
    """The layout of the file, read by hand: header, empty line, gzip."""
    labels, image = labelled
    header, _, data = nrrd_bytes(labels, image, {}).partition(b"\n\n")
    assert header.startswith(b"NRRD0004\ntype: unsigned char\ndimension: 3\n")
    assert b"sizes: 24 20 18" in header
    assert gzip.decompress(data) == np.ascontiguousarray(labels.T).tobytes()
