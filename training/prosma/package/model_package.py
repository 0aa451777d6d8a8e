"""Model packages: a folder or zip with ``model.json``, ``weights.safetensors``, ``README.md`` and ``preview.png``.

``fit.npz``, ``quality.json`` and ``presence.npz``, where a package has them, hold statistics of its training images
(`inference.fit`), of how good its results were (`inference.quality`), and of images without what it segments
(`inference.presence`).

The same package is what training exports, the panel imports and the command line runs. Nothing in it is ever executed.
This file needs only the standard library, because Slicer's process uses it to check packages.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import opened_regular, read_regular, recover, replace_folder, sweep, working_folder
from .folders import WRITING
from .regions import result_labels
from .schema import DESCRIPTION, Model, PackageError, check_description
from .weights_file import check_weights

WEIGHTS = "weights.safetensors"
README, PREVIEW = "README.md", "preview.png"
FINDER, FINDER_WEIGHTS = "finder.json", "finder.safetensors"
FIT, QUALITY, PRESENCE = "fit.npz", "quality.json", "presence.npz"
LICENCES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "LICENCE.txt", "LICENCE.md")
LARGEST_DESCRIPTION = 1 << 20
LARGEST_SIDE = 2048  # of the picture


@dataclass(frozen=True)
class ModelPackage:
    """A checked model package on disk. ``model`` is the content of model.json, as `prosma.package.schema` describes it."""

    folder: Path
    model: dict[str, Any]

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> ModelPackage:
        """Check the folder or zip at ``path`` and return it. A zip is unpacked into the user's cache.

        Raises PackageError with the reason: not a package, newer schema, missing or malformed entries, labels that do
        not fit the weights, weights that are not safetensors, cut off, not finite, or changed since they were packed.
        """
        path = Path(path)
        try:
            if path.is_file() and zipfile.is_zipfile(path):
                from .importing import unpack

                path = unpack(path)
            if not path.is_dir() and path.name:
                recover(path.parent)
            if not path.is_dir():
                raise PackageError(
                    f"There is no model package, folder or zip file, at '{path}'.",
                    "Choose another model or install this one again.",
                )
            content, model = read_description(path)
            check_weights(path, model)
            package = cls(path, content)
            if package.has_finder:
                package.open_finder()
        except (OSError, ValueError) as error:  # ValueError: a name that no file can have
            raise PackageError(
                f"'{path}' cannot be read ({why(error)}).", "Export or download the package again."
            ) from error
        return package

    @property
    def id(self) -> str:
        return str(self.model["id"])

    @property
    def name(self) -> str:
        return str(self.model["name"])

    @property
    def version(self) -> str:
        return str(self.model["version"])

    @property
    def dimension(self) -> int:
        return int(self.model["dimension"])

    @property
    def mirror_axes(self) -> list[int]:
        """The axes along which the model was trained with flips; empty where it cannot segment mirrored images."""
        return self.model.get("mirror_axes") or []

    @property
    def one_piece(self) -> list[list[int]]:
        """Values of labels that together are one piece: of each group only the largest connected part is kept."""
        return self.model.get("one_piece") or []

    @property
    def channels(self) -> list[dict[str, Any]]:
        return list(self.model["channels"])

    @property
    def takes_colours(self) -> bool:
        """Whether the channels are the colours of a picture, which one file holds together."""
        names = [str(channel["name"]).lower() for channel in self.channels]
        return self.dimension == 2 and names in (["red", "green", "blue"], ["r", "g", "b"])

    @property
    def labels(self) -> list[dict[str, Any]]:
        return list(self.model["labels"])

    @property
    def result_labels(self) -> list[dict[str, Any]]:
        """All labels that a result may hold: the model's own, and those of each region that its finder names."""
        return result_labels(self.model)

    @property
    def is_promptable(self) -> bool:
        """Whether the network segments what strokes mean, in any image, and not structures of its own."""
        return bool(self.model.get("prompt"))

    @property
    def has_finder(self) -> bool:
        """Whether a second network says where the structures lie in a larger volume, see `open_finder`."""
        return bool(self.model.get("finder"))

    def open_finder(self) -> ModelPackage:
        """The finder as a package of its own, checked like one. Raises PackageError."""
        content, model = read_description(self.folder, FINDER)
        check_weights(self.folder, model)
        if len(model.labels) != len(self.model["finder"]["regions"]) or len(model.channels) != 1:
            raise PackageError(
                f"{FINDER} of model '{self.id}' has {len(model.labels)} labels and {len(model.channels)} channels; it should "
                f"have {len(self.model['finder']['regions'])} labels, one for each region, and one channel.",
                "Export or download the package again.",
            )
        if content["dimension"] != 3 or not content.get("spacing") or content.get("finder"):
            raise PackageError(
                f"{FINDER} of model '{self.id}' should describe a model for volumes, with a spacing and without a finder of "
                "its own.",
                "Export or download the package again.",
            )
        return ModelPackage(self.folder, content)

    @property
    def sha256(self) -> str:
        return str(self.model["weights"]["sha256"])

    @property
    def sets(self) -> int:
        """How many sets of weights there are: networks whose answers are averaged. Most packages have one."""
        return int(self.model["weights"].get("sets", 1))

    @property
    def weights_path(self) -> Path:
        return self.folder / str(self.model["weights"]["file"])

    @property
    def fit_path(self) -> Path:
        """Where the statistics of the training images lie; older packages have none."""
        return self.folder / FIT

    @property
    def quality_path(self) -> Path:
        """Where the statistics for the expected quality of results lie; older packages have none."""
        return self.folder / QUALITY

    @property
    def presence_path(self) -> Path:
        """Where the statistics lie by which an absent structure is told; most packages have none."""
        return self.folder / PRESENCE

    @property
    def preview_path(self) -> Path | None:
        """The picture of the model, None where there is none that can be shown at once."""
        path = self.folder / PREVIEW
        return path if is_small_picture(path) else None


