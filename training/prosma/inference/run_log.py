"""Progress, notices and timing of one run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ..cancel import never

Progress = Callable[[str, float, "float | None"], None]


@dataclass
class RunLog:
    """What a run tells while it works, and whom it asks whether to go on; `seconds` by what they were spent on."""

    progress: Progress = lambda stage, fraction, seconds_left: None
    cancelled: Callable[[], bool] = never
    notices: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(
        default_factory=lambda: {"total": 0.0, "preparing": 0.0, "fit": 0.0, "network": 0.0}
    )

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Adds the time spent inside to `seconds`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - began

    def tile_progress(self) -> Callable[[int, int], None]:
        """Reports how many tiles of how many are done, and when the rest will be."""
        began = time.perf_counter()

        def report(done: int, total: int) -> None:
            seconds_left = (time.perf_counter() - began) / done * (total - done)
            self.progress("Segmenting", 0.05 + 0.93 * done / total, seconds_left)

        self.progress("Segmenting", 0.05, None)
        return report
