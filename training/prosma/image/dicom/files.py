"""Which files of a folder are DICOM, and their headers, read by pydicom without the voxels.

Source: DICOM PS3.10 section 7.1 (file format), PS3.5 section 7.1 (elements).
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..geometry import ImageError

EXPORT_AGAIN = "Copy or export it again."
MOST_FILES = 100_000
ONE_THREAD = threading.RLock()


@dataclass
class Collected:
    """The files at a path: `headers` of DICOM files, `strangers` that are no DICOM, `damaged` ones.

    Of the damaged ones also why, and the UID of their series as far as it is known ("" else).
    """

    headers: list[tuple[Path, object]] = field(default_factory=list)
    strangers: list[Path] = field(default_factory=list)
    damaged: list[tuple[Path, ImageError, str]] = field(default_factory=list)


@contextlib.contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Lets pydicom read values that break the rules, as many scanners write them, without printing them.

    Its settings and Python's warnings are the whole process's, so one thread at a time.
    """
    try:
        from pydicom import config
        from pydicom import pixels as _needed  # noqa: F401  since pydicom 3
    except ImportError:
        raise ImageError(
            "DICOM files are read by pydicom 3, which is not installed here.",
            'Install it: python -m pip install "pydicom>=3"',
        ) from None
    with ONE_THREAD, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = config.settings.reading_validation_mode
        config.settings.reading_validation_mode = config.IGNORE
        try:
            yield
        finally:
            config.settings.reading_validation_mode = before


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM: with its mark, or, as very old ones, with the first group of elements."""
    with path.open("rb") as file:
        start = file.read(132)
    if start[128:] == b"DICM":
        return True
    if len(start) < 132 or start[0] not in (2, 8) or start[1]:
        return False
    _, element, length = struct.unpack_from("<HHI", start)
    explicit = start[4:6].isalpha() and start[4:6].isupper()
    return element <= 0x0070 and (explicit or length <= 64)


def collect(path: Path) -> Collected:
    """The files at `path`: one file, the folder of a DICOMDIR, or all files in a folder and its subfolders.

    Hidden files and folders, directories of media (DICOMDIR) and links to folders are left out.
    """
    if path.name.upper() == "DICOMDIR" and path.is_file():
        path = path.parent
    found = Collected()
    for file in files_in(path) if path.is_dir() else [path]:
        try:
            if not is_dicom(file):
                found.strangers.append(file)
                continue
            header = read_header(file)
        except OSError as error:
            reason = f"{file.name} could not be read ({error.strerror})."
            found.damaged.append((file, ImageError(reason, "Check whether you may read it."), ""))
        except Exception:  # whatever pydicom stumbles over; its words may hold values of the file
            reason = f"The header of {file.name} is damaged or cut off."
            found.damaged.append((file, ImageError(reason, EXPORT_AGAIN), ""))
        else:
            found.headers.append((file, header))
    return found


def files_in(folder: Path) -> list[Path]:
    """All files in a folder and its subfolders in the order of their names, links to files that are not there too."""
    files: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (Path(place, name) for name in sorted(names) if not name.startswith(".") and name.upper() != "DICOMDIR")
        files += [path for path in paths if path.is_file() or (path.is_symlink() and not path.exists())]
        if len(files) > MOST_FILES:
            raise ImageError(
                f"{folder} holds more than {MOST_FILES} files.", "Give the folder of one series or one study."
            )
    return files


def read_header(file: Path):
    """The elements of a DICOM file before its voxels: a pydicom data set."""
    from pydicom import dcmread

    return dcmread(file, stop_before_pixels=True, force=True)


def read_whole(file: Path):
    """A DICOM file with its voxels: a pydicom data set. ImageError where it is damaged."""
    from pydicom import dcmread

    try:
        return dcmread(file, force=True)
    except OSError as error:
        raise ImageError(
            f"{file.name} could not be read ({error.strerror or 'it is cut off'}).", EXPORT_AGAIN
        ) from None
    except Exception:
        raise ImageError(f"{file.name} is damaged or cut off.", EXPORT_AGAIN) from None
