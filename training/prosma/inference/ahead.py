"""What a run does before its network starts, done elsewhere: in a batch while the network is at work on the case before."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Sequence
from dataclasses import replace

from ..errors import UserFacingError
from ..image.geometry import Image, plan_canonical, usable_image
from ..package import ModelPackage
from .encoder_features import central_patch, image_features
from .finder import shows_more
from .fit import FitStatistics
from .pipeline import FLOAT32_BYTES, Prepared, prepare

# Bytes of an image, and of what becomes of it on the model's grid: over larger ones the network takes so long that nothing is
# gained, and there they would lie in memory beside those of the case before.
MOST = 32 << 20


def prepared_ahead(
    image: Image, model: str | os.PathLike[str], roi: Sequence[Sequence[int]] | None = None, force: bool = False
) -> Prepared | None:
    """What `Segmenter.segment` of the model in this folder takes as `prepared`, for the same image, `roi` and `force`.

    None where the run has to begin by itself: with a large image, one in which the model's finder looks first, or one that
    cannot be segmented, which the run then says.
    """
    package, statistics = _opened(os.fspath(model))
    try:
        image = usable_image(image)
        if is_large(image, package) or (package.has_finder and shows_more(image, package)):
            return None
        prepared = prepare(image, package, roi, force=force)
    except UserFacingError:
        return None
    if isinstance(statistics, str) or len(statistics.size) != package.dimension:
        return prepared
    middle = central_patch(prepared.array, package.model["patch_size"], statistics.size)
    return replace(prepared, image_features=image_features(middle))


def is_large(image: Image, package: ModelPackage) -> bool:
    """Whether the image has more than MOST bytes, as it is or on the model's grid."""
    on_grid = FLOAT32_BYTES * len(package.channels) * math.prod(plan_canonical(image, package).size)
    return max(image.array.nbytes, on_grid) > MOST


@functools.lru_cache(maxsize=1)
def _opened(model: str) -> tuple[ModelPackage, FitStatistics | str]:
    package = ModelPackage.open(model)
    return package, FitStatistics.of_package(package.fit_path, package.sha256)
