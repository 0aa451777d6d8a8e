"""Files beside a result: their content as other programs see it, and that they follow the rules of results."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image as Picture

from judges import dice, on_grid
from prosma.batch.records import RECORDS
from prosma.batch.result_file import ResultFile
from prosma.cli import main
from prosma.image.geometry import Image, ImageError
from prosma.image.reading import read_image, read_labels
from prosma.inference.segmenter import Segmenter
from prosma.outputs.preview import preview
from prosma.outputs.surfaces import surface_of, write_obj, write_stl
from small_volumes import smooth_volume
from tiny_model import make_tiny_package

VOLUMES = {"probabilities": "probabilities", "uncertainty": "uncertainty", "gate-map": "gate_map"}


def segment(*arguments) -> int:
    try:
        return main(["segment", *map(str, arguments), "--device", "cpu"])
    except SystemExit as end:
        return end.code


def also(*endings) -> list[str]:
    return [word for ending in endings for word in ("--also", ending)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return make_tiny_package(folder, spacing=None, patch_size=[16, 16, 16], seed=7)


def write_scan(path, seed=0, direction=(0.6, -0.8, 0, 0.8, 0.6, 0, 0, 0, 1)):
    picture = sitk.GetImageFromArray(np.ascontiguousarray(smooth_volume(seed=seed).array[0].T))
    picture.SetSpacing((0.8, 0.9, 2.5))
    picture.SetDirection(direction)
    picture.SetOrigin((-12.25, 30.5, 7.125))
    sitk.WriteImage(picture, str(path))
    return path


@pytest.fixture
def scan(tmp_path):
    return write_scan(tmp_path / "scan.nrrd")


# --- what is in them --------------------------------------------------------------------------------------------------


def test_volumes_are_what_the_network_said(scan, tiny, tmp_path):
    endings = [f".{name}.nrrd" for name in VOLUMES]
    assert segment(scan, "-m", tiny.folder, "-o", tmp_path / "r.seg.nrrd", *also(*endings)) == 0
    image = read_image(scan)
    result = Segmenter(tiny, "cpu").segment(image, outputs=list(VOLUMES.values()))
    for ending, name in VOLUMES.items():
        seen = sitk.ReadImage(str(tmp_path / f"r.{ending}.nrrd"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(seen).T, getattr(result, name), err_msg=name)
        np.testing.assert_allclose(seen.GetOrigin(), (-12.25, 30.5, 7.125))
        np.testing.assert_allclose(seen.GetSpacing(), (0.8, 0.9, 2.5))
        np.testing.assert_allclose(seen.GetDirection(), (0.6, -0.8, 0, 0.8, 0.6, 0, 0, 0, 1))
        assert seen.GetMetaData("ProSMA.scale") == "255 is 1"
    assert seen.GetNumberOfComponentsPerPixel() == 1
    classes = sitk.ReadImage(str(tmp_path / "r.probabilities.nrrd"))
    assert classes.GetNumberOfComponentsPerPixel() == 3
    assert [classes.GetMetaData(f"ProSMA.class{n}") for n in range(3)] == ["background", "structure 1", "structure 2"]


def test_a_volume_of_a_part_lies_at_the_part(scan, tiny, tmp_path):
    roi = ("--roi", 4, 16, 2, 20, 1, 9)
    assert segment(scan, "-m", tiny.folder, "-o", tmp_path / "r.nrrd", *also(".uncertainty.nrrd"), *roi) == 0
    seen, whole = sitk.ReadImage(str(tmp_path / "r.uncertainty.nrrd")), sitk.ReadImage(str(scan))
    assert seen.GetSize() == (12, 18, 8)
    np.testing.assert_allclose(seen.GetOrigin(), whole.TransformIndexToPhysicalPoint((4, 2, 1)))


@pytest.mark.parametrize("ending", ["stl", "obj"])
@pytest.mark.parametrize("direction", [(0.6, -0.8, 0, 0.8, 0.6, 0, 0, 0, 1), (1, 0, 0, 0, 1, 0, 0, 0, -1)])
def test_surfaces_are_closed_and_lie_around_the_labels(ending, direction, tiny, tmp_path):
    """As VTK sees them: no open edge, the front outside, the place in LPS; of labels that are noise."""
    geometry = pytest.importorskip("vtkmodules.vtkIOGeometry")
    from vtkmodules.vtkFiltersCore import vtkFeatureEdges

    scan = write_scan(tmp_path / "scan.nrrd", direction=direction)
    assert segment(scan, "-m", tiny.folder, "-o", tmp_path / "r.nrrd", *also(f".{ending}")) == 0
    reader = {"stl": geometry.vtkSTLReader, "obj": geometry.vtkOBJReader}[ending]()
    reader.SetFileName(str(tmp_path / f"r.{ending}"))
    reader.Update()
    mesh = reader.GetOutput()
    edges = vtkFeatureEdges()
    edges.SetInputData(mesh)
    edges.FeatureEdgesOff()
    edges.NonManifoldEdgesOff()
    edges.ManifoldEdgesOff()
    edges.Update()
    assert edges.GetOutput().GetNumberOfCells() == 0, "the surface is open"
    labels = sitk.ReadImage(str(tmp_path / "r.nrrd"))
    array = sitk.GetArrayFromImage(labels).T
    voxels = [np.argwhere(array == value) for value in (1, 2)]
    lps = [labels.TransformIndexToPhysicalPoint([int(n) for n in index]) for part in voxels for index in part]
    bounds = np.array(mesh.GetBounds()).reshape(3, 2)
    half = np.abs(np.array(labels.GetDirection()).reshape(3, 3)) @ np.array([0.4, 0.45, 1.25])
    np.testing.assert_allclose(bounds[:, 0], np.min(lps, axis=0) - half, atol=0.8)
    np.testing.assert_allclose(bounds[:, 1], np.max(lps, axis=0) + half, atol=0.8)
    assert signed_volume(mesh) > 0, "the front is inside"


def test_the_surface_of_a_ball_encloses_its_volume():
    i, j, k = np.indices((60, 50, 40))
    ball = np.sqrt(((i - 30) * 0.8) ** 2 + ((j - 25) * 0.9) ** 2 + ((k - 20) * 1.5) ** 2) < 12
    surface = surface_of(ball, np.diag([-0.8, 0.9, 1.5, 1.0]))
    a, b, c = (surface.points[surface.faces[:, n]] for n in range(3))
    assert np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6 == pytest.approx(4 / 3 * np.pi * 12**3, rel=0.02)
    assert np.abs(np.linalg.norm(surface.points - [24, -22.5, 30], axis=1) - 12).max() < 1.0


def signed_volume(mesh) -> float:
    from vtkmodules.util.numpy_support import vtk_to_numpy

    points = vtk_to_numpy(mesh.GetPoints().GetData()).astype(float)
    faces = vtk_to_numpy(mesh.GetPolys().GetConnectivityArray()).reshape(-1, 3)
    a, b, c = (points[faces[:, n]] for n in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


@pytest.mark.parametrize("ending", ["stl", "obj"])
def test_slicer_shows_a_surface_where_its_labels_are(ending, tmp_path):
    slicer = pytest.importorskip("slicer")
    from vtkmodules.util.numpy_support import vtk_to_numpy

    matrix = np.array([[0.0, -0.9, 0, 10], [0.8, 0, 0, -20], [0, 0, 2.5, 30], [0, 0, 0, 1]])
    labels = np.zeros((30, 24, 12), np.uint8)
    labels[5:20, 4:9, 2:6] = 1
    path = tmp_path / f"r.{ending}"
    image = Image(np.zeros((1, *labels.shape)), matrix)
    {"stl": write_stl, "obj": write_obj}[ending](path, labels, image, [{"value": 1, "name": "box", "color": [9, 8, 7]}])
    scene = slicer.vtkMRMLScene()
    node, storage = slicer.vtkMRMLModelNode(), slicer.vtkMRMLModelStorageNode()
    scene.AddNode(node)
    scene.AddNode(storage)
    storage.SetFileName(str(path))
    assert storage.ReadData(node)
    points = vtk_to_numpy(node.GetPolyData().GetPoints().GetData())
    middle = (matrix @ [12, 6, 3.5, 1])[:3]
    np.testing.assert_allclose((points.min(axis=0) + points.max(axis=0)) / 2, middle, atol=1e-3)


def test_a_box_keeps_its_size_and_a_name_its_colour(tmp_path):
    labels = np.zeros((30, 24, 12), np.uint8)
    labels[5:20, 4:14, 2:8] = 1
    described = [
        {"value": 1, "name": "the box", "color": [255, 0, 51]},
        {"value": 2, "name": "none", "color": [0, 0, 0]},
    ]
    write_obj(tmp_path / "r.obj", labels, Image(np.zeros((1, *labels.shape)), np.eye(4)), described)
    lines = (tmp_path / "r.obj").read_text().splitlines()
    assert lines[0] == "# SPACE=LPS"
    assert [line for line in lines if line.startswith("o ")] == ["o the_box", "o none"]
    points = np.array([line.split()[1:] for line in lines if line.startswith("v ")], float)
    np.testing.assert_allclose(points[:, :3].min(axis=0), [-19.5, -13.5, 1.5])
    np.testing.assert_allclose(points[:, :3].max(axis=0), [-4.5, -3.5, 7.5])
    np.testing.assert_allclose(points[0, 3:], [1, 0, 0.2])


# --- the picture ------------------------------------------------------------------------------------------------------


def marked(orientation: str) -> tuple[Image, np.ndarray]:
    """A volume whose brightest corner is the patient's right, front and head, and a label in the middle."""
    from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

    matrix, size = np.diag([1.0, 2.0, 4.0, 1.0]), (40, 24, 16)  # RAS
    i, j, k = np.indices(size)
    array = ((i + 0.5) / 40 + (j + 0.5) / 24 + (k + 0.5) / 16).astype(np.float32)
    labels = np.zeros(size, np.uint8)
    labels[10:30, 6:18, 4:12] = 1
    ornt = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(orientation))
    matrix = matrix @ inv_ornt_aff(ornt, size)
    return Image(apply_orientation(array, ornt)[None], matrix), apply_orientation(labels, ornt)


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SPR", "AIL"])
def test_three_planes_lie_as_radiologists_have_them(orientation):
    image, labels = marked(orientation)
    pixels = preview(image, labels, [{"value": 1, "color": [255, 0, 0]}], side=128)
    width, height, depth = 40 * 1.0, 24 * 2.0, 16 * 4.0  # mm
    scale = 128 / depth
    x, y, z = (round(mm * scale) for mm in (width, height, depth))
    assert pixels.shape == (max(y, z), x + 4 + x + 4 + y, 3)
    grey = pixels[..., 2].astype(float)
    top = (z - y) // 2
    axial, coronal, sagittal = grey[top : top + y, :x], grey[:, x + 4 : 2 * x + 4], grey[:, 2 * x + 8 :]
    for plane in (axial, coronal):
        assert plane[5, 5] > plane[5, -5], "the patient's right is not on the left"
        assert plane[5, 5] > plane[-5, 5], "front or head is not on top"
    assert sagittal[5, 5] > sagittal[5, -5], "the front is not on the left"
    assert sagittal[5, 5] > sagittal[-5, 5], "the head is not on top"
    red = (pixels == [255, 0, 0]).all(axis=-1)
    rows, columns = np.nonzero(red[:, :x])
    assert (columns.min(), columns.max() + 1) == (round(10 * scale), round(30 * scale))
    assert (rows.min() - top, rows.max() + 1 - top) == (round(12 * scale), round(36 * scale))
    assert red.sum() < 0.5 * (20 * 24 + 20 * 32 + 24 * 32) * scale**2, "the label is filled"


