"""One model, loaded once, applied to any number of images. Torch is imported when a Segmenter is made, not before.

A run is a straight way: `options` checked, the image prepared (`pipeline`), tiles predicted (`sliding_window`,
`prediction`), their scores brought back to the image's grid (`back_to_image`); again with less where memory does not
suffice (`memory_ladder`).
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from ..cancel import Cancelled, cancelled_between_stages, never
from ..errors import EngineError
from ..fast.allocator import (
    LARGE,
    freed_memory_kept,
    let_large_blocks_go,
    memory_mapped,
    release_freed_memory,
)
from ..image.box import moved, start_of, whole
from ..image.geometry import Image, usable_image
from ..package import ModelPackage, resolve
from .back_to_image import ScoreResampler, allocate_array
from .devices import choose_device, core_count, import_torch
from .encoder_features import encoder_features
from .finder import find_regions, meant, merged, nothing_found, region_box, shows_more
from .fit import OTHER_NETWORK, DoesNotFit, Fit, FitStatistics, judged
from .memory_ladder import Effort, means_out_of_memory, told_when_out_of_memory, with_fallbacks
from .one_piece import keep_one_piece
from .options import Options
from .pipeline import Prepared, prepare, refuse_single_slice, roi_box
from .presence import PresenceStatistics, stage_features
from .quality import QualityStatistics
from .quality_meter import QualityMeter
from .run_log import Progress, RunLog
from .segmentation import Segmentation, on_whole_grid
from .sliding_window import TilePlan, sliding_window_inference

if TYPE_CHECKING:
    from .prompts import Prompted, Prompts

__all__ = ["Cancelled", "EngineError", "Segmentation", "Segmenter"]

SMALL_RUNS = 24  # of a batch, after which freed memory goes back: that takes 1.4 ms


class Segmenter:
    """A model ready for work on one device.

    Args:
        package: a ModelPackage, the id of a bundled or imported model, or a package's path.
        device: `auto`, `cpu` or `cuda`; a CUDA card is used only if a kernel really runs on it.
        cancelled: asked while the fastest ways to compute are measured; True raises Cancelled.

    With `keeps_memory` set, for batches, what a run has freed is kept for the next one: a fifth less time for small images.

    >>> import numpy as np
    >>> from prosma import Image, Segmenter
    >>> segmenter = Segmenter("hippocampus-mr", device="cpu")
    >>> voxels = np.random.default_rng(0).normal(size=(1, 40, 48, 36))
    >>> result = segmenter.segment(Image(voxels, np.eye(4)), outputs=["probabilities"], force=True)  # noise fits no model
    >>> result.labels.shape, result.probabilities.shape
    ((40, 48, 36), (3, 40, 48, 36))

    On Linux with glibc the process's allocator is told to keep the network's large blocks, which halves its time.
    Raises UserFacingError with the codes no_torch, no_device, bad_model, out_of_memory, cancelled.
    """

    def __init__(
        self,
        package: ModelPackage | str | os.PathLike,
        device: str = "auto",
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        torch = import_torch()
        let_large_blocks_go()
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(core_count())
        self.device, self.device_notices = choose_device(device)
        try:
            self.package = package if isinstance(package, ModelPackage) else resolve(package)
            self.network: Any = self._load(cancelled or never)
        except (MemoryError, RuntimeError) as error:
            if not means_out_of_memory(error):
                raise
            release_freed_memory()
            raise EngineError(
                "out_of_memory", "The computer's memory did not suffice to load the model.", "Close other programs."
            ) from error
        self.classes = len(self.package.labels) + 1
        self._finder: Segmenter | None = None
        self._statistics = FitStatistics.of_package(self.package.fit_path, self.package.sha256)
        self._presence = PresenceStatistics.of_package(self.package.presence_path, self.package.sha256)
        self._quality = QualityStatistics.of_package(self.package.quality_path, self.package.sha256)
        self.keeps_memory, self._runs = False, 0
        self.one_tile = 1.0  # a volume of at most so many patches along each axis is one tile
        self.seen_shapes: set[tuple[int, ...]] = set()  # of batches that the network has computed

    def _load(self, cancelled: Callable[[], bool]) -> Any:
        """The package's network, made fast; of several sets of weights one that averages."""
        from ..fast.autotune import stoppable
        from ..fast.network import accelerate, laid_out
        from ..package.weights import load_networks
        from .ensemble import Ensemble

        networks = load_networks(self.package)
        self.multiple = networks[0].divisor
        for network in networks:
            laid_out(network, "cpu")  # so that the fast one shares its weights
        with stoppable(cancelled):
            fast = [accelerate(network, self.device) for network in networks]
        return fast[0] if len(fast) == 1 else Ensemble(fast)

    @property
    def networks(self) -> list:
        """One for each set of weights of the package. Features of images are always those of the first."""
        from .prediction import networks_of

        return networks_of(self.network)

    @property
    def _fast_networks(self) -> list:
        """Those that can compute in half precision and keep what they made."""
        return [network for network in self.networks if hasattr(network, "half_on")]

    @functools.cached_property
    def _gates(self) -> list:
        """The network's gates; they stay the same modules wherever it moves."""
        from ..network.gate_monitor import gates_of

        return gates_of(self.network)

    def _tidy(self, image: Image) -> None:
        """Give freed memory back; after small cases that others follow only now and then, because its pieces drift."""
        self._runs += 1
        if not self.keeps_memory or image.array.nbytes > LARGE or self._runs % SMALL_RUNS == 0:
            release_freed_memory()

    def _move_to(self, device: str) -> None:
        """Nothing where it is there already: moving makes the fast network forget the weights that it derived."""
        from ..fast.network import laid_out

        if device != self.device:
            self.device, self.network = device, laid_out(self.network, device)

    def segment(
        self,
        image: Image,
        outputs: Sequence[str] = (),
        roi: Sequence[Sequence[int]] | None = None,
        overlap: float | None = None,
        mirror: bool = False,
        shortcuts: bool = True,
        force: bool = False,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
        allocate: Callable[..., np.ndarray] = allocate_array,
        refuse_unfit: bool = True,
        all_parts: bool = False,
        prepared: Prepared | None = None,
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
            force: run even where the image's grid (`image.grid_fit`) or what it shows (`inference.fit`) does not suit the
                model at all; a notice says so.
            progress: called with stage, fraction 0 ... 1 and seconds left (None while unknown).
            cancelled: asked before each tile and stage of the network; True ends the run with Cancelled.
            allocate: makes the result arrays, see `back_to_image.allocate_array`.
            refuse_unfit: with False an image that shows something else is not refused; a notice and `fit` of the result
                say so.
            all_parts: keep parts of a structure that lie apart, also where the model says that it is one piece.
            prepared: what `ahead.prepared_ahead` made of the same image, `roi` and `force`, with `shortcuts`.

        Where memory does not suffice, the run begins again with less at once, and a notice says so (`memory_ladder.Effort`).

        Raises UserFacingError with the codes bad_input, does_not_fit, out_of_memory, cancelled.
        """
        if self.package.is_promptable:
            raise EngineError(
                "bad_model",
                f"The model '{self.package.id}' segments what strokes mean and has no structures of its own.",
                "Choose another model, or give strokes: prosma prompt.",
            )
        run = RunLog(notices=list(self.device_notices))
        run.progress, run.cancelled = progress or run.progress, cancelled or run.cancelled
        try:
            with run.timed("total"):
                options = Options(tuple(outputs), overlap, mirror, shortcuts, force, refuse_unfit, all_parts)
                result = self._run_regions(image, roi, options, run, allocate, prepared)
        finally:
            self._tidy(image)
        result.seconds = {name: round(value, 4) for name, value in run.seconds.items()}
        run.progress("Done", 1.0, 0.0)
        return result

    def prompt(
        self, image: Image, prompts: Prompts, fine: bool = True, cancelled: Callable[[], bool] | None = None
    ) -> Prompted:
        """What a mask becomes after strokes, points, a box or a lasso; the same input gives the same bytes.

        Args:
            image: (C, I, J, K) with its geometry, of any kind.
            prompts: what was said, and the mask so far, if any.
            fine: look at the border once more where the object is so large that the network saw it coarsely; slower.
            cancelled: asked before each stage of the network; True ends the run with Cancelled.

        Strokes are honoured exactly, and of the rest only one connected region around what was said last changes.

        Raises UserFacingError with the codes bad_model, bad_input, does_not_fit, out_of_memory, cancelled.
        """
        from .prompts import prompt

        return prompt(self, image, prompts, fine, cancelled or never)

    def _run_regions(
        self, image: Image, roi, options: Options, run: RunLog, allocate, prepared: Prepared | None = None
    ) -> Segmentation:
        """`_run` in each region that the finder marks, and their results as one.

        In the image as it is where the model has no finder, or the volume shows no more than what it learnt from, or the
        person's box is small and holds no region's centre nor is near one; and by force where there is none anywhere.
        """
        image = usable_image(image)
        if prepared is not None or not self.package.has_finder or not shows_more(image, self.package):
            return self._run(image, roi, options, run, allocate, prepared=prepared)
        refuse_single_slice(image.shape, self.package)
        run.progress("Looking for the region", 0.0, None)
        with run.timed("preparing"):
            regions = find_regions(self._load_finder(), image, run.cancelled)
        box = roi_box(roi, image.shape)
        size, orientation = self.package.model["finder"]["region_mm"], self.package.model["orientation"]
        wanted = meant(regions, image, box)
        boxes = [region_box(image, region, size, orientation) for region in wanted]
        if not wanted:
            missing = nothing_found(self.package, outside=bool(regions))
            large = shows_more(image.cropped(box), self.package)
            if large and options.refuses_unfit:
                raise DoesNotFit(Fit("unfit", None, (missing.message,)), missing.remedy)
            used = "The finder marks nothing inside the region of interest; it was used as it is."
            why = missing.message if large else used
            return self._run(image, roi, options, run, allocate, Fit.without_structure(why))
        parts = [
            (region, self._run(image, part, options, run, allocate_array, Fit.with_structure_found))
            for region, part in zip(wanted, boxes, strict=True)
        ]
        result = merged(parts, self.package, allocate)
        result.notices, result.device_notices = list(dict.fromkeys(run.notices)), list(self.device_notices)
        return result

    def _load_finder(self) -> Segmenter:
        """The finder's own Segmenter, loaded when it is first needed."""
        if self._finder is None:
            self._finder = Segmenter(self.package.open_finder(), self.device)
        return self._finder

    def _run(
        self,
        image: Image,
        roi,
        options: Options,
        run: RunLog,
        allocate,
        seen: Callable[[Fit], Fit] = lambda fit: fit,
        prepared: Prepared | None = None,
    ) -> Segmentation:
        """`segment`: check, prepare, predict, and place the result on the image's whole grid.

        `seen`: what the fit becomes by what the finder saw in the region of interest.
        """
        run.progress("Preparing", 0.0, None)
        options, notices = options.checked(self.package.mirror_axes, bool(self._gates))
        run.notices += notices
        with run.timed("preparing"), told_when_out_of_memory():
            if prepared is None:
                prepared = prepare(image, self.package, roi, options.shortcuts, options.force)
        run.notices[:0] = prepared.notices
        with self._encoding_once(run):
            with run.timed("fit"):
                fit = seen(self._fit_of(self._judged_part(image, prepared, options.force)))
                fit = fit.with_declared(self.package.model, image.modalities)
            if fit.verdict == "unfit" and options.refuses_unfit:
                raise DoesNotFit(fit)
            run.notices += fit.warnings
            result = self._predict_with_fallbacks(prepared, options, run, allocate)
        result.labels = on_whole_grid(result.labels, prepared.shape, prepared.box)
        if self.package.one_piece and not options.all_parts:
            with told_when_out_of_memory():
                groups, described = self.package.one_piece, self.package.labels
                run.notices += keep_one_piece(result.labels, groups, described, image.voxel_ml)
        result.fit = fit
        if self._quality is not None:
            result.expected_dice = self._quality.of_segments(result.measures)
        self._judge_presence(image, prepared, options, run, result)
        result.notices, result.device_notices = run.notices, list(self.device_notices)
        result.described = self.package.labels
        return result

    @contextlib.contextmanager
    def _encoding_once(self, run: RunLog) -> Iterator[None]:
        """Inside, what the encoder made of the part that the fit is judged by serves the tile that is the same.

        The time of that counts as the network's.
        """
        try:
            yield
        finally:
            saved = self._forget()
            run.seconds["fit"] -= saved
            run.seconds["network"] += saved

    def _forget(self) -> float:
        """What the encoder made before is kept no longer; the seconds that it saved."""
        return sum((network.forget() for network in self._fast_networks), 0.0)

    def _predict_with_fallbacks(self, prepared: Prepared, options: Options, run: RunLog, allocate) -> Segmentation:
        """`_predict`, with less at once where memory does not suffice."""

        def attempt(effort: Effort) -> Segmentation:
            return self._predict(prepared, options, effort, run, allocate)

        def lighter(effort: Effort) -> tuple[Effort, str] | None:
            return effort.lighter(self.package.model["patch_size"], self.multiple, can_halve)

        def take_up(effort: Effort, notice: str) -> None:
            run.notices.append(notice)
            self._take_up(effort)

        with cancelled_between_stages(self.networks, run.cancelled), self._restored_afterwards() as can_halve:
            return with_fallbacks(attempt, Effort(self.device), lighter, take_up)

    def _judge_presence(
        self, image: Image, prepared: Prepared, options: Options, run: RunLog, result: Segmentation
    ) -> None:
        """Of a picture in which the structure is likely to be absent leaves out what was marked, unless forced."""
        if self._presence is None or self.package.dimension != 2 or image.shape[2] > 1:
            return
        with run.timed("fit"):
            whole_picture = self._judged_part(image, prepared, options.force)
            found = self.presence_features(whole_picture)
            result.presence = self._presence.presence(found)
        if result.presence is None:
            return
        is_absent = result.presence < self._presence.threshold
        if is_absent and result.labels.any() and not options.force:
            result.labels[...] = 0
            run.notices.append(self._presence.notice([label["name"] for label in self.package.labels], result.presence))
        empty = not result.labels.any()
        result.expected_dice = {
            value: expected.if_present(result.presence, empty) for value, expected in result.expected_dice.items()
        }

    def presence_features(self, prepared: Prepared) -> np.ndarray:
        """What tells whether a picture shows the structure, (versions, D), see `presence.stage_features`."""
        return stage_features(self.networks[0], self.device, prepared.array[..., 0], self.package.mirror_axes)

    def fit_of(self, image: Image, roi: Sequence[Sequence[int]] | None = None) -> Fit:
        """Whether an image, or its region of interest, looks like those that the model was trained on.

        Raises as `segment` for an image that the model cannot take.
        """
        with self._encoding_once(RunLog()):
            fit = self._fit_of(self._judged_part(image, prepare(image, self.package, roi), force=False))
        return fit.with_declared(self.package.model, image.modalities)

    def _judged_part(self, image: Image, prepared: Prepared, force: bool) -> Prepared:
        """What the fit is judged by: of a picture, whatever its region of interest, all of it (a volume's middle slice)."""
        *plane, (low, high) = prepared.box
        if self.package.dimension == 3 or tuple(plane) == whole(image.shape)[:2]:
            return prepared
        middle = (low + high) // 2
        return prepare(image, self.package, (*whole(image.shape)[:2], (middle, middle + 1)), force=force)

    def _fit_of(self, prepared: Prepared) -> Fit:
        if isinstance(self._statistics, str):
            return Fit("unknown", None, (f"Whether the image fits cannot be told: {self._statistics}.",))
        if len(self._statistics.size) != self.package.dimension:
            return Fit("unknown", None, (OTHER_NETWORK,))
        known = prepared.image_features
        features = self.features(prepared, self._statistics.size, half=True, keep=True, of_image=known)
        return judged(self._statistics, features, self.package.model, prepared.lowest)

    def features(self, prepared: Prepared, size: Sequence[int], **how: Any) -> np.ndarray:
        """What the encoder sees of a part of this size in the middle of an image, float64 (D,), see `encoder_features`."""
        patch = self.package.model["patch_size"]
        with self._memory_for((0, len(prepared.array), *patch), scarce=False):  # 0: the encoder alone
            return encoder_features(self.networks[0], self.device, prepared.array, patch, size, **how)

    def _predict(self, prepared: Prepared, options: Options, effort: Effort, run: RunLog, allocate) -> Segmentation:
        """Tiles through the network, and their scores on the grid of the part in `prepared.box`."""
        from .prediction import TilePredictor

        plan = self._plan(prepared.array.shape[1:], effort, options.overlap)
        predictor = TilePredictor(
            network=self.network,
            device=self.device,
            axes=self.package.dimension,
            classes=self.classes,
            flips=options.flips(self.package.mirror_axes),
            gate_map=options.gate_map,
            tiles=plan.count,
            half=effort.half,
            memory_for=lambda shape: self._memory_for(shape, effort.scarce),
            gates=self._gates,
        )
        resampler = ScoreResampler(
            prepared.grid, self.classes, plan.axis, options.outputs, allocate, inside=prepared.inside
        )
        meter = QualityMeter(self.classes, plan.axis, prepared.grid.spacing, self.package.dimension)

        def deliver(first: int, block: np.ndarray) -> None:
            meter.add(block)
            resampler.add(first, block)

        try:
            sliding_window_inference(
                prepared.array, plan, predictor.planes, predictor, deliver, run.tile_progress(), run.cancelled
            )
        finally:
            run.seconds["network"] += predictor.seconds
        found, corner = resampler.results, start_of(prepared.box)
        reach = [part and moved(part, corner) for part in resampler.reach()]
        return Segmentation(
            labels=found["labels"],
            box=prepared.box,
            device=self.device,
            statistics=predictor.statistics(plan.patch),
            probabilities=found.get("probabilities"),
            uncertainty=found.get("uncertainty"),
            gate_map=found.get("gate_map"),
            reach=reach if "probabilities" in options.outputs else None,
            measures={label["value"]: sums for label, sums in zip(self.package.labels, meter.close(), strict=True)},
        )

    def _plan(self, size: Sequence[int], effort: Effort, overlap: float | None) -> TilePlan:
        """The tiles of a volume of this spatial shape; a 2D model takes several slices at once."""
        patch = self.package.model["patch_size"]
        if self.package.dimension == 2:
            count = size[2]
            together = -(-count // -(-count // effort.batch))
            return TilePlan.make(size, (*patch, together), overlap, flat=(2,))
        tile = effort.tile(patch, self.multiple)
        if not effort.halvings and all(n <= self.one_tile * p for n, p in zip(size, patch, strict=True)):
            tile = tuple(max(p, n + -n % step) for n, p, step in zip(size, patch, self.multiple, strict=True))
        return TilePlan.make(size, tile, overlap)

    def _memory_for(self, shape: tuple[int, ...], scarce: bool) -> AbstractContextManager:
        """How a batch of this shape gets its memory: what the network makes of it once shall not lie between kept blocks.

        Where memory is scarce nothing is kept at all.
        """
        if shape in self.seen_shapes and not scarce:
            return freed_memory_kept()
        self.seen_shapes.add(shape)
        return memory_mapped()

    @contextlib.contextmanager
    def _restored_afterwards(self) -> Iterator[bool]:
        """The network comes back to its device and precision; gives whether the CPU could compute in half precision.

        "Could" means that it has that and does not use it anyway.
        """
        home, fast = self.device, self._fast_networks
        half_on = [network.half_on for network in fast]
        try:
            yield any(network.can_halve_on_cpu() for network in fast)
        finally:
            self._move_to(home)
            for network, kind in zip(fast, half_on, strict=True):
                network.half_on = kind

    def _take_up(self, effort: Effort) -> None:
        """Device, precision and free memory as the next attempt wants them."""
        self._forget()
        self._move_to(effort.device)
        if effort.half and effort.device == "cpu":
            for network in self._fast_networks:
                network.half_on = "cpu"
        release_freed_memory()
        torch = import_torch()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
