"""Model packages: a folder or zip with ``model.json``, ``weights.safetensors``, ``README.md`` and ``preview.png``.

The same package is what training exports, the panel imports and the command line runs. Nothing in it is ever executed.
This file needs only the standard library, because Slicer's process uses it to list and check packages.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import struct
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserFacingError
from ..files import user_folder

SCHEMA = 1
WEIGHTS = "weights.safetensors"
DESCRIPTION = "model.json"
LARGEST_HEADER = 100_000_000
LARGEST_PACKAGE = 4 * 1024**3

REQUIRED = {
    "schema": int,
    "id": str,
    "name": str,
    "version": str,
    "description": str,
    "modality": str,
    "dimension": int,
    "channels": list,
    "labels": list,
    "intensity": dict,
    "patch_size": list,
    "network": dict,
    "training": dict,
    "weights": dict,
    "accept_licence": bool,
}
INTENSITY_RULES = {
    "zscore": (),
    "clip-zscore": ("percentiles",),
    "ct": ("clip", "mean", "std"),
    "range": ("low", "high"),
}


class PackageError(UserFacingError):
    """A package that cannot be used."""

    code = "bad_model"
    remedy = "Choose another model or install this one again."


@dataclass(frozen=True)
class BrokenPackage:
    """A folder that looks like a package and is not a usable one."""

    folder: Path
    reason: str


@dataclass(frozen=True)
class ModelPackage:
    """A checked model package on disk. ``model`` is the content of model.json."""

    folder: Path
    model: dict

    @classmethod
    def open(cls, path: str | os.PathLike) -> ModelPackage:
        """Check the folder or zip at ``path`` and return it. A zip is unpacked into the user's cache.

        Raises PackageError with the reason: not a package, newer schema, missing or malformed entries, labels that do
        not fit the weights, weights that are not safetensors, cut off, or changed since they were packed.
        """
        path = Path(path)
        if path.is_file() and zipfile.is_zipfile(path):
            path = unpack(path)
        if not path.is_dir():
            raise PackageError(f"There is no model package at '{path}': it should be a folder or a zip file.")
        model = read_description(path)
        check_weights(path, model)
        return cls(path, model)

    @property
    def id(self) -> str:
        return self.model["id"]

    @property
    def name(self) -> str:
        return self.model["name"]

    @property
    def version(self) -> str:
        return self.model["version"]

    @property
    def dimension(self) -> int:
        return self.model["dimension"]

    @property
    def mirror_axes(self) -> list[int]:
        """The axes along which the model was trained with flips; empty where it cannot segment mirrored images."""
        return self.model.get("mirror_axes") or []

    @property
    def channels(self) -> list[dict]:
        return self.model["channels"]

    @property
    def labels(self) -> list[dict]:
        return self.model["labels"]

    @property
    def sha256(self) -> str:
        return self.model["weights"]["sha256"]

    @property
    def weights_path(self) -> Path:
        return self.folder / self.model["weights"]["file"]

    @property
    def preview_path(self) -> Path | None:
        path = self.folder / "preview.png"
        return path if path.is_file() else None


def read_description(folder: Path) -> dict:
    """The checked content of ``folder``/model.json. Raises PackageError."""
    path = folder / DESCRIPTION
    try:
        model = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PackageError(f"'{folder}' is not a model package: it has no {DESCRIPTION}.") from None
    except (OSError, ValueError) as error:
        raise PackageError(f"'{path}' cannot be read ({error}). Export or download the package again.") from error
    check_description(model)
    return model


def check_description(model: object) -> None:
    """Raise PackageError with the first thing that is wrong in a model.json's content."""
    if not isinstance(model, dict) or not isinstance(model.get("schema"), int):
        raise PackageError(f"{DESCRIPTION} does not describe a ProSMA model: it names no schema.")
    if model["schema"] > SCHEMA:
        raise PackageError(
            f"The package was made for a newer ProSMA (schema {model['schema']}, this one reads up to {SCHEMA}). "
            "Update ProSMA to use it."
        )
    for key, kind in REQUIRED.items():
        if key not in model:
            raise PackageError(f"{DESCRIPTION} lacks the entry '{key}'. Export the package again.")
        if not isinstance(model[key], kind):
            raise PackageError(f"The entry '{key}' of {DESCRIPTION} should be a {kind.__name__}.")
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", model["id"]):
        raise PackageError(
            f"The model id '{model['id']}' is not allowed: use lower-case letters, digits, '.', '-' and '_'."
        )
    dimension = model["dimension"]
    if dimension not in (2, 3):
        raise PackageError(f"A model works in 2 or 3 dimensions, not {dimension}.")
    check_labels(model["labels"])
    check_grid(model, dimension)
    check_intensity(model["intensity"])
    check_network(model)
    for key in ("data", "licence", "citation"):
        if not model["training"].get(key):
            raise PackageError(f"{DESCRIPTION} does not say the '{key}' of the training data.")


