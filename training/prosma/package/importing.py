"""Other people's packages: taken from a folder or a zip, only the files that a package has, whole or not at all.

Links and special files are never followed, and sizes are limited, whatever a file says of itself. Needs the standard
library alone, for Slicer's process uses it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from ..cancel import never, stop_if
from ..errors import UserFacingError
from ..files import opened_regular, replace_folder, user_folder, working_folder
from .folders import IMPORTING, bundled_models_folder, tidy, user_models
from .model_package import LARGEST_DESCRIPTION, PREVIEW, ModelPackage, package_files, why
from .schema import DESCRIPTION, PackageError
from .weights_file import LARGEST_WEIGHTS

BLOCK = 1 << 20
LARGEST_TEXT = 1 << 20
LARGEST_PREVIEW = 16 << 20
MOST_MEMBERS = 1000  # of a zip
DEEPEST = 3  # folders that a package may lie in inside a zip
DENSEST = 100  # times that a file of more than a block may shrink in a zip
COPIED = "Copy or download the package again."

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Part:
    """One file of a package that is to be copied: its name, its size, and how it is opened."""

    name: str
    size: int
    open: Callable[[], contextlib.AbstractContextManager[BinaryIO]]


Parts = dict[str, Part]


def import_package(
    path: str | os.PathLike[str],
    progress: Progress = lambda fraction: None,
    cancelled: Callable[[], bool] = never,
) -> ModelPackage:
    """Check the package at ``path`` and copy it among the user's own models, in place of an older one with its id.

    `progress` is told the copied share (0 to 1) and `cancelled` asked with every megabyte. Raises PackageError, and
    Cancelled; then nothing has changed. Killed at any moment, the older one or the new one is found at the next start.
    """
    models = user_models()
    with failures_told(path), parts_of(Path(path)) as parts:
        models.mkdir(parents=True, exist_ok=True)
        tidy(models)
        with working_folder(models, IMPORTING) as temporary:
            new = temporary / "new"
            copy(parts, new, progress, cancelled)
            package = ModelPackage.open(new)
            refuse_bundled_id(package.id, bundled_models_folder())
            stop_if(cancelled)
            replace_folder(new, models / package.id)
    return ModelPackage.open(models / package.id)


def refuse_bundled_id(id: str, bundled: Path | None) -> None:
    """Raise PackageError for the id of a model that comes with ProSMA: that one would be used in its place."""
    if bundled is not None and (bundled / id).is_dir():
        raise PackageError(
            f"The id '{id}' is that of a model that comes with ProSMA, which would be used in its place.",
            f'Give the model another "id" in its {DESCRIPTION} and import it again.',
        )


def unpack(archive: Path) -> Path:
    """Unpack a zip with a package into the user's cache, once for each content, and return the folder."""
    place = user_folder() / "unpacked"
    with failures_told(archive), archive.open("rb") as file:
        target = place / digest_of(file)[:16]
        if (target / DESCRIPTION).is_file():
            return target
        place.mkdir(parents=True, exist_ok=True)
        tidy(place)
        with parts_of(archive) as parts, working_folder(place, IMPORTING) as temporary:
            copy(parts, temporary / "new")
            replace_folder(temporary / "new", target)
    return target


def digest_of(file: BinaryIO) -> str:
    """The sha256 of an open file."""
    digest = hashlib.sha256()
    while block := file.read(BLOCK):
        digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def failures_told(path: str | os.PathLike[str]) -> Iterator[None]:
    """Whatever goes wrong with a package is told in a sentence that names it: libraries fail on damage in many ways."""
    try:
        yield
    except UserFacingError:
        raise
    except OSError as error:
        name = error.filename or path
        raise PackageError(
            f"'{name}' could not be read or written ({why(error)}).",
            "Check who may read it, and the free space of the disk.",
        ) from error
    except Exception as error:
        raise PackageError(f"'{Path(path).name}' cannot be unpacked ({why(error)}).", COPIED) from error


def copy(
    parts: Parts,
    new: Path,
    progress: Progress = lambda fraction: None,
    cancelled: Callable[[], bool] = never,
) -> None:
    """Write the files of a package into the new folder `new`. Raises PackageError and Cancelled."""
    total = sum(part.size for part in parts.values())
    if total > shutil.disk_usage(new.parent).free:
        raise PackageError(f"The package needs {total / 1e9:.1f} GB, and the disk has less room.", "Free some space.")
    new.mkdir()
    done = 0
    for part in parts.values():
        left = limit_of(part.name)
        with part.open() as source, (new / part.name).open("wb") as target:
            while block := source.read(BLOCK):
                left -= len(block)
                if left < 0:
                    raise PackageError(f"'{part.name}' is larger than any package's.", COPIED)
                stop_if(cancelled)
                target.write(block)
                done += len(block)
                progress(min(1.0, done / max(1, total)))


