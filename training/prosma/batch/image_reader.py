"""Images read in a process of their own: whatever a file does to the image library, the batch goes on.

`image_reader_process` is what runs there. It is started once and stays; one that dies or hangs costs the case that it was
reading, and the next case gets a new one. Voxels come as a mapped file, all else as a small pickle from our own child.
"""

from __future__ import annotations

import base64
import contextlib
import json
import pickle
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..errors import EngineError
from ..image.geometry import Image

if TYPE_CHECKING:
    from ..inference.pipeline import Prepared

READ_LIMIT_S = 600.0  # the largest volumes take a minute from a slow network
STARTING_LIMIT_S = 300.0
SMALL = 1 << 20  # bytes of voxels: so few are read, as a mapping and its end take longer
GRACE_S = 1.0  # to end by itself once its stdin is closed
CODE_FOLDER = Path(__file__).resolve().parents[2]  # started there, the child imports nothing from the user's folder


class ImageReader:
    """Reads images as `read_image` does; `limit`: seconds for one case. Not for several threads at once."""

    def __init__(self, limit: float = READ_LIMIT_S) -> None:
        self.limit = limit
        self._process: subprocess.Popen | None = None
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._folder: Path | None = None
        self._files: list[Path] = []  # those that this system keeps as long as they are mapped
        self._closed = False

    def start(self) -> None:
        """Start the process if there is none, without waiting for it."""
        if self._process is not None or self._closed:
            return
        self._process = subprocess.Popen(
            [sys.executable, "-m", "prosma.batch.image_reader_process"],
            cwd=CODE_FOLDER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._answers = queue.SimpleQueue()
        threading.Thread(target=_pass_on, args=(self._process.stdout, self._answers), daemon=True).start()

    def read(self, images: Sequence[Path], series: list[str] | None = None) -> Image:
        """The image in files or DICOM folders, its voxels mapped. `series` and ImageError as for `read_image`.

        EngineError bad_input where the process died or did not answer in time.
        """
        return self.read_ahead(images, series)[0]

    def read_ahead(
        self, images: Sequence[Path], series: list[str] | None = None, run: dict | None = None
    ) -> tuple[Image, Prepared | None]:
        """As `read`; and what a run with the arguments `run` of `inference.ahead.prepared_ahead` can begin with, if any."""
        names = ", ".join(path.name for path in images)
        self._remove_files()
        try:
            self._ask({"images": [str(path.absolute()) for path in images], "series": series, "run": run})
            answer = self._answer(self.limit)
        except queue.Empty:
            self._stop()
            raise EngineError(
                "bad_input",
                f"{names} was not read within {self.limit:.0f} s: the file is damaged or the disk does not answer.",
                "Copy it to a local disk and try again, or give it more time with --read-limit.",
            ) from None
        except (BrokenPipeError, EOFError):
            raise EngineError(
                "bad_input",
                f"{names} could not be read: the image library {self._how_it_ended()} over it.",
                "The file is probably damaged or larger than the memory: copy or export it again.",
            ) from None
        if "error" in answer:
            raise unpacked(answer["error"])
        return self._received(answer["image"], "r"), self._received(answer.get("prepared"), None)

    def close(self) -> None:
        """End the process and remove its files; a read in another thread fails. Another call does nothing."""
        self._closed = True
        self._stop()
        self._remove_files()

    def _ask(self, request: dict) -> None:
        if self._closed:
            raise EOFError
        if self._process is not None and self._process.poll() is not None:  # between two cases: not over a file
            self._stop()
        self.start()
        if self._folder is None:
            self._folder = Path(self._answer(STARTING_LIMIT_S)["folder"])
        if self._process is None or self._process.stdin is None:
            raise EOFError
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()

    def _answer(self, limit: float) -> dict:
        line = self._answers.get(timeout=limit)
        if not line:
            raise EOFError
        return json.loads(line)

    def _received(self, sent: dict | None, mode: Literal["r"] | None) -> Any:
        """What the process sent with its array in a file, which is mapped, or with None for `mode` read; None for None."""
        if sent is None:
            return None
        path = Path(sent["file"])
        array = np.asarray(np.load(path, mmap_mode=mode if path.stat().st_size > SMALL else None, allow_pickle=False))
        array.flags.writeable = mode is None
        self._files.append(path)
        self._remove_files()
        return replace(unpacked(sent["rest"]), array=array)

    def _how_it_ended(self) -> str:
        process = self._process
        self._stop()
        code = process.returncode if process is not None else 0
        if code >= 0:
            return f"ended (exit code {code})"
        with contextlib.suppress(ValueError):
            return f"died ({signal.Signals(-code).name})"
        return f"died (signal {-code})"

    def _stop(self) -> None:
        process, self._process = self._process, None
        folder, self._folder = self._folder, None
        if process is not None:
            with contextlib.suppress(OSError):
                if process.stdin is not None:
                    process.stdin.close()
            try:
                process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def _remove_files(self) -> None:
        """A mapped file goes on to exist without its name; on Windows it stays until it is mapped no more."""
        for path in list(self._files):
            with contextlib.suppress(PermissionError):
                path.unlink(missing_ok=True)
                self._files.remove(path)


def _pass_on(stream, answers: queue.SimpleQueue) -> None:
    """Lines of a process into a queue; an empty one at its end."""
    with stream:
        for line in stream:
            answers.put(line)
    answers.put(b"")


def packed(what) -> str:
    """A small object as text. The other end is a process of ours."""
    return base64.b64encode(pickle.dumps(what)).decode()


def unpacked(text: str):
    return pickle.loads(base64.b64decode(text))
