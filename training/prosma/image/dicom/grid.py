"""From the places of a volume's images to one regular grid, or the refusal that says which file does not fit.

Places are checked in mm at the corners of every image, so that a position, a direction and a pixel size that are wrong
are all seen. Matrices are LPS here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..geometry import ImageError
from .files import EXPORT_AGAIN
from .frames import Frame, named
from .pieces import ROUNDING, TENTH, sideways, smallest_step, sorted_along, tolerance, where

MOST_SLICES = 8  # times as many slices as there are images


@dataclass(frozen=True)
class Grid:
    """`frames` in the order of K; `ijk_to_lps` 4 x 4 in mm.

    `places`: where the frames lie along K in slices of the grid, None where frame k is slice k. `slices`: their number.
    """

    frames: tuple[Frame, ...]
    ijk_to_lps: np.ndarray
    slices: int
    places: np.ndarray | None = None
    notices: tuple[str, ...] = ()


def grid_of(frames: tuple[Frame, ...], name: str) -> Grid:
    """The grid of images of one size and nearly one direction. ImageError where there is none."""
    if not frames[0].is_placed:
        return guessed_grid(frames, name)
    if len(frames) == 1:
        return single_grid(frames[0], name)
    axes = frames[len(frames) // 2].directions
    ordered, along = sorted_along(list(frames))
    refuse_shear(ordered, along, name)
    steps = np.diff(along)
    step = float(steps.mean())
    even = along[0] + step * np.arange(len(frames))
    places, slices = None, len(frames)
    notices: tuple[str, ...] = ()
    if np.abs(along - even).max() > TENTH * step:
        step = max(smallest_step(steps), float(along[-1] - along[0]) / (MOST_SLICES * len(frames)))
        places = (along - along[0]) / step
        slices = round(float(places[-1])) + 1
        notices = (
            f"The slices of {name} lie {steps.min():.2f} to {steps.max():.2f} mm apart; they were resampled to "
            f"{slices} slices {step:.2f} mm apart, so between distant ones there is nothing but interpolation.",
        )
    frames, normal = tuple(ordered), np.cross(*axes)
    matrix = matrix_of(frames[0], axes, normal * step)
    notices += check_corners(frames, matrix, along if places is not None else None, name)
    return Grid(frames, matrix, slices, places, notices)


def matrix_of(first: Frame, axes: np.ndarray, step: np.ndarray) -> np.ndarray:
    """IJK to LPS, 4 x 4."""
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 1] = axes[0] * first.pixel[0], axes[1] * first.pixel[1]
    matrix[:3, 2] = step
    matrix[:3, 3] = first.origin
    return matrix


def single_grid(frame: Frame, name: str) -> Grid:
    """One slice: its thickness is the size along K."""
    axes = frame.directions
    notices: tuple[str, ...] = ()
    if frame.thickness is None and frame.is_placed:
        notices = (f"{name} is one slice and tells no thickness; it is counted as 1 mm.",)
    matrix = matrix_of(frame, axes, np.cross(*axes) * (frame.thickness or 1.0))
    return Grid((frame,), matrix, 1, None, notices)


def guessed_grid(frames: tuple[Frame, ...], name: str) -> Grid:
    """Images without places: one picture, or slices in the order of SliceLocation or else of their numbers."""
    flat = np.eye(2, 3)
    if len(frames) == 1:
        matrix = np.diag([*frames[0].pixel, frames[0].thickness or 1.0, 1.0])
        return Grid(frames, matrix, 1)
    told = [frame.attributes.number("SliceLocation") for frame in frames]
    locations = [location for location in told if location is not None]
    distances = np.array([np.nan])
    by = "numbers (InstanceNumber)"
    if len(locations) == len(frames):
        order = np.argsort(locations, kind="stable")
        frames, distances = tuple(frames[n] for n in order), np.diff(np.sort(locations))
        by = "SliceLocation"
    usual: float | None = float(np.median(distances))
    if not usual or not usual > 0 or np.abs(distances - usual).max() > TENTH * usual:
        usual, by = (
            frames[0].attributes.number("SpacingBetweenSlices") or frames[0].thickness,
            "numbers (InstanceNumber)",
        )
    if not usual:
        raise ImageError(
            f"The slices of {name} tell neither their places ({named('ImagePositionPatient')}, "
            f"{named('ImageOrientationPatient')}) nor their distance.",
            "Export the series again from the archive or the scanner, with its geometry.",
        )
    usual = abs(usual)
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([flat[0] * frames[0].pixel[0], flat[1] * frames[0].pixel[1], [0, 0, usual]], axis=1)
    notice = (
        f"The slices of {name} carry no places: their order by {by}, their distance of {usual:.2f} mm and which side "
        "is left, front and top are guesses."
    )
    return Grid(frames, matrix, len(frames), None, (notice,))


def refuse_shear(frames: list[Frame], along: np.ndarray, name: str) -> None:
    """ImageError where images are shifted sideways against each other, as with a tilted CT gantry."""
    shifts = sideways(frames)
    off = np.linalg.norm(shifts - np.median(shifts, axis=0), axis=1)
    if off.max() > tolerance(frames[0], float(np.median(np.diff(along)))):
        raise ImageError(
            f"{name} is sheared: its slices are shifted sideways, by {np.linalg.norm(np.ptp(shifts, axis=0)):.1f} mm in "
            "all, as by a tilted CT gantry.",
            "Convert it with dcm2niix and segment the file that it calls ..._Tilt_1 (right to about a pixel).",
        )


def check_corners(frames: tuple[Frame, ...], matrix: np.ndarray, along, name: str) -> tuple[str, ...]:
    """ImageError where a corner of an image lies far from its place in the grid; a notice where it is off a little.

    `along`: places along the normal where slices are resampled, which then are no error.
    """
    first = frames[0]
    corners = np.array([[i, j] for i in (0, first.columns - 1) for j in (0, first.rows - 1)], float)
    step = matrix[:3, 2]
    errors = np.empty(len(frames))
    for k, frame in enumerate(frames):
        shift = k if along is None else (along[k] - along[0]) / np.linalg.norm(step)
        own = frame.origin + (corners * frame.pixel) @ frame.directions
        errors[k] = np.linalg.norm(own - (matrix[:3, 3] + corners @ matrix[:3, :2].T + shift * step), axis=1).max()
    worst = int(np.argmax(errors))
    if errors[worst] > 2 * tolerance(first, float(np.linalg.norm(step))):
        raise ImageError(
            f"{where(frames[worst])} lies up to {errors[worst]:.2f} mm from its place among the slices of {name} "
            f"({named('ImageOrientationPatient')}, {named('PixelSpacing')}).",
            "Take that file out of the folder if it is no part of the volume; else " + EXPORT_AGAIN.lower(),
        )
    if errors[worst] > ROUNDING:
        return (f"The slices of {name} lie up to {errors[worst]:.2f} mm from an even grid ({len(frames)} slices).",)
    return ()
