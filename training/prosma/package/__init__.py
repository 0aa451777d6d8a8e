"""Model packages: what they hold, where they lie, how they are checked. All but `weights` is light.

| file | what it holds |
| --- | --- |
| `model_package` | a package: folder or zip with model.json, weights, model card, picture |
| `schema` | what model.json says, as dataclasses from which checks, errors and the JSON schema come |
| `rules` | what it may not say where several values are looked at |
| `regions` | what labels are called in each region that a finder names |
| `weights_file` | the weights checked without torch |
| `weights` | from a package to its network |
| `folders` | where packages lie |
| `library` | the list of packages, also of broken ones |
| `importing` | other people's packages taken among a user's own |
| `accepted_licences` | which licences a person has accepted on this computer |
"""

from .accepted_licences import LicenceError
from .folders import bundled_models_folder, model_folders
from .importing import import_package
from .library import BrokenPackage, find_packages, resolve
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
