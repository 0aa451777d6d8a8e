"""Model packages: what they hold, where they lie, how they are checked, imported and written. All but `weights` is light."""

from .folders import bundled_models_folder, model_folders
from .importing import import_package
from .library import BrokenPackage, find_packages, resolve
from .licence import LicenceError
from .model_package import ModelPackage, write_package
from .schema import PackageError

__all__ = [
    "BrokenPackage",
    "LicenceError",
    "ModelPackage",
    "PackageError",
    "bundled_models_folder",
    "find_packages",
    "import_package",
    "model_folders",
    "resolve",
    "write_package",
]
