"""What to do when memory does not suffice: the same work with less at once, and a sentence that says so."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import MEMORY_SIGNS

LARGEST_BATCH = 8  # slices that a 2D model sees at once
MOST_HALVINGS = 3  # of a tile's longest side


@dataclass(frozen=True)
class Effort:
    """How a run uses memory: device, half precision, slices at once (2D), halvings of the tile (3D)."""

    device: str
    half: bool = False
    batch: int = LARGEST_BATCH
    halvings: int = 0

    def lighter(
        self, patch: Sequence[int], multiple: Sequence[int], cpu_can_halve: bool = False
    ) -> tuple[Effort, str] | None:
        """The next best way that needs less memory and what to tell people about it; None where there is none.

        ``cpu_can_halve``: whether the CPU has half precision and does not use it anyway.

        Fewer slices at once, half precision and the CPU give the same labels up to rounding. Smaller tiles do not, as
        instance norm depends on what a tile holds, so they come last: with one side halved the bundled models lost 0.01 to
        0.17 of Dice on validation cases, with two sides 0.07 to 0.43.
        """
        on_card = self.device != "cpu"
        place = f"The memory of {self.device}" if on_card else "The computer's memory"
        if len(patch) == 2 and self.batch > 1:
            return replace(
                self, batch=1
            ), f"{place} did not suffice for several slices at once: they were taken singly."
        if not self.half and (on_card or cpu_can_halve):
            return replace(self, half=True), f"{place} did not suffice: half precision was used."
        if on_card:
            return Effort("cpu"), f"{place} did not suffice: this run was done on the CPU."
        smaller = self.tile(patch, multiple, self.halvings + 1)
        if len(patch) == 2 or self.halvings == MOST_HALVINGS or smaller == self.tile(patch, multiple):
            return None
        size = " x ".join(map(str, smaller))
        return (
            replace(self, halvings=self.halvings + 1),
            f"{place} did not suffice: smaller tiles ({size} voxels) were used than the model was trained with. The result "
            "can be much worse: check it, or free memory and segment again.",
        )

    def tile(self, patch: Sequence[int], multiple: Sequence[int], halvings: int | None = None) -> tuple[int, ...]:
        """`patch` with its longest side halved so many times, in multiples of `multiple` and not below twice that."""
        sides = list(patch)
        for _ in range(self.halvings if halvings is None else halvings):
            n = max(range(len(sides)), key=lambda axis: (sides[axis] // (2 * multiple[axis]) > 1, sides[axis]))
            sides[n] = min(sides[n], max(2, -(-sides[n] // (2 * multiple[n]))) * multiple[n])
        return tuple(sides)


def physical_memory() -> int:
    """Bytes of memory that the computer has; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def means_out_of_memory(error: Exception) -> bool:
    """Whether an error means that the memory of the computer or of a card did not suffice."""
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in MEMORY_SIGNS)
