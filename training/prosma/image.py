"""Everything about images in one place to import from: reading, geometry there and back, intensities, writing."""

from .geometry import (
    Canonical,
    Image,
    ImageError,
    check_matrix,
    checked_image,
    plan_canonical,
    stack_channels,
    to_canonical,
)
from .intensity import normalise, pad_to_patch
from .reading import read_image, read_labels
from .writing import write_labels

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
    "write_labels",
]