def check_labels(labels: list) -> None:
    if not labels:
        raise PackageError("The package names no label: there is nothing that it could segment.")
    for expected, label in enumerate(labels, start=1):
        if not isinstance(label, dict) or label.get("value") != expected or not label.get("name"):
            raise PackageError(
                f"Label {expected} is missing or has no name: labels are numbered 1, 2, 3, ... without gaps."
            )
        color = label.get("color")
        if not (
            isinstance(color, list) and len(color) == 3 and all(isinstance(c, int) and 0 <= c <= 255 for c in color)
        ):
            raise PackageError(f"Label '{label['name']}' has no colour of three numbers from 0 to 255.")


def check_grid(model: dict, dimension: int) -> None:
    """patch_size, spacing, resize and orientation fit the dimension."""
    patch = model["patch_size"]
    if len(patch) != dimension or not all(isinstance(size, int) and size > 0 for size in patch):
        raise PackageError(f"patch_size should hold {dimension} positive whole numbers, not {patch}.")
    for key in ("spacing", "resize"):
        values = model.get(key)
        if values is not None and (len(values) != dimension or not all(value > 0 for value in values)):
            raise PackageError(f"{key} should be null or hold {dimension} positive numbers, not {values}.")
    orientation = model.get("orientation")
    if dimension == 2 and orientation is not None:
        raise PackageError("A 2D model takes slices as they are: its orientation should be null.")
    if dimension == 3 and not (isinstance(orientation, str) and is_orientation(orientation)):
        raise PackageError(f"'{orientation}' is not an orientation: give three letters such as RAS.")


def is_orientation(letters: str) -> bool:
    """Whether ``letters`` names one direction of each of the three patient axes, such as RAS or LPS."""
    return len(letters) == 3 and all(sum(letter in pair for letter in letters) == 1 for pair in ("RL", "AP", "SI"))


def check_intensity(intensity: dict) -> None:
    rule = intensity.get("rule")
    if rule not in INTENSITY_RULES:
        raise PackageError(f"The intensity rule {rule!r} is unknown to this ProSMA. Update ProSMA to use this model.")
    missing = [key for key in INTENSITY_RULES[rule] if key not in intensity]
    if missing:
        raise PackageError(f"The intensity rule '{rule}' needs {', '.join(missing)}.")
    power = intensity.get("power", 1.0)
    if not isinstance(power, (int, float)) or isinstance(power, bool) or not 0 < power <= 4:
        raise PackageError(
            f"The 'power' of the intensity rule should be a number above 0 and at most 4, not {power!r}."
        )


def check_network(model: dict) -> None:
    network = model["network"]
    expected = {
        "spatial_dims": model["dimension"],
        "in_channels": len(model["channels"]),
        "out_channels": len(model["labels"]) + 1,
    }
    for key, value in expected.items():
        if network.get(key) != value:
            raise PackageError(
                f"The network's {key} is {network.get(key)}, but channels, labels and dimension of the package ask for "
                f"{value}. The package was put together wrongly: export it again."
            )


def check_weights(folder: Path, model: dict) -> None:
    """The weights file is there, is safetensors, is unchanged, and ends in as many classes as the package has labels."""
    name = model["weights"].get("file")
    if not isinstance(name, str) or not name.endswith(".safetensors") or Path(name).name != name:
        raise PackageError(f"Weights come as a .safetensors file inside the package, not '{name}'.")
    path = folder / name
    if not path.is_file():
        raise PackageError(f"The package has no '{name}'. Export or download it again.")
    header = read_safetensors_header(path)
    if sha256_of(path) != model["weights"].get("sha256"):
        raise PackageError(
            f"The weights '{name}' are not those the package was made with (their sha256 differs): the file was damaged "
            "or changed. Export or download the package again."
        )
    head = header.get("head.weight", {}).get("shape")
    if not head or head[0] != len(model["labels"]) + 1:
        raise PackageError(
            f"The weights separate {head[0] - 1 if head else 'no'} structures, but the package names {len(model['labels'])} "
            "labels. The package was put together wrongly: export it again."
        )


