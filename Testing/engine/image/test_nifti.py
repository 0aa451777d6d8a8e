"""NIfTI files: each voxel where its header says, with the value nibabel reads; else a sentence. nibabel is the judge."""

import gzip
import itertools
import struct

import nibabel as nib
import numpy as np
import pytest

import prosma
from prosma.cli.app import main
from prosma.image.geometry import ImageError
from prosma.image.reading import read_image, read_labels
from prosma.image.writing import write_labels
from remedies import tries
from tiny_model import make_tiny_package

LABELS = [{"value": value, "name": f"label {value}", "color": [200, 100, 50]} for value in (1, 2)]


def turned(spacing=(1.9, 1.4, 2.9), angle=0.3) -> np.ndarray:
    """A matrix with axes at right angles."""
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[-c, s, 0], [-s, -c, 0], [0, 0, 1]]) * spacing
    matrix[:3, 3] = [30, -20, 5]
    return matrix


def voxels(shape=(6, 7, 8), kind=np.int16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 120, shape).astype(kind)


def save(path, array=None, sform=None, scode=1, qform=None, qcode=1, edits=(), kind=nib.Nifti1Image):
    """A file by nibabel; `edits` are (place, type, values) written over its unpacked bytes."""
    sform = turned() if sform is None else sform
    array = voxels() if array is None else array
    image = kind(array, sform, dtype=array.dtype)
    image.set_sform(sform, scode)
    image.set_qform(sform if qform is None else qform, qcode, strip_shears=True)
    image.header.set_xyzt_units("mm")
    content = bytearray(image.to_bytes())
    for place, form, *values in edits:
        struct.pack_into("<" + form, content, place, *values)
    path.write_bytes(gzip.compress(bytes(content)) if path.suffix == ".gz" else bytes(content))
    return path


def refused(path) -> ImageError:
    with pytest.raises(ImageError) as refusal:
        read_image(path)
    assert refusal.value.remedy
    assert path.name in str(refusal.value) or path.stem in str(refusal.value)
    return refusal.value


# --- what is right --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize(
    "number", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, np.float32, np.float64]
)
def test_values_and_places_are_nibabels(tmp_path, name, kind, number):
    path = save(tmp_path / name, voxels(kind=number), kind=kind)
    judge, image = nib.load(path), read_image(path)
    np.testing.assert_array_equal(image.array[0], np.asarray(judge.dataobj))
    np.testing.assert_allclose(image.ijk_to_ras, judge.affine, atol=1e-6)
    assert image.array.dtype == number and not image.notices


@pytest.mark.parametrize("flips", list(itertools.product((1, -1), repeat=3)))
@pytest.mark.parametrize("form", ["sform", "qform"])
def test_every_handedness_by_either_form(tmp_path, flips, form):
    matrix = turned() @ np.diag([*flips, 1.0])
    codes = {"sform": (1, 0), "qform": (0, 1)}[form]
    path = save(tmp_path / "a.nii", sform=matrix, scode=codes[0], qcode=codes[1])
    np.testing.assert_allclose(read_image(path).ijk_to_ras, matrix, atol=1e-5)
    np.testing.assert_allclose(nib.load(path).affine, matrix, atol=1e-5)


def test_big_endian_extensions_and_packed_under_another_name(tmp_path):
    image = nib.Nifti1Image(voxels(), turned(), nib.Nifti1Header(endianness=">"))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 1000))
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    (tmp_path / "packed.nii").write_bytes(gzip.compress(image.to_bytes()))
    (tmp_path / "plain.nii.gz").write_bytes(image.to_bytes())
    for name in ("a.nii", "packed.nii", "plain.nii.gz"):
        np.testing.assert_array_equal(read_image(tmp_path / name).array[0], voxels())


@pytest.mark.parametrize("asked", ["scan.hdr", "scan.img"])
def test_pairs_of_files_are_read_by_either_name(tmp_path, asked):
    nib.Nifti1Pair(voxels(), turned()).to_filename(tmp_path / "scan.img")
    image = read_image(tmp_path / asked)
    np.testing.assert_array_equal(image.array[0], voxels())
    np.testing.assert_allclose(image.ijk_to_ras, turned(), atol=1e-6)
    (tmp_path / ("scan.img" if asked == "scan.hdr" else "scan.hdr")).rename(tmp_path / "away")
    error = refused(tmp_path / asked)
    (tmp_path / "away").rename(tmp_path / ("scan.img" if asked == "scan.hdr" else "scan.hdr"))
    assert "Put scan." in error.remedy
    read_image(tmp_path / asked)


