"""The logits of each bundled model on a fixed image, kept in Testing/engine/golden: they must not move.

    python Testing/golden_forward.py [MODEL ...]

computes them anew, for all bundled models or those named: after a model was trained again, or after a change that is meant
to change what networks compute. They are computed in float64, where sums come out alike on every processor to 12 digits,
and kept in float32.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from prosma.package import ModelPackage, bundled_models_folder
from prosma.package.weights import load_network

GOLDEN = Path(__file__).parent / "engine" / "golden"
SHAPES = {2: (64, 96), 3: (32, 32, 16)}
BLOCK = 4  # voxels along each axis that have one value, so that there are borders and even parts
STEPS = {2: 13, 3: 37}  # every so many voxels are kept; mean and mean square of all voxels stand for the others


def bundled() -> list[ModelPackage]:
    """The model packages in the extension, by name."""
    return [ModelPackage.open(folder) for folder in sorted(bundled_models_folder().iterdir()) if folder.is_dir()]


def fixed_image(package: ModelPackage) -> torch.Tensor:
    """(1, channels, *S) float32: random blocks. RandomState, unlike numpy's newer generators, never changes its numbers."""
    shape = SHAPES[package.dimension]
    channels = package.model["network"]["in_channels"]
    image = np.random.RandomState(0).standard_normal((channels, *(n // BLOCK for n in shape)))
    for axis in range(1, image.ndim):
        image = image.repeat(BLOCK, axis)
    return torch.from_numpy(image)[None].float()


def kept(logits: torch.Tensor) -> dict[str, np.ndarray]:
    """Of logits (1, classes, *S): those of evenly spread voxels (classes, n), and mean and mean square of each class."""
    flat = logits[0].flatten(1).double()
    chosen = flat[:, :: STEPS[logits.ndim - 2]]
    return {"logits": chosen.numpy(), "mean": flat.mean(1).numpy(), "mean_square": flat.square().mean(1).numpy()}


def main(names: list[str]) -> int:
    GOLDEN.mkdir(exist_ok=True)
    for package in bundled():
        if not names or package.id in names:
            with torch.inference_mode():
                found = kept(load_network(package).double()(fixed_image(package).double()))
            arrays = {name: array.astype(np.float32) for name, array in found.items()}
            np.savez_compressed(GOLDEN / f"{package.id}.npz", weights=np.array(package.sha256), **arrays)
            print(package.id, *arrays["logits"].shape)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
