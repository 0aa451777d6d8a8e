"""What a refusal says is to be done, done as it says. More of these stand beside the refusals' own tests."""

import nibabel as nib
import numpy as np
import PIL.Image
import pydicom
import pytest
import SimpleITK
from dicom_writing import noise, write_series
from picture_fuzz import GREY_ALPHA, png, samples

import remedies
from prosma.image.geometry import ImageError
from prosma.image.reading import read_image, read_labels
from prosma.image.writing import write_labels
from prosma.inference.pipeline import prepare
from remedies import tries
from tiny_model import make_tiny_package

VOXELS = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
SHADES = np.random.default_rng(0).integers(0, 255, (18, 20, 3)).astype(np.uint8)


def refused(path, message, remedy, read=read_image):
    with pytest.raises(ImageError) as refusal:
        read(path)
    assert message in refusal.value.message and remedy in refusal.value.remedy, refusal.value


def nifti(path, field=None, value=None, voxels=VOXELS):
    image = nib.Nifti1Image(voxels, np.eye(4))
    image.to_filename(path)
    if field:
        with path.open("r+b") as file:
            header = nib.Nifti1Header.from_fileobj(file, check=False)
            header[field] = value
            file.seek(0)
            header.write_to(file)
    return path


@tries("image/formats/nifti.py: set scl_slope and scl_inter")
def test_a_scaling_that_is_no_number_is_set_in_the_header(tmp_path):
    path = nifti(tmp_path / "a.nii", "scl_slope", np.inf)
    refused(path, "", "set scl_slope and scl_inter in its header")
    nifti(path, "scl_slope", 2)
    np.testing.assert_array_equal(read_image(path).array[0], 2 * VOXELS)


@tries("image/formats/nifti_header.py: does not say where its voxels lie")
def test_a_matrix_that_is_singular_is_corrected_with_nibabel(tmp_path):
    path = nifti(tmp_path / "a.nii", "srow_x", 0)
    with path.open("r+b") as file:  # and no qform beside it
        header = nib.Nifti1Header.from_fileobj(file, check=False)
        header["qform_code"] = 0
        file.seek(0)
        header.write_to(file)
    refused(path, "does not say where its voxels lie", "correct its header, for instance with nibabel")
    image = nib.load(path)
    nib.Nifti1Image(np.asarray(image.dataobj), np.diag([2.0, 2, 2, 1])).to_filename(tmp_path / "b.nii")
    np.testing.assert_allclose(read_image(tmp_path / "b.nii").ijk_to_ras, np.diag([2.0, 2, 2, 1]))


@tries("image/formats/nifti.py: has voxels of a type that is not known")
def test_voxels_of_an_unknown_type_are_saved_with_32_bits(tmp_path):
    path = nifti(tmp_path / "a.nii", "datatype", 1536, VOXELS.astype(np.float64))
    refused(path, "of a type that is not known", "Save it with voxels of 8, 16 or 32 bits")
    nifti(path, voxels=VOXELS.astype(np.float32))
    np.testing.assert_array_equal(read_image(path).array[0], VOXELS)


def saved(kind):
    colour, grey = PIL.Image.fromarray(SHADES), PIL.Image.fromarray(SHADES[..., 0])
    half = PIL.Image.fromarray(SHADES[..., 0] > 127)
    return {
        "a.gif": (grey, {}),
        "a.webp": (colour, {"lossless": True}),
        "one bit.bmp": (half, {}),
        "negative.tif": (grey, {"tiffinfo": {262: 0}}),
        "side.tif": (colour, {"tiffinfo": {274: 6}}),
        "lab.tif": (colour.convert("LAB"), {}),
        "grey and more.tif": (grey.convert("LA"), {}),
    }[kind]


KINDS = {
    "a.gif": "image/formats/others.py: is a picture of a kind",
    "a.webp": "image/formats/others.py: is a picture of a kind",
    "one bit.bmp": "image/formats/pictures.py: is a BMP picture",
    "negative.tif": "image/formats/pictures.py: is stored as a negative",
    "side.tif": "image/formats/pictures.py: lying on its side",
    "lab.tif": "image/formats/pictures.py: has its colours in CIELab",
    "grey and more.tif": "image/formats/pictures.py: values in each pixel, such as grey",
}


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_that_cannot_be_read_are_saved_as_png(tmp_path, kind):
    picture, options = saved(kind)
    picture.save(tmp_path / kind, **options)
    remedy = "Save it as PNG, in colour or grey, with any program for pictures"
    remedies.refused(KINDS[kind], remedy, read_image, tmp_path / kind)
    opened = PIL.Image.open(tmp_path / kind)
    if opened.mode == "LAB":
        opened = PIL.Image.fromarray(SHADES)  # Pillow saves no LAB as PNG; other programs do
    opened = opened.convert("L" if opened.mode in ("1", "L", "LA", "P") else "RGB")
    opened.save(tmp_path / "right.png")
    found = read_image(tmp_path / "right.png").array[..., 0].transpose(2, 1, 0)
    np.testing.assert_array_equal(found, np.atleast_3d(np.asarray(opened)))


