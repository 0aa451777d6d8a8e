"""A worker's job and its arrays: memory-mapped `.npy` files in a private folder, in Slicer's order K, J, I."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import EngineError, bad_request
from ..image.axes import as_ijk, as_kji, channels_first
from ..image.box import slices, start_of, union
from ..image.geometry import Image, ImageError, checked_image, stack_channels
from ..image.labels import label_extents, segment_volumes
from ..inference.back_to_image import allocate_array
from ..inference.options import VOLUMES
from ..inference.quality import with_expected
from .events import Segmented
from .requests import Cases, ChannelFile, Describe, PartFile, Prompt, Segment

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from ..batch.result_file import ResultFile
    from ..inference.segmentation import Segmentation
    from ..package import ModelPackage

Array = np.ndarray[Any, Any]


class Job:
    """One queued or running request. `given` and `made` are its files, in `folder`."""

    def __init__(self, request: Describe | Segment | Prompt | Cases) -> None:
        self.id = request.id
        self.request = request
        self.cancelled = threading.Event()
        self.started = False
        self.given: list[Path] = []
        self.made: list[Path] = []
        if isinstance(request, Segment | Prompt) and request.folder is not None:
            self.given = [Path(request.folder, channel.file) for channel in request.channels or ()]
        if isinstance(request, Prompt):
            parts = [value for value in vars(request).values() if isinstance(value, PartFile)]
            self.given += [Path(request.folder, part.file) for part in parts]

    @property
    def folder(self) -> Path:
        """Where the job's arrays are. EngineError where there is no such folder."""
        folder = self.request.folder if isinstance(self.request, Segment | Prompt) else None
        if folder is None or not Path(folder).is_dir():
            raise bad_request("The job's folder does not exist.")
        return Path(folder)

    def remove_made(self) -> None:
        """Remove the results of a job that failed."""
        remove(self.made)

    def remove_all(self) -> None:
        """Remove what the job was given and made, and the folder if that leaves it empty; never anything else in it."""
        remove([*self.given, *self.made])
        if self.given:
            with contextlib.suppress(OSError, ValueError):
                self.given[0].parent.rmdir()

    def read_image(self, request: Segment) -> Image:
        """The image from the user's files, or from arrays (K, J, I) or (K, J, I, components) of the channels.

        Voxels of the latter are read when needed.
        """
        if request.images is not None:
            from ..image.reading import read_image  # and with it SimpleITK

            return read_image([Path(image) for image in request.images], request.series or None)
        folder = self.folder
        return stack_channels([checked_image(read_channel(folder, channel)) for channel in request.channels or ()])

    def result_file(self, request: Segment, output: Path, package: ModelPackage) -> ResultFile:
        """Where the request wants its result.

        Without a digest of the input in the request, that of the image files is taken.
        """
        from ..batch.result_file import ResultFile

        options = {"overlap": request.overlap, "mirror": request.mirror, "roi": request.roi}
        if request.input is not None:
            return ResultFile(output, package, options, {"digest": request.input})
        images = [Path(image) for image in request.images or ()]
        return ResultFile.from_files(output, package, options, images, series=request.series or None)

    @staticmethod
    def list_cases(request: Cases) -> list[dict[str, Any]]:
        """The cases of the folder that the request names: `name`, `images`, `series`, `output`, and the `problem` if any."""
        from ..batch.cases import find_cases

        folder, output = Path(request.images), Path(request.output)
        if not folder.is_dir():
            raise EngineError("bad_input", f"There is no folder {folder}.", "Check its name.")
        try:
            found = find_cases([folder], output, request.format, request.channels, colours=request.colours)
        except OSError as error:
            reason = f"The folder {folder} could not be read ({error.strerror})."
            raise EngineError("bad_input", reason, "Check its name, and whether you may read it.") from error
        cases = []
        for case in found:
            images = [str(image) for image in case.images]
            facts = {"name": case.name, "images": images, "series": case.series, "output": str(case.output)}
            try:
                case.checked_images()
                cases.append({**facts, "problem": ""})
            except ImageError as error:
                cases.append({**facts, "problem": str(error)})
        return cases

    def allocate(self, name: str, shape: tuple[int, int, int], components: int | None, dtype: DTypeLike) -> Array:
        """Result arrays of the segmenter: labels in memory, volumes in files that fill as they come."""
        if name not in VOLUMES:
            return allocate_array(name, shape, components, dtype)
        path = self.folder / f"{name}.npy"
        self.made.append(path)
        lead = () if components is None else (components,)
        return as_ijk(new_mapped_array(path, (*lead, *shape[::-1]), dtype))

    def write_results(self, result: Segmentation, voxel_ml: float | None) -> Segmented:
        """The labels' file, cropped to what is not 0, and the event that tells of all results."""
        extents = label_extents(result.labels, result.described[-1]["value"])
        box = union(extent.box for extent in extents)
        if box is not None:
            path = self.folder / "labels.npy"
            self.made.append(path)
            cropped = as_kji(result.labels[slices(box)])
            new_mapped_array(path, cropped.shape, cropped.dtype)[...] = cropped
        corner = list(start_of(result.box))
        names = [name for name in VOLUMES if getattr(result, name) is not None]
        volumes = {name: {"file": f"{name}.npy", "offset": corner} for name in names}
        if "probabilities" in volumes:
            volumes["probabilities"] = self._crop_probabilities(result)
        segments = segment_volumes(extents, voxel_ml, result.described)
        return Segmented(
            labels={"file": "labels.npy" if box else None, "offset": list(start_of(box)) if box else [0, 0, 0]},
            segments=with_expected(segments, result.expected_dice, result.presence),
            volumes=volumes,
            statistics=result.statistics,
            seconds=result.seconds,
            device=result.device,
            notices=result.notices,
            device_notices=result.device_notices,
            fit=result.fit.as_dict(),
        )

    def _crop_probabilities(self, result: Segmentation) -> dict[str, Any]:
        """Replace the file of the probabilities by one of the box that labels reach; outside all is background.

        `result` has no probabilities then: Windows removes no file that is still mapped.
        """
        whole, box, offset = self.folder / "probabilities.npy", union(result.reach or ()), [0, 0, 0]
        if box is not None and result.probabilities is not None:
            offset = list(start_of(box))
            part = (slice(None), *slices(box, start_of(result.box)))
            path = self.folder / "reached.npy"
            self.made.append(path)
            copy_planes(as_kji(result.probabilities[part]), path)
        result.probabilities = None
        remove([whole])
        return {"file": "reached.npy" if box is not None else None, "offset": offset, "reach": result.reach}


