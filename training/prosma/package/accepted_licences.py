"""Licences of models that a person has to accept: what was accepted on this computer, for command line and panel alike.

What is remembered is the licence's content, not the model's name or version: where another text comes under an old name,
the person is asked again. Needs the standard library alone, for Slicer's process uses it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

from ..files import read_regular, user_folder, write_json
from .model_package import LICENCES, ModelPackage
from .schema import PackageError

LARGEST_RECORD = 1 << 20


class LicenceError(PackageError):
    """A licence that was not accepted."""

    code = "licence"


def record_path() -> Path:
    """The file with what was accepted."""
    return user_folder() / "accepted-licences.json"


def is_accepted(package: ModelPackage) -> bool:
    """Whether the model may be used: nobody has to accept its licence, or somebody did on this computer."""
    if not package.model["accept_licence"]:
        return True
    return digest_of(package) in _record()


def accept(package: ModelPackage) -> None:
    """Remember that a person accepts the model's licence. OSError where that cannot be written down."""
    entry = {"model": package.id, "licence": package.model["training"]["licence"]}
    write_json(record_path(), {**_record(), digest_of(package): entry})


def digest_of(package: ModelPackage) -> str:
    """A digest of the model's id and of all that its package says as its licence."""
    texts = [package.id, package.model["training"]["licence"]]
    for name in LICENCES:
        with contextlib.suppress(FileNotFoundError):
            texts.append(read_regular(package.folder / name, LARGEST_RECORD).hex())
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def _record() -> dict[str, Any]:
    try:
        content = json.loads(read_regular(record_path(), LARGEST_RECORD))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
