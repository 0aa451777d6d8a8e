"""A request to answer strokes: its arrays come and go as files, and its image stays ready for the next stroke."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..correct.prompt_input import Placed
from ..errors import EngineError, bad_request
from ..image.axes import as_ijk, as_kji
from ..image.box import placed, start_of
from ..image.geometry import Image, checked_image, stack_channels
from .events import Prompted
from .job_files import Job, new_mapped_array, read_channel
from .requests import PartFile, Prompt

if TYPE_CHECKING:
    from ..inference.segmenter import Segmenter

PARTS = ("add", "remove", "region", "earlier_add", "earlier_remove", "mask", "log_odds")


class Images:
    """The image used last, checked once: strokes on one image follow each other."""

    def __init__(self) -> None:
        self.key: object = None
        self.image: Image | None = None

    def of(self, request: Prompt) -> Image:
        """The image of a request, as long as its files stay the same the one that is ready."""
        folder = Path(request.folder)
        try:
            states = [(folder / channel.file).stat() for channel in request.channels]
        except OSError as error:
            raise bad_request(f"A channel's file cannot be read ({error.strerror}).") from error
        key = (str(folder), repr(request.channels), [(s.st_ino, s.st_mtime_ns, s.st_size) for s in states])
        if key != self.key or self.image is None:
            channels = [checked_image(read_channel(folder, channel)) for channel in request.channels]
            self.key, self.image = key, stack_channels(channels)
        return self.image


def answer(job: Job, request: Prompt, segmenter: Segmenter, image: Image, cancelled: Callable[[], bool]) -> Prompted:
    """Answer the strokes and write the part of the mask that may have changed."""
    from ..inference.prompts import Prompts

    given = {name: part_on_grid(job.folder, getattr(request, name), image.shape) for name in PARTS}
    result = segmenter.prompt(image, Prompts(**given, box=request.box), request.fine, cancelled)
    path = job.folder / f"prompted_{request.number}.npy"
    job.made.append(path)
    part = as_kji(result.mask)
    new_mapped_array(path, part.shape, np.uint8)[...] = part
    return Prompted(
        mask={"file": path.name, "offset": list(start_of(result.box))},
        seconds=result.seconds,
        device=result.device,
        notices=result.notices,
    )


def part_on_grid(folder: Path, part: PartFile | None, shape: tuple[int, int, int]) -> Placed | None:
    """An array (K, J, I) of a part of the grid, seen as (I, J, K) on the whole grid; None for no part.

    EngineError bad_input for a file that holds no such array or reaches beyond the grid.
    """
    if part is None:
        return None
    try:
        array = as_ijk(np.load(folder / part.file, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise bad_request(f"The file {part.file} is not an array that can be read ({error}).") from error
    box = placed(part.offset, array.shape) if array.ndim == 3 else ()
    if len(box) != 3 or any(low < 0 or high > n for (low, high), n in zip(box, shape, strict=True)):
        raise EngineError(
            "bad_input",
            f"The array in {part.file} reaches beyond the image of {' x '.join(map(str, shape))} voxels.",
            "This is a fault of the program that talks to the engine.",
        )
    return Placed(array if array.dtype.kind == "f" else array != 0, part.offset, shape, part.elsewhere)
