"""Results of a batch: files that are recognised when the batch goes on, and that replace no work of a person."""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import EngineError
from ..image.geometry import Image
from ..image.tags import provenance
from ..image.writing import label_suffix, write_labels
from ..steps import finish
from .records import EDITED, FINISHED, Records, file_digest, input_of, origin, why_not


class ResultFile:
    """One result to be written: where, and from what.

    `state` is what lies there now (see prosma.records). `inputs`: {"digest"} of the image and optionally its "files".
    """

    def __init__(self, output: Path, package, options: dict, inputs: dict) -> None:
        label_suffix(output)
        self.output = output
        self.package = package
        self.options = options
        self.inputs = inputs
        self.records = Records(output.parent)
        self.origin = origin(package, options, inputs["digest"])
        self.state = self._look()

    @classmethod
    def from_files(cls, output: Path, package, options: dict, images: Sequence[Path]) -> ResultFile:
        """A result made from image files or DICOM folders. EngineError bad_input for those that cannot be read."""
        try:
            inputs = finish(input_of(images, Records(output.parent).of(output.name)))
        except OSError as error:
            reason = f"{error.filename} could not be read ({error.strerror})."
            raise EngineError("bad_input", reason, "Check its name, and whether you may read it.") from error
        return cls(output, package, options, inputs)

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing to compute; the file may have been corrected by a person since."""
        return self.state in (FINISHED, EDITED)

    def check(self) -> None:
        """EngineError bad_output where another file lies in the way."""
        reason, remedy = why_not(self.state, self.output.name)
        if reason:
            raise EngineError("bad_output", reason, remedy)

    def write(self, labels: np.ndarray, image: Image) -> None:
        """Write the label map (I, J, K) and its record: both, or none. EngineError bad_output."""
        tags = provenance(self.package, self.options)
        try:
            self.output.parent.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
            write_labels(self.output, labels, image, self.package.labels, tags, self._record)
        except OSError as error:
            reason = f"{self.output} could not be written ({error.strerror or error})."
            raise EngineError("bad_output", reason, "Free some space there, or choose another folder.") from error
        self.state = FINISHED

    def _look(self) -> str:
        return finish(self.records.state(self.output.name, self.origin))

    def _record(self, whole: Path) -> None:
        """The last moment before the file takes its place: somebody may have put another one there meanwhile."""
        self.state = self._look()
        self.check()
        self.records.add(self.output.name, finish(file_digest([whole])), self.origin, self.inputs.get("files", ()))

    def _remove_leftovers(self) -> None:
        """Parts of this result that a killed process left under their temporary names."""
        suffix = label_suffix(self.output)
        start = f".{self.output.name}."
        for file in self.output.parent.glob(f"{glob.escape(start)}*{suffix}"):
            if file.name[len(start) : -len(suffix)].isdigit():
                with contextlib.suppress(OSError):
                    file.unlink()
