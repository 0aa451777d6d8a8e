"""A recipe: one YAML file with everything needed to train a model again."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import yaml

from ..errors import UserFacingError
from ..package.schema import SCHEMA, PackageError, check_description


class RecipeError(UserFacingError):
    """A recipe that cannot be followed; the message says which entry and why."""


@dataclass
class Augmentation:
    """Random changes to training patches. Ranges are (low, high); probabilities are per patch."""

    rotation: list[float] | float = 15.0  # degrees, one for all axes or one per axis
    scale: list[float] = field(default_factory=lambda: [0.8, 1.25])
    shear: float = 0.0
    spatial_probability: float = 0.5
    outside: str = "border"  # beyond the image: its edge values without labels, or the "reflection" of both
    noise: float = 0.1  # largest standard deviation
    noise_probability: float = 0.15
    blur: list[float] = field(default_factory=lambda: [0.5, 1.0])  # sigma in voxels
    blur_probability: float = 0.1
    brightness: float = 0.25  # multiplied by 1 - b to 1 + b
    brightness_probability: float = 0.15
    brightness_channelwise: bool = False  # each channel by a factor of its own: changes of light and of stain
    channel_dropout: list[float] = field(
        default_factory=list
    )  # how often each channel becomes 0, so as to lean on others
    shading: float = 0.0  # largest of a smooth field that is added to each channel, as of coils; in image units
    shading_probability: float = 0.0
    contrast: float = 0.25  # scaled about the mean by 1 - c to 1 + c
    contrast_probability: float = 0.15
    gamma: list[float] = field(default_factory=lambda: [0.7, 1.5])
    gamma_probability: float = 0.3
    low_resolution: list[float] = field(default_factory=lambda: [0.5, 1.0])
    low_resolution_probability: float = 0.1


@dataclass
class Fitting:
    """How the weights are fitted."""

    epochs: int = 30
    iterations: int = 100  # optimiser steps an epoch, on each device
    batch_size: int = 2  # patches a step, on each device
    foreground_share: float = 0.33  # of patches centred on a labelled voxel
    optimizer: str = "adamw"
    learning_rate: float = 2e-3
    selection_rate_factor: float = 5.0  # thresholds and gains learn this much faster
    weight_decay: float = 1e-2  # never on thresholds and gains
    schedule: str = "poly"
    gradient_clip: float = 1.0
    average_decay: float = 0.99  # of the exponential moving average of the weights, which is what is kept
    deep_supervision: bool = True
    dice_smooth: float = 1e-5  # voxels; hundreds make false marks in empty images cost something
    early_scale: float = 1.0  # patches are shrunk to this share of their size ...
    early_share: float = 0.0  # ... in this share of the epochs, the first ones: progressive resizing, far less work
    validate_every: int = 5  # epochs
    precision: str = "auto"
    fast: bool = True  # on a CPU: the same sums in ways of their own; False: as PyTorch has them, for comparison
    seed: int = 20260303
    fold: int = 0  # of the data's splits, where they have several


@dataclass
class Painting:
    """The section `painting` of a recipe: how label maps become images. Probabilities are per patch."""

    structures: list[list[int]]  # for each label of the model, from 1 on: its numbers in the label map
    alike: list[list[int]] = field(default_factory=list)  # numbers that share their grey, such as left and right
    stripped: list[int] = field(default_factory=list)  # first and last number of what a skull stripping removes
    stripped_probability: float = 0.25
    rotation: float = 20.0  # degrees, about each axis
    scale: list[float] = field(default_factory=lambda: [0.8, 1.2])
    shift: float = 0.25  # of the patch, along each axis
    deformation: float = 0.0  # mm: how far a smooth displacement moves its knots at most (standard deviation)
    cut_probability: float = 0.3  # a side of the patch is outside the field of view
    empty_probability: float = 0.3  # the background is exactly 0


@dataclass
class Strokes:
    """The section `strokes` of a recipe: a network that segments what strokes mean, in any image. Shares are of scenes."""

    left_out: list[str] = field(default_factory=list)  # data sets, by the names of their folders
    left_out_labels: list[str] = field(default_factory=list)  # labels with such a word in their name, in any set
    pseudo_share: float = 0.25  # the object is a supervoxel or a region of like values
    merged_share: float = 0.1  # it is several labels together
    part_share: float = 0.3  # it is one connected part of a label
    started_share: float = 0.3  # the first stroke corrects a mask
    continued_share: float = 0.7  # of rounds that another one follows
    most_rounds: int = 8
    closer_share: float = 0.3  # of rounds after which the network looks at the border of its answer at twice the scale
    stretch: float = 1.3  # voxel sizes are multiplied by up to this, or divided by it
    rotation: float = 25.0  # degrees, about each axis
    rotation_probability: float = 0.3
    thick_probability: float = 0.15  # slices are taken together
    blur_probability: float = 0.15
    window_probability: float = 0.25
    curve_probability: float = 0.35
    field_probability: float = 0.25
    inverted_share: float = 0.15
    noise: float = 0.3  # largest, in deviations of the image
    noise_probability: float = 0.4
    validation_scenes: int = 32
    validation_rounds: int = 5


@dataclass
class Recipe:
    """``model`` and ``network`` hold the entries of model.json that are known before training (see `model_package`)."""

    model: dict
    network: dict
    augmentation: Augmentation = field(default_factory=Augmentation)
    fitting: Fitting = field(default_factory=Fitting)
    painting: Painting | None = None  # where images are painted from label maps
    strokes: Strokes | None = None  # where a simulated person strokes objects of any kind

    @classmethod
    def from_dict(cls, content: dict) -> Recipe:
        """Raises RecipeError for missing or unknown entries."""
        if not isinstance(content, dict):
            raise RecipeError("The recipe should be a YAML mapping with 'model' and 'network'.")
        unknown = set(content) - {entry.name for entry in fields(cls)}
        missing = {"model", "network"} - set(content)
        if unknown or missing:
            raise RecipeError(f"The recipe has unknown entries {sorted(unknown)} or lacks {sorted(missing)}.")
        recipe = cls(
            model=dict(content["model"]),
            network=dict(content["network"]),
            augmentation=section(Augmentation, content.get("augmentation")),
            fitting=section(Fitting, content.get("fitting")),
            painting=section(Painting, content["painting"]) if content.get("painting") else None,
            strokes=section(Strokes, content["strokes"]) if content.get("strokes") else None,
        )
        recipe.check()
        return recipe

    @classmethod
    def read(cls, path: str | os.PathLike) -> Recipe:
        """Read a recipe file. Raises RecipeError with the file's name."""
        path = Path(path)
        load = json.loads if path.suffix == ".json" else yaml.safe_load  # which takes JSON's 1e-05 for a text
        try:
            return cls.from_dict(load(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, yaml.YAMLError, RecipeError, KeyError, TypeError) as error:
            raise RecipeError(f"The recipe '{path}' cannot be used: {error}") from error

    def check(self) -> None:
        """Raise RecipeError for settings that contradict each other."""
        for key in ("id", "dimension", "channels", "labels", "patch_size", "intensity"):
            if key not in self.model:
                raise RecipeError(f"'model' lacks '{key}'.")
        if self.fitting.optimizer not in ("adamw", "sgd"):
            raise RecipeError(f"The optimizer should be adamw or sgd, not '{self.fitting.optimizer}'.")
        if self.fitting.schedule not in ("poly", "cosine"):
            raise RecipeError(f"The schedule should be poly or cosine, not '{self.fitting.schedule}'.")
        if self.augmentation.outside not in ("border", "reflection"):
            raise RecipeError(f"'outside' should be border or reflection, not '{self.augmentation.outside}'.")
        dropout = self.augmentation.channel_dropout
        if dropout and len(dropout) != len(self.model["channels"]):
            raise RecipeError(
                f"channel_dropout should hold {len(self.model['channels'])} probabilities, one a channel."
            )
        if not (0 < self.fitting.early_scale <= 1 and 0 <= self.fitting.early_share < 1):
            raise RecipeError("early_scale should be above 0 and at most 1, early_share at least 0 and below 1.")
        if not isinstance(self.fitting.fold, int) or self.fitting.fold < 0:
            raise RecipeError("fold should be a whole number from 0.")
        if self.painting and len(self.painting.structures) != len(self.model["labels"]):
            raise RecipeError(f"'structures' should hold a list for each of the {len(self.model['labels'])} labels.")
        if bool(self.strokes) != bool(self.model.get("prompt")):
            raise RecipeError("'strokes' and the model's 'prompt' belong together: one of them is missing.")
        if len(self.model["patch_size"]) != self.model["dimension"]:
            raise RecipeError("patch_size should hold one number per dimension.")

    def check_package(self) -> None:
        """Raise RecipeError where no model package could come of it: better before the training than after it."""
        weights = {"file": "weights.safetensors", "sha256": "0" * 64}  # what they will be says nothing about the recipe
        try:
            check_description({"schema": SCHEMA, **self.model, "network": self.network_arguments, "weights": weights})
        except PackageError as error:
            raise RecipeError(
                f"No model package can come of this recipe. {error.message}", "Correct the recipe."
            ) from error

    def to_dict(self) -> dict:
        return asdict(self)

    @property
    def network_arguments(self) -> dict:
        """Keyword arguments of `prosma.unet.ProSMAUNet` for inference; what follows from the model is filled in."""
        return {
            "spatial_dims": self.model["dimension"],
            "in_channels": len(self.model["channels"]) + len(self.model.get("prompt", {}).get("channels", ())),
            "out_channels": len(self.model["labels"]) + 1,
            **self.network,
        }


def section(kind: type, content: dict | None):
    """An Augmentation, Fitting, Painting or Strokes from its part of the recipe. Raises RecipeError for unknown entries."""
    unknown = set(content or {}) - {entry.name for entry in fields(kind)}
    if unknown:
        raise RecipeError(f"'{kind.__name__.lower()}' has unknown entries: {', '.join(sorted(unknown))}.")
    return kind(**(content or {}))
