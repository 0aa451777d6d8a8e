"""A picture of structures that no model knows, segmented by strokes: a row an object, a column a stroke.

    python Testing/benchmarks/stroke_pictures.py DATA --package PACKAGE --label SET:LABEL [...] -o Resources/strokes.png

DATA is a data set or a folder of them, as for strokes.py, whose scribbler paints. Of each label the first case of the split
is shown, in the slice of the first stroke: the reference as a white line, the mask in blue, strokes in green (belongs) and
red (does not). The picture of the README:

    python Testing/benchmarks/stroke_pictures.py ../shared/data --package ProSMASegmentation/Resources/Models/strokes-3d \\
        --label promise12_lowres:prostate sts_petct:tumour -o Resources/strokes.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from simulated_user import dice
from strokes import PEOPLE, State, Subject, from_nothing, prompting

from prosma import Segmenter
from prosma.image.box import Box, slices, smallest

STROKES = 3
INCHES = 2.4  # of a picture's side
MARGIN = 0.6  # of the shown part around the object, in lengths of the object
COLOURS = {"mask": (0.2, 0.5, 1.0), True: (0.2, 0.9, 0.3), False: (1.0, 0.25, 0.2)}


def states_of(subject: Subject, tool, strokes: int) -> list[State]:
    """What was said and the mask after each stroke of the scribbler, the first with nothing said."""
    nothing = np.zeros(subject.mask.shape, bool)
    states = [State(subject.mask, nothing, nothing)]
    for number in range(strokes):
        state = State(states[-1].mask, states[-1].add, states[-1].remove)
        state.newest, state.adds = PEOPLE["scribbler"](subject, state.mask, np.random.default_rng((0, number)))
        mask = tool(subject, state)
        add, remove = state.with_newest()
        states.append(State(mask, add, remove))
    return states


def view_of(subject: Subject, first_stroke: np.ndarray) -> tuple[int, int, Box]:
    """The axis that one looks along, the number of the slice, and the box of the volume that is shown of it."""
    stroked = smallest(first_stroke)
    object_ = smallest(subject.truth)
    assert stroked is not None and object_ is not None
    axis = int(np.argmin([high - low for low, high in stroked]))
    number = sum(stroked[axis]) // 2
    edge = max((high - low) * s for (low, high), s in zip(object_, subject.spacing, strict=True)) * (1 + 2 * MARGIN)
    box = []
    for n, ((low, high), step, size) in enumerate(zip(object_, subject.spacing, subject.truth.shape, strict=True)):
        half = edge / step / 2
        middle = (low + high) / 2
        shown = (max(0, int(middle - half)), min(size, int(middle + half) + 1))
        box.append((number, number + 1) if n == axis else shown)
    return axis, number, tuple(box)


def draw(axes, subject: Subject, state: State, view: tuple[int, int, Box]) -> None:
    """One picture: the slice, the reference, the mask and all strokes on it."""
    axis, _, box = view
    place = slices(box)

    def flat(array: np.ndarray) -> np.ndarray:
        return np.take(array[place], 0, axis).T[::-1]

    seen = flat(subject.image.array[0]).astype(np.float32)
    low, high = np.percentile(seen, (0.5, 99.5))
    shown = np.repeat(np.clip((seen - low) / max(1e-6, high - low), 0, 1)[..., None], 3, -1)
    for voxels, colour, opacity in (
        (flat(state.mask), COLOURS["mask"], 0.4),
        (flat(state.add), COLOURS[True], 1.0),
        (flat(state.remove), COLOURS[False], 1.0),
    ):
        shown[voxels] = (1 - opacity) * shown[voxels] + opacity * np.array(colour)
    across, down = (s for n, s in enumerate(subject.spacing) if n != axis)
    axes.imshow(shown, aspect=down / across, interpolation="nearest")
    if (truth := flat(subject.truth)).any() and not truth.all():
        axes.contour(truth, [0.5], colors="white", linewidths=0.8)
    axes.set_xticks([])
    axes.set_yticks([])


def figure_of(subjects: list[Subject], tool, strokes: int = STROKES) -> Figure:
    """Rows of pictures: before the first stroke, and after each."""
    figure = Figure((INCHES * (1 + strokes), INCHES * len(subjects)), layout="constrained")
    grid = figure.subplots(len(subjects), 1 + strokes, squeeze=False)
    for row, subject in zip(grid, subjects, strict=True):
        states = states_of(subject, tool, strokes)
        view = view_of(subject, states[1].add | states[1].remove)
        for number, (axes, state) in enumerate(zip(row, states, strict=True)):
            draw(axes, subject, state, view)
            said = f"{number} stroke{'s' if number > 1 else ''}: Dice {dice(state.mask, subject.truth):.2f}"
            axes.set_title(said if number else subject.name.partition(" ")[2], fontsize=9)
    return figure


def chosen(data: str, split: str, labels: list[str], dimension: int) -> list[Subject]:
    """The first object of each SET:LABEL. ValueError for one that there is not."""
    every = list(from_nothing(data, split, 1, dimension))
    found = []
    for wanted in labels:
        name, _, label = wanted.partition(":")
        match = [s for s in every if s.set == name and s.name.partition(" ")[2] == label]
        if not match:
            known = ", ".join(sorted({f"{s.set}:{s.name.partition(' ')[2]}" for s in every}))
            raise ValueError(f"There is no {wanted}; there are: {known}.")
        found.append(match[0])
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--package", required=True, help="a promptable package")
    parser.add_argument("--label", nargs="+", required=True, metavar="SET:LABEL")
    parser.add_argument("--split", default="test")
    parser.add_argument("--dimension", type=int, choices=(2, 3), default=3)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    subjects = chosen(options.data, options.split, options.label, options.dimension)
    tool = prompting(Segmenter(options.package, "cpu"), False)
    figure_of(subjects, tool).savefig(options.output, dpi=100)
    print(f"Written: {options.output}")


if __name__ == "__main__":
    main()
