"""Labelled images that are refused, and what the refusals say is to be done (training/prosma/learning/data)."""

import shutil

import numpy as np
import PIL.Image

from labelled_folders import NAMES, describe, images_of, is_measured, labelled, volume
from prosma.learning.data.dataset import LabelledFolder, check_label_names, read_case
from prosma.learning.data.painting import label_maps
from prosma.learning.data.patches import cached
from prosma.learning.data.statistics import measure_dataset
from prosma.learning.recipe import Strokes
from prosma.learning.strokes.sets import read_sets
from remedies import refused

MODEL = {
    "dimension": 3,
    "channels": [{"name": "a"}],
    "labels": [{"value": 1, "name": "one"}, {"value": 2, "name": "two"}],
    "spacing": None,
    "orientation": "RAS",
    "intensity": {"rule": "zscore"},
    "patch_size": [8, 8, 8],
}
FLAT = {**MODEL, "dimension": 2, "patch_size": [8, 8], "orientation": None, "resize": None}


def case_of(folder, id="a"):
    return LabelledFolder.open(folder).cases[id]


def test_labels_of_other_values_and_files(folder, tmp_path):
    labels, _ = labelled()
    describe(folder)
    volume(folder / "labelsTr/a.nii.gz", labels * 2)
    refused(
        "learning/data/statistics.py: but the values of labels are 1, 2, 3", "without gaps", measure_dataset, folder
    )
    for case in "abcde":
        volume(folder / f"labelsTr/{case}.nii.gz", np.zeros_like(labels))
    refused("learning/data/statistics.py: has a labelled voxel", "there is nothing to learn", measure_dataset, folder)
    images_of(folder)
    is_measured(folder, labels=("label 1", "label 2"))
    good = (folder / "imagesTr/a_0000.nii.gz").read_bytes()
    (folder / "imagesTr/a_0000.nii.gz").write_bytes(good[:200])
    refused(
        "learning/data/dataset.py: the image cannot be read",
        "Copy, download or export it again",
        measure_dataset,
        folder,
    )
    (folder / "imagesTr/a_0000.nii.gz").write_bytes(good)
    (folder / "labelsTr/a.nii.gz").write_bytes(b"no")
    refused(
        "learning/data/dataset.py: the labels '...' cannot be read",
        "Copy, download or export it again",
        measure_dataset,
        folder,
    )
    volume(folder / "labelsTr/a.nii.gz", labels)
    is_measured(folder, labels=("label 1", "label 2"))


def test_labels_that_lie_elsewhere_get_the_images_geometry(folder):
    labels, _ = labelled()
    volume(folder / "labelsTr/a.nii.gz", labels, 2.0)
    refused(
        "learning/data/dataset.py: Case '...', '...': ...",
        "give the labels the image's geometry",
        measure_dataset,
        folder,
    )
    volume(folder / "labelsTr/a.nii.gz", labels, 1.0)
    is_measured(folder)


def test_cases_differ_in_channels_or_dimensions(folder, pictures, tmp_path):
    _, image = labelled()
    PIL.Image.fromarray(np.stack([image[..., 4].clip(0, 255).astype(np.uint8)] * 3, -1)).save(pictures / "images/1.png")
    refused(
        "learning/data/statistics.py: Save all images as grey or all as colour",
        "Save all images as grey or all as colour",
        measure_dataset,
        pictures,
    )
    PIL.Image.open(pictures / "images/1.png").convert("L").save(pictures / "images/1.png")
    is_measured(pictures, 2, ["foreground"])
    volume(folder / "imagesTr/b_0000.nii.gz", image[..., :1])
    volume(folder / "labelsTr/b.nii.gz", labelled()[0][..., 3:4])
    refused(
        "learning/data/statistics.py: Keep 2D and 3D images in folders of their own",
        "folders of their own",
        measure_dataset,
        folder,
    )
    (tmp_path / "flat").mkdir()
    for part, name in (("imagesTr", "b_0000.nii.gz"), ("labelsTr", "b.nii.gz")):
        (tmp_path / "flat" / part).mkdir()
        (folder / part / name).rename(tmp_path / "flat" / part / name)
    assert measure_dataset(tmp_path / "flat").dimension == 2
    is_measured(folder, 3)


