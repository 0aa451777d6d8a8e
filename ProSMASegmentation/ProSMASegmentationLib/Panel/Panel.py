import logging

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Engine.EngineClient import EngineClient
from ProSMASegmentationLib.Logic.ParameterNode import mendParameters
from ProSMASegmentationLib.Panel.BatchSection import BatchSection
from ProSMASegmentationLib.Panel.Choices import Choices
from ProSMASegmentationLib.Panel.CorrectSection import CorrectSection
from ProSMASegmentationLib.Panel.DevicePicker import DevicePicker
from ProSMASegmentationLib.Panel.EditorSection import EditorSection
from ProSMASegmentationLib.Panel.InputSection import InputSection, Readiness
from ProSMASegmentationLib.Panel.LearnSection import LearnSection
from ProSMASegmentationLib.Panel.LicenceQuestion import acceptsLicence
from ProSMASegmentationLib.Panel.MirrorCheckBox import MirrorCheckBox
from ProSMASegmentationLib.Panel.OutputsSection import OutputsSection
from ProSMASegmentationLib.Panel.PanelText import WARNING
from ProSMASegmentationLib.Panel.ResultSection import ResultSection
from ProSMASegmentationLib.Panel.ReviewSection import ReviewSection
from ProSMASegmentationLib.Panel.RunSection import RunSection
from ProSMASegmentationLib.Panel.SensitivitySection import SensitivitySection
from ProSMASegmentationLib.Panel.SetupSection import SetupSection
from ProSMASegmentationLib.Panel.TorchInstallation import TorchInstallation
from ProSMASegmentationLib.Results.KeptProbabilities import KeptProbabilities
from ProSMASegmentationLib.Results.ResultWriter import emptySegmentation