def test_the_planes_go_through_the_largest_section():
    array = np.zeros((1, 30, 30, 30), np.float32)
    array[:, :, :, 20] = 1
    labels = np.zeros((30, 30, 30), np.uint8)
    labels[10:12, 10:12, 3] = 1
    labels[8:20, 8:20, 20] = 1
    pixels = preview(Image(array, np.eye(4)), labels, [{"value": 1, "color": [255, 0, 0]}], side=60)
    red = (pixels == [255, 0, 0]).all(axis=-1)[:, :60]
    assert red.any() and (np.ptp(np.nonzero(red), axis=1) == 23).all()


def test_a_picture_is_shown_in_its_colours():
    colours = np.zeros((3, 32, 16, 1), np.uint8)
    colours[0, :16], colours[1, 16:] = 200, 100
    pixels = preview(Image(colours, np.eye(4), spacing_known=False), np.zeros((32, 16, 1), np.uint8), [], side=32)
    assert pixels.shape == (16, 32, 3)
    assert pixels[8, 3].tolist() == [200, 0, 0] and pixels[8, 28].tolist() == [0, 100, 0]


def test_the_file_is_a_png_that_pillow_reads(scan, tiny, tmp_path):
    assert segment(scan, "-m", tiny.folder, "-o", tmp_path / "r.seg.nrrd", *also(".preview.png")) == 0
    with Picture.open(tmp_path / "r.preview.png") as picture:
        picture.load()
        assert picture.format == "PNG" and picture.mode == "RGB"
    image, labels = read_image(scan), read_labels(tmp_path / "r.seg.nrrd").array[0]
    np.testing.assert_array_equal(np.asarray(picture), preview(image, labels, tiny.labels))
    colour = np.array(tiny.labels[0]["color"])
    assert (np.asarray(picture) == colour).all(axis=-1).any()


