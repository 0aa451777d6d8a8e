"""Folders of labelled images: the nnU-Net raw layout (imagesTr, labelsTr, dataset.json) and images/ with masks/."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ...errors import UserFacingError
from ...image.formats.pictures import PHOTOGRAPHS, is_lossy
from ...image.geometry import Image
from ...image.reading import read_image, read_labels
from .label_grid import LabelsElsewhere, labels_on_grid

LOG = logging.getLogger(__name__)
_SPOKEN_OF: set[tuple[Path, str]] = set()  # folders, and what was said of them
ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", *PHOTOGRAPHS)
IGNORED = 255  # in labels of this package: nobody knows what is there, so it teaches nothing and counts nowhere
MOST_LABELS = 254


class DatasetError(UserFacingError):
    """A data folder that cannot be used; the message names the file and the fault."""


@dataclass(frozen=True)
class Case:
    """One labelled image: a file for each channel (or one colour image) and its labels."""

    id: str
    images: tuple[Path, ...]
    labels: Path
    nominal_spacing: bool = False  # the file's voxel size is a guess, as `spacing_is_nominal` in dataset.json says
    ignored_value: int | None = None  # of the label 'ignore' in dataset.json, in the label file

    @property
    def is_photograph(self) -> bool:
        """Whether the image's format has no voxel size in mm that could be relied on."""
        return self.images[0].name.lower().endswith(PHOTOGRAPHS)


@dataclass(frozen=True)
class LabelledFolder:
    """The cases of a folder and its fixed splits."""

    folder: Path
    cases: dict[str, Case]
    splits: dict[str, list[str]]
    description: dict = field(default_factory=dict)  # content of dataset.json; of the first of several folders

    @classmethod
    def open(cls, data: str | os.PathLike | Sequence[str | os.PathLike], fold: int = 0) -> LabelledFolder:
        """Find the cases of one folder, or of several taken together, without reading voxels. Raises DatasetError.

        ``fold`` chooses among several splits, see `read_splits`.
        """
        if isinstance(data, (str, os.PathLike)):
            return cls.open_one(Path(data), fold)
        parts = [cls.open_one(Path(folder), fold) for folder in data]
        if len(parts) == 1:
            return parts[0]
        return cls.joined(parts)

    @classmethod
    def joined(cls, parts: Sequence[LabelledFolder]) -> LabelledFolder:
        """The cases and splits of several folders as one.

        Raises DatasetError where two cases have one id, or one label has two values.
        """
        cases: dict[str, Case] = {}
        splits: dict[str, list[str]] = {}
        labels: dict = {}
        for part in parts:
            for label, value in label_values(part.description).items():
                if labels.setdefault(label, value) != value:
                    raise DatasetError(
                        f"'{part.folder / 'dataset.json'}' says {value} for the label '{label}', another folder "
                        f"{labels[label]}. Give it the same value in both."
                    )
            twice = next((case for case in part.cases if case in cases), None)
            if twice is not None:
                first, second = cases[twice].images[0], part.cases[twice].images[0]
                raise DatasetError(f"Two cases are called '{twice}': '{first}' and '{second}'. Rename one of them.")
            cases.update(part.cases)
            for name, ids in part.splits.items():
                splits.setdefault(name, []).extend(ids)
        description = {**parts[0].description, "name": " and ".join(part.name for part in parts)}
        return cls(parts[0].folder, cases, splits, description)

    @classmethod
    def open_one(cls, folder: Path, fold: int = 0) -> LabelledFolder:
        description = read_description(folder / "dataset.json")
        if (folder / "imagesTr").is_dir():
            cases = find_cases(folder / "imagesTr", folder / "labelsTr", channel_suffix=r"_\d{4}")
        elif (folder / "images").is_dir() and (folder / "masks").is_dir():
            cases = find_cases(folder / "images", folder / "masks", channel_suffix="")
        else:
            raise DatasetError(
                f"'{folder}' holds no training data: it should have imagesTr/ and labelsTr/ (as nnU-Net), "
                "or images/ and masks/."
            )
        nominal, ignored = bool(description.get("spacing_is_nominal")), label_values(description).get("ignore")
        cases = {id: replace(case, nominal_spacing=nominal, ignored_value=ignored) for id, case in cases.items()}
        return cls(folder, cases, read_splits(folder, cases, fold), description)

    @property
    def name(self) -> str:
        """What dataset.json calls the data, else the folder's own name."""
        return str(self.description.get("name") or self.folder.resolve().name)

    def split(self, name: str) -> list[Case]:
        """The cases of ``train``, ``val``, ``test`` or ``all``. Raises DatasetError if there is no such split or no case."""
        if name == "all":
            return list(self.cases.values())
        if name not in self.splits:
            known = ", ".join([*self.splits, "all"])
            raise DatasetError(
                f"'{self.folder}' has no split '{name}'; it has {known}. Choose one of them with --split."
            )
        if not self.splits[name]:
            raise DatasetError(f"'{self.folder}' has no case for '{name}': that split is empty.")
        return [self.cases[case] for case in self.splits[name]]


