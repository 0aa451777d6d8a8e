"""The question whether a person accepts a model's licence, on the command line.

In Slicer the panel asks it (Panel/LicenceQuestion.py). What was accepted is remembered for both by
`prosma.package.accepted_licences`.
"""

from __future__ import annotations

import contextlib
import sys

from ..package import LicenceError, ModelPackage
from ..package.accepted_licences import accept, is_accepted


def check_licence(package: ModelPackage, accepted: bool) -> None:
    """A person is asked once, a program has to say --accept-licence. Raises LicenceError where it is not accepted."""
    if is_accepted(package):
        return
    licence = package.model["training"]["licence"]
    if not accepted and sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty():
        print(f"The model '{package.name}' comes under this licence: {licence}", file=sys.stderr)
        accepted = input("Do you accept it? [y/N] ").strip().lower() in ("y", "yes")
    if not accepted:
        raise LicenceError(
            f"The licence of the model '{package.name}' ({licence}) has to be accepted first.", "Add --accept-licence."
        )
    with contextlib.suppress(OSError):  # then it is asked for again
        accept(package)
