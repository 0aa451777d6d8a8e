"""Which images of a folder make up which case, and where their results go."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..image.constants import CHANNEL
from ..image.dicom.files import is_dicom
from ..image.dicom.reading import list_dicom
from ..image.geometry import ImageError
from ..image.reading import IMAGE_SUFFIXES, PHOTOGRAPHS
from ..outputs.choices import RESULT_SUFFIXES
from ..outputs.results import check_result, paths_beside, result_suffix
from .records import RECORDS, Records


@dataclass(frozen=True)
class Case:
    """Images of one case, one for each channel in order, its result's file, and why it cannot be done ("" if it can).

    `series`: which volumes of DICOM files or folders, as for `read_image`; None where there is nothing to choose.
    """

    name: str
    images: list[Path]
    output: Path
    problem: str = ""
    series: list[str] | None = None

    @staticmethod
    def single(images: list[Path], output: Path, series: list[str] | None = None) -> Case:
        """The one case of a command whose output is a file."""
        result_suffix(output)
        return Case(stem(named(images[0])), list(images), output, series=series)

    def as_json(self) -> dict:
        """For another process; `from_json` is the way back."""
        paths = {"images": [str(path.absolute()) for path in self.images], "output": str(self.output.absolute())}
        return {"name": self.name, **paths, "problem": self.problem, "series": self.series}

    @staticmethod
    def from_json(content: dict) -> Case:
        return Case(**{**content, "images": list(map(Path, content["images"])), "output": Path(content["output"])})

    def facts(self) -> dict:
        """What every report on the case begins with."""
        chosen = {"series": self.series} if self.series else {}
        return {"case": self.name, "inputs": [str(image) for image in self.images], **chosen}

    def checked_images(self) -> list[Path]:
        """The images; ImageError where the case lacks some, or where its result would harm one."""
        if self.problem:
            raise ImageError(self.problem)
        self.check_output()
        return self.images

    def check_output(self, also: Sequence[str] = ()) -> None:
        """ImageError where the result, or a file beside it with one of the endings `also`, cannot be or would do harm."""
        for path in (self.output, *paths_beside(self.output, also)):
            check_result(path, self.images)
            refuse_harm(path, self.images)


def refuse_harm(path: Path, images: Sequence[Path]) -> None:
    """ImageError where a result would take the place of an image, or lie among the files of one."""
    output = os.path.realpath(path)
    if output in map(os.path.realpath, images):
        raise ImageError(f"The result would overwrite the image {path.name}.", "Choose another output.", "bad_output")
    inside = next((image for image in images if image.is_dir() and is_inside(output, image)), None)
    if inside is not None:
        reason = f"The result {path.name} would lie among the files of the image {inside}."
        raise ImageError(reason, "Choose another output.", "bad_output")


def is_inside(path: str, folder: Path) -> bool:
    """Whether a real path lies in a folder, at any depth."""
    return Path(os.path.realpath(folder)) in Path(path).parents


def named(path: Path) -> Path:
    """The path with a last part that is a name, whatever it was: `.` and `..` have none."""
    return Path(os.path.abspath(path))


def output_is_folder(images: list[Path], output: Path) -> bool:
    """Whether an output names a folder: it is one, has no ending, or is no result's name while the input is a folder."""
    if output.is_dir() or not output.suffix:
        return True
    return images[0].is_dir() and not output.name.lower().endswith(RESULT_SUFFIXES)


def stem(path: Path) -> str:
    """A file's name without its image ending; a folder's name."""
    lower = path.name.lower()
    suffix = next((suffix for suffix in IMAGE_SUFFIXES if lower.endswith(suffix)), "")
    return path.name[: len(path.name) - len(suffix)] if suffix and not path.is_dir() else path.name


def find_cases(
    images: list[Path],
    output: Path,
    suffix: str,
    channels: int,
    series: list[str] | None = None,
    colours: bool = False,
) -> list[Case]:
    """The cases to segment into the folder `output`, by name. ImageError where there are none.

    One folder of image files: with nnU-Net names (case_0000.nii.gz, case_0001.nii.gz) files of one case are its
    channels; else each file is a case. Pictures hold all channels of a model with one channel, or with three that are
    `colours`, so numbered ones (frame_0000.png, frame_0001.png) are cases. A folder with DICOM files is a DICOM case, and
    pictures in it are not; a folder with subfolders: each is a DICOM case. Each series of a DICOM case is a case of its
    own, unless `series` chooses some or the model takes several channels. Single files: one case. Earlier results in the
    same folder, and the folder of results, are no cases.
    """
    result_suffix(f"case{suffix}")
    folder = images[0]
    if len(images) > 1 or not folder.is_dir():
        name = stem(named(folder))
        return [Case(name, list(images), output / f"{name}{suffix}", series=series)]
    real = os.path.realpath(output)
    results = {RECORDS} | (Records(output).names() if real == os.path.realpath(folder) else set())
    entries = sorted(
        entry
        for entry in folder.iterdir()
        if not entry.name.startswith(".") and entry.name not in results and os.path.realpath(entry) != real
    )
    files = [entry for entry in entries if is_image(entry) and (entry.is_file() or is_broken_link(entry))]
    dicom = any(entry.is_file() and not is_image(entry) and is_dicom(entry) for entry in entries)
    if dicom:
        files = [entry for entry in files if not is_picture(entry)]
    whole = channels == 1 or colours
    groups, folders = group_channels(files, whole), []
    if dicom or (not files and any(entry.is_file() for entry in entries)):
        folders = [folder]
    elif not files:
        folders = [entry for entry in entries if entry.is_dir()]
    cases = [make_case(name, groups[name], output / f"{name}{suffix}", channels, whole) for name in sorted(groups)]
    for entry in folders:
        cases += dicom_cases(entry, output, suffix, series, channels)
    if not cases:
        raise ImageError(f"{folder} holds no images.", f"Known formats: DICOM folders, {', '.join(IMAGE_SUFFIXES)}.")
    return cases


