"""Images: reading what users bring, refusing what cannot be done, geometry there and back, intensities."""

import gzip
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosma.image import geometry
from prosma.image.geometry import Image, ImageError, checked_image, plan_canonical, stack_channels, to_canonical
from prosma.image.intensity import normalise
from prosma.image.reading import read_image, read_labels
from prosma.image.resampling import UNIT, argmax_labels, resample, resample_nearest
from prosma.inference.back_to_image import ScoreResampler

MODEL = {"dimension": 3, "orientation": "RAS", "spacing": [2.0, 2.0, 2.0]}
AS_IT_IS = {"dimension": 3, "orientation": "RAS", "spacing": None}


def oblique(angle=0.4, spacing=(1.0, 1.0, 1.0), order=(0, 1, 2), signs=(1, 1, 1)) -> np.ndarray:
    """An IJK-to-RAS matrix: axes permuted, flipped, turned about a slanted line."""
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ (np.eye(3)[:, order] * signs) * spacing
    matrix[:3, 3] = [10, -20, 30]
    return matrix


def restored(canonical, labels) -> np.ndarray:
    """Labels (X, Y, Z) on a model's grid brought to the image's grid (I, J, K): each voxel takes the nearest one's."""
    places = [np.zeros(0)] * 3
    for n, axis in enumerate(canonical.axes):
        length = canonical.shape[axis]
        place = (np.arange(length) + 0.5) * canonical.size[n] / length
        places[axis] = np.floor(place[::-1] if canonical.flips[n] else place).astype(int)
    return labels.transpose(np.argsort(canonical.axes))[np.ix_(*places)]


# --- real files -----------------------------------------------------------------------------------------------------

REFUSED = {  # what the refusal says
    "nifti/mr_pcasl_4d_float.nii.gz": "4 dimensions",
    "nifti/us_heart_4d.nii.gz": "4 dimensions",
    "nifti/complex64.nii.gz": "complex",
    "dicom/ct_head_gantry_tilt/": "sheared",
    "dicom/fmri_ge_4d/": "same place",
    "dicom/seg/liver_dicom_seg.dcm": "DICOM segmentation",
}
CHANNELS = {"nifti/ct_perfusion_rgb.nii.gz": 3, "nifti/mr_two_channel_oblique.nii.gz": 2, "dicom/mr_rgb/": 3}


def test_every_robust_volume_is_read_right_or_refused_in_words(shared):
    manifest = json.loads((shared / "robust_volumes" / "manifest.json").read_text())
    names = [item["file"] for item in manifest]
    assert len(names) >= 50
    for name in names:
        path = shared / "robust_volumes" / name
        key = name if not path.is_dir() else name.rstrip("/") + "/"
        if key in REFUSED:
            with pytest.raises(ImageError, match=REFUSED[key]) as refusal:
                read_image(path)
            assert refusal.value.remedy, name
            continue
        image = read_image(path)
        assert image.array.ndim == 4, name
        assert len(image.array) == CHANNELS.get(key, 1), name
        array, canonical = to_canonical(image, MODEL)
        assert np.isfinite(normalise(array, {"rule": "clip-zscore", "percentiles": [0.5, 99.5]})).all(), name
        assert restored(canonical, array[0] > 0).shape == image.shape, name


def test_eight_storage_orders_give_the_same_canonical_voxels(shared):
    files = sorted((shared / "robust_volumes/nifti/orientations").glob("*.nii.gz"))
    assert len(files) == 8
    arrays = [to_canonical(read_image(file), MODEL)[0] for file in files]
    for array in arrays[1:]:
        np.testing.assert_array_equal(array, arrays[0])


def test_nifti_and_nrrd_of_one_volume_agree(shared):
    one = read_image(shared / "robust_volumes/nifti/mr_flair_oblique.nii.gz")
    two = read_image(shared / "robust_volumes/nrrd/mr_flair_oblique.nrrd")
    np.testing.assert_array_equal(one.array, two.array)
    np.testing.assert_allclose(one.ijk_to_ras, two.ijk_to_ras, atol=1e-4)


# --- written files --------------------------------------------------------------------------------------------------


def write(path, array, spacing=None, vector=False):
    import SimpleITK as sitk

    picture = sitk.GetImageFromArray(array, isVector=vector)
    if spacing:
        picture.SetSpacing(spacing)
    sitk.WriteImage(picture, str(path))
    return path