def holds_label_maps_alone(folder: Path) -> bool:
    """Whether the folder has labels without images, for recipes that paint their images."""
    return (folder / "labelsTr").is_dir() and not (folder / "imagesTr").is_dir()


def is_data_set(folder: Path) -> bool:
    """Whether a folder is one of labelled images, to look at."""
    return (folder / "imagesTr").is_dir() or ((folder / "images").is_dir() and (folder / "masks").is_dir())


def data_sets_in(folder: Path) -> list[Path]:
    """The folders of labelled images in a folder that is none itself, for recipes that learn from many."""
    return [] if is_data_set(folder) else sorted(path for path in folder.glob("*") if is_data_set(path))


def read_description(path: Path) -> dict:
    """The content of dataset.json; empty where there is none. Raises DatasetError."""
    if not path.is_file():
        return {}
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("labels", {}), dict):
        raise DatasetError(f"'{path}' should be a JSON object whose 'labels' are an object of names and numbers.")
    return content


def read_json(path: Path) -> object:
    """Raises DatasetError with the file's name."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))  # Windows' editors put a byte order mark first
    except ValueError as error:
        raise DatasetError(f"'{path}' is not valid JSON ({error}).") from error


def label_values(description: dict) -> dict:
    """Value of each label by name, from today's form {name: value} or the older one {value: name}; lists for regions.

    Raises DatasetError for an `ignore` that is not the highest value.
    """
    labels = description.get("labels", {})
    if labels and all(key.isdigit() for key in labels) and all(isinstance(name, str) for name in labels.values()):
        labels = {name: int(key) for key, name in labels.items()}
    labels = {name: whole_number(name, value) for name, value in labels.items()}
    if "ignore" in labels:
        values = [number for value in labels.values() for number in (value if isinstance(value, list) else [value])]
        if not all(isinstance(number, int) for number in values) or labels["ignore"] != max(values):
            raise DatasetError(
                f"dataset.json gives 'ignore' the value {labels['ignore']}: it should have the highest value of all labels."
            )
    return labels


def whole_number(name: str, value: object) -> object:
    """A label's value as dataset.json means it: 1, 1.0 and "1" are 1; lists (regions) stay. Raises DatasetError."""
    if isinstance(value, list):
        return value
    text = str(value).strip()
    if not isinstance(value, bool) and re.fullmatch(r"\d+(\.0*)?", text):
        return int(float(text))
    raise DatasetError(f"dataset.json gives the label '{name}' the value {value!r}: write a whole number from 0.")


def check_label_names(folder: LabelledFolder, labels: Sequence[dict], model: str) -> None:
    """Raise DatasetError if dataset.json gives a value the name that the model (its id) has for another value.

    Names are compared by their words, so that `left_parotid` is taken for the model's `left parotid gland`.
    """
    known = {label["value"]: words(label["name"]) for label in labels}
    for name, value in label_values(folder.description).items():
        likeness = {other: likeness_of(words(name), other_words) for other, other_words in known.items()}
        best = max(likeness, key=lambda other: (likeness[other], other == value), default=value)
        if isinstance(value, int) and value in known and likeness[best] > likeness[value]:
            meant = next(label["name"] for label in labels if label["value"] == best)
            raise DatasetError(
                f"'{folder.folder / 'dataset.json'}' says {value} for the label '{name}', but '{meant}' is {best} in the "
                f"model '{model}'. Give the labels, in dataset.json and in the files, the numbers that the model has."
            )


def words(name: str) -> set[str]:
    """The words of a label's name, in lower case."""
    return set(re.findall(r"[^\W_]+", name.casefold()))


def likeness_of(first: set[str], second: set[str]) -> float:
    """Share of the words of two names that are in both (Jaccard index), 0 to 1."""
    return len(first & second) / max(1, len(first | second))


