"""One model, loaded once, applied to any number of images. Torch is imported when a Segmenter is made, not before."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..errors import Cancelled, EngineError
from ..fast.allocator import freed_memory_kept, let_large_blocks_go, memory_mapped, release_freed_memory
from ..image.box import Box, moved, slices, start_of, whole
from ..image.constants import LUMA
from ..image.geometry import Image, ImageError, finite_image, plan_canonical, to_canonical, usable_image
from ..image.intensity import foreground, normalise, rule_for
from ..package.model_package import ModelPackage, resolve
from .back_to_image import VOLUMES, Restorer, allocate_array
from .devices import choose_device, core_count, import_torch
from .memory_ladder import Effort, means_out_of_memory, physical_memory
from .sliding_window import LARGEST_OVERLAP, TilePlan, slide

__all__ = ["Cancelled", "EngineError", "Segmentation", "Segmenter"]

Progress = Callable[[str, float, "float | None"], None]
MOST_MONITORED_TILES = 8  # gate statistics come from at most so many tiles, evenly spread,
LEAST_MONITORED_STEP = 4  # and from every fourth at most: collecting them costs 6 % of a tile's time
TIDIED_EVERY = 6  # tiles, after which freed memory goes back: its pieces drift, and more and more pages are in use


@dataclass
class Segmentation:
    """What one run gives.

    `labels` is (I, J, K), uint8 (uint16 beyond 255 labels), on the image's whole grid. `probabilities` (classes with
    background, I, J, K), `uncertainty` (normalised entropy) and `gate_map` (share of skip features that the gates keep,
    averaged over levels), (I, J, K), are uint8 0 ... 255 on the part of the grid in `box`, or None where not asked for.
    `reach`, with the probabilities: for each label the smallest box of the whole grid where its probability is above 0 in
    8 bits, None where nowhere. `statistics` holds `removed_share` (0 ... 1) and `levels`, coarse to fine; `seconds` total,
    preparing, network. `device_notices` are those of the `notices` that say why the device is not the one wished for.
    """

    labels: np.ndarray
    box: Box
    device: str
    notices: list[str] = field(default_factory=list)
    device_notices: list[str] = field(default_factory=list)
    statistics: dict = field(default_factory=dict)
    seconds: dict = field(default_factory=dict)
    probabilities: np.ndarray | None = None
    uncertainty: np.ndarray | None = None
    gate_map: np.ndarray | None = None
    reach: list[Box | None] | None = None


class Segmenter:
    """A model ready for work on one device.

    Args:
        package: a ModelPackage, the id of a bundled or imported model, or a package's path.
        device: `auto`, `cpu` or `cuda`; a CUDA card is used only if a kernel really runs on it.

    On Linux with glibc the process's allocator is told to keep the network's large blocks, which halves its time.
    Raises UserFacingError with the codes no_torch, no_device, bad_model, out_of_memory.
    """

    def __init__(self, package: ModelPackage | str | os.PathLike, device: str = "auto") -> None:
        torch = import_torch()
        let_large_blocks_go()
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(core_count())
        self.device, self.device_notices = choose_device(device)
        try:
            self.package = package if isinstance(package, ModelPackage) else resolve(package)
            from ..fast.network import accelerate
            from ..package.weights import load_network

            self._layout = torch.channels_last_3d if self.package.dimension == 3 else torch.channels_last
            network = load_network(self.package)
            network.to(memory_format=self._layout)  # so that the fast one shares its weights
            self.multiple = network.divisor
            self.network = accelerate(network, self.device)
        except (MemoryError, RuntimeError) as error:
            if not means_out_of_memory(error):
                raise
            release_freed_memory()
            raise EngineError(
                "out_of_memory", "The computer's memory did not suffice to load the model.", "Close other programs."
            ) from error
        self.classes = len(self.package.labels) + 1
        self.seen_shapes: set[tuple[int, ...]] = set()  # of batches that the network has computed
        self._move_to(self.device)

    def _move_to(self, device: str) -> None:
        self.device = device
        self.network = self.network.to(device, memory_format=self._layout)

    def segment(
        self,
        image: Image,
        outputs: Sequence[str] = (),
        roi: Sequence[Sequence[int]] | None = None,
        overlap: float | None = None,
        mirror: bool = False,
        shortcuts: bool = True,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
        allocate: Callable[..., np.ndarray] = allocate_array,
    ) -> Segmentation:
        """Segment one image; the same input gives the same bytes.

        Args:
            image: (C, I, J, K) with its geometry; one channel for each of the model's.
            outputs: any of `probabilities`, `uncertainty`, `gate_map`.
            roi: ((i0, i1), (j0, j1), (k0, k1)), half open: only this part is looked at; outside labels are 0.
            overlap: share that neighbouring tiles have in common, 0 ... 0.9; None: by their size
                (`sliding_window.default_overlap`).
            mirror: average over the flips that the model was trained with; 2 to 8 times the work.
            shortcuts: look only at the box of what is not empty (air in CT, zeros in MR), not at the whole volume.
            progress: called with stage, fraction 0 ... 1 and seconds left (None while unknown).
            cancelled: asked before each tile and stage of the network; True ends the run with Cancelled.
            allocate: makes the result arrays, see `back_to_image.allocate_array`.

        Where memory does not suffice, the run begins again with less at once, and a notice says so (`memory.Effort`).

        Raises UserFacingError with the codes bad_input, out_of_memory, cancelled.
        """
        run = _Run(self, progress, cancelled, tuple(outputs), overlap, mirror, shortcuts, allocate)
        try:
            return run.segment(image, roi)
        finally:
            run.end()

    def refine(
        self,
        image: Image,
        labels: np.ndarray,
        value: int,
        add: np.ndarray | None = None,
        remove: np.ndarray | None = None,
        probabilities: np.ndarray | None = None,
        radius_mm: float | None = None,
    ) -> np.ndarray:
        """Move the border of one label by strokes, see `prosma.refine`; a new label map.

        Args:
            image: (C, I, J, K) with its geometry.
            labels: (I, J, K), as `segment` gives them; other labels give way to the strokes themselves alone.
            value: the label to refine.
            add, remove: voxels stroked as "belongs" and "does not belong", bool (I, J, K).
            probabilities: (classes, I, J, K), as `segment` gives them for the whole image; without them the image and
                the strokes decide.
            radius_mm: how far from a stroke voxels may change; by default it follows from the stroke's width.

        Raises UserFacingError with the code bad_input.
        """
        from ..correct.refine import refine_label

        known = [label["value"] for label in self.package.labels]
        if value not in known:
            raise EngineError("bad_input", f"The model '{self.package.name}' has no label {value!r}; it has {known}.")
        probability = None if probabilities is None else of_class(probabilities, value, self.classes)
        box, refined = refine_label(
            labels.T,
            image.array.transpose(0, 3, 2, 1),
            value,
            turned(add),
            turned(remove),
            image.spacing[::-1],
            turned(probability),
            radius_mm,
        )
        result = labels.copy()
        result.T[slices(box)] = refined
        return result


class _Run:
    """One call of `Segmenter.segment`: its options, notices and clocks."""

    def __init__(self, segmenter, progress, cancelled, outputs, overlap, mirror, shortcuts, allocate) -> None:
        self.segmenter = segmenter
        self.model = segmenter.package.model
        self.intensity = self.model["intensity"]
        self.progress = progress or (lambda stage, fraction, seconds_left: None)
        self.cancelled = cancelled or (lambda: False)
        self.outputs = outputs
        self.overlap = overlap
        self.shortcuts = shortcuts
        self.effort = Effort(segmenter.device)
        self.scarce = False  # whether memory has not sufficed
        self.allocate = allocate
        self.notices = list(segmenter.device_notices)
        self.seconds = {"total": 0.0, "preparing": 0.0, "network": 0.0}
        axes = segmenter.package.mirror_axes if mirror else []
        if mirror and not axes:
            self.notices.append("The model was not trained with flips, so mirroring was left out.")
        self.flips = [flip for n in range(len(axes) + 1) for flip in itertools.combinations(axes, n)]
        self._hooks = [
            module.register_forward_pre_hook(self._stop_if_cancelled)
            for blocks in (segmenter.network.encoder, segmenter.network.decoder)
            for module in blocks
        ]

    def end(self) -> None:
        for hook in self._hooks:
            hook.remove()
        release_freed_memory()

    def segment(self, image: Image, roi) -> Segmentation:
        began = time.perf_counter()
        self.progress("Preparing", 0.0, None)
        self._check_options()
        image = usable_image(image)
        whole_shape, box = image.shape, check_box(roi, image.shape)
        check_dimension([high - low for low, high in box], self.segmenter.package)
        part = match_channels(image.cropped(box), self.segmenter.package)
        self.intensity, scaling = rule_for(image.array, self.intensity)
        self.notices += scaling
        image = finite_image(part)
        self._check_memory(image)
        result = self._segment_with_less_and_less(image)
        result.labels = on_whole_grid(result.labels, whole_shape, box)
        result.box = box
        if result.reach is not None:
            result.reach = [part and moved(part, start_of(box)) for part in result.reach]
        result.notices = [*image.notices, *self.notices]
        result.device_notices = list(self.segmenter.device_notices)
        self.seconds["total"] = time.perf_counter() - began
        result.seconds = {name: round(value, 4) for name, value in self.seconds.items()}
        self.progress("Done", 1.0, 0.0)
        return result

    def _check_options(self) -> None:
        overlap = self.overlap
        if overlap is not None and not (isinstance(overlap, (int, float)) and 0 <= overlap <= LARGEST_OVERLAP):
            raise ImageError(f"The overlap of tiles is a share from 0 to {LARGEST_OVERLAP}, not {overlap!r}.")
        unknown = [name for name in self.outputs if name not in VOLUMES]
        if unknown:
            raise ImageError(f"There is no output '{unknown[0]}'.", f"Choose among {', '.join(VOLUMES)}.")
        if "gate_map" in self.outputs and not self._has_gates():
            self.outputs = tuple(name for name in self.outputs if name != "gate_map")
            self.notices.append("The model has no proximal gates, so there is no gate map.")

    def _has_gates(self) -> bool:
        from ..network.gate import SpatialGate

        return any(isinstance(module, SpatialGate) for module in self.segmenter.network.modules())

    def _check_memory(self, image: Image) -> None:
        """Refuses grids that the computer could never hold, instead of letting the system kill the process."""
        size = plan_canonical(image, self.model).size
        needed = 4 * (2 * len(image.array)) * float(np.prod(size, dtype=np.float64))
        available = physical_memory()
        if available and needed > 0.8 * available:
            raise EngineError(
                "out_of_memory",
                f"On the model's grid the volume has {' x '.join(map(str, size))} voxels, which needs "
                f"{needed / 2**30:.0f} GB; the computer has {available / 2**30:.0f} GB.",
                "Limit the work to an ROI.",
            )

    def _segment_with_less_and_less(self, image: Image) -> Segmentation:
        """`_segment_box`, again with less memory as long as it does not suffice."""
        home, network = self.segmenter.device, self.segmenter.network
        half_on = getattr(network, "half_on", None)
        can_halve = half_on is not None and network.can_halve_on_cpu()
        try:
            while True:
                try:
                    return self._segment_box(image)
                except (MemoryError, RuntimeError) as error:
                    if not means_out_of_memory(error):
                        raise
                    lighter = self.effort.lighter(self.model["patch_size"], self.segmenter.multiple, can_halve)
                    if lighter is None:
                        raise EngineError(
                            "out_of_memory",
                            "The computer's memory did not suffice for this volume.",
                            "Limit the work to an ROI, ask for fewer outputs or close other programs.",
                        ) from error
                self._take_up(*lighter)  # not among the exceptions, which keep the arrays of the failed run alive
        finally:
            self.segmenter._move_to(home)
            if can_halve:
                network.half_on = half_on

    def _take_up(self, effort: Effort, notice: str) -> None:
        self.effort, self.scarce = effort, True
        self.notices.append(notice)
        self.segmenter._move_to(effort.device)
        if effort.half and effort.device == "cpu":
            self.segmenter.network.half_on = "cpu"
        release_freed_memory()
        torch = import_torch()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def _plan(self, array: np.ndarray) -> TilePlan:
        """The tiles of an array (C, X, Y, Z)."""
        patch, multiple = self.model["patch_size"], self.segmenter.multiple
        if self.model["dimension"] == 2:
            count = array.shape[3]
            together = -(-count // -(-count // self.effort.batch))
            return TilePlan.make(array.shape[1:], [*patch, together], self.overlap, flat=(2,))
        return TilePlan.make(array.shape[1:], self.effort.tile(patch, multiple), self.overlap)

    def _segment_box(self, image: Image) -> Segmentation:
        from ..network.gate_monitor import GateMonitor

        began = time.perf_counter()
        array, canonical = to_canonical(image, self.model)
        array = normalise(array, self.intensity, copy=False)
        inside = tuple(slice(0, n) for n in array.shape[1:])
        if self.shortcuts and self.model["dimension"] == 3:
            inside = foreground(array, self.model["patch_size"])
            array = np.ascontiguousarray(array[(slice(None), *inside)])
        release_freed_memory()  # of the preparation: blocks that the network's larger ones would not fit into
        plan = self._plan(array)
        self.seconds["preparing"] = time.perf_counter() - began
        monitor = GateMonitor(self.segmenter.network, keep_maps="gate_map" in self.outputs)
        restorer = Restorer(canonical, self.segmenter.classes, plan.axis, self.outputs, self.allocate, inside)
        planes = self.segmenter.classes + ("gate_map" in self.outputs)
        predict = self._predictor(monitor, plan.count)
        slide(array, plan, planes, predict, restorer.add, self._tile_progress(), self.cancelled)
        results = {name: restorer.results.get(name) for name in ("labels", *VOLUMES)}
        if "probabilities" in self.outputs:
            results["reach"] = restorer.reach()
        return Segmentation(box=(), device=self.segmenter.device, statistics=self._statistics(monitor, plan), **results)

    def _statistics(self, monitor, plan: TilePlan) -> dict:
        every = monitored_every(plan.count, "gate_map" in self.outputs)
        seen = len(range(0, plan.count, every))
        return {**monitor.statistics(), "tiles": seen, "of_tiles": plan.count, "tile": list(plan.patch)}

    def _predictor(self, monitor, tiles: int):
        """The function that turns a tile (C, *patch) into class probabilities and, if asked for, the gate map."""
        torch = import_torch()
        network, device, layout = self.segmenter.network, self.segmenter.device, self.segmenter._layout
        flat, on_card = self.model["dimension"] == 2, device != "cpu"
        every = monitored_every(tiles, "gate_map" in self.outputs)
        number = itertools.count()

        def answer(batch, monitored):
            """The scores of a batch as an array."""
            with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=self.effort.half and on_card):
                if monitored:
                    with monitor:
                        scores = self._probabilities(network, batch, layout)
                else:
                    scores = self._probabilities(network, batch, layout)
                if "gate_map" in self.outputs:
                    scores = torch.cat([scores, kept_share(monitor.maps, scores.shape[2:])], dim=1)
                for flip in self.flips[1:]:
                    axes = [axis + 2 for axis in flip]
                    flipped = self._probabilities(network, batch.flip(axes), layout).flip(axes)
                    scores[:, : flipped.shape[1]] += flipped
                scores[:, : self.segmenter.classes] /= len(self.flips)
                return (scores.permute(1, 2, 3, 0) if flat else scores[0]).float().cpu().numpy()

        def predict(tile: np.ndarray) -> np.ndarray:
            began, this = time.perf_counter(), next(number)
            batch = torch.from_numpy(np.ascontiguousarray(tile)).to(device)
            batch = batch.permute(3, 0, 1, 2) if flat else batch[None]
            if this % TIDIED_EVERY == 1:
                release_freed_memory()
            with self._memory_for(tuple(batch.shape)):
                result = answer(batch, this % every == 0)
            self.seconds["network"] += time.perf_counter() - began
            return result

        return predict

    def _memory_for(self, shape: tuple[int, ...]):
        """How a batch of this shape gets its memory: what the network makes of it once shall not lie between kept blocks.

        Where memory is scarce nothing is kept at all.
        """
        if shape in self.segmenter.seen_shapes and not self.scarce:
            return freed_memory_kept()
        self.segmenter.seen_shapes.add(shape)
        return memory_mapped()

    def _probabilities(self, network, batch, layout):
        return class_planes(network(batch.contiguous(memory_format=layout)).float()).softmax(dim=1)

    def _stop_if_cancelled(self, *_) -> None:
        if self.cancelled():
            raise Cancelled

    def _tile_progress(self):
        began = time.perf_counter()

        def report(done: int, total: int) -> None:
            seconds_left = (time.perf_counter() - began) / done * (total - done)
            self.progress("Segmenting", 0.05 + 0.93 * done / total, seconds_left)

        self.progress("Segmenting", 0.05, None)
        return report


def turned(array: np.ndarray | None) -> np.ndarray | None:
    """(I, J, K) seen as (K, J, I) and back; None stays None."""
    return None if array is None else array.T


def of_class(probabilities: np.ndarray, value: int, classes: int) -> np.ndarray:
    """The probability (I, J, K) of one label among those of all classes; ImageError where they are not the model's."""
    if probabilities.ndim != 4 or len(probabilities) != classes:
        raise ImageError(f"The probabilities {probabilities.shape} are not those of the model's {classes} classes.")
    return probabilities[value]


