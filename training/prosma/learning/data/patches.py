"""Training patches: canonical cases in memory, MONAI transforms, and a numbering that makes every patch reproducible.

A patch is a function of (seed, its number) alone: which case, where, which random changes. Workers, resuming and the
number of devices do not matter, because a sampler hands out the numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from monai.data import set_track_meta
from monai.transforms import (
    Compose,
    RandAdjustContrastd,
    RandAffined,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandomizableTransform,
    RandScaleIntensityd,
    RandScaleIntensityFixedMeand,
    RandSimulateLowResolutiond,
    SpatialPadd,
    Transform,
)
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader, Dataset, Sampler

from ...image.geometry import to_canonical
from ...image.intensity import normalise, rule_for
from ..recipe import Recipe
from .dataset import IGNORED, Case, DatasetError, read_case

# Images without any label are wanted: the network has to learn that there may be nothing.
warnings.filterwarnings("ignore", message="Num foregrounds 0")

# Nobody reads MONAI's metadata here; following them took as long as the transforms (19 against 10 ms a 2D patch).
set_track_meta(False)

SHADING_KNOTS = 3  # along each axis of a patch
READERS = 2  # cases that are read at a time
MARGIN = 1.25  # patches are cut this much larger before they are rotated and scaled


class LoadCanonical(Transform):
    """What the network sees of a case: ``image`` float32 (C, *S), normalised, ``label`` uint8 (1, *S), ``id``.

    Inference prepares images with the same functions. 2D models learn from single images, not from volumes.
    """

    def __init__(self, model: dict) -> None:
        self.model = model

    def __call__(self, case: Case) -> dict:
        image, labels = read_case(case, self.model)
        if self.model["dimension"] == 2 and image.shape[2] > 1:
            raise DatasetError(
                f"Case '{case.id}' is a volume of {image.shape[2]} slices, but the model works on single images. "
                "Save each labelled slice as a case of its own."
            )
        array, canonical = to_canonical(image, self.model)
        array = normalise(array, rule_for(image.array, self.model["intensity"])[0])
        if (labels == IGNORED).all():
            raise DatasetError(f"Case '{case.id}': '{case.labels}' has nothing but ignored voxels. Leave the case out.")
        labels = canonical.bring_labels(labels)[None]
        if self.model["dimension"] == 2:
            array, labels = array[..., 0], labels[..., 0]
        return {
            "image": torch.from_numpy(np.ascontiguousarray(array)),
            "label": torch.from_numpy(np.ascontiguousarray(labels)),
            "id": case.id,
        }


def cached(cases: Sequence[Case], model: dict) -> list[dict]:
    """All cases prepared once and kept in memory, so that a fault is named before training starts.

    Raises DatasetError with the case and the file, when nothing is being read any more: a thread at work while the
    interpreter ends makes the system abort the process.
    """
    load = LoadCanonical(model)
    with ThreadPoolExecutor(READERS) as threads:
        reading = [threads.submit(load, case) for case in cases]
        try:
            return [each.result() for each in reading]
        finally:
            threads.shutdown(cancel_futures=True)


def training_transforms(recipe: Recipe) -> Compose:
    """Pad, cut a patch (some centred on a label), change it at random, on dictionaries from `load_canonical`."""
    settings, patch = recipe.augmentation, recipe.model["patch_size"]
    both, image = ["image", "label"], ["image"]
    rotation = np.deg2rad(np.broadcast_to(settings.rotation, len(patch) if len(patch) == 3 else 1))
    # RandAffine scales by 1 + s
    stretch = (settings.scale[0] - 1, settings.scale[1] - 1)
    share = recipe.fitting.foreground_share
    steps = [
        SpatialPadd(both, patch),
        KnownCentres(),
        RandCropByPosNegLabeld(
            both,
            "label",
            [int(size * MARGIN) for size in patch],
            pos=share,
            neg=1 - share,
            fg_indices_key="foreground",
            bg_indices_key="background",
            allow_smaller=True,
        ),
        RandAffined(
            both,
            spatial_size=patch,
            prob=settings.spatial_probability,
            rotate_range=[float(angle) for angle in rotation],
            shear_range=settings.shear or None,
            scale_range=[stretch] * len(patch),
            mode=("bilinear", "nearest"),
            padding_mode=("border", "zeros") if settings.outside == "border" else settings.outside,
        ),
        *(RandFlipd(both, prob=0.5, spatial_axis=axis) for axis in recipe.model.get("mirror_axes", [])),
        RandGaussianNoised(image, prob=settings.noise_probability, std=settings.noise),
        RandGaussianSmoothd(
            image,
            prob=settings.blur_probability,
            sigma_x=pair(settings.blur),
            sigma_y=pair(settings.blur),
            sigma_z=pair(settings.blur),
        ),
        RandScaleIntensityd(
            image,
            prob=settings.brightness_probability,
            factors=settings.brightness,
            channel_wise=settings.brightness_channelwise,
        ),
        *([Shading(settings.shading, settings.shading_probability)] if settings.shading else []),
        RandScaleIntensityFixedMeand(
            image, prob=settings.contrast_probability, factors=settings.contrast, preserve_range=True
        ),
        RandSimulateLowResolutiond(
            image,
            prob=settings.low_resolution_probability,
            upsample_mode="trilinear" if len(patch) == 3 else "bilinear",
            zoom_range=settings.low_resolution,
        ),
        RandAdjustContrastd(image, prob=settings.gamma_probability, gamma=pair(settings.gamma), retain_stats=True),
        *([ChannelDropout(settings.channel_dropout)] if settings.channel_dropout else []),
    ]
    return Compose(steps)


class Shading(RandomizableTransform):
    """Adds a smooth random field to each channel of ``image`` (C, *S), as coils and scanners do.

    Its values at `SHADING_KNOTS` knots along each axis are uniform within a random strength of at most ``largest``.
    """

    def __init__(self, largest: float, probability: float) -> None:
        RandomizableTransform.__init__(self, probability)
        self.largest = largest

    def __call__(self, case: dict) -> dict:
        image = case["image"]
        self.randomize(None)
        if not self._do_transform:
            return case
        values = self.R.uniform(-1, 1, (1, len(image), *[SHADING_KNOTS] * (image.ndim - 1)))
        knots = torch.as_tensor(values * self.R.uniform(0, self.largest), dtype=image.dtype)
        mode = "trilinear" if image.ndim == 4 else "bilinear"
        field = interpolate(knots, image.shape[1:], mode=mode, align_corners=True)
        return {**case, "image": image + field[0]}


class ChannelDropout(RandomizableTransform):
    """Sets each channel of ``image`` (C, *S) to 0 with a probability of its own."""

    def __init__(self, probabilities: Sequence[float]) -> None:
        RandomizableTransform.__init__(self)
        self.probabilities = probabilities

    def __call__(self, case: dict) -> dict:
        kept = self.R.uniform(size=len(self.probabilities)) >= self.probabilities
        image = case["image"]
        return {**case, "image": image * torch.as_tensor(kept, dtype=image.dtype).reshape(-1, *[1] * (image.ndim - 1))}


def pair(limits: list[float]) -> tuple[float, float]:
    """The lowest and the highest of a range in a recipe."""
    low, high = limits
    return low, high


class KnownCentres(Transform):
    """Where parts of a case are to be ignored: patches are centred on the rest, ``foreground`` or ``background``."""

    def __call__(self, case: dict) -> dict:
        labels = case["label"].flatten()
        if not (labels == IGNORED).any():
            return case
        foreground, background = (labels > 0) & (labels != IGNORED), labels == 0
        return {**case, "foreground": foreground.nonzero()[:, 0], "background": background.nonzero()[:, 0]}


class Patches(Dataset):
    """Patch ``number`` of an endless, reproducible sequence: every case once, in a new order, then again."""

    def __init__(self, cases: Sequence[dict], transforms: Any, seed: int) -> None:
        self.cases = cases
        self.transforms = transforms
        self.seed = seed

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, number: int) -> dict:
        turn, place = divmod(number, len(self.cases))
        index = np.random.default_rng((self.seed, turn)).permutation(len(self.cases))[place]
        self.transforms.set_random_state(int(np.random.default_rng((self.seed, 1, number)).integers(2**31)))
        patch = self.transforms(dict(self.cases[index]))
        patch = patch[0] if isinstance(patch, list) else patch
        return {"image": plain(patch["image"]).float(), "label": plain(patch["label"]).long()}


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """Contiguous, in memory of its own."""
    return torch.as_tensor(np.ascontiguousarray(tensor.detach().cpu().numpy()))


class PatchNumbers(Sampler):
    """Numbers of one epoch's patches for one device; epochs and devices share one sequence without overlap.

    Batch b of ``world`` devices with n patches each holds the same patches as batch b of one device with n * world.
    """

    def __init__(self, iterations: int, batch_size: int, rank: int = 0, world: int = 1) -> None:
        self.count, self.rank, self.world = iterations * batch_size, rank, world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the training loop at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * self.count * self.world
        return iter(range(first + self.rank, first + self.count * self.world, self.world))


def training_loader(
    cases: Sequence[dict], transforms: Transform, recipe: Recipe, rank: int, world: int, workers: int
) -> DataLoader:
    fitting = recipe.fitting
    return DataLoader(
        Patches(cases, transforms, fitting.seed),
        batch_size=fitting.batch_size,
        sampler=PatchNumbers(fitting.iterations, fitting.batch_size, rank, world),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