# --- the rules of results ---------------------------------------------------------------------------------------------


def test_one_run_writes_several_formats_of_the_same_result(scan, tiny, tmp_path, capsys):
    arguments = (scan, "-m", tiny.folder, "-o", tmp_path / "r.seg.nrrd", *also(".nii.gz", ".mha", ".preview.png"))
    assert segment(*arguments) == 0
    told = capsys.readouterr().out
    labels = read_labels(tmp_path / "r.seg.nrrd").array[0]
    for ending in (".nii.gz", ".mha"):
        assert f"also {tmp_path / f'r{ending}'}" in told
        own = on_grid(sitk.ReadImage(str(tmp_path / f"r{ending}")), read_image(scan))
        assert all(dice(own == value, labels == value) == 1 for value in (1, 2))
    lines = [json.loads(line) for line in (tmp_path / RECORDS).read_text().splitlines()]
    assert [line.get("beside") for line in lines] == [None, *["r.seg.nrrd"] * 3]
    assert main(["report", str(tmp_path), "--json"]) == 0
    (case,) = json.loads(capsys.readouterr().out)["cases"]
    assert case["output"] == str(tmp_path / "r.seg.nrrd")

    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert segment(*arguments) == 0
    assert "was there already" in capsys.readouterr().out
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_what_is_missing_is_made_and_the_rest_stays(scan, tiny, tmp_path):
    output = tmp_path / "r.seg.nrrd"
    assert segment(scan, "-m", tiny.folder, "-o", output) == 0
    before = output.stat().st_mtime_ns
    assert segment(scan, "-m", tiny.folder, "-o", output, *also(".nrrd")) == 0
    assert output.stat().st_mtime_ns == before
    np.testing.assert_array_equal(read_labels(tmp_path / "r.nrrd").array, read_labels(output).array)
    (tmp_path / ".r.nrrd.01234567-123.nrrd").write_bytes(b"what a killed process left")
    (tmp_path / "r.nrrd").unlink()
    assert segment(scan, "-m", tiny.folder, "-o", output, *also(".nrrd")) == 0
    assert sorted(path.name for path in tmp_path.glob("*r.*nrrd*")) == ["r.nrrd", "r.seg.nrrd"]