@pytest.mark.parametrize("name", ["a.nrrd", "a.nii.gz", "a.nii", "a.mha", "a.mhd", "a.gipl"])
def test_volume_files_keep_voxels_and_geometry(tmp_path, name):
    array = np.random.default_rng(0).integers(0, 999, (4, 5, 6)).astype(np.int16)
    image = read_image(write(tmp_path / name, array, (1.0, 2.0, 3.0)))
    np.testing.assert_array_equal(image.array[0], array.T)
    np.testing.assert_allclose(image.ijk_to_ras, np.diag([-1.0, -2.0, 3.0, 1.0]), atol=1e-6)
    assert image.spacing == pytest.approx((1, 2, 3))
    assert image.voxel_ml == pytest.approx(0.006)


@pytest.mark.parametrize(("name", "channels"), [("a.png", 3), ("a.jpg", 3), ("a.tif", 3), ("grey.png", 1)])
def test_photographs_have_one_slice_and_slicers_axes(tmp_path, name, channels):
    array = np.zeros((20, 30, 3), np.uint8)
    array[2:9, 3:28, 0] = 200
    image = read_image(write(tmp_path / name, array if channels == 3 else array[..., 0], vector=channels == 3))
    assert image.array.shape == (channels, 30, 20, 1)
    assert image.array[0, 10, 5, 0] > 150
    np.testing.assert_allclose(np.sign(np.diag(image.ijk_to_ras)), [-1, -1, 1, 1])


def test_transparency_is_no_channel(tmp_path):
    image = read_image(write(tmp_path / "a.png", np.full((5, 6, 4), 9, np.uint8), vector=True))
    assert len(image.array) == 3
    assert "transparency" in image.notices[0]


def test_a_second_channel_on_another_grid_is_resampled_to_the_first(tmp_path):
    i, j, k = np.indices((12, 10, 8))
    fine = (10 * i + 3 * j + k).astype(np.float32).T
    first = write(tmp_path / "a.nrrd", np.zeros((8, 10, 12), np.int16))
    same = write(tmp_path / "b.nrrd", fine)
    coarse = write(tmp_path / "c.nrrd", np.ascontiguousarray(fine[:, ::2, ::2]), (2.0, 2.0, 1.0))
    assert not read_image([first, same]).notices
    image = read_image([first, coarse])
    assert image.array.shape == (2, 12, 10, 8)
    np.testing.assert_allclose(image.array[1, :11, :9], fine.T[:11, :9], atol=1e-3)
    assert "another grid" in image.notices[0]


@pytest.mark.parametrize("name", ["a.nrrd", "a.nii.gz", "a.nii", "a.mha", "a.gipl", "a.png", "a.jpg", "a.tif"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.6])
def test_truncated_files_are_refused(tmp_path, name, share):
    noise = np.random.default_rng(0).integers(0, 255, (24, 24) if name[-3:] in ("png", "jpg", "tif") else (24, 24, 24))
    path = write(tmp_path / name, noise.astype(np.uint8))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ImageError) as refusal:
        read_image(path)
    assert refusal.value.remedy


def test_gzip_files_of_several_members_are_whole(tmp_path):
    data = write(tmp_path / "a.nii", np.arange(999, dtype=np.int16).reshape(9, 111, 1)).read_bytes()
    path = tmp_path / "b.nii.gz"
    path.write_bytes(gzip.compress(data[:500]) + gzip.compress(data[500:]) + gzip.compress(b""))
    np.testing.assert_array_equal(read_image(path).array, read_image(tmp_path / "a.nii").array)


def test_a_dicom_series_with_a_truncated_file_is_refused(tmp_path, shared):
    for file in (shared / "robust_volumes/dicom/mr_sagittal_ge").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / file.name).write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ImageError):
        read_image(tmp_path)


def test_files_that_are_no_images_are_refused(tmp_path):
    (tmp_path / "a.nrrd").write_text("hello")
    (tmp_path / "a.docx").write_bytes(b"PK\x03\x04 and so on")
    (tmp_path / "empty").mkdir()
    for name in ("a.nrrd", "a.docx", "empty", "absent.nii.gz"):
        with pytest.raises(ImageError, match=name):
            read_image(tmp_path / name)
    with pytest.raises(ImageError, match="No image"):
        read_image([])


def test_label_maps_are_whole_numbers(tmp_path):
    labels = read_labels(write(tmp_path / "a.nii.gz", np.full((3, 4, 5), 2.0, np.float32)))
    assert labels.array.dtype.kind == "i"
    assert (labels.array == 2).all()
    with pytest.raises(ImageError, match="fractions"):
        read_labels(write(tmp_path / "b.nii.gz", np.full((3, 4, 5), 0.5, np.float32)))
    with pytest.raises(ImageError, match="layers"):
        read_labels(write(tmp_path / "c.nrrd", np.ones((3, 4, 5, 2), np.uint8), vector=True))


