"""Folders of labelled images that are refused, and what the refusals say is to be done (training/prosma/learning/data)."""

import json
import re
import shutil

import nibabel as nib
import pytest

from labelled_folders import NAMES, describe, images_of, is_measured
from prosma.learning.data.dataset import LabelledFolder
from prosma.learning.data.statistics import measure_dataset
from remedies import complained, refused

# --- dataset.json and splits

DESCRIPTIONS = [  # what it says, the refusal, what is to be done, what it says then
    (
        {"labels": NAMES, "channel_names": {"T1": "0"}},
        "learning/data/statistics.py: numbers the channels",
        'as in {"0": "T1", "1": "T2"}',
        NAMES,
    ),
    (
        {"labels": ["one", "two"]},
        "learning/data/dataset.py: should be a JSON object whose 'labels'",
        "an object of names and numbers",
        NAMES,
    ),
    (
        {"labels": {**NAMES, "two": "second"}},
        "learning/data/dataset.py: gives the label",
        "write a whole number from 0",
        {**NAMES, "two": "2"},
    ),
    (
        {"labels": {**NAMES, "ignore": 1, "two": 2}},
        "learning/data/dataset.py: gives 'ignore' the value",
        "the highest value of all",
        {**NAMES, "ignore": 3},
    ),
    (
        {"labels": {**NAMES, "both": [1, 2]}},
        "learning/data/statistics.py: joins labels to regions",
        "Give each label one number",
        NAMES,
    ),
    (
        {"labels": {"background": 0, "one": 1, "two": 3}},
        "learning/data/statistics.py: gives the labels the numbers",
        "1, 2, 3, ... without gaps",
        NAMES,
    ),
    (
        {"labels": {"background": 0}},
        "learning/data/statistics.py: names no label but the background",
        "there is nothing to learn",
        NAMES,
    ),
    (
        {"labels": NAMES, "channel_names": {"0": "T1", "1": "T2"}},
        "learning/data/statistics.py: channels (...), the images have",
        "the images have 1",
        NAMES,
    ),
    (
        {"labels": {"background": 0, "one": 1}},
        "learning/data/dataset.py: but labels go from 0 to",
        "labels go from 0 to 1",
        NAMES,
    ),
]


@pytest.mark.parametrize(("content", "name", "remedy", "labels"), DESCRIPTIONS)
def test_dataset_json_is_corrected_as_it_is_said(folder, content, name, remedy, labels):
    describe(folder, **content)
    refused(name, remedy, measure_dataset, folder)
    describe(folder, labels=labels)
    is_measured(folder)


def test_dataset_json_is_corrected_by_the_command_line_too(folder, tmp_path, capsys):
    (folder / "dataset.json").write_text("{")
    recipe = tmp_path / "recipe.yaml"
    plan = ["plan", "--data", folder, "-o", recipe]
    complained("learning/data/dataset.py: is not valid JSON", "line 1 column 2", plan, capsys)
    describe(folder, labels=NAMES)
    from prosma.cli.app import main

    assert main([str(part) for part in plan]) == 0 and recipe.is_file()
    complained("learning/fit/planning.py: is already there", "Choose another name, or delete it first", plan, capsys)
    assert main([str(part) for part in [*plan[:-1], tmp_path / "other.yaml"]]) == 0
    recipe.unlink()
    assert main([str(part) for part in plan]) == 0


ALL = ["a", "b", "c", "d", "e"]
SPLITS = {"train": ["a", "b", "c", "d"], "val": ["e"]}
WRONG_SPLITS = [
    (
        {**SPLITS, "val": [["e"]]},
        "learning/data/dataset.py: write the ids of cases, as texts",
        "names ['e'] in its val split",
    ),
    (
        {**SPLITS, "val": ["x"]},
        "learning/data/dataset.py: names '...' in its ... split, but there is no such case",
        "there is no such case",
    ),
    (
        {**SPLITS, "val": ["a"]},
        "learning/data/dataset.py: Each case belongs in one split, once",
        "belongs in one split, once",
    ),
    (
        {**SPLITS, "val": ["e", "e"]},
        "learning/data/dataset.py: Each case belongs in one split, once",
        "belongs in one split, once",
    ),
    (["a"], "learning/data/dataset.py: should name the cases of each split", '{"train": [...], "val": [...]}'),
    ({"train": ALL}, "learning/data/dataset.py: has no split '...'; it has", "it has train, all"),
    (
        {"train": ALL, "val": []},
        "learning/data/dataset.py: has no case for '...': that split is empty",
        "that split is empty",
    ),
]


@pytest.mark.parametrize(("content", "name", "remedy"), WRONG_SPLITS)
def test_splits_are_corrected_as_it_is_said(folder, content, name, remedy):
    (folder / "splits.json").write_text(json.dumps(content))
    refused(name, remedy, measure_dataset, folder)
    describe(folder, "splits.json", **SPLITS)
    is_measured(folder)


def test_a_fold_that_is_none_is_one_of_those_told(folder):
    error = refused(
        "learning/data/dataset.py: the ... cases make at most 5 folds",
        "at most 5 folds",
        LabelledFolder.open,
        folder,
        7,
    )
    assert LabelledFolder.open(folder, int(re.search(r"at most (\d)", str(error))[1]) - 1).split("val")
    (folder / "splits_final.json").write_text(json.dumps([SPLITS, {**SPLITS, "train": ["a"]}]))
    error = refused(
        "learning/data/dataset.py: has no fold ...: it holds", "2 folds, 0 to 1", LabelledFolder.open, folder, 2
    )
    assert len(LabelledFolder.open(folder, 1).split("train")) == 1
    describe(folder, "splits.json", **SPLITS)
    refused(
        "learning/data/dataset.py: has one fixed split and no fold", "Leave --fold out", LabelledFolder.open, folder, 1
    )
    assert len(LabelledFolder.open(folder).split("train")) == 4