def folders_passed_over(folder: Path, cases: list[Case], output: Path) -> list[str]:
    """The names of folders in a folder of image files that hold image files, too, and are not looked into."""
    if not any(path.parent == folder for case in cases for path in case.images):
        return []
    inner = [each for each in sorted(folder.iterdir()) if each.is_dir() and not each.name.startswith(".")]
    inner = [each for each in inner if os.path.realpath(each) != os.path.realpath(output)]
    return [each.name for each in inner if any(is_image(file) or is_dicom(file) for file in some_files(each))]


def some_files(folder: Path, most: int = 50) -> list[Path]:
    """The first files of a folder; none where it cannot be read."""
    try:
        return [file for file in itertools.islice(folder.iterdir(), most) if file.is_file()]
    except OSError:
        return []


def dicom_cases(folder: Path, output: Path, suffix: str, series: list[str] | None, channels: int) -> list[Case]:
    """The cases of one DICOM folder: one, or one for each series."""
    name = named(folder).name
    whole = Case(name, [folder], output / f"{name}{suffix}", series=series)
    if series or channels > 1:
        return [whole]
    try:
        volumes = list_dicom(folder)
    except ImageError:
        return [whole]  # the case fails when it is read, and says why
    volumes = [volume for volume in volumes if not volume.is_localizer] or volumes
    first = {volume.uid: volume for volume in reversed(volumes)}
    if len(first) == 1:
        return [whole]
    cases: dict[str, Case] = {}
    for uid, volume in sorted(first.items(), key=lambda entry: entry[1].number):
        words = re.sub(r"[^\w.-]+", "-", volume.description).strip("-.") or "series"
        own = f"{name}-{words}"
        own = own if own not in cases else f"{own}-{volume.number}"
        cases[own] = Case(own, [folder], output / f"{own}{suffix}", series=[uid or str(volume.number)])
    return list(cases.values())


def is_image(file: Path) -> bool:
    """Whether a file is an image by its name; single DICOM files belong to a series and are none."""
    name = file.name.lower()
    return name.endswith(IMAGE_SUFFIXES) and not name.endswith((".dcm", ".seg.nrrd"))


def is_broken_link(path: Path) -> bool:
    """Whether a path is a link to nothing, as data sets have for files that were not fetched: a case that will fail."""
    return path.is_symlink() and not os.path.exists(path)


def group_channels(files: list[Path], whole_pictures: bool = False) -> dict[str, list[Path]]:
    """Files by case: `_0000`, `_0001`, ... at the end of a name number the channels of one.

    With `whole_pictures` a picture is a case, and named by all of its name unless `_0000` is the only number of its kind.
    """
    groups: dict[str, list[Path]] = {}
    for file in files:
        match = CHANNEL.fullmatch(stem(file))
        groups.setdefault(match["case"] if match else stem(file), []).append(file)
    if not whole_pictures:
        return groups
    result: dict[str, list[Path]] = {}
    for case, members in groups.items():
        alone = len(members) == 1 and stem(members[0]) in (case, f"{case}_0000")
        for file in members:
            result.setdefault(case if alone or not is_picture(file) else stem(file), []).append(file)
    return result


def is_picture(file: Path) -> bool:
    """Whether a file is a picture by its name."""
    return file.name.lower().endswith(PHOTOGRAPHS)


def make_case(name: str, paths: list[Path], output: Path, channels: int, whole_pictures: bool = False) -> Case:
    """A case, with a problem where its numbered files are not exactly the model's channels."""
    numbers = [match["number"] for match in map(CHANNEL.fullmatch, map(stem, paths)) if match]
    wanted = [f"{number:04d}" for number in range(channels)]
    if len(paths) > max(1, len(set(numbers))):
        why = f"Several files are called {name}; the results would overwrite each other. Rename all but one of them."
        return Case(name, paths, output, why)
    if numbers and numbers != wanted and not (whole_pictures and is_picture(paths[0])):
        have = ", ".join(f"_{number}" for number in numbers)
        need = ", ".join(f"_{number}" for number in wanted)
        why = f"Case {name} has the channels {have}; the model takes {need}. Number its files so."
        return Case(name, paths, output, why)
    return Case(name, paths, output)
