"""What a labelled folder is like: each case is read once, checked, and measured. Planning a recipe needs nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...image.formats.pictures import is_lossy
from ...image.geometry import Image, plan_canonical
from .dataset import (
    IGNORED,
    MOST_LABELS,
    Case,
    DatasetError,
    LabelledFolder,
    checked_labels,
    label_values,
    read_files,
)

SAMPLES = 5_000  # foreground voxels of a case whose intensities are kept


@dataclass(frozen=True)
class CaseFacts:
    """One case. In 3D the axes point to R, A and S; in 2D they are the image's own and the last one has size 1.

    ``size`` in voxels, ``spacing`` in mm. ``eight_bit``: colours or greys of 0 to 255. ``lowest``: the smallest voxel;
    ``empty``: the share of voxels with just that value, in the channel where it is least. ``voxels`` of each label value.
    ``foreground``: intensities inside the labels, float32 (channels, at most SAMPLES).
    """

    id: str
    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    photograph: bool
    eight_bit: bool
    lowest: float
    empty: float
    voxels: dict[int, int]
    foreground: np.ndarray


@dataclass(frozen=True)
class DatasetStatistics:
    """A whole folder: its names, and the facts of its training cases."""

    name: str
    description: dict  # content of dataset.json, or empty
    dimension: int
    channels: list[str]
    labels: list[str]
    cases: list[CaseFacts]

    @property
    def photographs(self) -> bool:
        """Whether these are 2D images in formats without voxel sizes."""
        return self.dimension == 2 and all(case.photograph for case in self.cases)

    @property
    def sizes(self) -> np.ndarray:
        """Voxels (cases, dimension)."""
        return np.array([case.size[: self.dimension] for case in self.cases])

    @property
    def spacings(self) -> np.ndarray:
        """Millimetres (cases, dimension)."""
        return np.array([case.spacing[: self.dimension] for case in self.cases])

    @property
    def foreground(self) -> np.ndarray:
        """Intensities inside the labels of all cases, (channels, n)."""
        return np.concatenate([case.foreground for case in self.cases], axis=1)

    @property
    def shares(self) -> dict[str, float]:
        """Share that each label has of all voxels that are not ignored."""
        total = float(sum(np.prod(case.size, dtype=np.float64) - case.voxels.get(IGNORED, 0) for case in self.cases))
        return {
            name: sum(case.voxels.get(value, 0) for case in self.cases) / total
            for value, name in enumerate(self.labels, start=1)
        }


def measure_dataset(
    data, progress: Callable[[int, int], None] = lambda done, total: None, fold: int = 0
) -> DatasetStatistics:
    """Read every case of the folder once, training cases and others. Raises DatasetError with the file and the fault.

    Only training cases enter the numbers; the others are only checked.
    """
    folder = LabelledFolder.open(data, fold)
    description = folder.description
    names = label_names(description)
    training, _ = ({case.id for case in folder.split(name)} for name in ("train", "val"))
    facts, channels, dimension = [], 0, 0
    used = sorted({case for ids in folder.splits.values() for case in ids})
    for done, id in enumerate(used, start=1):
        case = folder.cases[id]
        image, labels = read_files(case)
        channels, dimension = channels or len(image.array), dimension or dimension_of(image)
        check_alike(case, image, channels, dimension)
        facts.append(case_facts(case, image, labels, names))
        progress(done, len(used))
    if names is None:
        names, facts = names_from_values(facts, folder)
    statistics = DatasetStatistics(
        name=folder.folder.resolve().name,
        description=description,
        dimension=dimension,
        channels=channel_names(description, channels, facts[0].photograph),
        labels=names,
        cases=[case for case in facts if case.id in training],
    )
    if not any(statistics.shares.values()):
        raise DatasetError(f"No training case of '{folder.folder}' has a labelled voxel: there is nothing to learn.")
    return statistics


def dimension_of(image: Image) -> int:
    return 2 if image.shape[2] == 1 else 3


def check_alike(case: Case, image: Image, channels: int, dimension: int) -> None:
    """Raise DatasetError where a case differs from the first one in what a model cannot take."""
    if len(image.array) != channels:
        raise DatasetError(
            f"Case '{case.id}' ('{case.images[0]}') has {len(image.array)} channels, the first case has {channels}. "
            "Save all images as grey or all as colour."
        )
    if dimension_of(image) != dimension:
        raise DatasetError(
            f"Case '{case.id}' ('{case.images[0]}') is {dimension_of(image)}D, the first case is {dimension}D. "
            "Keep 2D and 3D images in folders of their own."
        )


def case_facts(case: Case, image: Image, labels: np.ndarray, names: list[str] | None) -> CaseFacts:
    """Measure one case. Raises DatasetError for label values that its folder does not name."""
    if names is not None:
        labels = checked_labels(labels, len(names), case)
    elif is_lossy(case.labels):
        labels = checked_labels(labels, 1, case)
    values, counts = np.unique(labels, return_counts=True)
    view = plan_canonical(image, {"dimension": dimension_of(image), "orientation": "RAS"})
    labelled = (labels > 0) & (labels != IGNORED) if names else labels > 0  # nameless masks may be 0 and 255
    inside = image.array[:, labelled]
    return CaseFacts(
        id=case.id,
        size=view.size,
        spacing=view.spacing,
        photograph=case.is_photograph,
        eight_bit=image.array.dtype == np.uint8,
        lowest=float(image.array.min()),
        empty=min(float((channel == channel.min()).mean()) for channel in image.array),
        voxels={int(value): int(count) for value, count in zip(values, counts, strict=True)},
        foreground=inside[:, :: max(1, -(-inside.shape[1] // SAMPLES))].astype(np.float32),
    )


def label_names(description: dict) -> list[str] | None:
    """Names of labels 1, 2, ... in dataset.json, `ignore` apart; None where it names none.

    Raises DatasetError for regions and gaps.
    """
    labels = label_values(description)
    if not labels:
        return None
    if not all(isinstance(value, int) for value in labels.values()):
        raise DatasetError(
            "dataset.json joins labels to regions. Give each label one number; regions are not supported."
        )
    names = {value: name for name, value in labels.items() if value != 0 and name != "ignore"}
    if sorted(names) != list(range(1, len(names) + 1)) or len(names) > MOST_LABELS:
        raise DatasetError(
            f"dataset.json gives the labels the numbers {sorted(labels.values())}: they should be 0 for the background "
            f"and 1, 2, 3, ... without gaps, up to {MOST_LABELS}."
        )
    if not names:
        raise DatasetError("dataset.json names no label but the background: there is nothing to learn.")
    return [names[value] for value in sorted(names)]


def names_from_values(facts: list[CaseFacts], folder: LabelledFolder) -> tuple[list[str], list[CaseFacts]]:
    """Names for labels that no dataset.json names, from the values in use. 0 and 255 are a mask of one label."""
    values = sorted({value for case in facts for value in case.voxels} - {0})
    if values == [255]:
        mask = [{1 if value == 255 else value: count for value, count in case.voxels.items()} for case in facts]
        facts = [CaseFacts(**{**vars(case), "voxels": voxels}) for case, voxels in zip(facts, mask, strict=True)]
        values = [1]
    if values != list(range(1, len(values) + 1)) or len(values) > MOST_LABELS:
        wrong = next(value for number, value in enumerate(values, start=1) if value != number)
        case = next(folder.cases[case.id] for case in facts if wrong in case.voxels)
        raise DatasetError(
            f"'{case.labels}' holds the value {wrong}, but the values of labels are 1, 2, 3, ... without gaps "
            f"(all values in use: {', '.join(map(str, values[:10]))})."
        )
    return [f"label {value}" if len(values) > 1 else "foreground" for value in values], facts


def channel_names(description: dict, count: int, photograph: bool) -> list[str]:
    """Names of the channels by dataset.json, else red, green and blue, or numbers. Raises DatasetError."""
    names = description.get("channel_names") or description.get("modality")
    if isinstance(names, (list, tuple)):
        names = dict(enumerate(names))
    if isinstance(names, dict):
        if any(not str(key).isdigit() for key in names):
            raise DatasetError(
                f"dataset.json numbers the channels {', '.join(map(str, names))}. Write them as in "
                '{"0": "T1", "1": "T2"}.'
            )
        names = [str(names[key]) for key in sorted(names, key=int)]
        if len(names) != count:
            raise DatasetError(
                f"dataset.json names {len(names)} channels ({', '.join(names)}), the images have {count}."
            )
        return names
    if photograph and count == 3:
        return ["red", "green", "blue"]
    return [f"channel {number}" for number in range(1, count + 1)] if count > 1 else ["image"]
