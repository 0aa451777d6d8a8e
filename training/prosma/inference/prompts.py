"""From strokes to a mask with a promptable model, on the image's own grid; `Segmenter.prompt` is the door."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..cancel import cancelled_between_stages, never, stop_if
from ..correct.crop import first_cube, inside
from ..correct.prompt_input import PROMPT_CHANNELS, Layers, Placed, Said, box_around, standardised
from ..correct.prompting import prompted
from ..correct.refine import Refinement
from ..errors import EngineError
from ..fast.allocator import freed_memory_kept
from ..image.box import Box, moved, shape_of, slices, smallest, start_of, union
from ..image.geometry import Image, checked_image
from .devices import import_torch
from .memory_ladder import told_when_out_of_memory

if TYPE_CHECKING:
    from .segmenter import Segmenter

Voxels = np.ndarray | Placed
NOTHING_SAID = "Nothing says what belongs to the object: there is no stroke, point, box or lasso."


@dataclass(frozen=True)
class Prompted(Refinement):
    """The part of a mask that changed, as in Refinement but along I, J, K, and how it came about."""

    device: str = "cpu"
    seconds: float = 0.0
    notices: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Prompts:
    """What was said about an image: bool arrays (I, J, K) on its grid, each None where there is none.

    `add`, `remove`: strokes and points, "belongs" and "does not belong"; where both say something the second wins.
    `region`: a lasso, in which the object roughly lies; `box` ((i0, i1), (j0, j1), (k0, k1)), half open, likewise.
    `earlier_add`, `earlier_remove`: what was said before, and stays true. `mask`: the object so far. `log_odds`: those of a
    model for this object, float. Instead of an array each takes a `Placed` part of the grid, which costs less.
    """

    add: Voxels | None = None
    remove: Voxels | None = None
    region: Voxels | None = None
    box: Sequence[Sequence[int]] | None = None
    earlier_add: Voxels | None = None
    earlier_remove: Voxels | None = None
    mask: Voxels | None = None
    log_odds: Voxels | None = None

    def on(self, shape: tuple[int, int, int]) -> Said:
        """For an image with these voxels along I, J, K. EngineError bad_input for what does not fit on it."""
        for name, array in vars(self).items():
            if array is not None and name != "box" and array_shape(array) != shape:
                raise EngineError(
                    "bad_input",
                    f"{name} has {' x '.join(map(str, array_shape(array)))} voxels, the image {' x '.join(map(str, shape))}.",
                    "Give it on the image's grid.",
                )
        box = None if self.box is None else checked_box(self.box, shape)
        inside = None if box is None else Placed(np.broadcast_to(True, shape_of(box)), start_of(box), shape)
        region = None if self.region is None and box is None else Layers(shape, (self.region, True), (inside, True))
        belongs = Layers(shape, (self.earlier_add, True), (self.add, True), (self.remove, False))
        does_not = Layers(shape, (self.earlier_remove, True), (self.add, False), (self.remove, True))
        mask = Layers(shape, (self.mask, True))
        return Said(belongs, does_not, mask, self.newest(mask, box), region, self.log_odds)

    def newest(self, mask: Layers, box: Box | None) -> Box:
        """The box of what the mask does not follow yet; else of all strokes, or of the region. EngineError for nothing."""
        found = [(array, box_around(array), value) for array, value in ((self.add, True), (self.remove, False))]
        strokes = union([box for _, box, _ in found])
        if strokes is None:
            place = union([box_around(self.region), box])
            if place is None and union([box_around(self.earlier_add), box_around(self.earlier_remove)]) is not None:
                raise EngineError(
                    "bad_input", "There are only earlier strokes.", "Give the newest one to add or to remove."
                )
            if place is None:
                raise EngineError("bad_input", NOTHING_SAID, "Say it with one at least.")
            return place
        if union([found[0][1], box, *map(box_around, (self.region, self.mask, self.earlier_add))]) is None:
            raise EngineError(
                "bad_input",
                "There are only strokes that take away, and no mask that they could take anything from.",
                "Give a mask, or a stroke, a point, a box or a lasso for what belongs to the object.",
            )
        wrong = []
        for array, place, value in found:
            if array is not None and place is not None:
                inner = smallest(np.asarray(array[slices(place)], bool) & (mask[slices(place)] != value))
                wrong.append(inner and moved(inner, start_of(place)))
        return union(wrong) or strokes


def array_shape(array: Voxels) -> tuple[int, ...]:
    return array.shape if isinstance(array, Placed) else np.shape(array)


def checked_box(box: Sequence[Sequence[int]], shape: tuple[int, ...]) -> Box:
    """EngineError bad_input for a box that is empty or reaches beyond the image."""
    sides = tuple((int(low), int(high)) for low, high in box)
    if len(sides) != 3 or any(not 0 <= low < high <= n for (low, high), n in zip(sides, shape, strict=True)):
        raise EngineError(
            "bad_input",
            f"The box {[list(side) for side in sides]} is empty or reaches beyond the image, which has "
            f"{' x '.join(map(str, shape))} voxels.",
            "Give three pairs of a first voxel and the voxel after the last one.",
        )
    return sides


def prompt(
    segmenter: Segmenter,
    image: Image,
    prompts: Prompts,
    fine: bool = True,
    cancelled: Callable[[], bool] = never,
) -> Prompted:
    """What the mask becomes; see `Segmenter.prompt`."""
    began = time.perf_counter()
    image = checked_image(image)
    check_model(segmenter, image)
    said = prompts.on(image.shape)
    array, notices = chosen_channels(image, said, len(segmenter.package.channels))
    size = patch_size(segmenter)
    spacing = image.spacing if image.spacing_known else (1.0, 1.0, 1.0)
    with told_when_out_of_memory(), freed_memory_kept(), cancelled_between_stages(segmenter.networks, cancelled):
        stop_if(cancelled)
        found = prompted(array, said, spacing, network_of(segmenter, size), size, fine)
    seconds = round(time.perf_counter() - began, 4)
    return Prompted(found.box, found.mask, segmenter.device, seconds, [*image.notices, *notices])


def check_model(segmenter: Segmenter, image: Image) -> None:
    """EngineError where the model answers no strokes, or none in such an image."""
    package = segmenter.package
    if not package.is_promptable:
        raise EngineError(
            "bad_model",
            f"The model '{package.id}' segments structures of its own and answers no strokes.",
            "Choose a model for strokes; without one, strokes in Slicer move the border of this one's results.",
        )
    if (package.dimension == 2) != (image.shape[2] == 1):
        kind, other = ("a single picture", "pictures") if image.shape[2] == 1 else ("a volume", "volumes")
        raise EngineError(
            "does_not_fit",
            f"The image is {kind}; the model '{package.id}' takes {'pictures' if package.dimension == 2 else 'volumes'}.",
            f"Choose a model for strokes in {other}.",
        )


def patch_size(segmenter: Segmenter) -> tuple[int, int, int]:
    """Voxels of the network's input along I, J, K."""
    size = segmenter.package.model["patch_size"]
    return (size[0], size[1], 1) if len(size) == 2 else (size[0], size[1], size[2])


