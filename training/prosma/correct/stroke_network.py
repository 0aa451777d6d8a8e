"""The small networks of `refine`: multilayer perceptrons from features of a voxel to log odds, read from refine.npz.

refine.npz is written by Testing/benchmarks/fit_refine.py. It holds float32 arrays `<source>_<dimensions>_matrix_<layer>`
(inputs, outputs) and `..._shift_<layer>` (outputs,), the source being "network" (with the segmentation network's log odds)
or "image" (without), and strings: `features`, the names of the first layer's inputs in their order, `fitted`, the date, and
`commit`, that of the code which fitted them. Needs NumPy alone.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_name("refine.npz")
OF_IMAGE = (
    *("distance", "travelled", "near", "next_to", "depth", "shallow", "share", "share_next_to"),
    *("thickness", "mean_thickness", "stroked", "supported", "supported_next_to", "opposed", "opposed_next_to"),
    *("local_likelihood", "likelihood", "unlike", "unlike_around", "adds", "extent", "reach"),
)
OF_LOG_ODDS = ("log_odds", "log_odds_around", "offset", "offset_next_to", "need")
FEATURES = {"image": OF_IMAGE, "network": OF_IMAGE + OF_LOG_ODDS}  # the columns of each source, in this order

Layers = list[tuple[np.ndarray, np.ndarray]]


@functools.lru_cache(maxsize=1)
def load_networks(path: Path = FILE) -> dict[tuple[str, int], Layers]:
    """(source, dimensions) -> for each layer its matrix and shift.

    Raises RuntimeError where they were fitted to other features than those computed here, or in another order.
    """
    with np.load(path) as stored:
        arrays = dict(stored)
    fitted_to = tuple(map(str, arrays["features"]))
    if fitted_to != FEATURES["network"]:
        raise RuntimeError(
            f"'{path.name}' was fitted to the features {', '.join(fitted_to)}, but these are computed: "
            f"{', '.join(FEATURES['network'])}. Fit it anew with Testing/benchmarks/fit_refine.py."
        )
    networks: dict[tuple[str, int], Layers] = {}
    for source, features in FEATURES.items():
        for dimensions in (2, 3):
            layers = layers_of(arrays, f"{source}_{dimensions}")
            if [len(matrix) for matrix, _ in layers[:1]] != [len(features)]:
                raise RuntimeError(
                    f"'{path.name}' has no network for {source} {dimensions} with {len(features)} inputs."
                )
            networks[source, dimensions] = layers
    return networks


def layers_of(arrays: dict[str, np.ndarray], prefix: str) -> Layers:
    """The layers whose arrays' names begin with `prefix`, from the first to the last."""
    count = sum(name.startswith(f"{prefix}_matrix_") for name in arrays)
    return [(arrays[f"{prefix}_matrix_{n}"], arrays[f"{prefix}_shift_{n}"]) for n in range(count)]


def save_networks(networks: dict[tuple[str, int], Layers], fitted: str, commit: str, path: Path = FILE) -> None:
    """Write a file that `load_networks` reads."""
    arrays: dict[str, Any] = {
        "features": np.array(FEATURES["network"]),
        "fitted": np.array(fitted),
        "commit": np.array(commit),
    }
    for (source, dimensions), layers in networks.items():
        for number, (matrix, shift) in enumerate(layers):
            arrays[f"{source}_{dimensions}_matrix_{number}"] = np.asarray(matrix, np.float32)
            arrays[f"{source}_{dimensions}_shift_{number}"] = np.asarray(shift, np.float32)
    np.savez_compressed(path, **arrays)


def logits(features: np.ndarray, layers: Layers) -> np.ndarray:
    """Log odds (n,) from features (n, inputs): linear layers with ReLU between them."""
    values = features
    for number, (matrix, shift) in enumerate(layers):
        values = np.maximum(values, 0) if number else values
        values = values @ matrix + shift
    return values[:, 0]
