"""Small volumes with structure, for tests that need no anatomy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from prosma.image.geometry import Image


def smooth_volume(shape=(24, 20, 18), channels=1, seed=0, matrix=None) -> Image:
    """An int16 volume with structure, so that a network's answer varies."""
    random = np.random.default_rng(seed)
    coarse = random.normal(size=(channels, *(-(-n // 4) for n in shape)))
    array = coarse.repeat(4, 1).repeat(4, 2).repeat(4, 3)[:, : shape[0], : shape[1], : shape[2]]
    array = (400 * array + 20 * random.normal(size=array.shape)).astype(np.int16)
    return Image(np.ascontiguousarray(array), np.diag([1.0, 1.2, 1.5, 1.0]) if matrix is None else matrix)


def smooth_shades(shape, channels=1, seed=0) -> Image:
    """The same in shades of 8 bits."""
    image = smooth_volume(shape, channels, seed)
    return replace(image, array=np.clip(image.array / 8 + 128, 0, 255).astype(np.uint8))


META_IMAGE = {  # header of a MetaImage
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "Offset": "10 20 30",
    "ElementSpacing": "2 1.5 3",
    "DimSize": "6 5 4",
    "ElementType": "MET_SHORT",
}


def write_meta_image(path, data: bytes, file: str = "LOCAL", **entries: str | None):
    """A MetaImage of 6 x 5 x 4 voxels with such entries in its header; those of None are left out."""
    fields = {key: value for key, value in {**META_IMAGE, **entries}.items() if value is not None}
    header = "".join(f"{key} = {value}\n" for key, value in fields.items()) + f"ElementDataFile = {file}\n"
    path.write_bytes(header.encode() + data)
    return path