def read_description(folder: Path, name: str = DESCRIPTION) -> tuple[dict[str, Any], Model]:
    """The checked content of ``folder``/model.json, plain and typed. Raises PackageError and OSError."""
    try:
        text = read_regular(folder / name, LARGEST_DESCRIPTION)
    except FileNotFoundError:
        remedy = "Choose its folder." if name == DESCRIPTION else "Export or download the package again."
        raise PackageError(f"'{folder}' is not a whole model package: it has no {name}.", remedy) from None
    try:
        content = json.loads(text, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise PackageError(
            f"'{folder / name}' is not valid JSON ({why(error)}).", "Export or download the package again."
        ) from error
    return content, check_description(content, name)


def refuse_constant(name: str) -> None:
    """Python's reader of JSON lets NaN and infinities through; JSON has none."""
    raise ValueError(f"{name} is no number")


def why(error: Exception) -> str:
    """The reason in an error of a library."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def is_small_picture(path: Path) -> bool:
    """Whether there is a PNG of at most LARGEST_SIDE pixels a side: a small file may unfold to gigabytes of them."""
    try:
        with opened_regular(path) as file:
            signature, _, width, height = struct.unpack(">8s8sII", file.read(24))
    except (OSError, struct.error):
        return False
    return bool(signature == b"\x89PNG\r\n\x1a\n" and max(width, height) <= LARGEST_SIDE)


def package_files(weights: str) -> tuple[str, ...]:
    """The names of all files that a package may have."""
    return (DESCRIPTION, weights, README, PREVIEW, FIT, QUALITY, PRESENCE, FINDER, FINDER_WEIGHTS, *LICENCES)


def write_package(
    folder: str | os.PathLike[str],
    model: dict[str, Any],
    weights: bytes,
    readme: str,
    preview: bytes | None = None,
    finder: ModelPackage | None = None,
    fit: bytes | None = None,
    quality: bytes | None = None,
    presence: bytes | None = None,
) -> ModelPackage:
    """Write a whole package, or nothing. ``model`` without its ``weights`` entry; ``weights`` is a safetensors file.

    ``finder`` is the package of the second network that ``model["finder"]`` asks for.

    A package at ``folder`` is replaced; if the process is killed meanwhile, the old one is there again when `folder` is
    opened. Raises PackageError if the result would not open, and for a folder that holds anything but a package.
    """
    folder = Path(os.path.abspath(folder))
    model = {
        **model,
        "weights": {"file": WEIGHTS, "sha256": hashlib.sha256(weights).hexdigest(), **model.get("weights", {})},
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    sweep(folder.parent, WRITING)
    check_place(folder)
    with working_folder(folder.parent, WRITING) as temporary:
        new = temporary / folder.name
        new.mkdir()
        (new / WEIGHTS).write_bytes(weights)
        (new / DESCRIPTION).write_text(json.dumps(model, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (new / README).write_text(readme, encoding="utf-8")
        for name, content in ((PREVIEW, preview), (FIT, fit), (QUALITY, quality), (PRESENCE, presence)):
            if content is not None:
                (new / name).write_bytes(content)
        if finder is not None:
            (new / FINDER_WEIGHTS).write_bytes(finder.weights_path.read_bytes())
            description = {**finder.model, "weights": {**finder.model["weights"], "file": FINDER_WEIGHTS}}
            (new / FINDER).write_text(json.dumps(description, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        ModelPackage.open(new)
        replace_folder(new, folder)
    return ModelPackage.open(folder)


def check_place(folder: Path) -> None:
    """Raise PackageError where a package would take the place of something else: that stays as it is."""
    if not os.path.lexists(folder):
        return
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else [folder.name]
    others = [name for name in names if name not in package_files(WEIGHTS)]
    if others or (names and DESCRIPTION not in names):
        raise PackageError(
            f"'{folder}' is there already and holds more than a model package, such as '{(others or names)[0]}'; it stays as "
            "it is.",
            "Choose another folder for the package.",
            "bad_output",
        )