class Panel(VTKObservationMixin):
    """What the user sees of ProSMA: its life, and the parameter node's choices. Each section of it is a class of its own.

    :param ui: the widgets of ProSMASegmentation.ui.
    :param logic: the module's logic.
    """

    def __init__(self, ui, logic):
        VTKObservationMixin.__init__(self)
        self.ui = ui
        self.logic = logic
        self._entered = False
        self._parameters = None
        self._guiTag = None
        self._lastVolume = None
        self._preloaded = None  # (model id, device) that the engine was asked to load
        self._preloading = None  # id of that request, which may have been answered
        self._makeSections()
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self._onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self._onSceneEndClose)
        self.addObserver(scene, scene.StartImportEvent, self._onSceneStartImport)
        self.addObserver(scene, scene.EndImportEvent, self._onSceneEndImport)
        logic.engine.addObserver(self._onEngineChanged)

    def _makeSections(self):
        ui, logic = self.ui, self.logic
        self._devices = DevicePicker(ui.deviceComboBox, logic.engine, self._preload)
        self._mirror = MirrorCheckBox(ui.mirrorCheckBox, self._onMirror)
        self._result = ResultSection(ui)
        self._sensitivity = SensitivitySection(ui)
        self._review = ReviewSection(ui)
        self._editor = EditorSection(ui)
        self._correct = CorrectSection(ui, self._editor.setShown)
        self._setup = SetupSection(ui, logic.engine, logic.library, self._onCheck, self._onInstall)
        self._torch = TorchInstallation(logic.engine, self._setup.check, self._onInstalling)
        self._run = RunSection(
            ui, logic, self._choices, self._readiness, self._mayRun, self._onJobEnd, self._startStrokes
        )
        self._input = InputSection(ui, logic, self._preload, self._run.update, self._run.sayError)
        self._learn = LearnSection(ui, logic, self._choices, self._input.picker.fill)
        self._outputs = OutputsSection(ui, logic, self._choices)
        self.batch = BatchSection(ui, logic, self._choices, self._mayRun, self._showCase)

    @property
    def job(self):
        """The SegmentationJob that runs, or None."""
        return self._run.job

    def segment(self):
        """Start a job with the panel's choices, as a click on Segment does."""
        self._run.start()

    # ---- life

    def enter(self):
        """The module is shown: bind the choices and warm the engine up."""
        self._entered = True
        self._review.enter()
        self._bindParameters()
        try:
            if not self._torch.installing:
                self.logic.engine.start()
        except ProSMAError as error:
            self._run.sayError(error)
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
        self._correct.cleanup()
        self._editor.cleanup()
        self._learn.cleanup()
        self._outputs.cleanup()
        self._input.cleanup()
        self.logic.engine.removeObserver(self._onEngineChanged)
        self.logic.engine.stop()

    # ---- parameter node

    def _bindParameters(self):
        if self._parameters is not None:
            return
        self._parameters = self.logic.getParameterNode()
        if self.logic.parameterProblems:
            self._run.say("\n".join(self.logic.parameterProblems), WARNING)
        self._input.bind(self._parameters)
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
        self._input.release()

    def _onSceneStartClose(self, _caller, _event):
        self._unbindParameters()
        self._showSegmentation(None)

    def _onSceneEndClose(self, _caller, _event):
        self._result.clear()
        self.batch.forgetRemoved()
        self._run.say("")
        if self._entered:
            self._bindParameters()

    def _onSceneStartImport(self, _caller, _event):
        """The file's choices are looked at when all of them are there."""
        self._unbindParameters()

    def _onSceneEndImport(self, _caller, _event):
        if self._entered:
            self._bindParameters()

    def _onParametersChanged(self, _caller=None, _event=None):
        parameters = self._parameters
        if parameters is None:
            return
        problems = mendParameters(parameters.parameterNode)
        if problems:  # and what was mended has been shown meanwhile
            self._run.say("\n".join(problems), WARNING)
            return
        if parameters.inputVolume is not self._lastVolume:
            self._lastVolume = parameters.inputVolume
            if parameters.outputSegmentation is not None:
                parameters.outputSegmentation = None  # a result belongs to its volume
                return
        self._input.show()
        self._showSegmentation(parameters.outputSegmentation)
        self._editor.show(parameters.outputSegmentation, parameters.inputVolume)
        self._mirror.show(self._input.package, parameters.mirror)
        self.batch.setRoi(parameters.roi)
        self._learn.update()
        self._run.update()

    def _showSegmentation(self, node):
        for section in (self._result, self._correct, self._sensitivity, self._review, self._outputs):
            section.setSegmentationNode(node)

    def _choices(self):
        """The Choices of this moment; without a parameter node there are none."""
        if self._parameters is None:
            return Choices()
        return Choices(
            self._input.package,
            self._input.volumes,
            self._parameters.outputSegmentation,
            self._parameters.roi,
            self._devices.current,
            self._mirror.current,
        )

    def _onMirror(self, checked):
        if self._parameters is not None:
            self._parameters.mirror = checked

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
            self._run.say(_problemText(problem), WARNING)
        self._run.update()

    def _preload(self):
        """Have the engine load the chosen model, and no other, unless it has been asked to or cannot."""
        engine, package = self.logic.engine, self._input.package
        wanted = (package.id, self._devices.current) if package is not None else None
        if (
            not self._entered
            or engine.state != EngineClient.READY
            or engine.problem
            or wanted in (None, self._preloaded)
        ):
            return
        engine.cancel(self._preloading)
        self._preloaded = wanted
        self._preloading = self.logic.preload(package, self._devices.current, self._onPreloaded)

    def _onPreloaded(self, event):
        if event["event"] == "error" and event["code"] not in ("cancelled", "engine_stopped"):
            logging.warning("ProSMA: the model could not be loaded in advance: %s", event["message"])
            self._run.sayError(ProSMAError(event["code"], event["message"], event["remedy"]))

    # ---- running

    def _mayRun(self, package):
        """Whether a model's licence is accepted and the engine can run, after asking where that is needed.

        :raises ProSMAError: ``no_torch`` if PyTorch could not be installed, ``busy`` while it is.
        """
        self._torch.refuseMeanwhile()
        return acceptsLicence(self.logic.library, package) and self._torch.offer()

    def _readiness(self):
        """Whether Segment can run, as a Readiness: what is chosen, and what the engine lacks."""
        if self._torch.installing:
            return Readiness(_("PyTorch is being installed. Wait until that is done."))
        ready = self._input.readiness()
        problem = self.logic.engine.problem
        if ready.why or not problem or (problem["code"] == "no_torch" and self._setup.check.canInstallTorch()):
            return ready
        return Readiness(_problemText(problem), WARNING, ready.warnings)

    def _onJobEnd(self, job):
        self._result.clear()
        if job.state != job.FINISHED:
            return
        parameters = self._parameters or self.logic.getParameterNode()
        if parameters.inputVolume is job.volumeNode:
            parameters.outputSegmentation = job.segmentationNode
        self._result.show(job)
        if parameters.keepLargestPart:
            self._outputs.afterRun(job.segmentationNode)

    def _startStrokes(self):
        """Show the Segment Editor with the effect ProSMA Strokes, for a segment that the first stroke begins."""
        parameters, segmentId = self._parameters, None
        if parameters.outputSegmentation is None:
            parameters.outputSegmentation = emptySegmentation(parameters.inputVolume, _("strokes"))
        elif parameters.outputSegmentation.GetSegmentation().GetNumberOfSegments():
            segmentId = parameters.outputSegmentation.GetSegmentation().AddEmptySegment()
        self._correct.openEditor()
        self._editor.chooseStrokes(True, segmentId)
        self._run.say(_("Paint a stroke inside the structure, in any slice view."))

    def _showCase(self, volumeNode, segmentationNode):
        """Choose a result of a batch and its volume, to be looked at and corrected."""
        if self._parameters is None:
            return
        if volumeNode is not None:
            self._parameters.inputVolume = volumeNode
            slicer.util.setSliceViewerLayers(background=volumeNode, fit=True)
        self._parameters.outputSegmentation = segmentationNode

    # ---- set-up

    def _mayMend(self):
        """Whether the engine may be stopped now; if not, say why."""
        try:
            self._torch.refuseMeanwhile()
        except ProSMAError as error:
            self._run.say(str(error), WARNING)
            return False
        if self.job is not None or self.batch.isActive:
            self._run.say(_("Wait until the segmentation is done, or cancel it."), WARNING)
            return False
        return True

    def _onCheck(self):
        if not self._mayMend():
            return
        self.logic.library.refresh()
        self._input.picker.fill()
        self.logic.engine.stop()
        self.logic.engine.start()

    def _onInstall(self):
        if not self._mayMend():
            return
        try:
            self._torch.install()
        except ProSMAError as error:
            self._run.sayError(error)

    def _onInstalling(self):
        """An installation begins or has ended: nothing that starts an engine can be clicked meanwhile."""
        installing = self._torch.installing
        text = _("PyTorch is being installed. Slicer may not answer for some minutes.") if installing else ""
        self._run.say(text)
        for section in ("learn", "batch", "more", "setup"):
            getattr(self.ui, f"{section}CollapsibleButton").enabled = not installing
        self._run.update()
        if installing:
            slicer.app.processEvents()  # so that it is seen before the installer takes over


def _problemText(problem):
    return f"{problem['message']} {problem['remedy']}"
