"""Copies of a labelled image with faults that users' images have, for the statistics by which these are known again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ...image.box import Box, smallest
from ...image.geometry import Image
from ...image.intensity import within_range
from ...inference.fit import BESIDE, CLIPPED, INVERTED, NOISE, TURNED
from ..data.dataset import IGNORED

EXCHANGES = {"i and j": (1, 0, 2), "j and k": (0, 2, 1), "i and k": (2, 1, 0)}
LEAST_ROOM = 0.25  # of an axis, beside all labels, for a region that misses them
LEAST_VOXELS = 4  # along that axis
REGIONS_BESIDE = 2  # of a case


@dataclass(frozen=True)
class Strength:
    """Of faults: the deviation of `noise`, in ranges of the values (percentiles 0.5 to 99.5); the percentage of values that
    are `clipped` at each end.
    """

    noise: float = 0.25
    clipped: float = 30.0

    @classmethod
    def drawn(cls, random: np.random.Generator) -> Strength:
        return cls(random.uniform(0.12, 0.35), random.uniform(20, 40))


def faulty_copies(
    image: Image, labels: np.ndarray, model: dict, random: np.random.Generator, strength: Strength
) -> Iterator[tuple[str, Image]]:
    """Names and copies: noise, clipped and inverted values; of volumes also turned headers and regions beside the labels."""
    yield from damaged(image, model, random, strength)
    if model["dimension"] == 3:
        yield from turned(image)
        for _ in range(REGIONS_BESIDE):
            box = box_beside(labels, random)
            if box is not None:
                yield BESIDE, image.cropped(box)


def damaged(image: Image, model: dict, random: np.random.Generator, strength: Strength) -> Iterator[tuple[str, Image]]:
    """Copies with other values, which stay within the range that a model takes."""
    array = image.array.astype(np.float32)
    low, high = np.percentile(array, [0.5, 99.5])
    noisy = array + random.normal(0, strength.noise * (high - low), array.shape).astype(np.float32)
    yield NOISE, replace(image, array=within_range(noisy, image.array, model["intensity"]))
    least, most = np.percentile(array, [strength.clipped, 100 - strength.clipped])
    if least < most:
        yield CLIPPED, replace(image, array=np.clip(array, least, most))
    yield INVERTED, replace(image, array=array.max() + array.min() - array)


def turned(image: Image) -> Iterator[tuple[str, Image]]:
    """Copies whose header is mirrored along an axis, or has two axes exchanged."""
    for axis, letter in enumerate("ijk"):
        matrix = image.ijk_to_ras.copy()
        matrix[:3, axis] *= -1
        yield f"{TURNED}: {letter} mirrored", replace(image, ijk_to_ras=matrix)
    for name, order in EXCHANGES.items():
        matrix = image.ijk_to_ras.copy()
        matrix[:3, :3] = image.ijk_to_ras[:3, order]
        yield f"{TURNED}: {name} exchanged", replace(image, ijk_to_ras=matrix)


def box_beside(labels: np.ndarray, random: np.random.Generator) -> Box | None:
    """A random box of (I, J, K) that holds no label, as large as the room beside them; None where there is too little."""
    inner = smallest((labels > 0) & (labels != IGNORED))
    if inner is None:
        return None
    rooms = [
        (axis, room)
        for axis, (low, high) in enumerate(inner)
        for room in ((0, low), (high, labels.shape[axis]))
        if room[1] - room[0] >= max(LEAST_VOXELS, LEAST_ROOM * labels.shape[axis])
    ]
    if not rooms:
        return None
    along, room = rooms[random.integers(len(rooms))]
    box = []
    for n in labels.shape:
        side = max(min(n, 2), int(n * random.uniform(0.5, 1)))
        start = int(random.integers(0, n - side + 1))
        box.append((start, start + side))
    box[along] = room
    return tuple(box)