# --- what is refused, replaced and kept -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "matrix", "why"),
    [
        (np.zeros((1, 0, 4, 4)), np.eye(4), "no voxels"),
        (np.zeros((1, 4, 4, 4), np.complex64), np.eye(4), "complex"),
        (np.zeros((1, 4, 4, 4, 2)), np.eye(4), "4 dimensions"),
        (np.zeros((1, 4, 4, 4), "U3"), np.eye(4), "type"),
        (np.full((1, 4, 4, 4), np.nan), np.eye(4), "no finite number"),
        (np.full((1, 4, 4, 4), np.inf), np.eye(4), "no finite number"),
        (np.zeros((1, 4, 4, 4)), np.diag([1.0, 0, 1, 1]), "singular"),
        (np.zeros((1, 4, 4, 4)), np.array([[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "singular"),
        (np.zeros((1, 4, 4, 4)), np.array([[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "right angles"),
        (np.zeros((1, 4, 4, 4)), np.diag([1.0, np.nan, 1, 1]), "finite 4 x 4"),
        (np.zeros((1, 4, 4, 4)), np.eye(3), "4 x 4"),
    ],
)
def test_unusable_volumes_are_refused_with_reason_and_remedy(array, matrix, why):
    with pytest.raises(ImageError, match=why) as refusal:
        checked_image(Image(array, matrix))
    assert refusal.value.remedy


def test_stray_nan_and_infinities_are_replaced_with_a_notice():
    array = np.arange(64, dtype=np.float64).reshape(1, 4, 4, 4)
    array[0, 0, 0, :3] = [np.nan, np.inf, -np.inf]
    image = checked_image(Image(array, np.eye(4)))
    assert image.array[0, 0, 0, :3].tolist() == [3, 63, 3]
    assert "3 voxels" in image.notices[0]
    assert np.isnan(array[0, 0, 0, 0]), "the caller's array is left alone"
    with pytest.raises(ImageError, match="no finite"):
        checked_image(Image(np.stack([array[0], np.full((4, 4, 4), np.nan)]), np.eye(4)))


def test_an_image_is_checked_once_and_its_parts_with_it(monkeypatch):
    image = checked_image(Image(np.full((2, 4, 4, 4), 3.0), np.eye(4)))
    other = Image(np.full((1, 4, 4, 4), np.nan), np.eye(4))
    monkeypatch.setattr(geometry, "check_matrix", None)  # would fail if it were called
    part = image.cropped(((1, 3), (0, 4), (0, 4)))
    assert checked_image(part).shape == (2, 4, 4)
    assert stack_channels([image, image]).checked and not stack_channels([image, other]).checked


# --- geometry -------------------------------------------------------------------------------------------------------


@given(
    st.permutations([0, 1, 2]),
    st.tuples(*[st.sampled_from([1, -1])] * 3),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.sampled_from([0.5, 0.8, 1.0, 2.0, 3.3])] * 3),
    st.sampled_from(["RAS", "LPS", "PIR", "SAL"]),
)
def test_labels_come_back_to_the_very_voxels_they_came_from(order, signs, shape, spacing, orientation):
    labels = np.random.default_rng(1).integers(0, 4, shape).astype(np.uint8)
    image = Image(labels[None], oblique(0.3, spacing, order, signs))
    array, canonical = to_canonical(image, {**AS_IT_IS, "orientation": orientation})
    assert array.flags.c_contiguous
    np.testing.assert_array_equal(restored(canonical, array[0].astype(np.uint8)), labels)
    np.testing.assert_array_equal(canonical.bring_labels(labels), array[0])


def test_canonical_axes_point_where_the_model_says():
    for order, signs in (((0, 1, 2), (1, 1, 1)), ((2, 0, 1), (-1, 1, -1)), ((1, 2, 0), (1, -1, -1))):
        image = Image(np.zeros((1, 4, 5, 6), np.uint8), oblique(0.3, (1, 1, 1), order, signs))
        canonical = plan_canonical(image, {**AS_IT_IS, "orientation": "LPS"})
        for n, sign in enumerate((-1, -1, 1)):
            direction = image.ijk_to_ras[:3, canonical.axes[n]] * (-1 if canonical.flips[n] else 1)
            assert int(np.argmax(np.abs(direction))) == n
            assert np.sign(direction[n]) == sign


def test_left_handed_volumes_are_flipped_like_any_other():
    array = np.arange(60, dtype=np.int16).reshape(1, 3, 4, 5)
    right, _ = to_canonical(Image(array, np.eye(4)), AS_IT_IS)
    mirrored, _ = to_canonical(Image(array[:, ::-1], np.diag([-1.0, 1, 1, 1])), AS_IT_IS)
    np.testing.assert_array_equal(right, mirrored)


@given(st.integers(1, 600), st.sampled_from([0.5, 0.7421875, 0.75, 0.9765625, 1.0, 3.0]), st.floats(-1e-7, 1e-7))
def test_rounding_of_a_matrix_never_changes_the_grid(count, spacing, noise):
    exact = Image(np.zeros((1, count, 1, 1), np.uint8), np.diag([spacing, 1, 1, 1]))
    rounded = Image(exact.array, np.diag([spacing + noise, 1, 1, 1]))
    for wanted in (0.5, 1.0, 1.5, 2.0):
        model = {**AS_IT_IS, "spacing": [wanted] * 3}
        assert plan_canonical(exact, model).size == plan_canonical(rounded, model).size


def test_extents_are_preserved():
    image = Image(np.zeros((1, 40, 30, 20), np.uint8), np.diag([0.7, 1.1, 3.0, 1]))
    canonical = plan_canonical(image, MODEL)
    assert canonical.size == (14, 17, 30)  # 28, 33 (16.5 samples: the half goes up) and 60 mm
    np.testing.assert_allclose(np.multiply(canonical.size, canonical.spacing), [28, 33, 60])


def test_resampling_a_ramp_keeps_places():
    ramp = np.broadcast_to(np.arange(32, dtype=np.float32), (1, 4, 32))
    coarse = resample(ramp, (4, 16))
    np.testing.assert_allclose(coarse[0, 0, 1:-1], np.arange(16)[1:-1] * 2 + 0.5, atol=1e-5)
    fine = resample(ramp, (4, 64))
    np.testing.assert_allclose(fine[0, 0, 1:-1], np.arange(64)[1:-1] / 2 - 0.25, atol=1e-5)


def test_shrinking_much_averages_instead_of_skipping():
    checkers = (np.indices((64, 64, 1)).sum(axis=0) % 2).astype(np.float32)
    np.testing.assert_allclose(resample(checkers, (8, 8, 1))[1:-1, 1:-1], 0.5, atol=0.02)


@given(st.tuples(*[st.integers(1, 12)] * 3), st.tuples(*[st.integers(1, 12)] * 3))
def test_resampling_keeps_constants_ranges_and_equal_sizes(shape, size):
    np.testing.assert_allclose(resample(np.full(shape, 7, np.int16), size), 7, rtol=1e-6)
    noise = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    result = resample(noise, size)
    assert result.shape == size
    assert noise.min() - 1e-5 <= result.min() <= result.max() <= noise.max() + 1e-5
    if shape == size:
        np.testing.assert_array_equal(result, noise)
    assert set(np.unique(resample_nearest(noise, size))) <= set(np.unique(noise))


def test_scores_are_interpolated_before_the_decision():
    image = Image(np.zeros((1, 16, 4, 4), np.uint8), np.diag([1.0, 2.0, 2.0, 1]))
    canonical = plan_canonical(image, MODEL)
    assert canonical.size == (8, 4, 4)
    scores = np.zeros((2, 8, 4, 4), np.float32)
    scores[1] = np.linspace(0.1, 0.9, 8)[:, None, None]  # the border lies between two model voxels
    scores[0] = 1 - scores[1]
    resampler = ScoreResampler(canonical, 2, axis=0)
    resampler.add(0, np.rint(scores * UNIT).astype(np.int16))
    labels = resampler.results["labels"]
    assert labels.shape == (16, 4, 4)
    np.testing.assert_array_equal(labels[:, 0, 0], np.arange(16) >= 8)


def test_argmax_is_the_first_of_equals():
    scores = [np.array([0.2, 0.4]), np.array([0.4, 0.4]), None, np.array([0.4, 0.2])]
    assert argmax_labels(scores).tolist() == [1, 0]


def test_a_cropped_image_stays_where_it_was():
    image = Image(np.arange(60).reshape(1, 3, 4, 5), oblique(0.5, (1, 2, 3)))
    part = image.cropped(((1, 3), (2, 4), (0, 2)))
    assert part.shape == (2, 2, 2)
    np.testing.assert_allclose(part.ijk_to_ras @ [0, 0, 0, 1], image.ijk_to_ras @ [1, 2, 0, 1])


def test_2d_models_keep_the_axes_and_resize_slices():
    image = Image(np.zeros((3, 40, 30, 2), np.uint8), oblique(0.4, order=(2, 0, 1)))
    array, canonical = to_canonical(image, {"dimension": 2, "orientation": None, "spacing": None, "resize": [16, 24]})
    assert array.shape == (3, 16, 24, 2)
    resampler = ScoreResampler(canonical, 2, axis=2)
    scores = np.zeros((2, 16, 24, 2), np.int16)
    scores[0, :8] = scores[1, 8:] = UNIT
    resampler.add(0, scores)
    labels = resampler.results["labels"]
    assert labels.shape == (40, 30, 2)
    np.testing.assert_array_equal(labels, np.broadcast_to((np.arange(40) >= 20)[:, None, None], labels.shape))


# --- intensities ----------------------------------------------------------------------------------------------------


def test_intensity_rules():
    array = np.random.default_rng(0).normal(50, 20, (2, 9, 9, 9))
    array[0, 0, 0, 0] = 1e6
    for rule in ({"rule": "zscore"}, {"rule": "clip-zscore", "percentiles": [0.5, 99.5]}):
        result = normalise(array, rule)
        np.testing.assert_allclose(result.mean(axis=(1, 2, 3)), 0, atol=1e-5)
        np.testing.assert_allclose(result.std(axis=(1, 2, 3)), 1, atol=1e-4)
    assert normalise(array, {"rule": "clip-zscore", "percentiles": [0.5, 99.5]}).max() < 5
    ct = normalise(array, {"rule": "ct", "clip": [0, 100], "mean": 50, "std": 25})
    assert (ct.min(), ct.max()) == (-2, 2)
    scaled = normalise(array, {"rule": "range", "low": 0, "high": 100})
    assert (scaled.min(), scaled.max()) == (0, 1)
    with pytest.raises(ValueError, match="magic"):
        normalise(array, {"rule": "magic"})


def test_with_foreground_the_air_around_a_head_does_not_count():
    head = np.random.default_rng(1).uniform(20, 90, (1, 8, 8, 8))
    rule = {"rule": "clip-zscore", "percentiles": [0.5, 99.5], "foreground": True}
    little, much = (np.pad(head, [(0, 0), *[(width, width)] * 3]) for width in (1, 6))
    inside = tuple(slice(6, -6) for _ in range(3))
    np.testing.assert_allclose(
        normalise(much, rule)[(0, *inside)], normalise(little, rule)[0, 1:-1, 1:-1, 1:-1], atol=1e-5
    )
    assert abs(normalise(much, rule)[(0, *inside)].mean()) < 1e-5
    plain = {**rule, "foreground": False}
    assert np.abs(normalise(much, plain)[(0, *inside)] - normalise(little, plain)[0, 1:-1, 1:-1, 1:-1]).max() > 1


def test_a_power_below_one_spreads_what_is_dark():
    array = np.random.default_rng(2).uniform(0, 1, (1, 12, 12, 12)) ** 4
    rule = {"rule": "clip-zscore", "percentiles": [0, 100]}
    dark = array[0] < 0.1
    straight, lifted = normalise(array, rule)[0], normalise(array, {**rule, "power": 0.25})[0]
    np.testing.assert_allclose((lifted.mean(), lifted.std()), (0, 1), atol=1e-4)
    assert np.ptp(lifted[dark]) > 3 * np.ptp(straight[dark])
    assert (np.diff(lifted.ravel()[np.argsort(array, axis=None)]) >= 0).all()


@pytest.mark.parametrize("value", [0, 7, -1024, 0.1, 1.7e6])
@pytest.mark.parametrize(
    "rule", [{"rule": "zscore"}, {"rule": "clip-zscore"}, {"rule": "clip-zscore", "foreground": True, "power": 0.5}]
)
def test_constant_volumes_become_zero(value, rule):
    result = normalise(np.full((1, 8, 9, 10), value, np.float32), rule)
    np.testing.assert_array_equal(result, 0)


def test_normalising_in_place_only_on_request():
    array = np.random.default_rng(0).normal(size=(1, 4, 4, 4)).astype(np.float32)
    before = array.copy()
    result = normalise(array, {"rule": "zscore"})
    np.testing.assert_array_equal(array, before)
    assert normalise(array, {"rule": "zscore"}, copy=False) is array
    np.testing.assert_array_equal(array, result)
