"""The folders that model packages lie in, and what killed processes left there. Needs the standard library alone."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

from ..files import recover, sweep, user_folder

WRITING = ".prosma-package-"  # begins the name of the folder that a package is written in
IMPORTING = ".prosma-import-"  # ... of the one that it is copied to
EARLIER, AN_HOUR = ".import-", 3600  # as IMPORTING, of ProSMA 1.0, which does not say whose it is
NO_MODELS = (
    "This installation holds no models: get a checkout of https://github.com/ProSMA/SlicerProSMA and install its folder "
    "training, or give the path of a package."
)


def bundled_models_folder() -> Path | None:
    """Where the models that come with ProSMA lie: in the installed package, beside the module, or in the source tree."""
    here = Path(__file__).resolve().parents[1]
    for folder in (
        here / "bundled_models",
        here.parent / "Resources" / "Models",
        here.parents[1] / "ProSMASegmentation" / "Resources" / "Models",
    ):
        if folder.is_dir():
            return folder
    return None


def user_models() -> Path:
    """Where the user's own models lie."""
    return user_folder() / "models"


def model_folders() -> list[Path]:
    """Bundled models first, then the user's own."""
    bundled = bundled_models_folder()
    return ([bundled] if bundled else []) + [user_models()]


def tidy(folder: Path) -> None:
    """Undo or complete what killed processes left in a folder of packages."""
    with contextlib.suppress(OSError):
        recover(folder)
        for prefix in (WRITING, IMPORTING):
            sweep(folder, prefix)
        for left in folder.glob(f"{EARLIER}*"):
            if time.time() - left.lstat().st_mtime > AN_HOUR:
                shutil.rmtree(left, ignore_errors=True)