def monitored_every(tiles: int, gate_map: bool) -> int:
    """Gate statistics come from every n-th tile: from all for a gate map, else from a few."""
    return 1 if gate_map else max(LEAST_MONITORED_STEP, -(-tiles // MOST_MONITORED_TILES))


def class_planes(logits):
    """Channels-last (1, C, X, Y, Z) as contiguous planes; others as they are.

    A product with the identity, which took a fifth of the time of PyTorch's own transposition on a CPU.
    """
    rows = logits.movedim(1, -1)
    if logits.is_contiguous() or len(logits) > 1 or not rows.is_contiguous() or logits.device.type != "cpu":
        return logits
    classes = logits.shape[1]
    return (import_torch().eye(classes) @ rows.reshape(-1, classes).T).reshape(logits.shape)


def kept_share(maps, shape):
    """Gates (B, C, *S) of each level -> (B, 1, *shape): share of channels not closed, averaged over the levels."""
    torch = import_torch()
    levels = [(gate != 0).float().mean(dim=1, keepdim=True) for gate in maps]
    levels = [torch.nn.functional.interpolate(level, size=tuple(shape), mode="nearest") for level in levels]
    return torch.stack(levels).mean(dim=0)


def check_box(roi, shape: Sequence[int]) -> Box:
    """`roi` cut to the volume, or the whole volume for None; ImageError where nothing is left."""
    if roi is None:
        return whole(shape)
    try:
        box = tuple((max(0, int(low)), min(int(n), int(high))) for (low, high), n in zip(roi, shape, strict=True))
    except (TypeError, ValueError):
        raise ImageError("The ROI is not three pairs of voxel numbers.", "Give it as i0 i1 j0 j1 k0 k1.") from None
    if any(low >= high for low, high in box):
        raise ImageError("The ROI does not touch the volume.", "Move it over the volume or do without.")
    return box


def check_dimension(shape: Sequence[int], package: ModelPackage) -> None:
    """ImageError for a single slice given to a model that works on volumes."""
    if package.dimension == 3 and min(shape) == 1:
        raise ImageError(
            f"The model '{package.name}' works on volumes, but this is a single slice.",
            "Choose a volume or a 2D model.",
        )


def match_channels(image: Image, package: ModelPackage) -> Image:
    """The image with as many channels as the model has; grey and colour photographs are turned into each other."""
    have, need = len(image.array), len(package.channels)
    if have == need:
        return image
    if (have, need) == (1, 3) and package.dimension == 2:
        array, notice = np.repeat(image.array, 3, axis=0), "The grey image was used for all three colours."
    elif (have, need) == (3, 1):
        array = np.tensordot(np.array(LUMA, np.float32), image.array.astype(np.float32), axes=1)[None]
        notice = "The colours were turned into grey."
    else:
        names = ", ".join(channel["name"] for channel in package.channels)
        raise ImageError(
            f"The model '{package.name}' takes {need} channels ({names}), the image has {have}.",
            "Give one image for each channel, in this order." if need > have else "Choose the channel to use.",
        )
    return replace(image, array=array, notices=(*image.notices, notice))


def on_whole_grid(labels: np.ndarray, shape: Sequence[int], box) -> np.ndarray:
    """Labels of the part in `box` on a grid of `shape`, 0 elsewhere."""
    if tuple(labels.shape) == tuple(shape):
        return labels
    result = allocate_array("labels", tuple(shape), None, labels.dtype)
    result[slices(box)] = labels
    return result
