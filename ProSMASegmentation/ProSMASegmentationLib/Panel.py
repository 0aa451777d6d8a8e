import logging

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from ProSMASegmentationLib.EngineClient import EngineClient
from ProSMASegmentationLib.ModelFit import ModelFit
from ProSMASegmentationLib.ModelPicker import ModelPicker
from ProSMASegmentationLib.ProSMAError import ProSMAError
from ProSMASegmentationLib.RegionOfInterest import RegionOfInterest
from ProSMASegmentationLib.SampleVolumes import SampleVolumes
from ProSMASegmentationLib.SegmentVolumes import SegmentVolumes
from ProSMASegmentationLib.SetupCheck import SetupCheck
from ProSMASegmentationLib.VolumeReader import VolumeReader

DEVICE_SETTING = "ProSMASegmentation/Device"
ERROR_STYLE = "color: #c0392b"
WARNING_STYLE = "color: #b9770e"
MILLISECONDS_TO_SETTLE = 100
LABEL_MARGINS = 24  # pixels between a section's border and its texts
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
        self._setup = SetupCheck(logic.engine, logic.library)
        self._volumes = SegmentVolumes(ui.volumesTable)
        self._picker = ModelPicker(ui, logic.library, self._onModelChosen, self._showError)
        self._connect()
        self._fillDevices()
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
        ui.deviceComboBox.connect("currentIndexChanged(int)", self._onDeviceChosen)
        ui.roiSelector.connect("nodeAddedByUser(vtkMRMLNode*)", self._onRoiAdded)
        ui.checkButton.connect("clicked()", self._onCheck)
        ui.installButton.connect("clicked()", self._onInstall)
        ui.copyButton.connect("clicked()", self._onCopy)
        ui.setupCollapsibleButton.connect("contentsCollapsed(bool)", self._onSetupCollapsed)

    # ---- life

    def enter(self):
        """The module is shown: bind the choices and warm the engine up."""
        self._entered = True
        self._bindParameters()
        try:
            self.logic.engine.start()
        except ProSMAError as error:
            self._showError(error)
        self._preload()

    def exit(self):
        """Another module is shown. A running job goes on."""
        self._entered = False
        self._unbindParameters()

    def cleanup(self):
        """The module goes away: nothing of it stays behind."""
        self._entered = False
        self.logic.cancelAll(_("The module was closed or reloaded."))
        self._unbindParameters()
        self.removeObservers()
        self._volumes.cleanup()
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
        self._watch([])
        self._fitTimer.stop()

    def _chooseDefaults(self):
        if self._parameters.inputVolume is None:
            self._parameters.inputVolume = self.logic.firstVolume()
        packages = self.logic.library.packages
        if not self._parameters.model and packages:
            self._parameters.model = packages[0].id

    def _onSceneStartClose(self, _caller, _event):
        self._unbindParameters()
        self._volumes.setSegmentationNode(None)
        self.ui.show3DButton.setSegmentationNode(None)

    def _onSceneEndClose(self, _caller, _event):
        self._clearResult()
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
            if parameters.outputSegmentation is not None and self.job is None:
                parameters.outputSegmentation = None  # a result belongs to its volume
                return
        self._picker.choose(parameters.model)
        self.ui.show3DButton.setSegmentationNode(parameters.outputSegmentation)
        self.ui.show3DButton.enabled = parameters.outputSegmentation is not None
        self._volumes.setSegmentationNode(parameters.outputSegmentation)
        self._showChannelSelectors()
        self._watch([*self._chosenVolumes(), parameters.roi])
        self._updateSegmentButton()

    # ---- input

    @property
    def _package(self):
        return self.logic.library.package(self._parameters.model) if self._parameters is not None else None

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
        self._watched = [(node, event) for node in nodes if node is not None for event in events]
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

    # ---- device and engine

    @property
    def device(self):
        """The chosen device: ``auto``, ``cpu``, ``cuda:0``, ..."""
        index = self.ui.deviceComboBox.currentIndex
        return (self.ui.deviceComboBox.itemData(index) if index >= 0 else None) or "auto"

    def _fillDevices(self):
        combo = self.ui.deviceComboBox
        chosen = str(qt.QSettings().value(DEVICE_SETTING, "auto"))
        usable = [device for device in self.logic.engine.ready.get("devices", []) if device["usable"]]
        choices = [("auto", _("Automatic")), *((device["name"], device["label"]) for device in usable)]
        names = [name for name, _label in choices]
        if chosen not in names and self.logic.engine.state != EngineClient.READY:
            names.append(chosen)
            choices.append((chosen, chosen))
        wasBlocked = combo.blockSignals(True)
        combo.clear()
        for name, label in choices:
            combo.addItem(label, name)
        combo.setCurrentIndex(names.index(chosen) if chosen in names else 0)
        combo.blockSignals(wasBlocked)

    def _onDeviceChosen(self, _index):
        qt.QSettings().setValue(DEVICE_SETTING, self.device)
        self._preload()

    def _onEngineChanged(self):
        if self.logic.engine.state != EngineClient.READY:
            self._preloaded = None
        else:
            self._fillDevices()
            self._preload()
        self._showSetup()
        self._updateSegmentButton()

    def _preload(self):
        """Have the engine load the chosen model, unless it has been asked to or cannot."""
        engine, package = self.logic.engine, self._package
        wanted = (package.id, self.device) if package is not None else None
        if (
            not self._entered
            or engine.state != EngineClient.READY
            or engine.problem
            or wanted in (None, self._preloaded)
        ):
            return
        self._preloaded = wanted
        self.logic.preload(package, self.device, self._onPreloaded)

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
        if problem and not (problem["code"] == "no_torch" and self._setup.canInstallTorch()):
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
        self._showText(self.ui.fitLabel, "\n".join([why] if why else warnings), ERROR_STYLE if why else WARNING_STYLE)

    def _onSegmentOrCancel(self):
        if self.job is not None:
            self.job.cancel()
        else:
            self.segment()

    def segment(self):
        """Start a job with the panel's choices, as a click on Segment does."""
        self._showText(self.ui.messageLabel, "", "")
        parameters = self._parameters
        try:
            if not self._askForLicence() or not self._askForTorch():
                return
            self.job = self.logic.segment(
                self._chosenVolumes(),
                self._package,
                parameters.outputSegmentation,
                parameters.roi,
                self.device,
                wait=False,
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
        self._setup.install()
        return True

    def _onProgress(self, job):
        self.ui.progressBar.setValue(round(1000 * job.fraction))
        text = job.stage
        if job.secondsLeft is not None:
            text += " - " + _("about {time} left").format(time=_duration(job.secondsLeft))
        self._showText(self.ui.stageLabel, text, "")

    def _onEnd(self, job):
        self.job = None
        self._showIdle()
        if job.state == job.FINISHED:
            self._showResult(job)
        elif job.state == job.CANCELLED:
            self._showText(self.ui.messageLabel, job.error.message, "")
        else:
            self._showError(job.error)
        self._updateSegmentButton()

    def _showIdle(self):
        self.ui.segmentButton.text = _("Segment")
        self.ui.progressBar.setVisible(False)
        self._showText(self.ui.stageLabel, "", "")
        self._clearResult()

    # ---- result

    def _clearResult(self):
        for label in (self.ui.messageLabel, self.ui.gateLabel, self.ui.noticesLabel):
            self._showText(label, "", "")

    def _showResult(self, job):
        if self._parameters is not None:
            self._parameters.outputSegmentation = job.segmentationNode
        share = job.result["statistics"].get("removed_share")
        if share is not None:
            text = _("The gate removed {share:.0%} of the features on the network's skip connections.").format(
                share=share
            )
            self._showText(self.ui.gateLabel, text, "")
        notices = list(job.result.get("notices", []))
        if job.result["labels"]["file"] is None:
            notices.insert(0, _("Nothing was found: the model sees none of its structures in this image."))
        self._showText(self.ui.noticesLabel, "\n".join(notices), WARNING_STYLE)
        done = _("Done in {seconds:.1f} s on {device}.").format(
            seconds=job.seconds["total"], device=job.result["device"]
        )
        self._showText(self.ui.messageLabel, done, "")

    def _showError(self, error):
        self._showText(self.ui.messageLabel, str(error), ERROR_STYLE)

    @staticmethod
    def _showText(label, text, style):
        label.text = text
        label.styleSheet = style
        label.setMinimumHeight(label.heightForWidth(label.parentWidget().width - LABEL_MARGINS) if text else 0)
        label.setVisible(bool(text))

    # ---- set-up check

    def _showSetup(self):
        self.ui.installButton.enabled = bool(self.logic.engine.problem)
        if not self.ui.setupCollapsibleButton.collapsed:
            self.ui.setupReport.setPlainText(self._setup.report())
        notice = self.logic.engine.problem
        if notice and self.job is None:
            self._showText(self.ui.messageLabel, f"{notice['message']} {notice['remedy']}", ERROR_STYLE)

    def _onSetupCollapsed(self, collapsed):
        if not collapsed:
            self._showSetup()

    def _onCheck(self):
        if self.job is not None:
            self._showText(self.ui.messageLabel, _("Wait until the segmentation is done, or cancel it."), WARNING_STYLE)
            return
        self.logic.library.refresh()
        self._picker.fill()
        self.logic.engine.stop()
        self.logic.engine.start()

    def _onInstall(self):
        try:
            self._setup.install()
        except ProSMAError as error:
            self._showError(error)

    def _onCopy(self):
        slicer.app.clipboard().setText(self._setup.report())


def _duration(seconds):
    if seconds < 90:
        return _("{seconds:.0f} s").format(seconds=max(1, seconds))
    return _("{minutes:.0f} min").format(minutes=seconds / 60)
