"""Everything about images in one place to import from: reading, geometry there and back, intensities, writing."""

from prosma.geometry import (
    Canonical,
    Image,
    ImageError,
    check_matrix,
    checked_image,
    plan_canonical,
    stack_channels,
    to_canonical,
)
from prosma.intensity import normalise, pad_to_patch
from prosma.reading import read_image, read_labels

__all__ = [
    "Canonical",
    "Image",
    "ImageError",
    "check_matrix",
    "checked_image",
    "normalise",
    "pad_to_patch",
    "plan_canonical",
    "read_image",
    "read_labels",
    "stack_channels",
    "to_canonical",
]
