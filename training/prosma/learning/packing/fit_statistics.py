"""The statistics of a model's training images that its package keeps (`inference.fit`), made from labelled folders."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np

from ...image.box import Box, grown, smallest, whole
from ...image.geometry import Image
from ...inference.encoder_features import image_features_count
from ...inference.fit import LEAST_CASES, FitStatistics, keeps_scale
from ...inference.pipeline import prepare
from ...inference.segmenter import Segmenter
from ..data.dataset import IGNORED, LabelledFolder, read_case
from .faulty_copies import Strength, faulty_copies

SIZED_CASES = 20  # whose size is looked at
MOST_CASES = 200  # of a split, evenly spread over it: more change nothing
MOST_COPIED = 100  # training cases of which copies with faults are made

Progress = Callable[[int, int, str], None]


def fit_statistics(segmenter: Segmenter, folder: LabelledFolder, progress: Progress | None = None) -> bytes | None:
    """The content of `fit.npz` for a model trained on the folder's `train` split; thresholds hang on its `val` split too.

    None where there are fewer than LEAST_CASES training cases or no validation case: then nothing could be told.
    """
    train, val = (spread_out(folder.splits.get(name, [])) for name in ("train", "val"))
    if len(train) < LEAST_CASES or not val:
        return None
    size = usual_size(segmenter, folder, train)
    model, split, copied = segmenter.package.model, len(train), set(train[:: -(-len(train) // MOST_COPIED)])
    features, copies = case_features(segmenter, folder, [*train, *val], size, copied, progress)
    copies = {fault: of_case[:split] for fault, of_case in copies.items()}
    own = image_features_count(model) if keeps_scale(model["intensity"]) else 0
    weights = segmenter.package.sha256
    return FitStatistics.of_cases(features[:split], features[split:], weights, size, own, copies).to_bytes()


def spread_out(ids: Sequence[str], most: int = MOST_CASES) -> list[str]:
    """At most so many of them, evenly spread."""
    count = min(len(ids), most)
    return [ids[n * len(ids) // count] for n in range(count)]


def usual_size(segmenter: Segmenter, folder: LabelledFolder, ids: Sequence[str]) -> list[int]:
    """The median size of some of the cases on the model's grid, along the axes of a patch."""
    axes, sizes = segmenter.package.dimension, []
    for name in ids[:: max(1, len(ids) // SIZED_CASES)]:
        image, _ = read_case(folder.cases[name], segmenter.package.model)
        sizes.append(prepare(image, segmenter.package, force=True).array.shape[1 : 1 + axes])
    return [int(n) for n in np.median(sizes, axis=0)]


def case_features(
    segmenter: Segmenter,
    folder: LabelledFolder,
    ids: Sequence[str],
    size: Sequence[int],
    copied: Collection[str],
    progress: Progress | None = None,
) -> tuple[np.ndarray, dict[str, list[np.ndarray]]]:
    """The features of cases, (cases, versions, D), of each whole image and of a volume in a box around its labels, too; and
    for each fault and case, (rows, D) of the copies that have it, which are made of those `copied`.
    """
    random, found, copies = np.random.default_rng(0), [], []
    model = segmenter.package.model

    def features(image: Image) -> np.ndarray:
        return segmenter.features(prepare(image, segmenter.package, force=True), size)

    for number, name in enumerate(ids, start=1):
        image, labels = read_case(folder.cases[name], model)
        boxes = [whole(image.shape), drawn_box(labels, random)][: 2 if model["dimension"] == 3 else 1]
        found.append([features(image.cropped(box)) for box in boxes])
        faulty = faulty_copies(image, labels, model, random, Strength.drawn(random)) if name in copied else ()
        copies.append([(fault, features(copy)) for fault, copy in faulty])
        if progress is not None:
            progress(number, len(ids), name)
    every = np.array(found)
    none = np.zeros((0, every.shape[-1]))
    by_fault = {
        fault: [np.array([row for other, row in rows if other == fault] or none) for rows in copies]
        for fault in sorted({fault for rows in copies for fault, _ in rows})
    }
    return every, by_fault


def drawn_box(labels: np.ndarray, random: np.random.Generator) -> Box:
    """A random box around all labels of (I, J, K), anything from tight to the whole image; this where there are none."""
    inner = smallest((labels > 0) & (labels != IGNORED))
    if inner is None:
        return whole(labels.shape)
    sides = zip(grown(inner, (1, 1, 1), labels.shape), labels.shape, strict=True)
    return tuple((int(random.integers(0, low + 1)), int(random.integers(high, n + 1))) for (low, high), n in sides)
