from typing import NamedTuple

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Logic.ParameterNode import IMAGES, LONGEST_QUOTE
from ProSMASegmentationLib.Models.ModelFit import ModelFit
from ProSMASegmentationLib.Panel.ModelPicker import ModelPicker
from ProSMASegmentationLib.Panel.PanelText import ERROR, NORMAL, WARNING
from ProSMASegmentationLib.Volumes.RegionOfInterest import RegionOfInterest
from ProSMASegmentationLib.Volumes.SampleVolumes import SampleVolumes
from ProSMASegmentationLib.Volumes.VolumeReader import VolumeReader

MILLISECONDS_TO_SETTLE = 100


class Readiness(NamedTuple):
    """Whether the choices can be segmented: why not (empty if they can), in which style, and what may go wrong."""

    why: str
    style: str = NORMAL
    warnings: tuple = ()


class InputSection(VTKObservationMixin):
    """The panel's section Input: volumes, model, region of interest, and whether they suit one another.

    :param ui: the panel's widgets (inputVolumeSelector, channel1Label, channel2Selector, ..., sampleButton, roiSelector,
      and those of the ModelPicker).
    :param logic: the module's logic.
    :param onModel: called when the user has chosen another model.
    :param onFit: called when ``readiness()`` may have become another.
    :param onError: called with a ProSMAError.

    Public: ``picker``, the ModelPicker.
    """

    def __init__(self, ui, logic, onModel, onFit, onError):
        VTKObservationMixin.__init__(self)
        self._ui = ui
        self._logic = logic
        self._onModel = onModel
        self._onFit = onFit
        self._onError = onError
        self._parameters = None
        self._watched = []  # volumes and ROI, whose changes can change whether the model fits
        self._fitTimer = qt.QTimer()
        self._fitTimer.setSingleShot(True)
        self._fitTimer.setInterval(MILLISECONDS_TO_SETTLE)
        self._fitTimer.connect("timeout()", self._onSettled)
        self.picker = ModelPicker(ui, logic.library, self._onModelChosen, onError)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeAddedEvent, self._onWatchedChanged)
        ui.sampleButton.connect("clicked()", self._onSample)
        ui.roiSelector.connect("nodeAddedByUser(vtkMRMLNode*)", self._onRoiAdded)

    # ---- life

    def bind(self, parameters):
        """Read and write the choices of this parameter node."""
        self._parameters = parameters
        self._chooseDefaults()

    def release(self):
        """There is no parameter node to show."""
        self._parameters = None
        self._watch([])
        self._fitTimer.stop()

    def cleanup(self):
        self.release()
        self.removeObservers()
        self.picker.cleanup()

    def show(self):
        """Show the choices as they are now."""
        self.picker.choose(self._parameters.model)
        self._showChannelSelectors()
        self._watch([*self.volumes, self.roiNode])

    def _chooseDefaults(self):
        self._chooseFirstVolume()
        packages = self._logic.library.packages
        if not self._parameters.model and packages:
            withSample = [package for package in packages if SampleVolumes.forModel(package.id)]
            self._parameters.model = (withSample or packages)[0].id

    def _chooseFirstVolume(self):
        if self._parameters.inputVolume is None:
            self._parameters.inputVolume = self._logic.firstVolume()

    # ---- the choices

    @property
    def package(self):
        """The chosen model package, or None."""
        return self._logic.library.package(self._parameters.model) if self._parameters is not None else None

    @property
    def roiNode(self):
        return self._parameters.roi if self._parameters is not None else None

    @property
    def volumes(self):
        """The volumes for the model's channels that are chosen; a volume of several channels stands for all of them."""
        if self._parameters is None:
            return ()
        first, package = self._parameters.inputVolume, self.package
        wanted = len(package.channels) if package and not package.is_promptable else 1
        if wanted == 1 or _isColour(first):
            return (first,) if first is not None else ()
        nodes = [getattr(self._parameters, name) for name in IMAGES[:wanted]]
        return tuple(node for node in nodes if node is not None)

    def readiness(self):
        """Whether the choices can be segmented, as a Readiness."""
        if self.package is None:
            return Readiness(*self._whyNoModel())
        nodes = self.volumes
        if not nodes:
            return Readiness(_("Choose a volume first, or try it on sample data."))
        try:
            readers = [VolumeReader(node) for node in nodes]
            if self.package.is_promptable:
                return Readiness(_whyNoStrokes(self.package, readers[0].dimensions), ERROR)
            fit = ModelFit(self.package, readers, RegionOfInterest.box(self.roiNode, nodes[0]))
        except ProSMAError as error:
            return Readiness(str(error), ERROR)
        return Readiness(str(fit.errors[0]) if fit.errors else "", ERROR, tuple(fit.warnings))

    def _whyNoModel(self):
        wanted = self._parameters.model if self._parameters is not None else ""
        if not wanted:
            return _("Choose a model first."), NORMAL
        text = _("The model '{id}' is not installed here. Choose another one, or add it.")
        return text.format(id=wanted[:LONGEST_QUOTE]), WARNING

    # ---- what is shown

    def _showChannelSelectors(self):
        package = self.package
        colour = _isColour(self._parameters.inputVolume)
        channels = package.channels if package and not package.is_promptable else []
        for number in range(2, 5):
            shown = number <= len(channels) and not colour
            getattr(self._ui, f"channel{number}Selector").setVisible(shown)
            label = getattr(self._ui, f"channel{number}Label")
            label.setVisible(shown)
            if shown:
                label.text = f"{channels[number - 1]['name']}:"
        several = len(channels) > 1 and not colour
        self._ui.channel1Label.text = f"{channels[0]['name']}:" if several else _("Volume:")

    def _watch(self, nodes):
        """Look again whether the model fits when one of these nodes changes."""
        for node, event in self._watched:
            self.removeObserver(node, event, self._onWatchedChanged)
        events = (vtk.vtkCommand.ModifiedEvent, slicer.vtkMRMLTransformableNode.TransformModifiedEvent)
        self._watched = [(node, event) for node in {*nodes} - {None} for event in events]
        for node, event in self._watched:
            self.addObserver(node, event, self._onWatchedChanged)

    def _onWatchedChanged(self, _caller, _event):
        if self._parameters is not None:
            self._fitTimer.start()

    def _onSettled(self):
        """A moment after nodes were added or changed: a first volume becomes the input, and the fit is checked again."""
        if self._parameters is not None:
            self._chooseFirstVolume()
        self._onFit()

    # ---- what a person does

    def _onModelChosen(self, modelId):
        if self._parameters is not None:
            self._parameters.model = modelId
        self._onModel()

    def _onRoiAdded(self, node):
        """A new ROI starts on the chosen volume, no larger than the model expects."""
        if self._parameters is None or self._parameters.inputVolume is None:
            return
        largest = (self.package.model.get("field_of_view") or {}).get("max_mm") if self.package else None
        RegionOfInterest.fitTo(node, self._parameters.inputVolume, largest)

    def _onSample(self):
        if self._parameters is None:
            return
        try:
            node = SampleVolumes.load(self._parameters.model)
        except ProSMAError as error:
            self._onError(error)
            return
        self._parameters.roi = None
        self._parameters.inputVolume = node
        slicer.util.setSliceViewerLayers(background=node, fit=True)


def _whyNoStrokes(package, dimensions):
    """Why a model for strokes does not take a volume of this size, and the way out; an empty text if it does."""
    if (package.dimension == 2) == (dimensions[2] == 1):
        return ""
    if package.dimension == 2:
        return (
            _("The model answers strokes in pictures, but this is a volume.") + " " + _("Choose the one for volumes.")
        )
    return (
        _("The model answers strokes in volumes, but this is a single slice.") + " " + _("Choose the one for pictures.")
    )


def _isColour(volumeNode):
    return volumeNode is not None and volumeNode.IsA("vtkMRMLVectorVolumeNode")
