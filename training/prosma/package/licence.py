"""A model's licence is accepted by the person before it is used."""

from __future__ import annotations

import sys

from .model_package import ModelPackage, PackageError


def check_licence(package: ModelPackage, accepted: bool) -> None:
    """Models may ask for their licence to be accepted: a person is asked, a program has to say --accept-licence."""
    if not package.model["accept_licence"] or accepted:
        return
    licence = package.model["training"]["licence"]
    if sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty():
        print(f"The model '{package.name}' comes under this licence: {licence}", file=sys.stderr)
        if input("Do you accept it? [y/N] ").strip().lower() in ("y", "yes"):
            return
    raise PackageError(
        f"The licence of the model '{package.name}' ({licence}) has to be accepted first: add --accept-licence."
    )
