"""What can be asked of a run, checked against the model before any work starts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..image.geometry import ImageError
from .sliding_window import LARGEST_OVERLAP

VOLUMES = ("probabilities", "uncertainty", "gate_map")  # that a run can give beside the labels


@dataclass(frozen=True)
class Options:
    """Options of a run.

    Args:
        outputs: names in VOLUMES.
        overlap: share that neighbouring tiles have in common; None: by their size.
        mirror: whether to average over the flips that the model was trained with (test-time augmentation).
        shortcuts: whether to look only at the box of what is not empty.
        force: whether to run on an image whose grid or content does not suit the model.
        all_parts: whether parts of a structure that lie apart stay, where the model says that it is one piece.
        refuse_unfit: whether an image whose content does not suit is refused at all; else a notice says it.
    """

    outputs: tuple[str, ...] = ()
    overlap: float | None = None
    mirror: bool = False
    shortcuts: bool = True
    force: bool = False
    refuse_unfit: bool = True
    all_parts: bool = False

    @property
    def refuses_unfit(self) -> bool:
        return self.refuse_unfit and not self.force

    @property
    def gate_map(self) -> bool:
        return "gate_map" in self.outputs

    def flips(self, axes: Sequence[int]) -> list[tuple[int, ...]]:
        """The flips to average over, none of them first: of the model's mirror axes, if any, all combinations."""
        axes = axes if self.mirror else ()
        return [flip for n in range(len(axes) + 1) for flip in itertools.combinations(axes, n)]

    def checked(self, mirror_axes: Sequence[int], has_gates: bool) -> tuple[Options, list[str]]:
        """The options that this model can follow, and notices about those that it cannot.

        ImageError for a value that means nothing.
        """
        overlap = self.overlap
        if overlap is not None and not (isinstance(overlap, (int, float)) and 0 <= overlap <= LARGEST_OVERLAP):
            raise ImageError(f"The overlap of tiles is a share from 0 to {LARGEST_OVERLAP}, not {overlap!r}.")
        unknown = [name for name in self.outputs if name not in VOLUMES]
        if unknown:
            raise ImageError(f"There is no output '{unknown[0]}'.", f"Choose among {', '.join(VOLUMES)}.")
        options, notices = self, []
        if self.mirror and not mirror_axes:
            notices.append("The model was not trained with flips, so mirroring was left out.")
        if self.gate_map and not has_gates:
            options = replace(self, outputs=tuple(name for name in self.outputs if name != "gate_map"))
            notices.append("The model has no proximal gates, so there is no gate map.")
        return options, notices