def find_cases(images: Path, labels: Path, channel_suffix: str) -> dict[str, Case]:
    """Pair image files with label files by case id. Raises DatasetError for images without labels and channel gaps."""
    channels: dict[str, list[Path]] = {}
    for path in sorted(images.iterdir()):
        if path.name.startswith(".") or not path.name.lower().endswith(ENDINGS):
            continue
        stem = without_ending(path.name)
        match = re.fullmatch(rf"(.+?)({channel_suffix})", stem)
        if not match:
            raise DatasetError(f"'{path}' has no channel number: name it like '{stem}_0000{path.name[len(stem) :]}'.")
        channels.setdefault(match[1], []).append(path)
    if not channels:
        raise DatasetError(f"'{images}' holds no images.")
    for case, paths in channels.items():
        check_channel_files(case, paths, numbered=bool(channel_suffix))
    masks = label_files(labels, channel_suffix, channels)
    counts = {len(paths) for paths in channels.values()}
    cases = {}
    for case, paths in channels.items():
        if case not in masks:
            raise DatasetError(f"Case '{case}' has no labels: '{labels}' holds no file of that name.")
        if len(paths) != max(counts):
            raise DatasetError(f"Case '{case}' has {len(paths)} channels, others have {max(counts)}.")
        cases[case] = Case(case, tuple(paths), masks[case])
    return cases