def read_channel(folder: Path, channel: ChannelFile) -> Image:
    """One channel, mapped from its file. EngineError for a file that holds no array."""
    try:
        array = np.load(folder / channel.file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        if (folder / channel.file).is_file() and "empty file" in str(error):
            raise ImageError("The volume is empty: it has no voxels.", "Choose another volume.") from error
        raise bad_request(f"The file {channel.file} is not an array that can be read ({error}).") from error
    if array.ndim == 3:
        array = array[..., None]
    modalities = (channel.modality,) if channel.modality else ()
    return Image(channels_first(array), np.array(channel.ijk_to_ras, dtype=np.float64), modalities=modalities)


def remove(files: list[Path]) -> None:
    """Remove files; those that are not there are no reason to complain."""
    for file in list(files):
        with contextlib.suppress(OSError, ValueError):  # ValueError: a name that no file can have
            file.unlink()


def copy_planes(source: Array, path: Path) -> None:
    """Write an array to a `.npy` file, one item of its first axis after the other."""
    copy = new_mapped_array(path, source.shape, source.dtype)
    for target, plane in zip(copy, source, strict=True):
        target[...] = plane


def new_mapped_array(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """A `.npy` file of zeros, C-contiguous, mapped for writing. Its space is reserved, so that OSError comes here.

    Without that, writing to the map on a full disk would end the process with a signal.
    """
    array: Array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array