def test_masks_of_pictures(pictures):
    labels, _ = labelled()
    PIL.Image.fromarray((labels[:6, :, 4] > 0).astype(np.uint8)).save(pictures / "masks/0.png")
    refused(
        "learning/data/dataset.py: Save both in the same size",
        "10 pixels, the image is 12 x 10" if False else "Save both in the same size",
        measure_dataset,
        pictures,
    )
    PIL.Image.fromarray((labels[..., 4] > 0).astype(np.uint8) * 255).save(pictures / "masks/0.png")
    is_measured(pictures, 2, ["foreground"])
    describe(pictures, labels=NAMES)
    for number in range(3):
        labels, _ = labelled(number)
        PIL.Image.fromarray(labels[..., 4]).save(pictures / f"masks/{number}.jpg")
        (pictures / f"masks/{number}.png").unlink()
    refused(
        "learning/data/dataset.py: is a JPEG, which changes label values",
        "Save the labels as PNG",
        measure_dataset,
        pictures,
    )
    for number in range(3):
        (pictures / f"masks/{number}.jpg").unlink()
        PIL.Image.fromarray(labelled(number)[0][..., 4]).save(pictures / f"masks/{number}.png")
    is_measured(pictures, 2)


def test_what_a_model_learns_from_is_as_the_model_wants_it(folder, tmp_path):
    two = {**MODEL, "channels": [{"name": "a"}, {"name": "b"}]}
    refused("learning/data/dataset.py: channels; the model takes", "the model takes 2", read_case, case_of(folder), two)
    shutil.copytree(folder, tmp_path / "two")
    for case in "abcde":
        shutil.copy(folder / f"imagesTr/{case}_0000.nii.gz", tmp_path / f"two/imagesTr/{case}_0001.nii.gz")
    assert len(read_case(case_of(tmp_path / "two"), two)[0].array) == 2
    describe(folder, labels={"background": 0, "one": 1, "ignore": 2})
    refused(
        "learning/data/dataset.py: 'ignore' comes after them",
        "The labels are 1 to 2",
        read_case,
        case_of(folder),
        MODEL,
    )
    describe(folder, labels={**NAMES, "ignore": 3})
    assert read_case(case_of(folder), MODEL)[1].max() == 2
    describe(folder, labels={"background": 0, "two": 1, "one": 2})
    check = [LabelledFolder.open(folder), MODEL["labels"], "tiny"]
    refused(
        "learning/data/dataset.py: the numbers that the model has",
        "'two' is 2 in the model 'tiny'",
        check_label_names,
        *check,
    )
    describe(folder, labels=NAMES)
    check_label_names(LabelledFolder.open(folder), *check[1:])


def test_patches_come_of_cases_of_the_models_dimension_that_tell_something(folder, tmp_path):
    refused(
        "learning/data/patches.py: Save each labelled slice as a case of its own",
        "volume of 8 slices",
        cached,
        [case_of(folder)],
        FLAT,
    )
    flat = tmp_path / "flat"
    labels, image = labelled()
    volume(flat / "imagesTr/a_0000.nii.gz", image[..., 4:5])
    volume(flat / "labelsTr/a.nii.gz", labels[..., 4:5])
    assert cached([case_of(flat)], FLAT)
    describe(folder, labels={**NAMES, "ignore": 3})
    volume(folder / "labelsTr/a.nii.gz", np.full_like(labels, 3))
    refused(
        "learning/data/patches.py: has nothing but ignored voxels",
        "Leave the case out",
        cached,
        [case_of(folder)],
        MODEL,
    )
    assert cached([case_of(folder, "b")], MODEL)


def test_label_maps_to_paint(folder, tmp_path):
    (tmp_path / "maps").mkdir()
    refused(
        "learning/data/painting.py: holds no label maps",
        "labelsTr/NAME.nii.gz should be there",
        label_maps,
        tmp_path / "maps",
        "train",
    )
    shutil.copytree(folder / "labelsTr", tmp_path / "maps/labelsTr")
    assert len(label_maps(tmp_path / "maps", "train")) == 4
    refused(
        "learning/data/painting.py: has no case for", "Name some in splits.json", label_maps, tmp_path / "maps", "test"
    )
    describe(tmp_path / "maps", "splits.json", train=["a"], val=["b"], test=["c"])
    assert len(label_maps(tmp_path / "maps", "test")) == 1


def test_sets_for_strokes(folder, pictures, tmp_path):
    strokes = Strokes(left_out=["data"])
    refused(
        "learning/strokes/sets.py: holds no data to train on",
        "that the recipe does not leave out",
        read_sets,
        folder,
        strokes,
        3,
    )
    assert read_sets(folder, Strokes(), 3)["train"]
    refused(
        "learning/strokes/sets.py: There is no labelled",
        "There is no labelled volume for 'train'",
        read_sets,
        pictures,
        strokes,
        3,
    )
    assert read_sets(pictures, strokes, 2)["train"]
