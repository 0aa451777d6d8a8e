"""Results as files: they are recognised when a batch goes on, and replace no work of a person."""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import EngineError
from ..image.constants import LABEL_SUFFIXES
from ..outputs.choices import BINARY, SEG, VOLUMES
from ..outputs.results import Content, Origin, check_result, paths_beside, suffix_of, write_result
from ..steps import finish
from .output_file import OutputFile
from .records import EDITED, input_of, origin, records_of

# Places and, as in the records, digests of images that were read last: other series may lie among the same files.
_JUST_READ: deque[tuple[list[str], dict]] = deque(maxlen=8)


class ResultFile(OutputFile):
    """One result to be written, with the files beside it: where, and from what.

    `inputs`: {"digest"} of the image, and optionally its "files"; for a DICOM result also "images" and "series", as in
    `from_files`. `seg_type`: of a DICOM segmentation. `also`: endings of the files beside the result.
    """

    def __init__(
        self,
        output: Path,
        package,
        options: dict,
        inputs: dict,
        since: int = 0,
        seg_type: str = BINARY,
        also: Sequence[str] = (),
    ) -> None:
        self.package = package
        self.options = options
        self.inputs = inputs
        self.seg_type = seg_type
        paths = [output, *paths_beside(output, also)]
        for path in paths:
            check_result(path, inputs.get("images", ()))
        super().__init__(output, self._origin_of(output), since)
        self.beside = [OutputFile(path, self._origin_of(path), since, output.name) for path in paths[1:]]

    def _origin_of(self, path: Path) -> dict:
        """What one of the files is made from."""
        is_other_type = self.seg_type != BINARY and suffix_of(path) == SEG
        form = {"seg_type": self.seg_type} if is_other_type else {}
        return origin(self.package, self.options, self.inputs["digest"], form)

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
        also: Sequence[str] = (),
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
        return cls(output, package, options, {**inputs, "images": images, "series": series}, since, seg_type, also)

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing to compute. Beside a result that a person corrected nothing more is written."""
        return self.is_there and (self.state == EDITED or not self.missing)

    @property
    def missing(self) -> list[OutputFile]:
        """The files beside the result that have to be made."""
        return [file for file in self.beside if not file.is_there]

    @property
    def volumes(self) -> list[str]:
        """The outputs of the run that these hold."""
        return [VOLUMES[ending] for file in self.missing if (ending := suffix_of(file.output)) in VOLUMES]

    def look(self) -> None:
        """See what lies there now."""
        super().look()
        for file in getattr(self, "beside", ()):
            file.look()

    def make_folder(self) -> None:
        """Make the folder of the result. EngineError bad_output where that is not possible."""
        if self.output.parent.is_dir():  # making it waits for whoever writes beside it
            return
        try:
            self.output.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise not_writable(self.output.parent, error) from error

    def check(self) -> None:
        """EngineError bad_output where other files lie in the way."""
        for file in (self, *self.beside):
            if not file.is_there:
                file.refuse_replacing()

    def write(
        self,
        content: Content,
        report: dict | None = None,
        still_mine: Callable[[], bool] = lambda: True,
    ) -> None:
        """Write what is not there yet: the label map with its record and `report`, then the files beside it.

        Each file and its line, or none. `still_mine` is asked at the last moment; False leaves everything as it is.
        EngineError bad_output.
        """
        made_from = Origin(self.inputs.get("images", ()), self.inputs.get("series"), self.package, self.options)
        if self.is_there and self.missing:
            content = replace(content, labels=self._labels_there(content.labels), facts=None)

        def write(path: Path, before_it_moves: Callable[[Path], None]) -> None:
            write_result(path, content, made_from, self.seg_type, before_it_moves)

        path = self.output
        try:
            self.make_folder()
            if not self.is_there:
                self.put(write, still_mine, self.inputs.get("files", ()), report)
            for file in self.missing:
                path = file.output
                file.put(write, still_mine, self.inputs.get("files", ()))
        except OSError as error:
            raise not_writable(path, error) from error

    def _labels_there(self, computed: np.ndarray) -> np.ndarray:
        """The labels that the result has, which another device may have computed; DICOM results are taken for the same."""
        if suffix_of(self.output) not in LABEL_SUFFIXES:
            return computed
        from ..image.reading import read_labels

        return read_labels(self.output).array[0].astype(computed.dtype)


def not_writable(path: Path, error: OSError) -> EngineError:
    """The error for a result that the system does not let us write."""
    blocked = isinstance(error, (FileExistsError, NotADirectoryError))
    reason = f"{path} could not be written ({'a file is in the way' if blocked else error.strerror or error})."
    first = "Move that file away" if blocked else "Free some space there"
    return EngineError("bad_output", reason, f"{first}, or choose another folder.")


def check_writable(folder: Path) -> None:
    """Make a folder, and a file in it for a moment. EngineError bad_output where that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
    except OSError as error:
        raise not_writable(folder, error) from error