@pytest.mark.parametrize("other", ["same", "other"])
def test_the_voxels_are_those_of_the_file_named(tmp_path, other):
    """ITK opens scan.nii where scan.nii.gz is named and both are there."""
    packed = save(tmp_path / "scan.nii.gz")
    save(tmp_path / "scan.nii", voxels() if other == "same" else voxels()[::-1].copy())
    np.testing.assert_array_equal(read_image(packed).array[0], voxels())
    np.testing.assert_array_equal(
        read_image(tmp_path / "scan.nii").array[0], np.asarray(nib.load(tmp_path / "scan.nii").dataobj)
    )


@pytest.mark.parametrize(
    ("number", "slope", "intercept", "wanted"),
    [
        (np.int16, 0.5, 0, lambda x: 0.5 * x),
        (np.uint8, 7.1127, -1024.0, lambda x: 7.1127 * x - 1024),
        (np.int16, 1, -1024, lambda x: x - 1024),
        (np.uint16, 1, 60000, lambda x: x + 60000),
        (np.int32, 2, 3, lambda x: 2 * x + 3),
        (np.float32, 2, 0.5, lambda x: 2 * x + 0.5),
        (np.int16, 0, 0, lambda x: x),
        (np.int16, float("nan"), 5, lambda x: x),
    ],
)
def test_slopes_and_intercepts(tmp_path, number, slope, intercept, wanted):
    path = save(tmp_path / "a.nii", voxels(kind=number), edits=[(112, "2f", slope, intercept)])
    values = read_image(path).array[0]
    np.testing.assert_allclose(values, wanted(voxels().astype(np.float64)), rtol=1e-6, atol=1e-4)


def test_an_intercept_without_a_slope_is_noticed_and_an_infinite_slope_refused(tmp_path):
    path = save(tmp_path / "a.nii", edits=[(112, "2f", 0, 5)])
    image = read_image(path)
    np.testing.assert_array_equal(image.array[0], voxels())
    assert "intercept of 5 but no slope" in image.notices[0]
    for slope, intercept in ((float("inf"), 0), (2, float("nan"))):
        save(path, edits=[(112, "2f", slope, intercept)])
        assert "not finite" in str(refused(path))
        repaired = nib.load(save(path, edits=[(112, "2f", 1, 0)]))
        np.testing.assert_array_equal(read_image(path).array[0], np.asarray(repaired.dataobj))


@pytest.mark.parametrize(("code", "told"), [(0, False), (2, False), (5, True)])
def test_a_unit_that_does_not_exist_is_told(tmp_path, code, told):
    image = nib.Nifti1Image(voxels(), np.eye(4))
    image.header["xyzt_units"] = code
    image.to_filename(tmp_path / "a.nii")
    notices = read_image(tmp_path / "a.nii").notices
    assert any("a unit that does not exist (5); mm were assumed" in notice for notice in notices) == told


@pytest.mark.parametrize(("unit", "code", "mm"), [("meter", 1, 1000.0), ("micron", 3, 0.001)])
def test_metres_and_microns_become_millimetres(tmp_path, unit, code, mm):
    path = save(tmp_path / "a.nii", sform=np.diag([1 / mm, 1 / mm, 1 / mm, 1.0]) @ turned(), edits=[(123, "B", code)])
    assert nib.load(path).header.get_xyzt_units()[0] == unit
    image = read_image(path)
    np.testing.assert_allclose(image.ijk_to_ras, turned(), rtol=1e-5)
    assert "converted to mm" in image.notices[0]


def test_vectors_and_colours_become_channels(tmp_path):
    array = np.random.default_rng(1).integers(0, 200, (5, 6, 7, 1, 3)).astype(np.int16)
    image = nib.Nifti1Image(array, turned())
    image.header.set_intent("vector")
    image.to_filename(tmp_path / "vector.nii.gz")
    np.testing.assert_array_equal(read_image(tmp_path / "vector.nii.gz").array, array[:, :, :, 0].transpose(3, 0, 1, 2))
    colours = np.random.default_rng(2).integers(0, 255, (5, 6, 7, 4)).astype(np.uint8)
    for names in ("RGB", "RGBA"):
        kind = np.dtype([(name, np.uint8) for name in names])
        values = np.ascontiguousarray(colours[..., : len(names)]).view(kind)[..., 0]
        nib.Nifti1Image(values, turned()).to_filename(tmp_path / "colour.nii")
        image = read_image(tmp_path / "colour.nii")
        np.testing.assert_array_equal(image.array, colours[..., :3].transpose(3, 0, 1, 2))
        assert ("transparency" in " ".join(image.notices)) == (names == "RGBA")


