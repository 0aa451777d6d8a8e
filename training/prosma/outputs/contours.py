"""Outlines of masks as closed polygons along the edges of the pixels: what lies inside is exactly the mask.

A hole is joined to the outline around it by a seam of no width (keyhole technique, DICOM PS3.3 C.8.8.6.3), so that each
connected part is one polygon, which every reader fills as it is. Parts that touch at a corner only are two. Needs numpy
alone.
"""

from __future__ import annotations

from functools import partial

import numpy as np

Point = tuple[int, int]
Edges = dict[Point, list[Point]]  # from a corner of pixels to those that edges lead to


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """One polygon (points, 2) for each part of a mask (I, J), in indices: pixel (i, j) reaches from i - 0.5 to i + 0.5.

    >>> outlines(np.array([[True, True]]))[0].tolist()
    [[-0.5, -0.5], [0.5, -0.5], [0.5, 1.5], [-0.5, 1.5]]
    """
    edges = boundary(mask)
    for hole in (loop for loop in loops_of(edges) if area(loop) < 0):
        join(edges, hole)
    return [np.array(corners(loop)) - 0.5 for loop in loops_of(edges)]


def boundary(mask: np.ndarray) -> Edges:
    """All edges between mask and background, directed so that the mask lies on the right (x along I, y along J, down)."""
    padded = np.pad(mask, 1).astype(np.int8)
    edges: Edges = {}
    across = np.diff(padded, axis=1)[1:-1]  # [i, y]: 1 where an edge's lower side is mask, -1 where its upper side is
    for i, y in np.argwhere(across).tolist():
        start, end = ((i, y), (i + 1, y)) if across[i, y] > 0 else ((i + 1, y), (i, y))
        edges.setdefault(start, []).append(end)
    along = np.diff(padded, axis=0)[:, 1:-1]  # [x, j]
    for x, j in np.argwhere(along).tolist():
        start, end = ((x, j + 1), (x, j)) if along[x, j] > 0 else ((x, j), (x, j + 1))
        edges.setdefault(start, []).append(end)
    return edges


def loops_of(edges: Edges) -> list[list[Point]]:
    """The closed walks that all edges make up; at a fork the sharpest turn to the right is taken."""
    unused = dict.fromkeys((start, end) for start, ends in edges.items() for end in ends)
    loops = []
    while unused:
        loop: list[Point] = []
        edge = next(iter(unused))
        while edge in unused:
            del unused[edge]
            loop.append(edge[0])
            edge = edge[1], min(edges[edge[1]], key=partial(turn, edge))
        loops.append(loop)
    return loops


def turn(edge: tuple[Point, Point], end: Point) -> int:
    """How far to the left the way from an edge to `end` turns: 0 to the right, 1 straight on, 2 to the left, 3 back."""
    (x0, y0), (x1, y1) = edge
    ahead, aside = (x1 - x0, y1 - y0), (y0 - y1, x1 - x0)  # a step on, a step to the right
    way = end[0] - x1, end[1] - y1
    return [aside, ahead, (-aside[0], -aside[1]), (-ahead[0], -ahead[1])].index(way)


def area(loop: list[Point]) -> int:
    """Twice the area of a loop; negative where it goes around a hole."""
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(loop, [*loop[1:], loop[0]], strict=True))


def join(edges: Edges, hole: list[Point]) -> None:
    """Add a seam, there and back, from the leftmost corner of a hole to the next outline on its left."""
    here = min(hole)
    while True:
        there = here[0] - 1, here[1]
        reached = there in edges
        edges.setdefault(there, []).append(here)
        edges.setdefault(here, []).append(there)
        if reached:
            return
        here = there


def corners(loop: list[Point]) -> list[Point]:
    """The points of a loop at which it turns."""
    around = zip([loop[-1], *loop[:-1]], loop, [*loop[1:], loop[0]], strict=True)
    return [here for before, here, after in around if turn((before, here), after) != 1]
