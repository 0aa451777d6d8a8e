import logging

import qt
from slicer.i18n import tr as _

from prosma.package import model_package
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError


class ModelLibrary:
    """The model packages that can be chosen: bundled ones and those that the user imported.

    ``packages`` are usable (objects with ``id``, ``name``, ``model``, ``folder``, ...), ``broken`` are not and have a
    ``reason``. Checking a package hashes its weights, so the list is made once and then on request.
    """

    def __init__(self):
        self.packages = []
        self.broken = []
        self.refresh()

    def refresh(self):
        """Read the model folders again."""
        found = model_package.find_packages(model_package.model_folders())
        self.packages = [package for package in found if isinstance(package, model_package.ModelPackage)]
        self.broken = [package for package in found if not isinstance(package, model_package.ModelPackage)]
        for package in self.broken:
            logging.warning("ProSMA: the model in %s cannot be used: %s", package.folder, package.reason)

    def package(self, modelId):
        """The listed package with this id, or None."""
        return next((package for package in self.packages if package.id == modelId), None)

    def resolve(self, model):
        """The package for an id, a path of a folder or zip, or a package itself. Raises ProSMAError ``bad_model``."""
        if isinstance(model, model_package.ModelPackage):
            return model
        package = self.package(str(model))
        if package is not None:
            return package
        try:
            return model_package.resolve(model)
        except (model_package.PackageError, OSError) as error:
            raise ProSMAError("bad_model", str(error)) from error

    def importPackage(self, path):
        """Check the package at ``path`` and copy it among the user's models. Raises ProSMAError ``bad_model``."""
        try:
            package = model_package.import_package(path)
        except (model_package.PackageError, OSError) as error:
            raise ProSMAError("bad_model", str(error)) from error
        self.refresh()
        return package

    @staticmethod
    def matches(package, words):
        """Whether every word of a search occurs in the package's name, description, modality, labels or data."""
        model = package.model
        text = [package.id, package.name, model["description"], model["modality"], model["training"]["data"]]
        text += [label["name"] for label in package.labels]
        haystack = " ".join(text).lower()
        return all(word in haystack for word in words.lower().split())

    @staticmethod
    def licenceIsAccepted(package):
        """Whether the model can be used without asking, or its licence was accepted on this computer."""
        if not package.model["accept_licence"]:
            return True
        return str(qt.QSettings().value(_licenceKey(package), "")).lower() in ("true", "1")

    @staticmethod
    def acceptLicence(package):
        qt.QSettings().setValue(_licenceKey(package), True)

    @classmethod
    def checkLicence(cls, package):
        """Raises ProSMAError ``licence`` if the model's licence must be accepted first."""
        if not cls.licenceIsAccepted(package):
            licence = package.model["training"]["licence"]
            raise ProSMAError(
                "licence",
                _(
                    "The model '{name}' may be used only under its licence ({licence}), which was not accepted yet."
                ).format(name=package.name, licence=licence),
                _("Accept it in the panel of ProSMA Segmentation, or call the logic's acceptLicence('{id}').").format(
                    id=package.id
                ),
            )


def _licenceKey(package):
    return f"ProSMASegmentation/AcceptedLicence/{package.id}/{package.version}"
