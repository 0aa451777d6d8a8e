"""Voxels that are no sensible numbers: refused with a remedy that works, or a notice; never a result without a word."""

import nibabel as nib
import numpy as np
import pytest

from prosma.cli.app import main
from prosma.image.reading import read_labels
from small_volumes import smooth_volume
from tiny_model import make_tiny_package

VOXELS = smooth_volume((24, 20, 18)).array[0]


@pytest.fixture(scope="module", params=["zscore", "ct"])
def package(request, tmp_path_factory):
    rules = {"zscore": {"rule": "zscore"}, "ct": {"rule": "ct", "clip": [-1000, 1000], "mean": 0, "std": 400}}
    folder = tmp_path_factory.mktemp("m") / request.param
    return make_tiny_package(folder, patch_size=[16, 16, 16], intensity=rules[request.param])


def save(path, array, slope=None):
    image = nib.Nifti1Image(array, np.eye(4), dtype=array.dtype)
    if slope is not None:
        image.header.set_slope_inter(1, 0)
    content = bytearray(image.to_bytes())
    if slope is not None:
        content[112:116] = np.float32(slope).tobytes()
    path.write_bytes(content)
    return path


def run(package, path, output):
    return main(["segment", str(path), "-m", str(package.folder), "-o", str(output), "--device", "cpu"])


def test_a_slope_that_makes_everything_infinite_is_refused_and_a_right_one_accepted(tmp_path, package, capsys):
    path = save(tmp_path / "a.nii", VOXELS, 3e38)
    assert run(package, path, tmp_path / "a.nrrd") == 1
    told = capsys.readouterr().err
    assert "infinite or beyond 10^38" in told and "scaling in the file's header" in told
    assert run(package, save(path, VOXELS, 1), tmp_path / "a.nrrd") == 0


@pytest.mark.parametrize("kind", ["a spike", "huge offset", "huge whole numbers", "constant"])
def test_an_image_without_contrast_is_told(tmp_path, package, kind, capsys):
    array = {
        "a spike": VOXELS.astype(np.float32),
        "huge offset": VOXELS.astype(np.float64) + 1e12,
        "huge whole numbers": VOXELS.astype(np.int64) + 2**60,
        "constant": np.full_like(VOXELS, 7),
    }[kind]
    if kind == "a spike":
        array[0, 0, 0] = 1e38
    assert run(package, save(tmp_path / "a.nii", array), tmp_path / "a.nrrd") == 0
    hidden = kind != "a spike" or "zscore" in str(package.folder)  # `ct` clips a spike
    assert ("nothing can be told apart" in capsys.readouterr().err) == hidden


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6, 1e18, 1e33])
def test_the_scale_of_an_mr_does_not_matter(tmp_path, factor, capsys):
    package = make_tiny_package(tmp_path / "m", patch_size=[16, 16, 16])
    plain, scaled = save(tmp_path / "a.nii", VOXELS), save(tmp_path / "b.nii", VOXELS * np.float64(factor))
    assert run(package, plain, tmp_path / "a.nrrd") == run(package, scaled, tmp_path / "b.nrrd") == 0
    one, two = (read_labels(tmp_path / name).array for name in ("a.nrrd", "b.nrrd"))
    assert len(np.unique(one)) > 1 and (one == two).mean() > 0.999
    assert "told apart" not in capsys.readouterr().err


def test_a_model_for_ct_tells_of_an_image_without_air(tmp_path, package, capsys):
    """MR, and a CT whose slope and intercept were lost: values from 0 on."""
    lost = (VOXELS - VOXELS.min()).astype(np.int16)
    assert run(package, save(tmp_path / "lost.nii", lost), tmp_path / "lost.nrrd") == 0
    told = capsys.readouterr().err
    assert ("expects a CT in Hounsfield units" in told and "lowest value is 0" in told) == (
        "ct" in str(package.folder.name)
    )
    assert run(package, save(tmp_path / "ct.nii", lost - 1024), tmp_path / "ct.nrrd") == 0
    assert "Hounsfield" not in capsys.readouterr().err


def test_nan_around_the_brain_is_air_and_said(tmp_path, package, capsys):
    array = VOXELS.astype(np.float32)
    array[:, :, :8] = np.nan
    filled = np.where(np.isnan(array), np.nanmin(array), array)
    assert run(package, save(tmp_path / "a.nii", array), tmp_path / "a.nrrd") == 0
    assert f"{24 * 20 * 8} voxels that were not finite" in capsys.readouterr().err
    assert run(package, save(tmp_path / "b.nii", filled), tmp_path / "b.nrrd") == 0
    one, two = (read_labels(tmp_path / name).array for name in ("a.nrrd", "b.nrrd"))
    np.testing.assert_array_equal(one, two)
