"""The process that reads images, DICOM among them: those that stdin names, until stdin ends; and prepares small ones.

| what is segmented | which process reads its files |
| --- | --- |
| batches of the command line | this one, asked by `image_reader`; each process of a pool has its own |
| one case of the command line | this one too |
| files that Slicer names (a batch of the panel) | the worker, `door/worker` |
| a volume that is loaded in Slicer | Slicer has read it; the worker gets its voxels as a mapped file |

All of them read with `image.reading.read_image`, and DICOM with `image.dicom`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserFacingError, explained
from ..files import working_folder
from ..image.geometry import ImageError
from .image_reader import packed

NO_VOXELS = np.zeros((0, 0, 0, 0), np.uint8)  # in the answer: they lie in a file


def main() -> None:
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the command, which then closes stdin
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    with contextlib.suppress(BrokenPipeError), working_folder(Path(tempfile.gettempdir()), "prosma-read-") as folder:
        send(out, {"folder": str(folder)})
        for number, line in enumerate(sys.stdin.buffer):
            send(out, answer(json.loads(line), folder / f"{number}.npy"))


def send(out, message: dict) -> None:
    out.write(json.dumps(message).encode() + b"\n")
    out.flush()


def answer(request: dict, file: Path) -> dict:
    """Read the images of a request (`images`, `series`) and put their voxels into the file.

    Where it tells of the `run` that follows, what that can begin with goes into another file.
    """
    from ..image.reading import read_image

    try:
        image = read_image(request["images"], request["series"])
        found = {"image": sent(file, image)}
    except Exception as error:
        file.unlink(missing_ok=True)
        return {"error": packed(error if isinstance(error, UserFacingError) else explained(error))}
    if request["run"]:
        beside = file.with_suffix(".prepared.npy")
        try:
            from ..inference.ahead import prepared_ahead

            prepared = prepared_ahead(image, **request["run"])
            if prepared is not None:
                found["prepared"] = sent(beside, prepared)
        except Exception:  # whatever it is, the run meets it too and tells it
            beside.unlink(missing_ok=True)
    return found


def sent(file: Path, what: Any) -> dict:
    """An object with an `array` for the other process: that goes into the file. ImageError where there is no room."""
    save(file, what.array)
    return {"file": str(file), "rest": packed(replace(what, array=NO_VOXELS))}


def save(file: Path, array: np.ndarray) -> None:
    """A `.npy` file, in the order in which the voxels lie in memory. ImageError where there is no room."""
    try:
        np.save(file, array, allow_pickle=False)
    except OSError as error:
        raise ImageError(
            f"There is no room for the image in {file.parent} ({error.strerror or error}).",
            "Free some space there, or name another folder in the environment variable TMPDIR.",
            "internal",
        ) from error


if __name__ == "__main__":
    main()
