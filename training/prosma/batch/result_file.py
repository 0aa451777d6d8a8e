"""Results as files: they are recognised when a batch goes on, and replace no work of a person."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..errors import EngineError
from ..files import temporaries
from ..image.geometry import Image
from ..outputs.choices import BINARY
from ..outputs.results import Origin, check_result, result_suffix, write_result
from ..steps import finish
from .records import EDITED, FINISHED, file_digest, input_of, origin, records_of, why_not

# Places and, as in the records, digests of images that were read last: other series may lie among the same files.
_JUST_READ: deque[tuple[list[str], dict]] = deque(maxlen=8)


class ResultFile:
    """One result to be written: where, and from what.

    `state` is what lies there now (see records). `inputs`: {"digest"} of the image, and optionally its "files"; for a
    DICOM result also "images" and "series", as in `from_files`. What was written before the mark `since` of the records is
    made again. `seg_type`: of a DICOM segmentation.
    """

    def __init__(
        self, output: Path, package, options: dict, inputs: dict, since: int = 0, seg_type: str = BINARY
    ) -> None:
        check_result(output, inputs.get("images", ()))
        self.output = output
        self.package = package
        self.options = options
        self.inputs = inputs
        self.since = since
        self.records = records_of(output.parent.absolute())
        self.seg_type = seg_type
        self.origin = origin(package, options, inputs["digest"], {} if seg_type == BINARY else {"seg_type": seg_type})
        self.look()

    @classmethod
    def from_files(
        cls,
        output: Path,
        package,
        options: dict,
        images: Sequence[Path],
        since: int = 0,
        series: Sequence[str] | None = None,
        seg_type: str = BINARY,
    ) -> ResultFile:
        """A result made from image files or DICOM folders, of which `series` chooses volumes.

        EngineError bad_input for those that cannot be read.
        """
        try:
            where = [os.path.abspath(image) for image in images]
            just_read = [line for place, line in _JUST_READ if place == where]
            lines = [*records_of(output.parent.absolute()).of(output.name), *just_read]
            inputs = finish(input_of(images, lines, series))
            _JUST_READ.append((where, {"files": inputs["files"], "origin": {"input": inputs["digest"]}}))
        except OSError as error:
            reason = f"{error.filename} could not be read ({error.strerror})."
            raise EngineError("bad_input", reason, "Check its name, and whether you may read it.") from error
        return cls(output, package, options, {**inputs, "images": images, "series": series}, since, seg_type)

    def look(self) -> None:
        """See what lies there now."""
        self.state = finish(self.records.state(self.output.name, self.origin, self.since))

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing to compute; the file may have been corrected by a person since."""
        return self.state == FINISHED or (self.state == EDITED and not self.since)

    def make_folder(self) -> None:
        """Make the folder of the result. EngineError bad_output where that is not possible."""
        try:
            self.output.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise not_writable(self.output.parent, error) from error

    def check(self) -> None:
        """EngineError bad_output where another file lies in the way."""
        reason, remedy = why_not(self.state, self.output.name)
        if reason:
            raise EngineError("bad_output", reason, remedy)

    def write(
        self,
        labels: np.ndarray,
        image: Image,
        report: dict | None = None,
        still_mine: Callable[[], bool] = lambda: True,
        described: Sequence[dict] | None = None,
    ) -> None:
        """Write the label map (I, J, K) and its record, with `report`: both, or none. EngineError bad_output.

        `described` are the labels that it may hold, the model's own if it is None. `still_mine` is asked at the last
        moment; False leaves everything as it is.
        """
        made_from = Origin(self.inputs.get("images", ()), self.inputs.get("series"), self.package, self.options)

        def record(whole: Path) -> None:
            """The last moment before the file takes its place: somebody may have put another one there meanwhile."""
            if not still_mine():
                raise EngineError(
                    "bad_output",
                    f"Another process has taken over {self.output.name}, because this one gave no sign of life for minutes.",
                    "Nothing is lost: the other one makes the result.",
                )
            self.look()
            self.check()
            digest = finish(file_digest([whole]))
            self.records.add(self.output.name, digest, self.origin, self.inputs.get("files", ()), report)

        try:
            self.make_folder()
            self._remove_leftovers()
            described = described or self.package.labels
            write_result(self.output, labels, image, described, made_from, self.seg_type, record)
        except OSError as error:
            raise not_writable(self.output, error) from error
        self.state = FINISHED

    def _remove_leftovers(self) -> None:
        """Parts of this result that a killed process left under their temporary names."""
        for file, _computer, _process in temporaries(self.output, result_suffix(self.output)):
            with contextlib.suppress(OSError):
                file.unlink()


def not_writable(path: Path, error: OSError) -> EngineError:
    """The error for a result that the system does not let us write."""
    reason = f"{path} could not be written ({error.strerror or error})."
    return EngineError("bad_output", reason, "Free some space there, or choose another folder.")


def check_writable(folder: Path) -> None:
    """Make a folder, and a file in it for a moment. EngineError bad_output where that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
    except OSError as error:
        raise not_writable(folder, error) from error
