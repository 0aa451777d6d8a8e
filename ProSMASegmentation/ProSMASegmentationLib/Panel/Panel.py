import logging

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Engine.EngineClient import EngineClient
from ProSMASegmentationLib.Models.ModelFit import ModelFit
from ProSMASegmentationLib.Panel.BatchSection import BatchSection
from ProSMASegmentationLib.Panel.DevicePicker import DevicePicker
from ProSMASegmentationLib.Panel.EditorSection import EditorSection
from ProSMASegmentationLib.Panel.LearnSection import LearnSection
from ProSMASegmentationLib.Panel.MirrorBox import MirrorBox
from ProSMASegmentationLib.Panel.ModelPicker import ModelPicker
from ProSMASegmentationLib.Panel.OutputsSection import OutputsSection
from ProSMASegmentationLib.Panel.PanelText import ERROR, WARNING, showProgress, showText
from ProSMASegmentationLib.Panel.ResultSection import ResultSection
from ProSMASegmentationLib.Panel.ReviewSection import ReviewSection
from ProSMASegmentationLib.Panel.SensitivitySection import SensitivitySection
from ProSMASegmentationLib.Panel.SetupSection import SetupSection
from ProSMASegmentationLib.Results.KeptProbabilities import KeptProbabilities
from ProSMASegmentationLib.Volumes.RegionOfInterest import RegionOfInterest
from ProSMASegmentationLib.Volumes.SampleVolumes import SampleVolumes
from ProSMASegmentationLib.Volumes.VolumeReader import VolumeReader

MILLISECONDS_TO_SETTLE = 100
CHANNELS = ("inputVolume", "channel2", "channel3", "channel4")


