"""Where a stack of images at different places falls apart: wide gaps, and images beside the line of the others."""

from __future__ import annotations

import numpy as np

from .frames import Frame

TENTH = 0.1  # of the slice distance (or of a pixel, if that is more): how far an image may lie from its place
ROUNDING = 0.01  # mm: places that differ less are the same
WIDEST = 10.5  # mm between slices that may be filled by interpolation
THICKER = 1.5  # times the usual distance: gaps up to here are filled however wide


def where(frame: Frame) -> str:
    """The file of an image, and which of its frames it is."""
    return f"frame {frame.index + 1} of {frame.file.name}" if frame.frames > 1 else frame.file.name


def sorted_along(frames: list[Frame]) -> tuple[list[Frame], np.ndarray]:
    """Images by their place along the normal, and these places in mm."""
    normal = np.cross(*frames[len(frames) // 2].directions)
    along = np.array([frame.origin @ normal for frame in frames])
    order = np.argsort(along, kind="stable")
    return [frames[n] for n in order], along[order]


def tolerance(frame: Frame, step: float) -> float:
    """Mm by which an image may lie beside its place."""
    return max(TENTH * step, TENTH * max(frame.pixel), ROUNDING)


def smallest_step(steps: np.ndarray) -> float:
    """The smallest of several distances, as the mean of those that are that distance but for rounding."""
    return float(steps[steps <= steps.min() * (1 + TENTH)].mean())


def sideways(frames: list[Frame]) -> np.ndarray:
    """How far images lie sideways from the first, in mm along rows and columns: (images, 2)."""
    axes = frames[len(frames) // 2].directions
    return np.array([axes @ (frame.origin - frames[0].origin) for frame in frames])


def is_line(frames: list[Frame], along: np.ndarray) -> bool:
    """Whether images lie on one line, straight or slanted."""
    shifts, line = sideways(frames), np.stack([along, np.ones_like(along)], axis=1)
    rest = shifts - line @ np.linalg.lstsq(line, shifts, rcond=None)[0]
    return bool(np.linalg.norm(rest, axis=1).max() <= tolerance(frames[0], float(np.median(np.diff(along)))))


def pieces_of(frames: list[Frame]) -> list[tuple[str, list[Frame]]]:
    """The pieces of a stack, each with a text that tells it from the others; one without a text where it is whole.

    A stack on a slanted line (a tilted gantry) stays whole, and is refused as such later.
    """
    main, along = sorted_along(frames)
    if len(main) < 2:
        return [("", main)]
    pieces = []
    off = np.linalg.norm(sideways(main) - np.median(sideways(main), axis=0), axis=1)
    beside = off > tolerance(main[0], float(np.median(np.diff(along))))
    if beside.any():
        if is_line(main, along):
            return [("", main)]
        if beside.sum() <= max(1, len(main) // 10):
            for frame, mm, out in zip(main, off, beside, strict=True):
                if out:
                    pieces.append((f"{where(frame)} that lies {mm:.2f} mm beside the others", [frame]))
            main, along = [frame for frame, out in zip(main, beside, strict=True) if not out], along[~beside]
    steps = np.diff(along)
    wide = np.flatnonzero((steps > WIDEST) & (steps > THICKER * smallest_step(steps)))
    starts = [0, *(int(n) + 1 for n in wide)]
    runs = [main[start:end] for start, end in zip(starts, [*starts[1:], len(main)], strict=True)]
    texts = [""] + [f"beyond a gap of {steps[n]:.1f} mm after {where(main[n])}" for n in wide]
    return [*zip(texts, runs, strict=True), *pieces]
