import logging

from slicer.i18n import tr as _

from prosma.package import accepted_licences, library
from prosma.package.folders import model_folders
from prosma.package.model_package import ModelPackage
from prosma.package.schema import PackageError
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Base.Shared import Shared


class ModelLibrary(Shared):
    """The model packages that can be chosen: bundled ones and those that the user imported.

    ``packages`` are usable (objects with ``id``, ``name``, ``model``, ``folder``, ...), ``broken`` are not and have a
    ``reason``. Checking a package hashes its weights, so the list is made once and then on request. PackageImport adds one.
    """

    def __init__(self):
        self.packages = []
        self.broken = []
        self._accepted = set()  # models whose licence was accepted where nothing can be written down
        self.refresh()

    def refresh(self):
        """Read the model folders again."""
        self.show(library.find_packages(model_folders()))

    def show(self, found):
        """List what was found in the model folders; see ``prosma.package.library.find_packages``."""
        self.packages = [package for package in found if isinstance(package, ModelPackage)]
        self.broken = [package for package in found if not isinstance(package, ModelPackage)]
        for package in self.broken:
            logging.warning("ProSMA: the model '%s' cannot be used: %s", package.name, package.reason)

    def package(self, modelId):
        """The listed package with this id, or None."""
        return next((package for package in self.packages if package.id == modelId), None)

    def promptable(self, dimension):
        """The packages that answer strokes in pictures (2) or volumes (3)."""
        return [package for package in self.packages if package.is_promptable and package.dimension == dimension]

    def resolve(self, model):
        """The package for an id, a path of a folder or zip, or a package itself. Raises ProSMAError ``bad_model``."""
        if isinstance(model, ModelPackage):
            return model
        package = self.package(str(model))
        if package is not None:
            return package
        try:
            return library.resolve(model)
        except PackageError as error:
            raise ProSMAError(error.code, error.message, error.remedy) from error

    @staticmethod
    def matches(package, words):
        """Whether every word of a search occurs in the package's name, description, modality, labels or data."""
        model = package.model
        text = [package.id, package.name, model["description"], model["modality"], model["training"]["data"]]
        text += [label["name"] for label in package.labels]
        text += ["anything by strokes"] if package.is_promptable else []
        haystack = " ".join(text).lower()
        return all(word in haystack for word in words.lower().split())

    def licenceIsAccepted(self, package):
        """Whether the model can be used without asking, or its licence was accepted on this computer."""
        return package.sha256 in self._accepted or accepted_licences.is_accepted(package)

    def acceptLicence(self, package):
        """Remember that a person accepts the model's licence."""
        try:
            accepted_licences.accept(package)
        except OSError as error:
            logging.warning("ProSMA: the accepted licence could not be written down: %s", error)
            self._accepted.add(package.sha256)

    def checkLicence(self, package):
        """Raises ProSMAError ``licence`` if the model's licence must be accepted first."""
        if not self.licenceIsAccepted(package):
            raise ProSMAError(
                "licence",
                _(
                    "The model '{name}' may be used only under its licence ({licence}), which was not accepted yet."
                ).format(name=package.name, licence=package.model["training"]["licence"]),
                _("Accept it in the panel of ProSMA Segmentation, or call the logic's acceptLicence('{id}').").format(
                    id=package.id
                ),
            )