class Panel(VTKObservationMixin):
    """What the user sees of ProSMA: it shows the parameter node's choices and the state of the job, and starts jobs.

    :param ui: the widgets of ProSMASegmentation.ui.
    :param logic: the module's logic.
    """

    def __init__(self, ui, logic):
        VTKObservationMixin.__init__(self)
        self.ui = ui
        self.logic = logic
        self.job = None
        self._entered = False
        self._parameters = None
        self._guiTag = None
        self._lastVolume = None
        self._preloaded = None  # (model id, device) that the engine was asked to load
        self._watched = []  # volumes and ROI, whose changes can change whether the model fits
        self._fitTimer = qt.QTimer()
        self._fitTimer.setSingleShot(True)
        self._fitTimer.setInterval(MILLISECONDS_TO_SETTLE)
        self._fitTimer.connect("timeout()", self._onSettled)
        self._result = ResultSection(ui)
        self._sensitivity = SensitivitySection(ui)
        self._review = ReviewSection(ui)
        self._editor = EditorSection(ui)
        self._learn = LearnSection(ui, logic, self._choices, self._onNewModel)
        self._outputs = OutputsSection(ui, logic, self._choices, self._roi)
        self._setup = SetupSection(ui, logic.engine, logic.library, self._onCheck, self._onInstall)
        self._picker = ModelPicker(ui, logic.library, self._onModelChosen, self._showError)
        self._devices = DevicePicker(ui.deviceComboBox, logic.engine, self._preload)
        self._mirror = MirrorBox(ui.mirrorCheckBox, self._onMirror)
        self.batch = BatchSection(
            ui, logic, self._choices, lambda: self._mirror.current, self._askFirst, self._showCase
        )
        self._connect()
        self._showIdle()
        logic.engine.addObserver(self._onEngineChanged)

    def _connect(self):
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self._onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self._onSceneEndClose)
        self.addObserver(scene, scene.EndImportEvent, self._onSceneEndImport)
        self.addObserver(scene, scene.NodeAddedEvent, self._onWatchedChanged)
        ui = self.ui
        ui.segmentButton.connect("clicked()", self._onSegmentOrCancel)
        ui.sampleButton.connect("clicked()", self._onSample)
        ui.roiSelector.connect("nodeAddedByUser(vtkMRMLNode*)", self._onRoiAdded)

    # ---- life

    def enter(self):
        """The module is shown: bind the choices and warm the engine up."""
        self._entered = True
        self._review.enter()
        self._bindParameters()
        try:
            self.logic.engine.start()
        except ProSMAError as error:
            self._showError(error)
        self._preload()

    def exit(self):
        """Another module is shown. A running job goes on."""
        self._entered = False
        self._review.exit()
        self._unbindParameters()

    def cleanup(self):
        """The module goes away: nothing of it stays behind."""
        self._entered = False
        self.logic.cancelAll(_("The module was closed or reloaded."))
        self._unbindParameters()
        self.removeObservers()
        self._result.cleanup()
        self._sensitivity.cleanup()
        self._review.cleanup()
        KeptProbabilities.release()
        self._editor.cleanup()
        self._learn.cleanup()
        self._outputs.cleanup()
        self._picker.cleanup()
        self.logic.engine.removeObserver(self._onEngineChanged)
        self.logic.engine.stop()

    # ---- parameter node

    def _bindParameters(self):
        if self._parameters is not None:
            return
        self._parameters = self.logic.getParameterNode()
        self._chooseDefaults()
        self._lastVolume = self._parameters.inputVolume
        self._guiTag = self._parameters.connectGui(self.ui)
        self.addObserver(self._parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParametersChanged)
        self._onParametersChanged()

    def _unbindParameters(self):
        if self._parameters is None:
            return
        self.removeObserver(self._parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParametersChanged)
        self._parameters.disconnectGui(self._guiTag)
        self._parameters = self._guiTag = None
        self._editor.release()
        self._watch([])
        self._fitTimer.stop()

    def _chooseDefaults(self):
        if self._parameters.inputVolume is None:
            self._parameters.inputVolume = self.logic.firstVolume()
        packages = self.logic.library.packages
        if not self._parameters.model and packages:
            withSample = [package for package in packages if SampleVolumes.forModel(package.id)]
            self._parameters.model = (withSample or packages)[0].id

    def _onSceneStartClose(self, _caller, _event):
        self._unbindParameters()
        self._showSegmentation(None)

    def _onSceneEndClose(self, _caller, _event):
        self._result.clear()
        self.batch.forgetRemoved()
        showText(self.ui.messageLabel, "")
        if self._entered:
            self._bindParameters()

    def _onSceneEndImport(self, _caller, _event):
        if self._entered:
            self._unbindParameters()
            self._bindParameters()

    def _onParametersChanged(self, _caller=None, _event=None):
        parameters = self._parameters
        if parameters is None:
            return
        if parameters.inputVolume is not self._lastVolume:
            self._lastVolume = parameters.inputVolume
            if parameters.outputSegmentation is not None:
                parameters.outputSegmentation = None  # a result belongs to its volume
                return
        self._picker.choose(parameters.model)
        self._showSegmentation(parameters.outputSegmentation)
        self._editor.show(parameters.outputSegmentation, parameters.inputVolume)
        self._showChannelSelectors()
        self._mirror.show(self._package, parameters.mirror)
        self._watch([*self._chosenVolumes(), parameters.roi])
        self.batch.setRoi(parameters.roi)
        self._learn.update()
        self._updateSegmentButton()

    def _showSegmentation(self, node):
        for section in (self._result, self._sensitivity, self._review, self._outputs):
            section.setSegmentationNode(node)

    # ---- input

    @property
    def _package(self):
        return self.logic.library.package(self._parameters.model) if self._parameters is not None else None

    def _choices(self):
        """(model package, volumes, segmentation node, device) as they are chosen now."""
        if self._parameters is None:
            return None, [], None, "auto"
        return self._package, self._chosenVolumes(), self._parameters.outputSegmentation, self._devices.current

    def _roi(self):
        return self._parameters.roi if self._parameters is not None else None

    def _onNewModel(self):
        self._picker.fill()

    def _chosenVolumes(self):
        """The volumes for the model's channels that are chosen; a volume of several channels stands for all of them."""
        first = self._parameters.inputVolume
        wanted = len(self._package.channels) if self._package else 1
        if wanted == 1 or (first is not None and first.IsA("vtkMRMLVectorVolumeNode")):
            return [first] if first is not None else []
        nodes = [getattr(self._parameters, name) for name in CHANNELS[:wanted]]
        return [node for node in nodes if node is not None]

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
        if self._parameters is not None and self._parameters.inputVolume is None:
            self._chooseDefaults()
        self._updateSegmentButton()

    def _showChannelSelectors(self):
        package, first = self._package, self._parameters.inputVolume
        colour = first is not None and first.IsA("vtkMRMLVectorVolumeNode")
        channels = package.channels if package else []
        for number in range(2, 5):
            shown = number <= len(channels) and not colour
            getattr(self.ui, f"channel{number}Selector").setVisible(shown)
            label = getattr(self.ui, f"channel{number}Label")
            label.setVisible(shown)
            if shown:
                label.text = f"{channels[number - 1]['name']}:"
        several = len(channels) > 1 and not colour
        self.ui.channel1Label.text = f"{channels[0]['name']}:" if several else _("Volume:")

    def _onModelChosen(self, modelId):
        if self._parameters is not None:
            self._parameters.model = modelId
        self._preload()

    def _onMirror(self, checked):
        if self._parameters is not None:
            self._parameters.mirror = checked

    def _onRoiAdded(self, node):
        """A new ROI starts on the chosen volume, no larger than the model expects."""
        if self._parameters is None or self._parameters.inputVolume is None:
            return
        largest = ((self._package.model.get("field_of_view") or {}).get("max_mm")) if self._package else None
        RegionOfInterest.fitTo(node, self._parameters.inputVolume, largest)

    def _onSample(self):
        if self._parameters is None:
            return
        try:
            node = SampleVolumes.load(self._parameters.model)
        except ProSMAError as error:
            self._showError(error)
            return
        self._parameters.roi = None
        self._parameters.inputVolume = node
        slicer.util.setSliceViewerLayers(background=node, fit=True)

    # ---- engine

    def _onEngineChanged(self):
        if self.logic.engine.state != EngineClient.READY:
            self._preloaded = None
        else:
            self._devices.fill()
            self._preload()
        self._setup.update()
        problem = self.logic.engine.problem
        if problem and self.job is None:
            showText(self.ui.messageLabel, f"{problem['message']} {problem['remedy']}", ERROR)
        self._updateSegmentButton()

    def _preload(self):
        """Have the engine load the chosen model, unless it has been asked to or cannot."""
        engine, package = self.logic.engine, self._package
        wanted = (package.id, self._devices.current) if package is not None else None
        if (
            not self._entered
            or engine.state != EngineClient.READY
            or engine.problem
            or wanted in (None, self._preloaded)
        ):
            return
        self._preloaded = wanted
        self.logic.preload(package, self._devices.current, self._onPreloaded)

    def _onPreloaded(self, event):
        if event["event"] == "error" and event["code"] not in ("cancelled", "engine_stopped"):
            logging.warning("ProSMA: the model could not be loaded in advance: %s", event["message"])
            self._showError(ProSMAError(event["code"], event["message"], event["remedy"]))

    # ---- running

    def _whyNot(self):
        """(why Segment cannot run now or an empty text, what is likely to go wrong)."""
        if self._parameters is None or self._package is None:
            return _("Choose a model first."), []
        nodes = self._chosenVolumes()
        if not nodes:
            return _("Choose a volume first, or try it on sample data."), []
        try:
            readers = [VolumeReader(node) for node in nodes]
            fit = ModelFit(self._package, readers, RegionOfInterest.box(self._parameters.roi, nodes[0]))
        except ProSMAError as error:
            return str(error), []
        if fit.errors:
            return fit.errors[0], fit.warnings
        problem = self.logic.engine.problem
        if problem and not (problem["code"] == "no_torch" and self._setup.check.canInstallTorch()):
            return f"{problem['message']} {problem['remedy']}", fit.warnings
        return "", fit.warnings

    def _updateSegmentButton(self):
        button = self.ui.segmentButton
        if self.job is not None:
            button.enabled = True
            button.toolTip = _("Stop the segmentation. The scene stays as it is.")
            return
        why, warnings = self._whyNot()
        button.enabled = not why
        button.toolTip = why or _("Segment the volume with the chosen model.")
        showText(self.ui.fitLabel, "\n".join([why] if why else warnings), ERROR if why else WARNING)

    def _onSegmentOrCancel(self):
        if self.job is not None:
            self.job.cancel()
        else:
            self.segment()

    def segment(self):
        """Start a job with the panel's choices, as a click on Segment does."""
        showText(self.ui.messageLabel, "")
        parameters = self._parameters
        try:
            if not self._askFirst():
                return
            self.job = self.logic.segment(
                self._chosenVolumes(),
                self._package,
                parameters.outputSegmentation,
                parameters.roi,
                self._devices.current,
                wait=False,
                mirror=self._mirror.current,
            )
        except ProSMAError as error:
            self._showError(error)
            return
        self.job.onProgress.append(self._onProgress)
        self.job.onEnd.append(self._onEnd)
        self._onProgress(self.job)
        self.ui.segmentButton.text = _("Cancel")
        self.ui.progressBar.setVisible(True)
        self._updateSegmentButton()

    def _askFirst(self):
        """Whether the model's licence is accepted and the engine can run, after asking where that is needed."""
        return self._askForLicence() and self._askForTorch()

    def _askForLicence(self):
        package = self._package
        if self.logic.library.licenceIsAccepted(package):
            return True
        question = _("The model '{name}' may be used only under this licence: {licence}\n\nDo you accept it?").format(
            name=package.name, licence=package.model["training"]["licence"]
        )
        if not slicer.util.confirmYesNoDisplay(question, windowTitle="ProSMA"):
            return False
        self.logic.library.acceptLicence(package)
        return True

    def _askForTorch(self):
        """Whether the engine can run; if PyTorch is missing, offer to install it first."""
        problem = self.logic.engine.problem
        if not problem or problem["code"] != "no_torch":
            return True
        question = _("ProSMA needs PyTorch, a download of up to 3 GB. Install it now?")
        if not slicer.util.confirmYesNoDisplay(question, windowTitle="ProSMA"):
            return False
        self._setup.check.install()
        return True

    def _onProgress(self, job):
        showProgress(self.ui.progressBar, self.ui.stageLabel, job)

    def _onEnd(self, job):
        self.job = None
        self._showIdle()
        if job.state == job.FINISHED:
            self._showResult(job)
        elif job.state == job.CANCELLED:
            showText(self.ui.messageLabel, job.error.message)
        else:
            self._showError(job.error)
        self._updateSegmentButton()

    def _showResult(self, job):
        parameters = self._parameters or self.logic.getParameterNode()
        if parameters.inputVolume is job.volumeNode:
            parameters.outputSegmentation = job.segmentationNode
        self._result.show(job)
        if parameters.keepLargestPart:
            self._outputs.afterRun(job.segmentationNode)
        done = _("Done in {seconds:.1f} s on {device}.")
        showText(self.ui.messageLabel, done.format(seconds=job.seconds["total"], device=job.result["device"]))

    def _showCase(self, volumeNode, segmentationNode):
        """Choose a result of a batch and its volume, to be looked at and corrected."""
        if self._parameters is None:
            return
        if volumeNode is not None:
            self._parameters.inputVolume = volumeNode
            slicer.util.setSliceViewerLayers(background=volumeNode, fit=True)
        self._parameters.outputSegmentation = segmentationNode

    def _showIdle(self):
        self.ui.segmentButton.text = _("Segment")
        self.ui.progressBar.setVisible(False)
        showText(self.ui.stageLabel, "")
        showText(self.ui.messageLabel, "")
        self._result.clear()

    def _showError(self, error):
        showText(self.ui.messageLabel, str(error), ERROR)

    # ---- set-up

    def _onCheck(self):
        if self.job is not None or self.batch.isActive:
            showText(self.ui.messageLabel, _("Wait until the segmentation is done, or cancel it."), WARNING)
            return
        self.logic.library.refresh()
        self._picker.fill()
        self.logic.engine.stop()
        self.logic.engine.start()

    def _onInstall(self):
        if self.job is not None or self.batch.isActive:
            showText(self.ui.messageLabel, _("Wait until the segmentation is done, or cancel it."), WARNING)
            return
        try:
            self._setup.check.install()
        except ProSMAError as error:
            self._showError(error)