def chosen_channels(image: Image, said: Said, wanted: int) -> tuple[np.ndarray, list[str]]:
    """As many channels of the image as the network takes: all, the first ones, again from the first, or the clearest one."""
    count = len(image.array)
    if count == wanted:
        return image.array, []
    if count > wanted > 1:
        return image.array[:wanted], [f"The image has {count} channels; the first {wanted} were used."]
    if count == 1:
        return np.broadcast_to(image.array, (wanted, *image.shape)), []
    if wanted > 1:
        return image.array[[n % count for n in range(wanted)]], []
    number = clearest_channel(image, said)
    return image.array[number : number + 1], [
        f"The image has {count} channels; channel {number + 1}, in which what was stroked stands out most, was used."
    ]


def clearest_channel(image: Image, said: Said) -> int:
    """The number of the channel in which the values of what belongs differ most from those around it."""
    around = first_cube(said.newest, image.spacing, image.shape)
    place = slices(inside(around, image.shape))
    parts = [part[place] for part in (said.belongs, said.mask, said.region) if part is not None]
    known = next((part for part in parts if part.any()), parts[0])
    seen = standardised(np.asarray(image.array[(slice(None), *place)], np.float32))
    means = [abs(float(channel[known].sum())) for channel in seen]
    return int(np.argmax(means))


def network_of(segmenter: Segmenter, size: tuple[int, int, int]) -> Callable[[np.ndarray], np.ndarray]:
    """The network as a function from a patch to log odds, both numpy."""
    torch: Any = import_torch()
    names = list(segmenter.package.model["prompt"]["channels"])
    images = len(segmenter.package.channels)
    taken = [*range(images), *(images + PROMPT_CHANNELS.index(name) for name in names)]
    flat = segmenter.package.dimension == 2
    layout = torch.channels_last if flat else torch.channels_last_3d

    def network(patch: np.ndarray) -> np.ndarray:
        batch = torch.from_numpy(np.ascontiguousarray(patch[taken].reshape(1, len(taken), *size[: 2 if flat else 3])))
        with torch.inference_mode():
            logits = segmenter.network(batch.to(segmenter.device).contiguous(memory_format=layout)).float()
        return (logits[0, 1] - logits[0, 0]).cpu().numpy().reshape(size)

    return network
