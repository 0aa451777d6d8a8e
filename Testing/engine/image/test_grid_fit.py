"""An image whose grid does not suit the model is refused, or a notice says so: alike at each door; each remedy is tried."""

import json
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from prosma import Segmenter, read_image
from prosma.cli.app import main
from prosma.errors import UserFacingError
from prosma.image.geometry import Image, plan_canonical
from prosma.image.grid_fit import REFUSED, SENTENCES, misfits_of_grid
from prosma.image.reading import read_labels
from remedies import tries
from small_volumes import smooth_volume
from tiny_model import make_tiny_package

VOXELS = smooth_volume((30, 28, 26)).array[0]
UNITS = {
    "metres": (1e-3, "tiny"),
    "microns": (1e3, "huge"),
    "centimetres": (0.1, "merged"),
    "thick": (5.0, "multiplied"),
}


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A model of 1 mm voxels that knows regions of 20 to 40 mm."""
    field = {"min_mm": [20, 20, 20], "max_mm": [40, 40, 40]}
    return make_tiny_package(tmp_path_factory.mktemp("m") / "tiny", patch_size=[16, 16, 16], field_of_view=field)


def save(path, mm, array=VOXELS):
    nib.Nifti1Image(array, np.diag([*np.broadcast_to(mm, 3), 1.0])).to_filename(path)
    return path


def command(package, path, output, *more):
    return ["segment", str(path), "-m", str(package.folder), "-o", str(output), "--device", "cpu", *more]


@pytest.mark.parametrize("unit", UNITS)
def test_the_command_refuses_with_a_code_of_its_own_and_the_remedy_works(tmp_path, package, unit, capsys):
    mm, kind = UNITS[unit]
    array = VOXELS[:20, :20, :20]
    path = save(tmp_path / "a.nii.gz", mm, array)
    assert main(command(package, path, tmp_path / "a.nrrd")) == 4
    told = capsys.readouterr().err
    assert SENTENCES[kind][1] in told and "--force runs it" in told
    assert f"{mm:.4g} x {mm:.4g} x {mm:.4g} mm" in told or kind in ("merged", "multiplied")
    assert not (tmp_path / "a.nrrd").exists() and told.count("\n") == 1
    if kind == "multiplied":  # "a model for larger voxels"
        other = make_tiny_package(tmp_path / "large", patch_size=[16, 16, 16], spacing=[4.0, 4.0, 4.0])
        assert main(command(other, path, tmp_path / "a.nrrd")) == 0
    else:
        assert main(command(package, save(path, 1.0, array), tmp_path / "a.nrrd")) == 0
    assert read_labels(tmp_path / "a.nrrd").shape == array.shape


def test_force_runs_it_and_says_so(tmp_path, package, capsys):
    path = save(tmp_path / "a.nii.gz", 1e-3)
    assert main(command(package, path, tmp_path / "a.nrrd", "--force", "--json")) == 0
    (case,) = json.loads(capsys.readouterr().out)["cases"]
    assert any("metres were taken for mm" in notice for notice in case["notices"])
    assert read_labels(tmp_path / "a.nrrd").shape == VOXELS.shape


def test_a_batch_does_the_rest_and_names_what_does_not_fit(tmp_path, package, capsys):
    (tmp_path / "in").mkdir()
    for name, mm in (("good", 1.0), ("metres", 1e-3)):
        save(tmp_path / "in" / f"{name}.nii.gz", mm)
    assert main(command(package, tmp_path / "in", tmp_path / "out", "--json")) != 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    cases = {case["case"]: case for case in report["cases"]}
    assert cases["metres"]["error"]["code"] == "does_not_fit" and "output" in cases["good"]


def test_python_and_the_worker_refuse_alike(tmp_path, package):
    path = save(tmp_path / "a.nii.gz", 1e-3)
    with pytest.raises(UserFacingError) as refusal:
        Segmenter(package, "cpu").segment(read_image(path))
    assert refusal.value.code == "does_not_fit"
    request = {"id": 1, "do": "segment", "model": str(package.folder), "images": [str(path)], "device": "cpu"}
    requests = [
        {**request, "output": str(tmp_path / "b.nrrd")},
        {**request, "id": 2, "output": str(tmp_path / "c.nrrd"), "force": True},
    ]
    text = "".join(json.dumps(each) + "\n" for each in requests)
    with subprocess.Popen(
        [sys.executable, "-m", "prosma.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        worker.stdin.write(text)
        worker.stdin.flush()
        events = []
        while len(events) < 2:
            event = json.loads(worker.stdout.readline())
            events += [event] if event["event"] in ("error", "result") else []
        worker.stdin.close()
    error, result = events
    assert (error["code"], error["message"], error["remedy"]) == (
        "does_not_fit",
        refusal.value.message,
        refusal.value.remedy,
    )
    assert any("metres" in notice for notice in result["notices"]) and (tmp_path / "c.nrrd").exists()
    assert not (tmp_path / "b.nrrd").exists()


@pytest.mark.parametrize(
    ("shape", "mm", "roi", "words"),
    [
        ((30, 30, 30), 1.0, None, None),
        ((30, 28, 26), (1.0, 1.0, 3.5), None, "expect a poorer result. Use a scan with smaller voxels"),
        ((90, 90, 90), 0.3, None, "sees nothing finer"),
        ((60, 30, 30), 1.0, None, "regions of up to 40 x 40 x 40 mm. Place an ROI"),
        ((60, 50, 50), 1.0, ((0, 50), (0, 30), (0, 30)), "Make the ROI smaller"),
        ((12, 30, 30), 1.0, None, "at least 20 x 20 x 20 mm around the structure. Use a scan that shows more"),
        ((30, 30, 30), 1.0, ((0, 10), (0, 30), (0, 30)), "Make the ROI larger"),
    ],
)
def test_a_poor_fit_is_a_notice(package, shape, mm, roi, words):
    image = Image(smooth_volume(shape).array, np.diag([*np.broadcast_to(mm, 3), 1.0]))
    notices = Segmenter(package, "cpu").segment(image, roi=roi).notices
    assert not notices if words is None else words in notices[0]


@tries("inference/pipeline.py: EngineError('does_not_fit'")
def test_an_roi_of_few_voxels_of_the_model_is_refused_and_a_larger_one_runs(tmp_path):
    package = make_tiny_package(tmp_path / "coarse", patch_size=[16, 16, 16], spacing=[4.0, 4.0, 4.0])
    segmenter, image = Segmenter(package, "cpu"), Image(VOXELS[None], np.eye(4))
    with pytest.raises(UserFacingError, match="Make the ROI larger"):
        segmenter.segment(image, roi=((0, 10), (0, 28), (0, 26)))
    assert segmenter.segment(image, roi=((0, 20), (0, 28), (0, 26))).labels.any()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_the_axes_are_the_models(order):
    """Voxels of 1 x 1 x 4 mm fit a model of 1 x 1 x 4 mm however they are stored."""
    model = {"dimension": 3, "orientation": "RAS", "spacing": [1.0, 1.0, 4.0]}
    matrix = np.eye(4)
    matrix[:3, :3] = np.diag([1.0, 1.0, 4.0])[:, order]
    shape = np.array([40, 40, 10])[list(order)]
    assert not misfits_of_grid(model, shape, matrix)
    turned = np.diag([1.0, 4.0, 1.0, 1.0])
    assert [each.kind for each in misfits_of_grid(model, (40, 10, 40), turned)] == ["coarse"]


def test_a_picture_without_pixel_size_is_told_where_the_model_needs_one(tmp_path):
    import PIL.Image

    package = make_tiny_package(tmp_path / "flat", dimension=2, spacing=[0.5, 0.5])
    PIL.Image.fromarray(smooth_volume((80, 60, 1)).array[0, ..., 0].astype(np.uint8)).save(tmp_path / "a.png")
    notices = Segmenter(package, "cpu").segment(read_image(tmp_path / "a.png")).notices
    assert any("size of this picture's pixels is not known" in notice for notice in notices)


def test_a_grid_that_would_take_days_is_refused_without_making_it():
    """Seen in damaged headers: 24 x 20 x 18 voxels of 40 mm at 1 mm are 553 million."""
    model = {"dimension": 3, "orientation": "RAS", "spacing": [1.0, 1.0, 1.0]}
    matrix = np.diag([40.0, 40.0, 40.0, 1.0])
    (misfit,) = misfits_of_grid(model, (24, 20, 18), matrix)
    assert misfit.kind == "multiplied" and f"{40**3}" in misfit.why and misfit.is_refused
    size = plan_canonical(Image(np.broadcast_to(np.uint8(0), (1, 24, 20, 18)), matrix), model).size
    assert size == (960, 800, 720)


def test_each_kind_has_a_reason_and_a_remedy():
    assert set(SENTENCES) >= REFUSED
    for why, *remedies in SENTENCES.values():
        assert why.endswith(".") and remedies and all(remedy.endswith(".") for remedy in remedies)