def read_safetensors_header(path: Path) -> dict:
    """Names, types and shapes of a safetensors file, without reading its tensors. Raises PackageError if it is not one."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size, LARGEST_HEADER):
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(length))
        end = max(tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__")
        if 8 + length + end != size:
            raise ValueError("it is cut off or has bytes too many")
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PackageError(
            f"'{path.name}' is not a valid safetensors file ({error}). Other formats, pickles above all, are refused "
            "because they can run code. Export or download the package again."
        ) from error
    return header


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def unpack(archive: Path) -> Path:
    """Unpack a package zip into the user's cache, once for each content, and return the folder that holds model.json."""
    target = user_folder() / "unpacked" / sha256_of(archive)[:16]
    if not target.is_dir():
        with zipfile.ZipFile(archive) as bundle:
            members = bundle.infolist()
            for member in members:
                parts = Path(member.filename.replace("\\", "/")).parts
                if Path(member.filename).is_absolute() or ".." in parts:
                    raise PackageError(f"'{archive.name}' holds the unsafe path '{member.filename}': it is refused.")
            if sum(member.file_size for member in members) > LARGEST_PACKAGE:
                raise PackageError(f"'{archive.name}' would unpack to more than 4 GB: it is refused.")
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
                try:
                    bundle.extractall(Path(temporary, "package"))
                except (zipfile.BadZipFile, OSError, EOFError) as error:
                    raise PackageError(f"'{archive.name}' cannot be unpacked ({error}). Get it again.") from error
                os.replace(Path(temporary, "package"), target)
    found = sorted(target.rglob(DESCRIPTION), key=lambda path: len(path.parts))
    if not found:
        raise PackageError(f"'{archive.name}' is not a model package: it has no {DESCRIPTION}.")
    return found[0].parent


def write_package(
    folder: str | os.PathLike, model: dict, weights: bytes, readme: str, preview: bytes | None = None
) -> ModelPackage:
    """Write a whole package, or nothing. ``model`` without its ``weights`` entry; ``weights`` is a safetensors file.

    An existing package at ``folder`` is replaced in one step. Raises PackageError if the result would not open.
    """
    folder = Path(folder)
    model = {
        **model,
        "weights": {"file": WEIGHTS, "sha256": hashlib.sha256(weights).hexdigest(), **model.get("weights", {})},
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".package-") as temporary:
        new = Path(temporary, "new")
        new.mkdir()
        (new / WEIGHTS).write_bytes(weights)
        (new / DESCRIPTION).write_text(json.dumps(model, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (new / "README.md").write_text(readme, encoding="utf-8")
        if preview is not None:
            (new / "preview.png").write_bytes(preview)
        ModelPackage.open(new)
        replace_folder(new, folder)
    return ModelPackage.open(folder)


def replace_folder(new: Path, folder: Path) -> None:
    """Put ``new`` in the place of ``folder``; the old one is removed only once the new one stands."""
    if not folder.exists():
        os.replace(new, folder)
        return
    old = new.with_name("old")
    os.replace(folder, old)
    try:
        os.replace(new, folder)
    except OSError:
        os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def find_packages(folders: list[Path]) -> list[ModelPackage | BrokenPackage]:
    """The packages directly inside ``folders``, by folder name; the ones that cannot be used come with the reason."""
    packages: list[ModelPackage | BrokenPackage] = []
    for parent in folders:
        for folder in sorted(parent.iterdir()) if parent.is_dir() else []:
            if not (folder / DESCRIPTION).is_file():
                continue
            try:
                packages.append(ModelPackage.open(folder))
            except Exception as error:
                packages.append(BrokenPackage(folder, str(error)))
    return packages


def bundled_models_folder() -> Path | None:
    """Where the models that come with ProSMA lie: beside the installed module, or in the source tree."""
    here = Path(__file__).resolve().parents[1]
    for folder in (
        here.parent / "Resources" / "Models",
        here.parents[1] / "ProSMASegmentation" / "Resources" / "Models",
    ):
        if folder.is_dir():
            return folder
    return None


def model_folders() -> list[Path]:
    """Bundled models first, then the user's own."""
    bundled = bundled_models_folder()
    return ([bundled] if bundled else []) + [user_folder() / "models"]


def resolve(name: str | os.PathLike) -> ModelPackage:
    """The package with this id, or at this path. Raises PackageError that lists what there is."""
    if os.path.exists(name) and (os.path.isfile(name) or os.path.isfile(os.path.join(name, DESCRIPTION))):
        return ModelPackage.open(name)
    packages = find_packages(model_folders())
    for package in packages:
        if isinstance(package, ModelPackage) and package.id == str(name):
            return package
        if isinstance(package, BrokenPackage) and package.folder.name == str(name):
            raise PackageError(package.reason)
    known = ", ".join(package.id for package in packages if isinstance(package, ModelPackage)) or "none"
    raise PackageError(f"There is no model '{name}'. Give a package's path or one of these: {known}.")


def import_package(path: str | os.PathLike) -> ModelPackage:
    """Check the package at ``path`` and copy it among the user's own models. Raises PackageError."""
    package = ModelPackage.open(path)
    target = user_folder() / "models" / package.id
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".import-") as temporary:
        new = Path(temporary, "new")
        shutil.copytree(package.folder, new)
        ModelPackage.open(new)
        replace_folder(new, target)
    return ModelPackage.open(target)