# --- names of files


def rename(folder, old, new):
    (folder / old).rename(folder / new)


def test_files_are_named_as_it_is_said(folder, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(
        "learning/data/dataset.py: holds no training data",
        "it should have imagesTr/ and labelsTr/",
        LabelledFolder.open,
        empty,
    )
    for part in ("imagesTr", "labelsTr"):
        (empty / part).mkdir()
    refused(
        "learning/data/dataset.py: holds no images",
        f"'{empty / 'imagesTr'}' holds no images",
        LabelledFolder.open,
        empty,
    )
    images_of(empty)
    is_measured(empty, labels=("label 1", "label 2"))
    rename(folder, "imagesTr/a_0000.nii.gz", "imagesTr/a.nii.gz")
    error = refused("learning/data/dataset.py: has no channel number", "name it like", LabelledFolder.open, folder)
    rename(
        folder, "imagesTr/a.nii.gz", f"imagesTr/{re.search(r'name it like .([^ ]+)..', str(error))[1].rstrip(chr(39))}"
    )
    is_measured(folder)


def test_channels_are_completed_and_numbered(folder):
    shutil.copy(folder / "imagesTr/a_0000.nii.gz", folder / "imagesTr/a_0001.nii.gz")
    refused(
        "learning/data/dataset.py: channels, others have", "has 1 channels, others have 2", LabelledFolder.open, folder
    )
    for case in "bcde":
        shutil.copy(folder / f"imagesTr/{case}_0000.nii.gz", folder / f"imagesTr/{case}_0001.nii.gz")
    is_measured(folder)
    rename(folder, "imagesTr/a_0001.nii.gz", "imagesTr/a_0002.nii.gz")
    refused(
        "learning/data/dataset.py: has the channels",
        "numbered 0000, 0001, ... without gaps",
        LabelledFolder.open,
        folder,
    )
    rename(folder, "imagesTr/a_0002.nii.gz", "imagesTr/a_0001.nii.gz")
    is_measured(folder)
    image = nib.load(folder / "imagesTr/a_0001.nii.gz")
    image.to_filename(folder / "imagesTr/a_0001.nii")
    error = refused("learning/data/dataset.py: has several images of one name", "such as", LabelledFolder.open, folder)
    assert str(folder / "imagesTr/a_0001.nii") in str(error)
    (folder / "imagesTr/a_0001.nii").unlink()
    is_measured(folder)


def test_labels_are_found_and_one_of_two_is_kept(folder):
    rename(folder, "labelsTr/a.nii.gz", "labelsTr/x.nii.gz")
    refused(
        "learning/data/dataset.py: holds no file of that name", "Case 'a' has no labels", LabelledFolder.open, folder
    )
    rename(folder, "labelsTr/x.nii.gz", "labelsTr/a.nii.gz")
    is_measured(folder)
    nib.load(folder / "labelsTr/a.nii.gz").to_filename(folder / "labelsTr/a.nii")
    refused(
        "learning/data/dataset.py: two label files of one name",
        "Keep the right one and move the other away",
        LabelledFolder.open,
        folder,
    )
    (folder / "labelsTr/a.nii").unlink()
    is_measured(folder)


def test_numbered_cases_are_numbered_before_the_channel(tmp_path):
    folder = images_of(tmp_path / "data", ["frame_0000", "frame_0001", "frame_0002"])
    for number in range(3):
        rename(folder, f"imagesTr/frame_{number:04d}_0000.nii.gz", f"imagesTr/frame_{number:04d}.nii.gz")
    error = refused(
        "learning/data/dataset.py: is named like a channel",
        "number the cases before them, as in",
        LabelledFolder.open,
        folder,
    )
    image, labels = re.search(r"as in '([^']+)' for the image and '([^']+)' for its labels", str(error)).groups()
    assert (image, labels) == ("frame0000_0000", "frame0000")
    for number in range(3):
        rename(folder, f"imagesTr/frame_{number:04d}.nii.gz", f"imagesTr/frame{number:04d}_0000.nii.gz")
        rename(folder, f"labelsTr/frame_{number:04d}.nii.gz", f"labelsTr/frame{number:04d}.nii.gz")
    is_measured(folder, 2, ("label 1", "label 2"))


def test_several_folders_agree_on_labels_and_ids(folder, tmp_path):
    other = images_of(tmp_path / "other", ["a", "f"])
    describe(other, labels={**NAMES, "one": 2, "two": 1})
    refused(
        "learning/data/dataset.py: Give it the same value in both",
        "says 2 for the label 'one', another folder 1",
        LabelledFolder.open,
        [folder, other],
    )
    describe(other, labels=NAMES)
    refused(
        "learning/data/dataset.py: Two cases are called", "Rename one of them", LabelledFolder.open, [folder, other]
    )
    rename(other, "imagesTr/a_0000.nii.gz", "imagesTr/g_0000.nii.gz")
    rename(other, "labelsTr/a.nii.gz", "labelsTr/g.nii.gz")
    assert len(LabelledFolder.open([folder, other]).cases) == 7