@pytest.mark.parametrize("shape", [(6, 7, 8, 1), (6, 7, 8, 1, 1, 1), (6, 7, 1), (6, 7)])
def test_axes_of_one_are_no_dimensions(tmp_path, shape):
    path = save(tmp_path / "a.nii", voxels(shape))
    assert read_image(path).array.shape == (1, *(*shape, 1)[:3])


def test_several_time_points_are_refused_and_one_of_them_is_read(tmp_path):
    path = save(tmp_path / "a.nii.gz", voxels((6, 7, 8, 3)))
    assert "6 x 7 x 8 x 3" in str(refused(path))
    nib.load(path).slicer[..., 1].to_filename(tmp_path / "one.nii.gz")  # what the remedy says
    np.testing.assert_array_equal(read_image(tmp_path / "one.nii.gz").array[0], voxels((6, 7, 8, 3))[..., 1])


def test_complex_voxels_are_refused_and_their_magnitude_is_read(tmp_path):
    path = save(tmp_path / "a.nii", voxels(kind=np.complex64) * (3 + 4j))
    assert "complex" in str(refused(path))
    magnitude = np.abs(np.asarray(nib.load(path).dataobj)).astype(np.float32)
    save(path, magnitude)
    np.testing.assert_allclose(read_image(path).array[0], 5 * voxels(), rtol=1e-6)


# --- two places for one voxel ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scode", "taken"), [(1, "does so too"), (2, "may take the qform"), (4, "may take the qform")])
def test_forms_that_differ_are_noticed_and_the_sform_is_taken(tmp_path, scode, taken):
    half_turn = np.diag([-1.0, -1, 1, 1]) @ turned()
    path = save(tmp_path / "a.nii.gz", scode=scode, qform=half_turn, qcode=1)
    image = read_image(path)
    np.testing.assert_allclose(image.ijk_to_ras, nib.load(path).affine, atol=1e-6)
    np.testing.assert_allclose(image.ijk_to_ras, turned(), atol=1e-5)
    corners = np.array([[*corner, 1] for corner in itertools.product((0, 5), (0, 6), (0, 7))])
    apart = np.linalg.norm(corners @ (turned() - half_turn).T, axis=1).max()
    (notice,) = image.notices
    assert f"{apart:.4g} mm apart" in notice and f"sform (code {scode})" in notice and notice.endswith(f"{taken}.")


def test_forms_that_agree_up_to_rounding_are_no_matter(tmp_path):
    nudged = turned() + 1e-3
    nudged[3] = [0, 0, 0, 1]
    assert not read_image(save(tmp_path / "a.nii", qform=nudged)).notices


def test_the_result_lies_on_the_image_whichever_form_a_program_takes(tmp_path):
    """Through the command: `prosma segment`, for an image with a half turn between its forms."""
    package = make_tiny_package(tmp_path / "tiny", spacing=None, patch_size=[16, 16, 16])
    half_turn = np.diag([-1.0, -1, 1, 1]) @ turned()
    path = save(tmp_path / "a.nii.gz", voxels((18, 20, 22)), scode=2, qform=half_turn, qcode=1)
    assert main(["segment", str(path), "-m", str(package.folder), "-o", str(tmp_path / "out.nii.gz")]) == 0
    image, result = nib.load(path), nib.load(tmp_path / "out.nii.gz")
    for form in ("get_sform", "get_qform"):
        wanted, code = getattr(image, form)(coded=True)
        found, found_code = getattr(result, form)(coded=True)
        np.testing.assert_allclose(found, wanted, atol=1e-5)
        assert found_code == code
    np.testing.assert_array_equal(read_image(tmp_path / "out.nii.gz").ijk_to_ras, read_image(path).ijk_to_ras)


