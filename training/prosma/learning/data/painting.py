"""Synthetic images, painted from label maps (domain randomisation): a network learns places, not contrasts.

Each structure gets a random grey value.

Source: Billot et al., SynthSeg: Segmentation of brain MRI scans of any contrast and resolution without retraining, Medical
Image Analysis 86 (2023) 102789. A painted patch is a function of its random state alone: which head, where, which greys,
which field, noise and resolution.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from monai.transforms import RandomizableTransform
from torch import Tensor
from torch.nn import functional as F

from ...image.geometry import plan_canonical
from ...image.intensity import normalise, pad_to_patch
from ...image.reading import read_labels
from ..recipe import Painting
from .dataset import DatasetError, read_splits

FINE = 2  # the label map is painted this much finer than the model's grid, so that borders are partly one, partly the other
FIELD_KNOTS = 4  # of the smooth field along each axis
DEFORMATION_KNOTS = 6  # of the smooth displacement along each axis: some 40 mm apart in a head
HALF = 0.4  # of a voxel of the model's grid that a structure fills counts as this structure


def label_maps(folder: str | os.PathLike, part: str) -> list[dict]:
    """The label maps of one split of a folder that holds `labelsTr` alone: ``structures`` (I, J, K) in RAS, ``spacing`` mm.

    Raises DatasetError for a split or a file that is not there.
    """
    base = Path(folder)
    files = {path.name.removesuffix(".nii.gz"): path for path in sorted((base / "labelsTr").glob("*.nii.gz"))}
    if not files:
        raise DatasetError(f"'{base}' holds no label maps: labelsTr/NAME.nii.gz should be there.")
    splits = read_splits(base, files, 0)
    if not splits.get(part):
        raise DatasetError(f"'{base}' has no case for '{part}'. Name some in splits.json.")
    found = []
    for name in splits[part]:
        labels = read_labels(files[name])
        canonical = plan_canonical(labels, {"orientation": "RAS", "spacing": None, "dimension": 3})
        structures = canonical.view(labels.array[0])
        spacing = np.linalg.norm(labels.ijk_to_ras[:3, :3], axis=0)[list(canonical.axes)]
        found.append({"structures": torch.from_numpy(np.ascontiguousarray(structures)), "spacing": spacing, "id": name})
    return found


class PaintedPatch(RandomizableTransform):
    """From ``structures`` (I, J, K) and ``spacing`` to a painted ``image`` (1, *patch), normalised, and its ``label``.

    `patch`: voxels of the model's grid of `spacing` mm; `intensity`: the model's rule. Each call draws a new view of the head
    (place, turn, size, side), new greys, field, noise and resolution.
    """

    def __init__(self, painting: Painting, patch: Sequence[int], spacing: Sequence[float], intensity: dict) -> None:
        RandomizableTransform.__init__(self)
        self.painting, self.patch, self.spacing, self.intensity = painting, tuple(patch), tuple(spacing), intensity

    def __call__(self, case: dict) -> dict:
        structures = self.view_of(case["structures"], case["spacing"])
        if self.painting.stripped and self.R.uniform() < self.painting.stripped_probability:
            first, last = self.painting.stripped
            structures = torch.where((structures >= first) & (structures <= last), 0, structures)
        image = self.painted(structures)
        label = torch.zeros(self.patch, dtype=torch.uint8)
        for value, numbers in enumerate(self.painting.structures, start=1):
            filled = torch.isin(structures, torch.tensor(numbers)).float()[None, None]
            label[F.avg_pool3d(filled, FINE)[0, 0] > HALF] = value
        image = self.scanned(F.avg_pool3d(image[None, None], FINE)[0, 0])
        box = self.field_of_view()
        array = normalise(image[box][None].numpy(), self.intensity)
        array, _ = pad_to_patch(array, self.patch)  # as inference pads what is smaller than the patch
        values, _ = pad_to_patch(label[box][None].numpy(), self.patch)
        return {"image": torch.from_numpy(array), "label": torch.from_numpy(values)}

    def view_of(self, structures: Tensor, spacing: np.ndarray) -> Tensor:
        """The label map on a grid FINE times as fine as the patch, turned, scaled, shifted and perhaps mirrored."""
        painting, R = self.painting, self.R
        angles = np.deg2rad(R.uniform(-painting.rotation, painting.rotation, 3))
        matrix = rotation(angles) * R.uniform(painting.scale[0], painting.scale[1], 3)
        if R.uniform() < 0.5:  # a mirrored head is a head; its numbers are exchanged side by side
            matrix[0] *= -1
            structures = self.exchanged(structures)
        reach = np.array(self.patch) * self.spacing
        centre = (np.array(structures.shape) - 1) / 2 + R.uniform(-1, 1, 3) * painting.shift * reach / spacing
        axes = [
            torch.from_numpy((np.arange(n * FINE) - (n * FINE - 1) / 2) * step / FINE).float()
            for n, step in zip(self.patch, self.spacing, strict=True)
        ]
        index, inside = [], torch.ones([len(axis) for axis in axes], dtype=torch.bool)
        moved = self.displacement(inside.shape) if painting.deformation else torch.zeros(3, 1, 1, 1)
        for row in range(3):
            weights = matrix[row] / spacing[row]
            place = axes[0][:, None, None] * weights[0] + axes[1][None, :, None] * weights[1]
            place = place + axes[2][None, None, :] * weights[2] + centre[row] + moved[row] / spacing[row]
            place = place.round_().long()
            inside &= (place >= 0) & (place < structures.shape[row])
            index.append(place.clamp_(0, structures.shape[row] - 1))
        return torch.where(inside, structures[index[0], index[1], index[2]].long(), 0)

    def displacement(self, shape: Sequence[int]) -> Tensor:
        """How far each place is moved, mm (3, *shape): smooth, so that heads differ in form too."""
        spread = self.R.uniform(0, self.painting.deformation)
        knots = torch.from_numpy(self.R.normal(0, spread, (1, 3, *[DEFORMATION_KNOTS] * 3))).float()
        return F.interpolate(knots, size=list(shape), mode="trilinear", align_corners=True)[0]

    def exchanged(self, structures: Tensor) -> Tensor:
        """The label map with the two numbers of each pair in `alike` exchanged."""
        table = torch.arange(int(structures.max()) + 1)
        for pair in self.painting.alike:
            if len(pair) == 2 and max(pair) < len(table):
                table[pair[0]], table[pair[1]] = pair[1], pair[0]
        return table[structures.long()]

    def painted(self, structures: Tensor) -> Tensor:
        """A grey value for each structure, with a texture of its own."""
        count = int(structures.max()) + 1
        grey, texture = self.R.uniform(0, 1, count), self.R.uniform(0.01, 0.12, count)
        for numbers in self.painting.alike:
            known = [number for number in numbers if number < count]
            for number in known[1:]:
                grey[number], texture[number] = grey[known[0]], texture[known[0]]
        if self.R.uniform() < self.painting.empty_probability:
            grey[0], texture[0] = 0.0, 0.0
        elif self.R.uniform() < 0.8:  # air is dark in nearly all images
            grey[0] = self.R.uniform(0, 0.1)
        noise = torch.randn(structures.shape, generator=self.torch_random())
        mean, spread = torch.from_numpy(grey).float(), torch.from_numpy(texture).float()
        return mean[structures] + spread[structures] * noise

    def scanned(self, image: Tensor) -> Tensor:
        """What a scanner does: thick slices or a coarse grid, coil field, gamma, noise."""
        if self.R.uniform() < 0.5:
            factors = np.where(self.R.uniform(size=3) < 0.5, 1, self.R.uniform(0.4, 1, 3))
            coarse = [max(4, round(size * factor)) for size, factor in zip(image.shape, factors, strict=True)]
            lost = F.interpolate(image[None, None], size=coarse, mode="area")
            image = F.interpolate(lost, size=image.shape, mode="trilinear")[0, 0]
        knots = torch.from_numpy(self.R.normal(0, self.R.uniform(0, 0.35), (1, 1, *[FIELD_KNOTS] * 3))).float()
        image = image * F.interpolate(knots, size=image.shape, mode="trilinear", align_corners=True)[0, 0].exp()
        low, high = image.min(), image.max()
        share = ((image - low) / (high - low).clamp_min(1e-6)) ** float(np.exp(self.R.normal(0, 0.35)))
        return share + self.R.uniform(0, 0.06) * torch.randn(image.shape, generator=self.torch_random())

    def field_of_view(self) -> tuple[slice, ...]:
        """The part of the patch that the scanner saw: at any side it may end early."""
        box = []
        for size in self.patch:
            width = int(self.R.uniform(0, 0.35) * size) if self.R.uniform() < self.painting.cut_probability else 0
            start = width if self.R.uniform() < 0.5 else 0
            box.append(slice(start, start + size - width))
        return tuple(box)

    def torch_random(self) -> torch.Generator:
        return torch.Generator().manual_seed(int(self.R.randint(2**31 - 1)))


def rotation(angles: np.ndarray) -> np.ndarray:
    """The 3 x 3 matrix that turns about the first, the second and the third axis by `angles` (radians)."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        turn, (a, b) = np.eye(3), [n for n in range(3) if n != axis]
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


class PaintedCases:
    """Painted images that never change, for validation: `times` of each label map."""

    def __init__(self, maps: list[dict], paint: PaintedPatch, times: int) -> None:
        self.maps, self.paint, self.times = maps, paint, times

    def __len__(self) -> int:
        return len(self.maps) * self.times

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < len(self):
            raise IndexError(index)
        self.paint.set_random_state(7919 + index)
        return self.paint(self.maps[index // self.times])
