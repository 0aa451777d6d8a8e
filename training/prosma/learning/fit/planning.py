"""A recipe from the data alone: `prosma plan`, and `prosma train` without a recipe.

The rules, from the training cases of the folder. A person can change every result in the written YAML.

- Dimension: 2 if all images are single slices, else 3, with the axes to R, A and S.
- Spacing, 3D and 2D with voxel sizes in mm: the median of each axis. Is the coarsest axis more than 3 times as coarse as
  the next one, and has it less than a third of the samples of the next shortest axis, its 10th percentile (but no
  finer than the next axis): thick slices are not blurred further.
- Photographs (png, jpg, tif, bmp) have no spacing: they are resized to their median size, at most 256 pixels.
- Patch: the median size on that grid, in 3D with its longest side cut until it holds at most 64 x 64 x 64 voxels, in
  2D at most 256 pixels a side; then multiples of what the strides ask for.
- Strides: an axis is halved while 8 samples are left and it is at most twice as coarse as the finest such axis, up to 4
  times. Kernels have size 1 along axes that are more than twice as coarse as the finest one, else 3.
- Features: 16, 32, 64, 128, 256, one for each stage.
- Batch: 2 x 64^3 voxels in all (2 to 4 patches) in 3D, 8 x 256^2 pixels (2 to 12) in 2D, but
  no more patches than training cases if these are more than 2.
- Intensity: `range` 0 to 255 for 8-bit pictures. `ct` for one channel named CT, or unnamed with air below -500 in
  most cases: clipped to the percentiles 0.5 and 99.5 of the labelled voxels, then their mean and standard deviation.
  Else `clip-zscore`; by the voxels above the lowest value alone if in most cases more than a quarter have that value (the
  zeros around a brain, of which some images have more than others).
- Mirroring: along the axes where no label would become another one, see `mirror_rule`.
- Rotation: in 3D with thick slices (3 times) only within the slices.
- Brightness of photographs in colour: each channel by a factor of its own, for differences of light and stain.
- Patches centred on a label: a third; half where labels fill less than 1 % of the voxels.
- Epochs: about ten patches of each training case (25 to 100 steps), so many that they make 3000 steps; six validations.
- Gates compute their field on the decoder's grid, which is no worse and far cheaper (training/RESULTS.md).
- Gates start with a threshold of 0.4, which learns twice as fast as the weights: so they stay sparse at every level.
- Expected field of view, 3D with voxel sizes: 0.75 times the smallest to 1.33 times the largest extent of the training cases.

All else keeps the defaults of `recipe.Augmentation` and `recipe.Fitting`. Stacks of tif images count as 3D with voxels of
1 mm where they say nothing else.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml

from ... import __version__
from ...files import write_text
from ...network.unet import SMALL
from ..data.statistics import DatasetStatistics, measure_dataset
from ..recipe import Augmentation, Fitting, Recipe, RecipeError
from .mirror_rule import mirror_axes

LARGEST_PATCH = 64**3
LARGEST_SIDE = 256
BATCH = {2: (8 * 256**2, 2, 12), 3: (2 * 64**3, 2, 4)}  # voxels, fewest and most patches
SMALLEST_EDGE = 4
LEAST_EMPTY = 0.25  # share of voxels with the lowest value from which on they are taken to lie around what is imaged
STEPS = 3000  # optimiser steps of a whole training
PATCHES_OF_A_CASE = 10  # in an epoch
VALIDATIONS = 6
# From a threshold of 0.25 that learns 5 times faster than the weights, the coarsest gates of two of the bundled models'
# trainings became dense (2.8 % and 3.8 % zeros); from here they keep 6 % and more (training/RESULTS.md).
THRESHOLD = 0.4
SELECTION_RATE = 2.0
MODALITIES = {
    "CT": {"ct", "cbct"},
    "MR": {"mr", "mri", "t1", "t1w", "t1c", "t1ce", "t1gd", "t2", "t2w", "flair", "adc", "dwi", "pd"},
    "US": {"us", "ultrasound", "bmode"},
    "PET": {"pet", "suv"},
}
COLORS = [
    [221, 130, 101], [128, 174, 128], [111, 184, 210], [216, 101, 79], [230, 220, 70],
    [183, 156, 220], [183, 214, 211], [244, 142, 52], [152, 189, 207], [200, 120, 160],
]  # fmt: skip
VIVID = [[40, 220, 90], [60, 140, 255], [255, 225, 40], [255, 60, 200]]  # seen on flesh and on stained tissue


def plan_folder(
    data, progress: Callable[[int, int], None] = lambda done, total: None, fold: int = 0
) -> tuple[Recipe, str]:
    """The recipe for a labelled folder or several, and its text as YAML with comments.

    Raises DatasetError with the file and the fault.
    """
    statistics = measure_dataset(data, progress, fold)
    recipe = plan(statistics)
    recipe.fitting.fold = fold
    return recipe, recipe_text(recipe, statistics)


def plan(found: DatasetStatistics) -> Recipe:
    """The recipe by the rules above."""
    dimension, flat = found.dimension, found.dimension == 2
    spacing = None if found.photographs else target_spacing(found.sizes, found.spacings)
    patch = patch_size(grid_sizes(found, spacing), dimension)
    strides, kernels = plan_stages(patch, spacing or [1.0] * dimension)
    patch = to_multiples(patch, strides, whole=grid_sizes(found, spacing))
    modality = modality_of(found)
    colors = VIVID + COLORS if found.photographs and len(found.channels) == 3 else COLORS
    model = {
        "id": model_id(found.name),
        "name": str(found.description.get("name") or found.name),
        "version": "1.0.0",
        "description": f"{', '.join(found.labels)} in {dimension}D images ({', '.join(found.channels)}).",
        "modality": modality,
        "dimension": dimension,
        "channels": [{"name": name} for name in found.channels],
        "labels": [
            {"value": value, "name": name.replace("_", " "), "color": list(colors[(value - 1) % len(colors)])}
            for value, name in enumerate(found.labels, start=1)
        ],
        "spacing": spacing,
        "resize": list(patch) if found.photographs else None,
        "orientation": None if flat else "RAS",
        "intensity": intensity_rule(found, modality),
        "patch_size": patch,
        "mirror_axes": mirror_axes(found.labels, dimension, modality),
        "training": {
            "data": str(found.description.get("description") or found.description.get("name") or found.name),
            "licence": str(found.description.get("licence") or found.description.get("license") or "not stated"),
            "citation": str(found.description.get("reference") or "not stated"),
        },
        "accept_licence": False,
    }
    if not flat and not any(case.photograph for case in found.cases):
        model["field_of_view"] = field_of_view(found)
    network = {
        "features": list(SMALL[: len(strides)]),
        "strides": strides,
        "kernel_sizes": kernels,
        "skip": "prosma",
        "field_grid": "decoder",
        "threshold_init": THRESHOLD,
    }
    augmentation = Augmentation(brightness_channelwise=modality == "colour image")
    thick = None if flat else anisotropic_axis(spacing)
    if thick is not None and isinstance(augmentation.rotation, float):
        augmentation.rotation = [augmentation.rotation if axis == thick else 0.0 for axis in range(3)]
    batch = batch_size(patch, len(found.cases))
    fitting = Fitting(
        **training_schedule(len(found.cases), batch),
        batch_size=batch,
        selection_rate_factor=SELECTION_RATE,
        foreground_share=0.5 if sum(found.shares.values()) < 0.01 else Fitting.foreground_share,
    )
    return Recipe(model, network, augmentation, fitting)


# --- grid -----------------------------------------------------------------------------------------------------------


def target_spacing(sizes: np.ndarray, spacings: np.ndarray) -> list[float]:
    """Voxel size in mm that all cases (n, axes) are brought to."""
    spacing, size = np.median(spacings, axis=0), np.median(sizes, axis=0)
    axis = anisotropic_axis(spacing)
    if axis is not None and size[axis] * 3 < np.delete(size, axis).min():
        spacing[axis] = max(np.percentile(spacings[:, axis], 10), np.delete(spacing, axis).max())
    return [float(f"{value:.5g}") for value in spacing]


def anisotropic_axis(spacing) -> int | None:
    """The axis that is more than 3 times as coarse as the next one, in 3D."""
    axis = int(np.argmax(spacing))
    others = np.delete(np.array(spacing), axis)
    return axis if len(spacing) == 3 and spacing[axis] > 3 * others.max() else None


def grid_sizes(found: DatasetStatistics, spacing: list[float] | None) -> list[int]:
    """Median size on the model's grid; photographs shrink to at most LARGEST_SIDE."""
    if spacing is not None:
        return [round(size) for size in np.median(found.sizes * found.spacings / spacing, axis=0)]
    median = np.median(found.sizes, axis=0)
    return [max(1, round(side)) for side in median * min(1.0, LARGEST_SIDE / median.max())]