@tries("image/formats/pictures.py: is a grey picture with transparency")
def test_a_grey_png_with_transparency_is_saved_without(tmp_path):
    (tmp_path / "a.png").write_bytes(png(8, GREY_ALPHA, 0))
    refused(tmp_path / "a.png", "grey picture with transparency", "Save it as PNG, in colour or grey")
    PIL.Image.open(tmp_path / "a.png").convert("L").save(tmp_path / "b.png")
    found = read_image(tmp_path / "b.png").array[0, ..., 0].T
    np.testing.assert_array_equal(found, samples(8, GREY_ALPHA, 20, 18)[..., 0])


def test_a_tiff_of_64_bits_is_saved_with_32(tmp_path):
    values = np.random.default_rng(0).random((18, 20))
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values.astype(np.float32)), str(tmp_path / "b.tif"))
    found = read_image(tmp_path / "b.tif").array[0, ..., 0].T
    np.testing.assert_array_equal(found, values.astype(np.float32))


def test_values_below_black_are_scaled_and_saved_so(tmp_path):
    rule = {"rule": "range", "low": 0, "high": 255}
    package = make_tiny_package(tmp_path / "model", dimension=2, intensity=rule, modality="photograph")
    values = np.random.default_rng(0).normal(0, 100, (64, 64)).astype(np.float32)
    PIL.Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=r"Scale them to 0 to 255 and save them so"):
        prepare(read_image(tmp_path / "a.tif"), package)
    scaled = (values - values.min()) / np.ptp(values) * 255
    PIL.Image.fromarray(scaled.astype(np.uint8)).save(tmp_path / "a.png")
    assert prepare(read_image(tmp_path / "a.png"), package).array.shape[0] == 1


@tries("image/dicom/values.py: Set that attribute to MONOCHROME2")
def test_a_ct_with_black_and_white_exchanged_is_marked_as_it_is_stored(tmp_path):
    volume = noise()
    files = write_series(tmp_path / "ct", volume, modality="CT", PhotometricInterpretation="MONOCHROME1")
    refused(tmp_path / "ct", "black and white exchanged", "Set that attribute to MONOCHROME2")
    for file in files:
        ds = pydicom.dcmread(file)
        ds.PhotometricInterpretation = "MONOCHROME2"
        ds.save_as(file)
    np.testing.assert_array_equal(read_image(tmp_path / "ct").array[0], volume.T)


def test_an_image_beside_the_others_is_moved_to_a_folder_of_its_own(tmp_path):
    volume = noise()

    def shift(ds, k):
        if k == 11:
            ds.ImagePositionPatient = [-29, 12, 32.5]

    files = write_series(tmp_path / "mr", volume, edit=shift)
    refused(tmp_path / "mr", "im011.dcm that lies 1.00 mm beside the others", "move its files to a folder of their own")
    (tmp_path / "other").mkdir()
    files[11].rename(tmp_path / "other" / "im011.dcm")
    np.testing.assert_array_equal(read_image(tmp_path / "mr").array[0], volume[:11].T)
    np.testing.assert_array_equal(read_image(tmp_path / "other").array[0], volume[11:].T)


def test_a_damaged_file_is_taken_out_of_the_folder(tmp_path):
    volume = noise()
    files = write_series(tmp_path / "mr", volume)
    content = files[0].read_bytes()
    (tmp_path / "mr" / "more.dcm").write_bytes(content[:400])  # nothing tells its series
    refused(tmp_path / "mr", "more.dcm", "ake it out of the folder")
    (tmp_path / "mr" / "more.dcm").unlink()
    np.testing.assert_array_equal(read_image(tmp_path / "mr").array[0], volume.T)


@tries("image/reading.py: as one label map without overlaps")
def test_labels_in_layers_are_exported_as_one_map(tmp_path):
    layers = np.zeros((6, 5, 4, 2), np.uint8)
    layers[1:3, ..., 0], layers[4:, ..., 1] = 1, 1
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(layers, isVector=True), str(tmp_path / "a.nrrd"))
    refused(tmp_path / "a.nrrd", "2 layers or components", "as one label map without overlaps", read_labels)
    merged = np.maximum(layers[..., 0], 2 * layers[..., 1])
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(merged), str(tmp_path / "b.nrrd"))
    np.testing.assert_array_equal(read_labels(tmp_path / "b.nrrd").array[0], merged.T)


@tries("image/formats/nifti_writing.py: Choose .nrrd or .mha")
def test_what_nifti_cannot_hold_is_written_as_nrrd(tmp_path):
    nib.Nifti2Image(np.zeros((33000, 1, 1), np.uint8), np.eye(4)).to_filename(tmp_path / "long.nii")
    image = read_image(tmp_path / "long.nii")
    labels = np.ones(image.shape, np.uint8)
    label = [{"value": 1, "name": "one", "color": [1, 2, 3]}]
    with pytest.raises(ImageError, match=r"Choose \.nrrd or \.mha"):
        write_labels(tmp_path / "a.nii.gz", labels, image, label)
    for name in ("a.nrrd", "a.mha"):
        write_labels(tmp_path / name, labels, image, label)
        assert read_labels(tmp_path / name).array.sum() == 33000
