import slicer
from slicer.i18n import tr as _

from ProSMASegmentationLib.Panel.PanelText import plainText


def acceptsLicence(library, package):
    """The question whether a person accepts a model's licence: asked once for each licence, answered yes or no.

    On the command line ``prosma.cli.licence_question`` asks it; what was accepted is remembered for both.

    :param library: the ModelLibrary, which remembers what was accepted.
    :param package: the model that is to run.
    """
    if library.licenceIsAccepted(package):
        return True
    question = _("The model '{name}' may be used only under this licence: {licence}\n\nDo you accept it?").format(
        name=package.name, licence=package.model["training"]["licence"]
    )
    if not slicer.util.confirmYesNoDisplay(plainText(question), windowTitle="ProSMA"):
        return False
    library.acceptLicence(package)
    return True