def patch_size(size: list[int], dimension: int) -> list[int]:
    """The part of the grid that the network sees at once."""
    if dimension == 2:
        return [min(side, LARGEST_SIDE) for side in size]
    patch = list(size)
    while np.prod(patch) > LARGEST_PATCH:
        patch[int(np.argmax(patch))] -= 1
    return patch


def plan_stages(patch: list[int], spacing: list[float]) -> tuple[list[list[int]], list[list[int]]]:
    """Strides into each stage and kernel sizes, one number an axis."""
    size, step, axes = list(patch), list(spacing), range(len(patch))
    strides, kernels = [[1] * len(patch)], []
    while True:
        kernels.append([3 if step[axis] <= 2 * min(step) else 1 for axis in axes])
        divisible = [axis for axis in axes if size[axis] >= 2 * SMALLEST_EDGE]
        if len(strides) == len(SMALL) or (not divisible and len(strides) > 1):
            return strides, kernels
        finest = min((step[axis] for axis in divisible), default=0.0)
        stride = [2 if axis in divisible and step[axis] <= 2 * finest else 1 for axis in axes]
        strides.append(stride)
        size = [-(-n // factor) for n, factor in zip(size, stride, strict=True)]
        step = [mm * factor for mm, factor in zip(step, stride, strict=True)]


def to_multiples(patch: list[int], strides: list[list[int]], whole: list[int]) -> list[int]:
    """The nearest multiples of the strides' product; upwards where the patch spans the whole image and room is left."""
    result = []
    for side, size, divisor in zip(patch, whole, np.prod(strides, axis=0), strict=True):
        times = -(-side // divisor) if side == size else round(side / divisor)
        limit = LARGEST_SIDE // divisor if len(patch) == 2 else times
        result.append(int(divisor * max(1, min(times, limit))))
    return result


def batch_size(patch: list[int], cases: int) -> int:
    voxels, fewest, most = BATCH[len(patch)]
    return int(np.clip(round(voxels / float(np.prod(patch))), fewest, max(fewest, min(most, cases))))


def training_schedule(cases: int, batch: int) -> dict:
    """Steps an epoch, epochs, and how often to validate."""
    iterations = int(np.clip(round(PATCHES_OF_A_CASE * cases / batch), 25, 100))
    epochs = round(STEPS / iterations)
    return {"epochs": epochs, "iterations": iterations, "validate_every": max(1, epochs // VALIDATIONS)}


def field_of_view(found: DatasetStatistics) -> dict:
    """Extents in mm beyond which the panel warns."""
    extents = found.sizes * found.spacings
    return {
        "min_mm": [int(mm) for mm in np.floor(0.75 * extents.min(axis=0))],
        "max_mm": [int(mm) for mm in np.ceil(1.33 * extents.max(axis=0))],
    }


# --- intensities and names ------------------------------------------------------------------------------------------


def intensity_rule(found: DatasetStatistics, modality: str) -> dict:
    """The entry `intensity` of model.json."""
    if found.photographs and all(case.eight_bit for case in found.cases):
        return {"rule": "range", "low": 0, "high": 255}
    unnamed = "channel_names" not in found.description and "modality" not in found.description
    air = np.median([case.lowest for case in found.cases]) < -500
    if len(found.channels) == 1 and (modality == "CT" or (unnamed and air)):
        values = found.foreground[0]
        low, high = (float(value) for value in np.percentile(values, (0.5, 99.5)))
        values = np.clip(values, low, high)
        mean, deviation = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
        return {
            "rule": "ct",
            "clip": [round(low, 1), round(max(high, low + 1), 1)],
            "mean": round(mean, 2),
            "std": round(deviation, 2) or 1.0,
        }
    rule = {"rule": "clip-zscore", "percentiles": [0.5, 99.5]}
    masked = np.median([case.empty for case in found.cases]) > LEAST_EMPTY
    return {**rule, "foreground": True} if masked else rule


def modality_of(found: DatasetStatistics) -> str:
    """What the channels' names tell; `unknown` where they tell nothing."""
    words = {word for name in found.channels for word in re.findall(r"[a-z0-9]+", name.lower())}
    named = [modality for modality, hints in MODALITIES.items() if words & hints]
    if named:
        return "/".join(named)
    return "colour image" if found.photographs and len(found.channels) == 3 else "unknown"


def model_id(name: str) -> str:
    """A model id from a folder's name: "Dataset012_Heart" becomes "heart"."""
    slug = re.sub(r"[^a-z0-9._-]+", "-", re.sub(r"(?i)^(dataset|task)\d+_", "", name).lower())
    return slug.strip("-._") or "model"


# --- YAML -----------------------------------------------------------------------------------------------------------


def recipe_text(recipe: Recipe, found: DatasetStatistics) -> str:
    """YAML with the measured facts as comments."""
    sizes, shares = found.sizes, found.shares
    facts = [
        f"Planned by prosma {__version__} from {len(found.cases)} training cases of '{found.name}'.",
        f"Sizes {span(sizes, '{:.0f}')} voxels, median {' x '.join(f'{n:.0f}' for n in np.median(sizes, axis=0))}.",
        "Photographs have no voxel size."
        if found.photographs
        else f"Voxels {span(found.spacings, '{:.3g}')} mm (model axes).",
        "Share of all voxels: " + ", ".join(f"{name} {100 * share:.2g} %" for name, share in shares.items()) + ".",
        *(f"No training case has the label {name}." for name, share in shares.items() if not share),
        "Every entry can be changed; then: prosma train THIS_FILE --data DIR --out RUN",
    ]
    comments = "".join(f"# {line}\n" for fact in facts for line in textwrap.wrap(fact, 110))
    content = recipe.to_dict()
    fitting = {"fitting": content.pop("fitting")}
    return comments + as_yaml(content, None) + as_yaml(fitting, False)


def as_yaml(content: dict, flow: bool | None) -> str:
    """``flow``: None writes the innermost lists on one line, False every entry on its own."""
    return yaml.safe_dump(content, sort_keys=False, default_flow_style=flow, allow_unicode=True, width=110)


def span(values: np.ndarray, form: str) -> str:
    """Smallest to largest of each axis."""
    low, high = (" x ".join(form.format(v) for v in row) for row in (values.min(axis=0), values.max(axis=0)))
    return low if low == high else f"{low} to {high}"


def write_recipe(path: Path, text: str) -> None:
    """Write a new file; RecipeError where one is, because a person may have edited it."""
    if path.exists():
        raise RecipeError(f"'{path}' is already there. Choose another name, or delete it first.")
    write_text(path, text)
