"""How an edited segment is recognised: by a digest of the voxels that ProSMA wrote, kept as the tag `ProSMA.fingerprint`.

Whoever would write over a segment or learn from it computes the digest of the present voxels and asks `same_fingerprint`;
what differs was edited, and an edit is never overwritten. Slicer's side computes it slab by slab in its event loop
(Results/FingerprintSteps.py), files and command line at once. Needs numpy alone.
"""

from __future__ import annotations

import hashlib

import numpy as np

from .label_runs import runs_by_value

TOLERANCE_MM = 0.02  # between two places that count as the same: file formats round the geometry


class Fingerprints:
    """Texts that tell whether the voxels of segments are still the ones that were written, computed slab by slab.

    A text does not depend on how the voxels are stored (extent, label value, layer), so it survives saving and loading. It
    is a digest of the runs of voxels along the rows (k, j, i of its begin, seen from the first one, and length), and the
    place of the first voxel in mm.
    """

    def __init__(self) -> None:
        self._first: dict[int, np.ndarray] = {}  # k, j, i of each label's first voxel
        self._digests: dict = {}
        self._slices = 0

    def add(self, slab: np.ndarray) -> None:
        """The next slices of a label map, (K, J, I)."""
        for value, runs in runs_by_value(slab, self._slices):
            self.add_runs(value, runs)
        self._slices += len(slab)

    def add_runs(self, value: int, runs: np.ndarray) -> None:
        """The next runs of one label, see `runs_by_value`; they are changed."""
        first = self._first.setdefault(value, runs[0, :3].copy())
        runs[:, :3] -= first
        self._digests.setdefault(value, hashlib.blake2b(digest_size=16)).update(runs.tobytes())

    def texts(self, ijk_to_ras: np.ndarray, start=(0, 0, 0)) -> dict[int, str]:
        """{label: its text}, for the labels above 0 that occurred. `start`: i, j, k of the label map's first voxel."""
        texts = {}
        for value, digest in self._digests.items():
            index = [int(n) + shift for n, shift in zip(self._first[value][::-1], start, strict=True)]
            place = (np.asarray(ijk_to_ras) @ [*index, 1.0])[:3]
            texts[value] = f"{digest.hexdigest()}@{','.join(f'{mm:.4f}' for mm in place)}"
        return texts


def same_fingerprint(one: str, other: str) -> bool:
    """Whether two fingerprints are of the same voxels at the same place."""
    (digest, _, place), (other_digest, _, other_place) = one.partition("@"), other.partition("@")
    if digest != other_digest or bool(place) != bool(other_place):
        return False
    pairs = zip(place.split(","), other_place.split(","), strict=True) if place else ()
    return all(abs(float(a) - float(b)) <= TOLERANCE_MM for a, b in pairs)