def limit_of(name: str) -> int:
    """Bytes that a file of a package may have."""
    if name.endswith(".safetensors"):
        return LARGEST_WEIGHTS
    return LARGEST_PREVIEW if name == PREVIEW else LARGEST_TEXT


@contextlib.contextmanager
def parts_of(path: Path) -> Iterator[Parts]:
    """The files of the package in a folder or zip. Raises PackageError."""
    if path.is_dir():
        yield in_folder(path)
        return
    if not path.is_file() or not zipfile.is_zipfile(path):
        raise PackageError(
            f"There is no model package at '{path}'.", "Give the path of a folder or a zip file that is one."
        )
    with zipfile.ZipFile(path) as archive:
        yield in_zip(archive, path.name)


def named_weights(description: Part) -> str:
    """The name of the file with weights, by a model.json that is not checked yet."""
    with description.open() as file:
        content = file.read(LARGEST_DESCRIPTION + 1)
    if len(content) > LARGEST_DESCRIPTION:
        raise PackageError(f"{DESCRIPTION} has more than {LARGEST_DESCRIPTION >> 20} MB.", COPIED)
    try:
        return str(json.loads(content)["weights"]["file"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""  # the check of the whole description says what is wrong


# --- folders


def in_folder(folder: Path) -> Parts:
    """The files of a package in a folder."""
    description = part_of(folder / DESCRIPTION)
    if description is None:
        raise PackageError(f"'{folder}' is not a model package: it has no {DESCRIPTION}.", "Choose its folder.")
    names = [name for name in package_files(named_weights(description)) if name and Path(name).name == name]
    return {name: part for name in names if (part := part_of(folder / name)) is not None}


def part_of(path: Path) -> Part | None:
    """A file of a folder, None where there is none. Raises PackageError for links and special files."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise PackageError(
            f"'{path.name}' in '{path.parent}' is no ordinary file but a link, folder or device, which is not followed.",
            "Put the file itself there, or remove it, and import the package again.",
        )
    return Part(path.name, found.st_size, lambda: opened_regular(path, follow=False))


# --- zips


def in_zip(archive: zipfile.ZipFile, name: str) -> Parts:
    """The files of the one package in a zip. Raises PackageError."""
    members = archive.infolist()
    if len(members) > MOST_MEMBERS:
        raise PackageError(f"'{name}' holds {len(members)} files; a package has a handful.", "Zip the package alone.")
    files: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for member in members:
        place = safe_place(member.filename, name)
        if place in files and not member.is_dir():
            raise PackageError(f"'{name}' holds '{member.filename}' twice.", COPIED)
        if not member.is_dir():
            files[place] = member
    found = [place for place in files if place.name == DESCRIPTION and len(place.parts) <= DEEPEST + 1]
    found.sort(key=lambda place: len(place.parts))
    if not found:
        raise PackageError(f"'{name}' is not a model package: it has no {DESCRIPTION}.", "Choose a package's zip.")
    if len(found) > 1 and len(found[1].parts) == len(found[0].parts):
        raise PackageError(f"'{name}' holds several models.", "Unpack it, and import the folder of each one.")
    home = found[0].parent
    names = package_files(named_weights(member_part(archive, files[found[0]], DESCRIPTION)))
    return {each: member_part(archive, files[home / each], each) for each in names if home / each in files}


def safe_place(member: str, archive: str) -> PurePosixPath:
    """Where in a zip a member lies. Raises PackageError for a name that leads out of the folder it is unpacked to."""
    path = PurePosixPath(member.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", member):
        raise PackageError(
            f"'{archive}' holds the unsafe path '{member}': it is refused.",
            "Unpack it, and import the package's folder.",
        )
    return path


def member_part(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> Part:
    """A file of a zip. Raises PackageError for links, passwords, and files that grow beyond reason."""
    if stat.S_ISLNK(member.external_attr >> 16):
        raise PackageError(f"'{name}' in the zip is a link, which is not followed.", "Zip the file itself.")
    if member.flag_bits & 1:
        raise PackageError(f"'{name}' in the zip has a password.", "Unpack it, and import the folder.")
    if member.file_size > max(BLOCK, DENSEST * member.compress_size):
        raise PackageError(
            f"'{name}' in the zip would grow to more than {DENSEST} times its size: it is refused.",
            "Unpack it, and import the folder.",
        )
    opening: Any = archive.open
    return Part(name, member.file_size, lambda: opening(member))
