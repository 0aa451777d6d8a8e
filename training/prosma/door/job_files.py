"""A worker's job and its arrays: memory-mapped `.npy` files in a private folder, in Slicer's order K, J, I."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import TypeGuard

import numpy as np

from ..errors import EngineError, bad_request
from ..image.axes import as_ijk, as_kji, channels_first
from ..image.box import slices, start_of, union
from ..image.geometry import Image, ImageError, checked_image, stack_channels
from ..image.labels import label_extents, segment_volumes
from ..inference.back_to_image import allocate_array
from ..inference.options import VOLUMES


def is_plain_name(name) -> TypeGuard[str]:
    """Whether `name` names a file directly inside a folder."""
    return isinstance(name, str) and name not in ("", ".", "..") and "\0" not in name and Path(name).name == name


class Job:
    """One queued or running request. `given` and `made` are its files, in `folder`."""

    def __init__(self, request: dict) -> None:
        self.id = request["id"]
        self.request = request
        self.cancelled = threading.Event()
        self.started = False
        folder, channels = request.get("folder"), request.get("channels")
        self.folder = Path(folder) if isinstance(folder, str) and folder and "\0" not in folder else None
        channels = channels if isinstance(channels, list) and self.folder is not None else []
        names = [channel.get("file") for channel in channels if isinstance(channel, dict)]
        self.given = [self.place / name for name in names if is_plain_name(name)]
        self.made: list[Path] = []

    @property
    def place(self) -> Path:
        """`folder`, of a request that has one."""
        if self.folder is None:
            raise bad_request("A request like this has a folder.")
        return self.folder

    def remove_made(self) -> None:
        """Remove the results of a job that failed."""
        remove(self.made)

    def remove_all(self) -> None:
        """Remove what the job was given and made, and the folder if that leaves it empty; never anything else in it."""
        remove([*self.given, *self.made])
        if self.folder is not None:
            with contextlib.suppress(OSError, ValueError):
                self.folder.rmdir()

    def read_image(self) -> Image:
        """The image from the user's files, or from arrays (K, J, I) or (K, J, I, components) of the channels.

        Voxels of the latter are read when needed.
        """
        if "images" in self.request:
            return self._read_files()
        channels = self.request.get("channels")
        if self.folder is None or not self.folder.is_dir():
            raise bad_request("The job's folder does not exist.")
        if not isinstance(channels, list) or not channels:
            raise bad_request("A job has a list of channels.")
        return stack_channels([checked_image(self._read_channel(channel)) for channel in channels])

    def _read_files(self) -> Image:
        from ..image.reading import read_image  # and with it SimpleITK

        return read_image(self._image_paths(), self._series())

    def _series(self) -> list[str] | None:
        series = self.request.get("series")
        if series is not None and not (isinstance(series, list) and all(isinstance(which, str) for which in series)):
            raise bad_request("'series' is a list of texts.")
        return series or None

    def _image_paths(self) -> list[Path]:
        images = self.request.get("images")
        if not isinstance(images, list) or not images or not all(isinstance(image, str) for image in images):
            raise bad_request("'images' is a list of paths.")
        return [Path(image) for image in images]

    def _path(self, key: str) -> Path:
        path = self.request.get(key)
        if not isinstance(path, str) or not path or "\0" in path:
            raise bad_request(f"'{key}' is a path.")
        return Path(path)

    def result_file(self, package):
        """Where the request wants its result, a `prosma.results.ResultFile`.

        Without a digest of the input in the request, that of the image files is taken.
        """
        from ..batch.result_file import ResultFile

        output, request = self._path("output"), self.request
        options = {
            "overlap": request.get("overlap"),
            "mirror": bool(request.get("mirror", False)),
            "roi": request.get("roi"),
        }
        if request.get("input") is not None:
            return ResultFile(output, package, options, {"digest": request["input"]})
        return ResultFile.from_files(output, package, options, self._image_paths(), series=self._series())

    def list_cases(self) -> list[dict]:
        """The cases of the folder that the request names: `name`, `images`, `series`, `output`, and the `problem` if any."""
        from ..batch.cases import find_cases

        folder, output, request = self._path("images"), self._path("output"), self.request
        if not folder.is_dir():
            raise EngineError("bad_input", f"There is no folder {folder}.", "Check its name.")
        try:
            found = find_cases(
                [folder],
                output,
                request.get("format", ".seg.nrrd"),
                request.get("channels", 1),
                colours=bool(request.get("colours", False)),
            )
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

    def _read_channel(self, channel) -> Image:
        if not isinstance(channel, dict) or not is_plain_name(channel.get("file")):
            raise bad_request("A channel names a file inside the job's folder.")
        try:
            array = np.load(self.folder / channel["file"], mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            if (self.folder / channel["file"]).is_file() and "empty file" in str(error):
                raise ImageError("The volume is empty: it has no voxels.", "Choose another volume.") from error
            raise bad_request(f"The file {channel['file']} is not an array that can be read ({error}).") from error
        if array.ndim == 3:
            array = array[..., None]
        try:
            matrix = np.array(channel["ijk_to_ras"], dtype=np.float64)
        except (KeyError, TypeError, ValueError):
            raise bad_request("A channel has a 4 x 4 matrix ijk_to_ras.") from None
        return Image(channels_first(array), matrix)

    def allocate(self, name: str, shape: tuple[int, int, int], components: int | None, dtype) -> np.ndarray:
        """Result arrays of the segmenter: labels in memory, volumes in files that fill as they come."""
        if name not in VOLUMES:
            return allocate_array(name, shape, components, dtype)
        path = self.place / f"{name}.npy"
        self.made.append(path)
        lead = () if components is None else (components,)
        return as_ijk(new_mapped_array(path, (*lead, *shape[::-1]), dtype))

    def write_results(self, result, voxel_ml: float | None) -> dict:
        """The labels' file, cropped to what is not 0, and the event that tells of all results."""
        extents = label_extents(result.labels, result.described[-1]["value"])
        box = union(extent.box for extent in extents)
        if box is not None:
            path = self.place / "labels.npy"
            self.made.append(path)
            cropped = as_kji(result.labels[slices(box)])
            new_mapped_array(path, cropped.shape, cropped.dtype)[...] = cropped
        corner = list(start_of(result.box))
        names = [name for name in VOLUMES if getattr(result, name) is not None]
        volumes = {name: {"file": f"{name}.npy", "offset": corner} for name in names}
        if "probabilities" in volumes:
            volumes["probabilities"] = self._crop_probabilities(result)
        return {
            "event": "result",
            "labels": {"file": "labels.npy" if box else None, "offset": list(start_of(box)) if box else [0, 0, 0]},
            "segments": segment_volumes(extents, voxel_ml, result.described),
            "volumes": volumes,
            "statistics": result.statistics,
            "seconds": result.seconds,
            "device": result.device,
            "notices": result.notices,
            "device_notices": result.device_notices,
        }

    def _crop_probabilities(self, result) -> dict:
        """Replace the file of the probabilities by one of the box that labels reach; outside all is background.

        `result` has no probabilities then: Windows removes no file that is still mapped.
        """
        whole, box, offset = self.place / "probabilities.npy", union(result.reach), [0, 0, 0]
        if box is not None:
            offset = list(start_of(box))
            part = (slice(None), *slices(box, start_of(result.box)))
            path = self.place / "reached.npy"
            self.made.append(path)
            copy_planes(as_kji(result.probabilities[part]), path)
        result.probabilities = None
        remove([whole])
        return {"file": "reached.npy" if box is not None else None, "offset": offset, "reach": result.reach}


def remove(files: list[Path]) -> None:
    """Remove files; those that are not there are no reason to complain."""
    for file in list(files):
        with contextlib.suppress(OSError, ValueError):  # ValueError: a name that no file can have
            file.unlink()


def copy_planes(source: np.ndarray, path: Path) -> None:
    """Write an array to a `.npy` file, one item of its first axis after the other."""
    copy = new_mapped_array(path, source.shape, source.dtype)
    for target, plane in zip(copy, source, strict=True):
        target[...] = plane


def new_mapped_array(path: Path, shape: tuple[int, ...], dtype) -> np.ndarray:
    """A `.npy` file of zeros, C-contiguous, mapped for writing. Its space is reserved, so that OSError comes here.

    Without that, writing to the map on a full disk would end the process with a signal.
    """
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array
