"""Rounds of measurements for `prosma benchmark`: whole volumes beside other tools, and growth."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable

from ..fast.allocator import TIDIED_EVERY
from ..inference.devices import import_torch
from . import CLASSES, SHAPE
from .process import measured_apart
from .subjects import WARM_TILES

TIMED_TILES = WARM_TILES + TIDIED_EVERY  # of each run, unless --full: one round of what our tiles do in turn
SIZES = ((64, 64, 64), (96, 96, 96), (128, 128, 96), (192, 192, 128), SHAPE)
LARGE = (512, 512, 300)
MANY_CLASSES = 25
ROWS = (
    ("ProSMA, defaults", {"subject": "prosma"}),
    ("ProSMA, defaults, gate on the skip's grid", {"subject": "prosma", "field_grid": "skip"}),
    ("ProSMA, bfloat16", {"subject": "prosma", "half": True}),
    ("MONAI, as shipped", {"subject": "monai", "overlap": 0.5}),
    ("MONAI, allocator fixed", {"subject": "monai", "overlap": 0.5, "allocator": True}),
    ("nnU-Net, as shipped", {"subject": "nnunet", "overlap": 0.5}),
)
MORE_ROWS = (
    ("ProSMA, whole volume, overlap 0.5", {"subject": "prosma", "overlap": 0.5, "shortcuts": False}),
    ("MONAI, allocator fixed, overlap 0.25", {"subject": "monai", "overlap": 0.25, "allocator": True}),
    ("nnU-Net, allocator fixed", {"subject": "nnunet", "overlap": 0.5, "allocator": True}),
)


def measure_whole(
    shape,
    classes: int,
    threads: int,
    python: str,
    full: bool,
    tell: Callable[[str], None],
    extra: dict | None = None,
    rounds: int = 1,
) -> list[dict]:
    """Each of ROWS, with `full` of MORE_ROWS too, in turn for each round; medians over the rounds.

    The first of ROWS runs again before each other tool: `..._ratio` is how many times as long as just before that a row
    took. `extra` goes into every task. Half precision is left out where the processor does not compute in it.
    """
    from ..fast.network import computes_in_half

    half = computes_in_half(import_torch().device("cpu"))
    chosen = [row for row in ((*ROWS, *MORE_ROWS) if full else ROWS) if half or "half" not in row[1]]
    common = {"shape": shape, "classes": classes, "timed_tiles": None if full else TIMED_TILES, **(extra or {})}

    def measured(name: str, task: dict) -> dict:
        tell(f"whole volume: {name}")
        interpreter = sys.executable if task["subject"] == "prosma" else python
        return {"name": name, **measured_apart([{**task, **common}], threads, interpreter)[0]}

    found = []
    for _ in range(rounds):
        rows: list[dict] = []
        for name, task in chosen:
            if not rows or task["subject"] != "prosma":
                ours = measured(*ROWS[0])
            row = measured(name, task) if rows else ours
            rows.append({**row, **ratios(row, ours)})
        found.append(rows)
    return [median_row(rows) for rows in zip(*found, strict=True)]


def ratios(row: dict, ours: dict) -> dict:
    """How many times as long as ours a row took, for both clocks; nothing where one has no result."""
    if "problem" in row or "problem" in ours:
        return {}
    return {f"{clock}_ratio": row[f"{clock}_seconds"] / ours[f"{clock}_seconds"] for clock in ("processor", "wall")}


def median_row(rows) -> dict:
    """The medians of what differs between rows of one name; the problem where one has any."""
    if problems := [row for row in rows if "problem" in row]:
        return problems[0]
    varying = [name for name in rows[0] if name.endswith(("_seconds", "_network", "_rest", "_bytes", "_ratio"))]
    return {**rows[0], **{name: statistics.median(row[name] for row in rows) for name in varying}}


def growth_cases() -> list[tuple[tuple[int, int, int], int]]:
    """Growing volumes with as many classes, a growing number of classes, and the largest of both."""
    sizes = [(size, CLASSES) for size in (*SIZES, LARGE)]
    return [*sizes, *[((128, 128, 96), classes) for classes in (2, 15, MANY_CLASSES)], (LARGE, MANY_CLASSES)]


def measure_growth(cases, threads: int, full: bool, extra: dict | None = None) -> list[dict]:
    """Our own path for each (shape, classes), each in a process of its own."""
    common = {"subject": "prosma", "timed_tiles": None if full else TIMED_TILES, **(extra or {})}
    tasks = [{**common, "shape": shape, "classes": classes} for shape, classes in cases]
    return [measured_apart([task], threads)[0] for task in tasks]