def test_files_of_others_and_of_persons_are_left_alone(scan, tiny, tmp_path, capsys):
    output, preview_file = tmp_path / "r.seg.nrrd", tmp_path / "r.preview.png"
    preview_file.write_bytes(b"not ours")
    arguments = (scan, "-m", tiny.folder, "-o", output, *also(".preview.png"))
    assert segment(*arguments) == 1
    assert "already a file r.preview.png" in capsys.readouterr().err
    assert preview_file.read_bytes() == b"not ours" and not output.exists()
    preview_file.unlink()
    assert segment(*arguments) == 0
    preview_file.write_bytes(b"changed by a person")
    assert segment(*arguments) == 0
    assert preview_file.read_bytes() == b"changed by a person"
    assert segment(*arguments, "--again") == 1
    assert "r.preview.png was changed" in capsys.readouterr().err
    assert preview_file.read_bytes() == b"changed by a person"


def test_beside_a_corrected_result_nothing_is_written(scan, tiny, tmp_path, capsys):
    output = tmp_path / "r.nrrd"
    assert segment(scan, "-m", tiny.folder, "-o", output) == 0
    picture = sitk.ReadImage(str(output))
    picture[0, 0, 0] = 1 - picture[0, 0, 0]
    sitk.WriteImage(picture, str(output))
    capsys.readouterr()
    assert segment(scan, "-m", tiny.folder, "-o", output, *also(".preview.png")) == 0
    assert "nothing was written beside it" in capsys.readouterr().err
    assert not (tmp_path / "r.preview.png").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "r.nrrd", "--also", ".nrrd"], "Leave out --also .nrrd"),
        (["-o", "r.preview.png"], "say --also .preview.png"),
        (["-o", "scan.seg.nrrd", "--also", ".nrrd"], "would overwrite the image scan.nrrd"),
        (["-o", "r.nrrd", "--also", ".dcm"], "scan.nrrd is none"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(arguments, words, scan, tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = scan.read_bytes()
    assert segment(scan, "-m", tiny.folder, *arguments) == 1
    assert words in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["scan.nrrd"] and scan.read_bytes() == before


def test_an_unknown_ending_is_a_fault_of_the_command(scan, tiny, tmp_path, capsys):
    assert segment(scan, "-m", tiny.folder, "-o", tmp_path / "r.nrrd", *also(".png")) == 2
    assert ".preview.png" in capsys.readouterr().err
    with pytest.raises(ImageError, match=r"Choose among \.preview\.png"):
        ResultFile.from_files(tmp_path / "r.nrrd", tiny, {}, [scan], also=[".png"])


def test_a_model_without_gates_has_no_gate_map(scan, tmp_path, capsys):
    network = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "features": [4, 8, 8], "skip": "plain"}
    plain = make_tiny_package(tmp_path / "model", spacing=None, patch_size=[16, 16, 16], network=network)
    arguments = (scan, "-m", plain.folder, "-o", tmp_path / "r.nrrd")
    assert segment(*arguments, *also(".gate-map.nrrd")) == 1
    assert "Leave out --also .gate-map.nrrd" in capsys.readouterr().err
    assert segment(*arguments, *also(".uncertainty.nrrd")) == 0


def test_a_batch_in_the_folder_of_its_images_takes_no_result_for_a_case(tiny, tmp_path):
    for seed in (1, 2):
        write_scan(tmp_path / f"case{seed}.nrrd", seed)
    arguments = (tmp_path, "-m", tiny.folder, "-o", tmp_path, *also(".preview.png", ".uncertainty.nrrd", ".stl"))
    assert segment(*arguments, "--workers", "2") == 0
    assert segment(*arguments) == 0
    names = {path.name for path in tmp_path.iterdir()} - {RECORDS}
    endings = (".nrrd", ".seg.nrrd", ".preview.png", ".uncertainty.nrrd", ".stl")
    assert names == {f"case{seed}{ending}" for seed in (1, 2) for ending in endings}
