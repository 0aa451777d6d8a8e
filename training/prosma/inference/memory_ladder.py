"""Out-of-memory fallbacks, one below the other: the same work with less at once, and a sentence that says so."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from ..errors import MEMORY_SIGNS, EngineError

Result = TypeVar("Result")

LARGEST_BATCH = 8  # slices that a 2D model sees at once
MOST_HALVINGS = 3  # of a tile's longest side


@dataclass(frozen=True)
class Effort:
    """How a run uses memory: device, half precision, slices at once (2D), halvings of the tile (3D).

    `scarce`: memory has not sufficed before, so nothing is kept for later.
    """

    device: str
    half: bool = False
    batch: int = LARGEST_BATCH
    halvings: int = 0
    scarce: bool = False

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
            notice = f"{place} did not suffice for several slices at once: they were taken singly."
            return replace(self, batch=1, scarce=True), notice
        if not self.half and (on_card or cpu_can_halve):
            return replace(self, half=True, scarce=True), f"{place} did not suffice: half precision was used."
        if on_card:
            return Effort("cpu", scarce=True), f"{place} did not suffice: this run was done on the CPU."
        smaller = self.tile(patch, multiple, self.halvings + 1)
        if len(patch) == 2 or self.halvings == MOST_HALVINGS or smaller == self.tile(patch, multiple):
            return None
        size = " x ".join(map(str, smaller))
        return (
            replace(self, halvings=self.halvings + 1, scarce=True),
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


def with_fallbacks(
    attempt: Callable[[Effort], Result],
    effort: Effort,
    lighter: Callable[[Effort], tuple[Effort, str] | None],
    take_up: Callable[[Effort, str], None],
) -> Result:
    """`attempt`, again with less as long as memory does not suffice.

    Args:
        attempt: does the work in a way; MemoryError or an error that `means_out_of_memory` says that it needs less.
        effort: the first way.
        lighter: the next way and a notice about it, or None after the last.
        take_up: told of these before the next attempt.

    Raises EngineError out_of_memory after the last way.
    """
    while True:
        try:
            return attempt(effort)
        except (MemoryError, RuntimeError) as error:
            if not means_out_of_memory(error):
                raise
            step = lighter(effort)
            if step is None:
                raise too_little_memory() from error
        effort, notice = step
        take_up(effort, notice)  # not among the exceptions, which keep the arrays of the failed attempt alive


@contextlib.contextmanager
def told_when_out_of_memory() -> Iterator[None]:
    """Turns a lack of memory, inside, into an EngineError."""
    try:
        yield
    except MemoryError as error:
        raise too_little_memory() from error


def too_little_memory() -> EngineError:
    return EngineError(
        "out_of_memory",
        "The computer's memory did not suffice for this volume.",
        "Limit the work to an ROI, ask for fewer outputs or close other programs.",
    )


def physical_memory() -> int:
    """Bytes of memory that the computer has; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def means_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the memory of the computer or of a card did not suffice."""
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in MEMORY_SIGNS)
