"""Surfaces of labels as meshes in patient coordinates: LPS in mm, as Slicer writes its models and as their first line says.

Surface nets (Gibson, MICCAI 1998): a point in each cell of eight voxels that the border runs through, at the mean of the
places where it crosses the cell's edges; a face of four points around each crossing. Closed, and with its faces' front
outside. Needs numpy alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..image.box import slices, smallest
from ..image.geometry import LPS_TO_RAS, Image

SPACE = "SPACE=LPS"  # in the first line, where Slicer looks for it
STL_FACE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("unused", "<u2")])
STL_HEADER = 80


@dataclass(frozen=True)
class Surface:
    """`points` (points, 3) LPS in mm; `faces` (faces, 3) of their numbers, counter-clockwise seen from outside."""

    points: np.ndarray
    faces: np.ndarray


def surface_of(mask: np.ndarray, ijk_to_ras: np.ndarray) -> Surface:
    """The surface of a mask (I, J, K) on a grid; without points where the mask is empty."""
    box = smallest(mask)
    if box is None:
        return Surface(np.zeros((0, 3)), np.zeros((0, 3), np.int64))
    inside = np.pad(mask[slices(box)], 1)
    points, number = cell_points(inside)
    quads = np.concatenate([quads_across(inside, number, axis) for axis in range(3)])
    matrix = LPS_TO_RAS @ ijk_to_ras
    index = points + [low - 1 for low, _ in box]
    if np.linalg.det(matrix[:3, :3]) < 0:
        quads = quads[:, ::-1]
    return Surface(index @ matrix[:3, :3].T + matrix[:3, 3], np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]))


def cell_points(inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points of all cells that the border runs through, in indices, and the number of each cell's point (else -1)."""
    shape = tuple(n - 1 for n in inside.shape)
    total, crossings = np.zeros((*shape, 3), np.float32), np.zeros(shape, np.uint8)
    for axis in range(3):
        others = [n for n in range(3) if n != axis]
        for corner in itertools.product((0, 1), repeat=2):
            start = [0, 0, 0]
            for n, step in zip(others, corner, strict=True):
                start[n] = step
            low = part(inside, start, shape)
            high = part(inside, [s + (n == axis) for n, s in enumerate(start)], shape)
            crossed = low != high
            crossings += crossed
            middle = np.array(start, np.float32)
            middle[axis] += 0.5
            total += crossed[..., None] * middle
    cells = np.argwhere(crossings)
    number = np.full(shape, -1, np.int64)
    number[tuple(cells.T)] = np.arange(len(cells))
    seen = crossings > 0
    return cells + total[seen] / crossings[seen][:, None], number


def part(array: np.ndarray, start: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """The part of an array from an index on."""
    return array[tuple(slice(first, first + n) for first, n in zip(start, shape, strict=True))]


def quads_across(inside: np.ndarray, number: np.ndarray, axis: int) -> np.ndarray:
    """Faces of four cells (faces, 4) around each pair of neighbours along an axis of which one is inside."""
    first, second = (n for n in range(3) if n != axis)
    low = np.moveaxis(inside, axis, 0)
    at = np.argwhere(low[:-1] != low[1:])
    leaving = low[tuple(at.T)]
    cell = np.empty((len(at), 3), np.int64)
    cell[:, axis], cell[:, first], cell[:, second] = at.T
    corners = []
    for back in ((1, 1), (0, 1), (0, 0), (1, 0)):  # counter-clockwise around the axis, where first, second follow it
        place = cell.copy()
        place[:, first] -= back[0]
        place[:, second] -= back[1]
        corners.append(number[tuple(place.T)])
    quads = np.stack(corners, axis=1)
    outwards = leaving if axis != 1 else ~leaving  # (K, I) follow J; first and second are I and K
    quads[~outwards] = quads[~outwards][:, ::-1]
    return quads


def write_obj(path: Path, labels: np.ndarray, image: Image, described: Sequence[dict]) -> None:
    """A Wavefront file with an object for each label, by its name; each point has the label's colour."""
    lines, first = [f"# {SPACE}", "# millimetres; written by ProSMA"], 1
    for label in described:
        surface = surface_of(labels == label["value"], image.ijk_to_ras)
        colour = " ".join(f"{channel / 255:.4f}" for channel in label["color"])
        lines.append(f"o {'_'.join(label['name'].split())}")
        lines += [f"v {x:.4f} {y:.4f} {z:.4f} {colour}" for x, y, z in surface.points.tolist()]
        lines += [f"f {a} {b} {c}" for a, b, c in (surface.faces + first).tolist()]
        first += len(surface.points)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_stl(path: Path, labels: np.ndarray, image: Image, described: Sequence[dict]) -> None:
    """A binary stereolithography file with the surfaces of all labels; the format knows neither names nor colours."""
    surfaces = [surface_of(labels == label["value"], image.ijk_to_ras) for label in described]
    corners = np.concatenate([surface.points[surface.faces].reshape(-1, 3, 3) for surface in surfaces])
    faces = np.zeros(len(corners), STL_FACE)
    faces["corners"] = corners
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    faces["normal"] = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    header = f"ProSMA, millimetres {SPACE}".ljust(STL_HEADER).encode()
    path.write_bytes(header + np.uint32(len(faces)).tobytes() + faces.tobytes())
