"""Where model packages lie, and the list of them. Needs the standard library alone, for Slicer's process uses it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserFacingError, fault_of_ours
from ..files import read_regular
from .folders import NO_MODELS, model_folders, tidy
from .model_package import LARGEST_DESCRIPTION, ModelPackage, why
from .schema import DESCRIPTION, PackageError

TRIES = 20


@dataclass(frozen=True)
class BrokenPackage:
    """A folder that looks like a package and is not a usable one."""

    folder: Path
    reason: str

    @property
    def name(self) -> str:
        """The folder's name as it can be shown, even where its bytes are no text."""
        return os.fsencode(self.folder.name).decode("utf-8", "replace")


def find_packages(folders: Iterable[Path]) -> list[ModelPackage | BrokenPackage]:
    """The packages directly inside ``folders``, by folder name; each one that cannot be used comes with the reason.

    Nothing that lies in these folders raises an error here. Of two packages with one id the first one counts.

    >>> from prosma import model_folders
    >>> sorted(package.id for package in find_packages(model_folders()))[:2]
    ['abdomen-ct', 'abdomen-mr']
    >>> Path("folder/half a model").mkdir(parents=True)
    >>> Path("folder/half a model/model.json").write_text("{}")
    2
    >>> [type(package).__name__ for package in find_packages([Path("folder")])]
    ['BrokenPackage']
    """
    found: list[ModelPackage | BrokenPackage] = []
    places: dict[str, Path] = {}
    for folder in candidates(folders):
        package = listed(folder)
        if isinstance(package, ModelPackage) and places.setdefault(package.id, folder) != folder:
            reason = (
                f"Its id '{package.id}' is that of the model in '{places[package.id]}', which is used. Remove one of the "
                f"two, or change the id in its {DESCRIPTION}."
            )
            package = BrokenPackage(folder, reason)
        if package is not None:
            found.append(package)
    return found


def candidates(folders: Iterable[Path]) -> Iterator[Path]:
    """What lies in the folders, by name; a folder that cannot be read stands for itself."""
    for parent in map(Path, folders):
        tidy(parent)
        try:
            names = sorted(name for name in os.listdir(parent) if not name.startswith("."))
        except FileNotFoundError:
            continue
        except OSError:
            yield parent
            continue
        yield from (parent / name for name in names)


def listed(folder: Path) -> ModelPackage | BrokenPackage | None:
    """The package in a folder, the reason why it is not usable, or None where nothing looks like a package."""
    try:
        os.lstat(folder / DESCRIPTION)
        return opened(folder)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UserFacingError as error:
        return BrokenPackage(folder, str(error))
    except OSError as error:
        return BrokenPackage(folder, f"It cannot be read ({why(error)}). Check who may read it, or remove it.")
    except Exception as error:  # one package never hides the others
        return BrokenPackage(folder, f"{fault_of_ours(error)} Remove this package to see it no more.")


def opened(folder: Path) -> ModelPackage:
    """The package in a folder; looked at again where another process put a new one there meanwhile."""
    for _ in range(TRIES):
        before = identity(folder)
        try:
            return ModelPackage.open(folder)
        except PackageError:
            if before == identity(folder):
                raise
    return ModelPackage.open(folder)


def identity(folder: Path) -> tuple[int, int]:
    """Number and time of a folder: file systems give the number of a removed folder to the next one."""
    found = os.stat(folder)
    return found.st_ino, found.st_ctime_ns


def declared_id(folder: Path) -> str:
    """The id in a description that may be as broken as the rest of its package; an empty text for none."""
    try:
        return str(json.loads(read_regular(folder / DESCRIPTION, LARGEST_DESCRIPTION))["id"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def resolve(name: str | os.PathLike[str]) -> ModelPackage:
    """The package with this id, or at this path. Raises PackageError that lists what there is."""
    if os.path.exists(name) and (os.path.isfile(name) or os.path.isfile(os.path.join(name, DESCRIPTION))):
        return ModelPackage.open(name)
    packages = find_packages(model_folders())
    for package in packages:
        if isinstance(package, ModelPackage) and package.id == str(name):
            return package
    for package in packages:
        if isinstance(package, BrokenPackage) and str(name) in (package.folder.name, declared_id(package.folder)):
            raise PackageError(package.reason)
    known = ", ".join(package.id for package in packages if isinstance(package, ModelPackage))
    remedy = f"Give a package's path or one of these: {known}." if known else NO_MODELS
    raise PackageError(f"There is no model '{name}'.", remedy)