@pytest.mark.parametrize(
    ("scode", "qcode", "edits"),
    [
        (1, 0, ()),
        (0, 1, ()),
        (3, 1, ()),
        (0, 0, ()),
        (1, 1, [(80, "3f", 1, 1, 1)]),
        (1, 1, [(123, "B", 3)]),
        (1, 1, [(280, "f", float("nan"))]),
    ],
)
def test_results_have_the_places_of_their_image_in_nibabel_and_itk(tmp_path, scode, qcode, edits):
    import SimpleITK as sitk

    path = save(tmp_path / "a.nii", scode=scode, qcode=qcode, edits=edits)
    image = read_image(path)
    write_labels(tmp_path / "b.nii.gz", (voxels() > 60).astype(np.uint8), image, LABELS)
    seen = [sitk.ReadImage(str(tmp_path / name)) for name in ("a.nii", "b.nii.gz")]
    corner = [5, 6, 7]
    for index in ([0, 0, 0], corner):
        places = [picture.TransformIndexToPhysicalPoint(index) for picture in seen]
        if not edits or edits[0][0] != 280:
            np.testing.assert_allclose(*places, atol=1e-4)
    if np.isfinite(nib.load(path).affine).all():
        np.testing.assert_allclose(nib.load(tmp_path / "b.nii.gz").affine, nib.load(path).affine, atol=1e-4)
    np.testing.assert_allclose(read_labels(tmp_path / "b.nii.gz").ijk_to_ras, image.ijk_to_ras, atol=1e-5)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_labels_on_an_image_of_another_format_get_both_forms(tmp_path, kind, suffix):
    labels = (voxels() * (1 if kind == np.uint8 else 300)).astype(kind)
    for flips in ((1, 1, 1), (-1, 1, 1), (1, 1, -1)):
        matrix = turned(angle=2.8) @ np.diag([*flips, 1.0])
        write_labels(tmp_path / f"a{suffix}", labels, prosma.Image(labels[None], matrix), LABELS)
        result = nib.load(tmp_path / f"a{suffix}")
        np.testing.assert_array_equal(np.asarray(result.dataobj), labels)
        for form in (result.get_sform(coded=True), result.get_qform(coded=True)):
            np.testing.assert_allclose(form[0], matrix, atol=1e-5)
            assert form[1] == 1
        assert result.header.get_xyzt_units()[0] == "mm" and result.get_data_dtype() == kind


def test_an_axis_too_long_for_the_format_is_refused_and_fits_into_nrrd(tmp_path):
    labels = np.zeros((40000, 2, 2), np.uint8)
    image = prosma.Image(labels[None], np.eye(4))
    with pytest.raises(ImageError, match="32767") as refusal:
        write_labels(tmp_path / "a.nii.gz", labels, image, LABELS)
    assert ".nrrd" in refusal.value.remedy and not list(tmp_path.iterdir())
    write_labels(tmp_path / "a.nrrd", labels, image, LABELS)
    assert read_labels(tmp_path / "a.nrrd").shape == labels.shape


def test_a_matrix_and_a_pixdim_that_differ_are_noticed(tmp_path):
    path = save(tmp_path / "a.nii", edits=[(80, "3f", 1, 1, 1)])
    image = read_image(path)
    np.testing.assert_allclose(image.spacing, (1.9, 1.4, 2.9), rtol=1e-5)
    assert any("1.9 x 1.4 x 2.9 mm" in notice and "1 x 1 x 1 mm" in notice for notice in image.notices)
    assert not read_image(save(path, edits=[(80, "3f", -1.9, -1.4, -2.9)])).notices, "the sign of pixdim means nothing"


def test_no_orientation_is_assumed_as_slicer_does_and_said(tmp_path):
    import SimpleITK as sitk

    path = save(tmp_path / "a.nii", scode=0, qcode=0)
    image = read_image(path)
    np.testing.assert_allclose(image.ijk_to_ras, np.diag([-1.9, -1.4, 2.9, 1]), rtol=1e-6)
    place = sitk.ReadImage(str(path)).TransformIndexToPhysicalPoint([5, 6, 7])
    np.testing.assert_allclose((image.ijk_to_ras @ [5, 6, 7, 1])[:3], np.array(place) * (-1, -1, 1), rtol=1e-5)
    assert "does not say how the image is oriented" in image.notices[0]


# --- shears ---------------------------------------------------------------------------------------------------------


def sheared(degrees: float) -> np.ndarray:
    shear = np.eye(4)
    shear[0, 1] = np.tan(np.radians(degrees))
    return turned(spacing=(2, 2, 2)) @ shear


@pytest.mark.parametrize("degrees", [0.003, 0.01, 0.03, 0.05])
def test_a_shear_too_small_to_matter_is_kept(tmp_path, degrees):
    """ITK refuses these. The result's sform is the image's."""
    path = save(tmp_path / "a.nii.gz", sform=sheared(degrees), qcode=0)
    image = read_image(path)
    np.testing.assert_allclose(image.ijk_to_ras, nib.load(path).affine, atol=1e-6)
    write_labels(tmp_path / "b.nii.gz", np.ones(image.shape, np.uint8), image, LABELS)
    np.testing.assert_allclose(nib.load(tmp_path / "b.nii.gz").affine, nib.load(path).affine, atol=1e-6)