def label_files(folder: Path, channel_suffix: str, cases: dict[str, list[Path]]) -> dict[str, Path]:
    """The label file of each case id. Raises DatasetError for two of one name, and for names that still hold a channel."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.startswith(".") or not path.name.lower().endswith(ENDINGS):
            continue
        name = without_ending(path.name)
        if name in found:
            raise DatasetError(
                f"'{folder}' holds two label files of one name, '{found[name].name}' and '{path.name}'. Keep the right one "
                "and move the other away."
            )
        found[name] = path
    for name in found if channel_suffix else []:
        match = re.fullmatch(rf"(.+?)({channel_suffix})", name)
        if match and name not in cases and match[1] in cases:
            raise DatasetError(
                f"'{found[name]}' is named like a channel. In imagesTr the last four digits number the channels of one case; "
                f"number the cases before them, as in '{match[1]}{match[2].replace('_', '')}_0000' for the image and "
                f"'{match[1]}{match[2].replace('_', '')}' for its labels."
            )
    return found


def check_channel_files(case: str, paths: list[Path], numbered: bool) -> None:
    """Raise DatasetError for two files of one name and for channels that are not numbered 0000, 0001, ..."""
    stems = [without_ending(path.name) for path in paths]
    if len(set(stems)) < len(stems):
        raise DatasetError(f"Case '{case}' has several images of one name, such as '{paths[0]}' and '{paths[1]}'.")
    numbers = [int(stem[-4:]) for stem in stems] if numbered else [0]
    if numbers != list(range(len(numbers))):
        raise DatasetError(f"Case '{case}' has the channels {numbers}: they are numbered 0000, 0001, ... without gaps.")


def without_ending(name: str) -> str:
    """'case_0000.nii.gz' -> 'case_0000'."""
    return next((name[: -len(ending)] for ending in ENDINGS if name.lower().endswith(ending)), name)


def read_splits(folder: Path, cases: Mapping[str, object], fold: int) -> dict[str, list[str]]:
    """The ids for train, val and test in splits.json, else for train and val in fold ``fold`` of splits_final.json.

    The second is nnU-Net's file, a list of folds. Without both, every fifth case is for validation. Raises DatasetError.
    """
    path = next((folder / name for name in ("splits.json", "splits_final.json") if (folder / name).is_file()), None)
    if path is None:
        return every_fifth(sorted(cases), fold)
    content = read_json(path)
    if path.name == "splits.json" and fold:
        raise DatasetError(f"'{path}' has one fixed split and no fold {fold}. Leave --fold out.")
    if path.name == "splits_final.json":
        if not isinstance(content, list) or not 0 <= fold < len(content):
            count = (
                f"{len(content)} folds, 0 to {len(content) - 1}" if isinstance(content, list) else "no list of folds"
            )
            raise DatasetError(f"'{path}' has no fold {fold}: it holds {count}.")
        content = content[fold]
    if not isinstance(content, dict):
        raise DatasetError(f'\'{path}\' should name the cases of each split, as in {{"train": [...], "val": [...]}}.')
    splits = {name: content[name] for name in ("train", "val", "test") if isinstance(content.get(name), list)}
    for name, ids in splits.items():
        odd = [case for case in ids if not isinstance(case, str)]
        if odd:
            raise DatasetError(f"'{path}' names {odd[0]!r} in its {name} split: write the ids of cases, as texts.")
        absent = [case for case in ids if case not in cases]
        if absent:
            raise DatasetError(f"'{path}' names '{absent[0]}' in its {name} split, but there is no such case.")
    check_splits_apart(splits, path)
    return splits


def check_splits_apart(splits: dict[str, list[str]], path: Path) -> None:
    """Raise DatasetError for a case that is named twice: what a model learnt from must not measure it."""
    seen: dict[str, str] = {}
    for name, ids in splits.items():
        for case in ids:
            if case in seen:
                where = (
                    f"twice in its {name} split" if seen[case] == name else f"in its {seen[case]} and its {name} split"
                )
                raise DatasetError(f"'{path}' names '{case}' {where}. Each case belongs in one split, once.")
            seen[case] = name


def every_fifth(ids: list[str], fold: int) -> dict[str, list[str]]:
    """Fold ``fold`` of 5: every fifth case for validation. One case alone serves for both."""
    if len(ids) == 1 and not fold:
        return {"train": ids, "val": ids}
    val = ids[fold::5]
    if not 0 <= fold < 5 or not val:
        raise DatasetError(
            f"There is no fold {fold}: without a file of splits the {len(ids)} cases make at most 5 folds."
        )
    return {"train": [case for case in ids if case not in val], "val": val}


def read_case(case: Case, model: dict) -> tuple[Image, np.ndarray]:
    """The image and its labels, uint8 (I, J, K). Raises DatasetError that names the case and the file."""
    image, labels = read_files(case)
    if len(image.array) != len(model["channels"]):
        raise DatasetError(
            f"Case '{case.id}' has {len(image.array)} channels; the model takes {len(model['channels'])}."
        )
    return image, checked_labels(labels, len(model["labels"]), case)


def read_files(case: Case) -> tuple[Image, np.ndarray]:
    """The image and its label map (I, J, K) as the files have them. Raises DatasetError if they do not fit together."""
    try:
        image = read_image(case.images)
    except (UserFacingError, OSError) as error:
        raise DatasetError(f"Case '{case.id}': the image cannot be read. {error}") from error
    say_notices(case, image, case.images[0])
    try:
        labels = read_labels(case.labels)
    except (UserFacingError, OSError) as error:
        raise DatasetError(f"Case '{case.id}': the labels '{case.labels}' cannot be read. {error}") from error
    say_notices(case, labels, case.labels)
    if case.is_photograph:  # neither file has a place in space
        if labels.shape != image.shape:
            raise DatasetError(
                f"Case '{case.id}': the labels '{case.labels}' are {labels.shape[0]} x {labels.shape[1]} pixels, "
                f"the image is {image.shape[0]} x {image.shape[1]}. Save both in the same size."
            )
        return image, labels.array[0]
    try:
        array, notice = labels_on_grid(labels, image)
    except LabelsElsewhere as error:
        raise DatasetError(f"Case '{case.id}', '{case.labels}': {error}") from error
    if notice:
        say_once(
            case.labels.parent, notice[:20], f"Case '{case.id}': {notice} Others of this folder are treated alike."
        )
    return image, array


def say_notices(case: Case, image: Image, path: Path) -> None:
    """What was assumed when an image, or its labels, were read from a file; each kind of it once for a folder."""
    for notice in image.notices:
        kind = re.sub(r"[-\d.]+", "", notice.replace(path.name, ""))
        say_once(path.parent, kind, f"Case '{case.id}': {notice} Others of this folder may be like it.")


def say_once(folder: Path, kind: str, text: str) -> None:
    """A warning in the log (stderr, unless a program has set it up), the first time of its kind for this folder."""
    if (folder, kind) not in _SPOKEN_OF:
        _SPOKEN_OF.add((folder, kind))
        LOG.warning(text)


def checked_labels(labels: np.ndarray, highest: int, case: Case) -> np.ndarray:
    """Labels as uint8 with values 0 to ``highest``, and IGNORED where the file says so. DatasetError for any other value.

    Masks of one label may also be 0 and 255; JPEG masks, whose values are smeared, are cut at the middle.
    """
    if is_lossy(case.labels):
        if highest > 1 or case.ignored_value is not None:
            raise DatasetError(
                f"Case '{case.id}': '{case.labels}' is a JPEG, which changes label values. Save the labels as PNG."
            )
        return (labels > 127).astype(np.uint8)
    if case.ignored_value is not None and case.ignored_value <= highest:
        raise DatasetError(
            f"Case '{case.id}': dataset.json ignores the value {case.ignored_value}, which is a label of the model. "
            f"The labels are 1 to {highest}, and 'ignore' comes after them."
        )
    ignored = None if case.ignored_value is None else labels == case.ignored_value
    known = labels if ignored is None else np.where(ignored, 0, labels)
    values = np.unique(known)
    if highest == 1 and set(values) <= {0, 255}:
        known = known > 0
        values = np.unique(known)
    wrong = values[(values < 0) | (values > highest) | (values != np.round(values))]
    if wrong.size:
        raise DatasetError(
            f"Case '{case.id}': '{case.labels}' holds the value {wrong[0]}, but labels go from 0 to {highest}."
        )
    known = known.astype(np.uint8)
    return known if ignored is None else np.where(ignored, np.uint8(IGNORED), known)
