"""Whether a picture shows a model's structure at all, for models whose structure may be absent.

The log odds are a linear function of the mean and deviation of each channel behind each stage of the encoder, over the whole
picture and its mirror image. The weights come from ridge regression over training pictures with and without the structure
(`learning.packing.presence_statistics`); a package keeps them in `presence.npz`. Computed in numpy; only `stage_features`,
which is given a network, imports torch.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..files import check_unfolding, read_regular

LARGEST_FILE, LARGEST_CONTENT = 1 << 18, 1 << 22  # bytes
FARTHEST = 5.0  # deviations at which a feature is cut off, so that none decides alone


@dataclass(frozen=True)
class PresenceStatistics:
    """What a package keeps. `weights`: sha256 of the network's. `centre`, `scale`, `coefficients`: (D,); a feature adds
    (feature - centre) / scale x coefficient to the log odds `intercept`. Below `threshold` the structure counts as absent.
    """

    weights: str
    centre: np.ndarray
    scale: np.ndarray
    coefficients: np.ndarray
    intercept: float
    threshold: float

    def presence(self, features: np.ndarray) -> float | None:
        """0 to 1, of features (versions, D) of one picture; None where they are another network's."""
        if features.shape[1:] != self.centre.shape:
            return None
        away = np.clip((features - self.centre) / self.scale, -FARTHEST, FARTHEST)
        odds = float((away @ self.coefficients).mean()) + self.intercept
        return float(1 / (1 + np.exp(-np.clip(odds, -50, 50))))

    def to_bytes(self) -> bytes:
        """As the content of `presence.npz`, in half precision what needs no more."""
        stream = io.BytesIO()
        arrays = {
            "weights": np.array(self.weights),
            "centre": self.centre.astype(np.float16),
            "scale": self.scale.astype(np.float16),
            "coefficients": self.coefficients.astype(np.float32),
            "numbers": np.array([self.intercept, self.threshold]),
        }
        written: Any = np.savez_compressed
        written(stream, **arrays)
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> PresenceStatistics:
        """The opposite of `to_bytes`; ValueError for anything else."""
        try:
            check_unfolding(content, LARGEST_CONTENT)
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                weights = str(file["weights"])
                centre, scale, coefficients = (
                    np.asarray(file[name], np.float64) for name in ("centre", "scale", "coefficients")
                )
                intercept, threshold = map(float, file["numbers"])
        except ValueError:
            raise
        except Exception as error:  # a damaged archive fails in many ways
            raise ValueError(f"it is no such file ({error})") from error
        if len({each.shape for each in (centre, scale, coefficients)}) > 1 or centre.ndim != 1:
            raise ValueError("the sizes of its arrays do not fit each other")
        numbers = np.concatenate([centre, scale, coefficients, [intercept, threshold]])
        if not np.isfinite(numbers).all() or (scale <= 0).any():
            raise ValueError("it holds numbers that cannot be right")
        return cls(weights, centre, scale, coefficients, intercept, threshold)

    @classmethod
    def of_package(cls, path: Path, weights: str) -> PresenceStatistics | None:
        """Those in a package's file for the weights with this sha256; None where there are none that can be used."""
        try:
            found = cls.from_bytes(read_regular(path, LARGEST_FILE))
        except (OSError, ValueError):
            return None
        return found if found.weights == weights else None

    def notice(self, names: Sequence[str], presence: float) -> str:
        """What a person is told where the structure counts as absent."""
        return (
            f"No {' or '.join(names)} found: presence {presence:.2f}, below {self.threshold:.2f}. What was marked all the "
            "same is left out; a run that is forced keeps it."
        )


def stage_features(network: Any, device: str, picture: np.ndarray, mirrored: Sequence[int]) -> np.ndarray:
    """Of a normalised picture (C, X, Y) and, where `mirrored` names axes, its mirror image along the first: (versions, D).

    `network` is a 2D ProSMAUNet on `device`, or its fast twin.
    """
    import torch

    from ..network.unet import pad_to_multiple

    versions = [picture, np.flip(picture, 1 + mirrored[0])] if mirrored else [picture]
    found = []
    with torch.inference_mode():
        for version in versions:
            x = torch.from_numpy(np.ascontiguousarray(version))[None].to(device)
            x = pad_to_multiple(x.contiguous(memory_format=torch.channels_last), plain(network).divisor)
            moments = []
            for block in network.encoder:
                x = block(x)
                variance, mean = torch.var_mean(x[0].float().flatten(1), dim=1, correction=0)
                moments += [mean, variance.sqrt()]
            found.append(torch.cat(moments).cpu().numpy().astype(np.float64))
    return np.array(found)


def plain(network: Any) -> Any:
    """The ProSMAUNet that a fast twin was made of; a ProSMAUNet itself."""
    return getattr(network, "plain", network)