@tries("image/formats/nifti_header.py: is sheared: its axes")
def test_a_sheared_sform_alone_is_refused_and_its_resampling_is_read(tmp_path):
    path = save(tmp_path / "a.nii", voxels((20, 20, 20)), sform=sheared(3), qcode=0)
    error = refused(path)
    assert "sheared" in str(error)
    from nibabel.processing import resample_to_output  # which the remedy names

    assert "resample_to_output of nibabel.processing" in error.remedy
    resample_to_output(nib.load(path)).to_filename(tmp_path / "straight.nii")
    assert read_image(tmp_path / "straight.nii").shape[0] >= 20


def test_a_sheared_sform_beside_a_good_qform_gives_way_to_it(tmp_path):
    path = save(tmp_path / "a.nii", sform=sheared(3), qform=turned(spacing=(2, 2, 2)), qcode=1)
    image = read_image(path)
    np.testing.assert_allclose(image.ijk_to_ras, nib.load(path).get_qform(), atol=1e-5)
    apart = np.tan(np.radians(3)) * 2 * 6
    assert "sheared" in image.notices[0] and f"up to {apart:.4g} mm" in image.notices[0]


# --- headers that cannot be ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize(
    ("edit", "why"),
    [
        ((40, "h", 0), "0 dimensions"),
        ((40, "h", 9), "dimensions"),
        ((42, "h", -6), "-6 voxels"),
        ((42, "h", 0), "no voxels"),
        ((70, "h", 0), "datatype 0"),
        ((70, "h", 1536), "datatype 1536"),
        ((108, "f", 0.0), "inside of it"),
        ((108, "f", 100.0), "inside of it"),
        ((108, "f", float("nan")), "byte nan"),
        ((108, "f", float("inf")), "byte inf"),
        ((108, "f", -8.0), "byte -8"),
        ((108, "f", 1e6), "cut off"),
        ((42, "3h", 32000, 32000, 32000), "cut off"),
        ((344, "4s", b"n+9\0"), "no such header"),
    ],
)
def test_impossible_headers_are_refused(tmp_path, name, edit, why):
    path = save(tmp_path / name, edits=[edit])
    assert why in str(refused(path))


@pytest.mark.parametrize("bad", [float("nan"), 0.0])
def test_a_matrix_that_is_none_gives_way_to_the_other_or_is_refused(tmp_path, bad):
    row = (280, "4f", *[bad] * 4)
    path = save(tmp_path / "a.nii", edits=[row])
    image = read_image(path)
    np.testing.assert_allclose(image.ijk_to_ras, turned(), atol=1e-5)
    assert "so its qform was used" in image.notices[0]
    error = refused(save(path, qcode=0, edits=[row]))
    assert "where its voxels lie" in str(error) and "nibabel" in error.remedy
    repaired = nib.load(path)
    repaired.set_sform(turned(), 1)
    repaired.to_filename(tmp_path / "repaired.nii")
    np.testing.assert_allclose(read_image(tmp_path / "repaired.nii").ijk_to_ras, turned(), atol=1e-6)
    assert "where its voxels lie" in str(refused(save(path, scode=0, edits=[(256, "f", 5.0 if bad == 0 else bad)])))


def test_an_analyze_file_is_refused_by_its_name(tmp_path):
    nib.Spm99AnalyzeImage(voxels(), turned()).to_filename(tmp_path / "a.img")
    for name in ("a.hdr", "a.img"):
        error = refused(tmp_path / name)
        assert "Analyze 7.5" in str(error) and "left and right" in str(error)


# --- files that are not whole ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("bits", [0, 1, 8, 16])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.98])
def test_cut_off_files_are_refused_whatever_their_bitpix_says(tmp_path, name, bits, share):
    path = save(tmp_path / name, edits=[(72, "h", bits)])
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused(path)


def test_a_packed_file_with_another_check_sum_is_refused(tmp_path):
    path = save(tmp_path / "a.nii.gz")
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    assert "damaged" in str(refused(path))
    path.write_bytes(save(path).read_bytes() + b"something behind it")
    np.testing.assert_array_equal(read_image(path).array[0], voxels())
