"""`slicer.app`, `slicer.modules`, the main window and the layout, as far as scripted modules use them."""

import gc
import os
import shutil
import sys
import tempfile
import types

import slicer
import vtk

from . import qmrml
from .files import CoreIOManager
from .hierarchy import HierarchyKeeper
from .layout import LayoutManager
from .pythonqt import QtCore, QtGui, QtWidgets

LOGICS = {  # slicer.modules.<name in lower case>.logic(); order matters, colours come first
    "Colors": "vtkSlicerColorLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Models": "vtkSlicerModelsLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Texts": "vtkSlicerTextsLogic",
    "Units": "vtkSlicerUnitsLogic",
    "CropVolume": "vtkSlicerCropVolumeLogic",
    "Sequences": "vtkSlicerSequencesLogic",
}


class Signals:
    """`connect("signal(types)", function)` for an object that is no widget."""

    def __init__(self):
        self._receivers = {}

    def connect(self, signal, function):
        self._receivers.setdefault(signal, []).append(function)
        return True

    def disconnect(self, signal, function):
        receivers = self._receivers.get(signal, [])
        if function not in receivers:
            return False
        receivers.remove(function)
        return True

    def send(self, signal, *arguments):
        for function in list(self._receivers.get(signal, [])):
            function(*arguments)

    def sendOnce(self, signal):
        """Sends the signal to those who have not had it yet."""
        for function in self._receivers.pop(signal, []):
            function()


class CoreModule:
    """A module of the application that is written in C++: its logic is real, it has no panel here."""

    def __init__(self, name, logic):
        self.name, self.title, self.path, self._logic = name, name, "", logic

    def logic(self):
        return self._logic

    def widgetRepresentation(self):
        """There is no panel."""


class qSlicerScriptedLoadableModule:
    """What a scripted module's `parent` is: title, categories and the panel's place."""

    def __init__(self, name, path):
        self.name, self.path = name, path
        self.title, self.helpText, self.acknowledgementText, self.hidden = "", "", "", False
        self.categories, self.dependencies, self.contributors = [], [], []
        self.icon, self.widgetRepresentationCreationEnabled = QtGui.QIcon(), True
        self.makeWidget = None
        self._representation = None

    def logic(self):
        """A scripted module's logic belongs to its widget."""

    def hasWidgetRepresentation(self):
        return self._representation is not None

    def widgetRepresentation(self):
        if self._representation is None and self.makeWidget:
            self._representation = self.createNewWidgetRepresentation()
        return self._representation

    def createNewWidgetRepresentation(self):
        place = qmrml.qSlicerScriptedLoadableModuleWidget()
        if slicer.util.mainWindow() is not None:  # there slicer.util.findChildren looks, in a window that is not shown
            place.setParent(slicer.util.mainWindow(), QtCore.Qt.Window)
        place.setLayout(QtWidgets.QVBoxLayout())
        place.setMRMLScene(slicer.mrmlScene)
        place.windowTitle = self.title or self.name
        place._python = self.makeWidget(place)
        place._python.setup()
        return place

    def hideWidget(self):
        """Slicer deletes no panel before it exits, so observers that a panel forgot still meet living widgets."""
        if self._representation is not None:
            self._representation.hide()


class ModuleManager(Signals):
    """Knows the modules by name."""

    def __init__(self, modules):
        super().__init__()
        self._modules, self._byName, self._unloaded = modules, {}, []

    def register(self, module):
        self._byName[module.name] = module
        setattr(self._modules, module.name.lower(), module)

    def unregister(self, name):
        self.send("moduleAboutToBeUnloaded(QString)", name)
        module = self._byName.pop(name)
        module.hideWidget()
        self._unloaded.append(module)
        for attribute in (name.lower(), name + "Widget", name + "Instance"):
            self._modules.__dict__.pop(attribute, None)

    def module(self, name):
        return self._byName.get(name)

    def modulesNames(self):
        return tuple(self._byName)

    def scripted(self):
        return [each for each in self._byName.values() if isinstance(each, qSlicerScriptedLoadableModule)]

    def factoryManager(self):
        return self

    def loadedModuleNames(self):
        return tuple(self._byName)

    def isLoaded(self, name):
        return name in self._byName


class ModuleSelector(Signals):
    """Which module is shown; tells panels that they are entered or left."""

    def __init__(self, manager):
        super().__init__()
        self._manager, self.selectedModule = manager, ""

    def selectModule(self, name):
        if self._manager.module(name) is None:
            raise RuntimeError(f"there is no module '{name}'")
        self._tell(self.selectedModule, "exit", False)
        self.selectedModule = name
        self._tell(name, "enter", True)
        self.send("moduleSelected(QString)", name)

    def leave(self, name):
        """Leaves a module that is about to go away."""
        if name == self.selectedModule:
            self._tell(name, "exit", False)
            self.selectedModule = ""

    def _tell(self, name, method, entered):
        module = self._manager.module(name)
        place = module.widgetRepresentation() if isinstance(module, qSlicerScriptedLoadableModule) else None
        if place is None:
            return
        place.setEntered(entered)
        place.setVisible(entered)
        getattr(place.self(), method, lambda: None)()


class qSlicerMainWindow(QtWidgets.QMainWindow):
    """The parent of dialogs; it is not shown."""

    def __init__(self, selector):
        super().__init__()
        self.objectName = "qSlicerMainWindow"
        self._selector = selector

    def moduleSelector(self):
        return self._selector


class Application(Signals):
    """`slicer.app`: a facade for the real application logic, the layout and Qt's event loop."""

    applicationName = mainApplicationName = "Slicer"
    majorVersion, minorVersion, applicationVersion = 5, 12, "5.12.0-headless"
    revision = repositoryRevision = "0"
    documentationBaseUrl = "https://slicer.readthedocs.io/en/latest"
    os = platform = sys.platform

    def __init__(self, folder):
        super().__init__()
        self.slicerHome = self.launcherSettingsFilePath = folder
        self.temporaryPath, self.cachePath = os.path.join(folder, "tmp"), os.path.join(folder, "cache")
        self.defaultScenePath = self.extensionsInstallPath = os.path.join(folder, "data")
        for each in (self.temporaryPath, self.cachePath, self.defaultScenePath):
            os.makedirs(each, exist_ok=True)
        self.testing = False

    def mrmlApplicationLogic(self):
        return self._logic

    applicationLogic = mrmlApplicationLogic

    def mrmlScene(self):
        return slicer.mrmlScene

    def layoutManager(self):
        return self._layout

    def moduleManager(self):
        return self._modules

    def coreIOManager(self):
        return self._files

    ioManager = coreIOManager

    def testingEnabled(self):
        """Whether Slicer's testing mode is imitated, where dialogs are skipped; see `testing`."""
        return self.testing

    def commandOptions(self):
        return types.SimpleNamespace(noMainWindow=False, testingEnabled=self.testing, runPythonAndExit=False)

    def isInstalled(self):
        return True

    def processEvents(self, *flags):
        QtWidgets.QApplication.processEvents(*flags)

    def topLevelWidgets(self):
        collects = gc.isenabled()
        gc.disable()  # a collection amid the call would delete widgets that Qt has already listed
        try:
            return tuple(QtWidgets.QApplication.topLevelWidgets())
        finally:
            if collects:
                gc.enable()

    def setOverrideCursor(self, cursor):
        QtWidgets.QApplication.setOverrideCursor(QtGui.QCursor(cursor))

    def restoreOverrideCursor(self):
        QtWidgets.QApplication.restoreOverrideCursor()

    def overrideCursor(self):
        return QtWidgets.QApplication.overrideCursor()

    def clipboard(self):
        return QtWidgets.QApplication.clipboard()

    def palette(self):
        return QtWidgets.QApplication.palette()

    def font(self):
        return QtWidgets.QApplication.font()

    def style(self):
        return QtWidgets.QApplication.style()

    def activeWindow(self):
        return QtWidgets.QApplication.activeWindow()

    def userSettings(self):
        return QtCore.QSettings()

    settings = revisionUserSettings = userSettings

    def startupEnvironment(self):
        return QtCore.QProcessEnvironment.systemEnvironment()

    def translate(self, _context, text):
        """Without a language pack."""
        return text

    def pauseRender(self):
        """Views render only when a picture is asked for."""

    resumeRender = pauseRender

    def moduleDocumentationUrl(self, name):
        return f"{self.documentationBaseUrl}/user_guide/modules/{name.lower()}.html"

    def showVolume(self, node):
        """Makes a volume the background of the slice views, as the application does after loading one."""
        selection = self._logic.GetSelectionNode()
        if node.IsA("vtkMRMLLabelMapVolumeNode"):
            selection.SetActiveLabelVolumeID(node.GetID())
        else:
            selection.SetActiveVolumeID(node.GetID())
        self._logic.PropagateVolumeSelection()

    def build(self):
        """Makes the scene, the logics and the windows."""
        scene = slicer.vtkMRMLScene()
        slicer.mrmlScene = scene
        self._logic = _applicationLogic(scene, self)
        self._keeper = HierarchyKeeper(scene)
        slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
        slicer.modules = types.SimpleNamespace()
        self._modules = ModuleManager(slicer.modules)
        vtk.vtkObject.GlobalWarningDisplayOff()  # the terminology logic complains that the wheel has no terminologies
        for name, logicClass in LOGICS.items():
            self._modules.register(CoreModule(name, self._register(name, getattr(slicer, logicClass)())))
        vtk.vtkObject.GlobalWarningDisplayOn()
        self._layout = LayoutManager(scene, self._logic)
        self._files = CoreIOManager(scene, slicer.modules.volumes.logic())
        self._selector = ModuleSelector(self._modules)
        self._window = qSlicerMainWindow(self._selector)

    def _register(self, name, logic):
        logic.SetMRMLApplicationLogic(self._logic)
        logic.SetMRMLScene(slicer.mrmlScene)
        self._logic.SetModuleLogic(name, logic)
        return logic

    def unloadModule(self, name):
        self._selector.leave(name)
        self._modules.unregister(name)

    def takeDown(self):
        """Ends the modules and the scene; the temporary folder goes too."""
        self.send("aboutToQuit()")
        for module in self._modules.scripted():
            self.unloadModule(module.name)
        slicer.qSlicerSegmentEditorEffectFactory.forget()
        self._window.deleteLater()
        self._layout.close()
        slicer.mrmlScene.Clear(True)
        shutil.rmtree(self.slicerHome, ignore_errors=True)


def _applicationLogic(scene, app):
    logic = slicer.vtkSlicerApplicationLogic()
    logic.SetTemporaryPath(app.temporaryPath)
    logic.SetHomeDirectory(app.slicerHome)
    logic.SetShareDirectory("share")
    _writeGenericColors(os.path.join(app.slicerHome, "share", "ColorFiles"))
    logic.SetMRMLScene(scene)
    logic.GetColorLogic().SetMRMLScene(scene)
    logic.GetColorLogic().AddDefaultColorNodes()
    logic.SetSliceLogics(vtk.vtkCollection())
    logic.SetViewLogics(vtk.vtkCollection())
    remote = slicer.vtkMRMLRemoteIOLogic()  # scenes in .mrb files are unpacked into its cache
    remote.GetCacheManager().SetRemoteCacheDirectory(app.cachePath)
    remote.SetMRMLScene(scene)
    remote.AddDataIOToScene()
    app._remote = remote
    return logic


def _writeGenericColors(folder):
    """The colour table of label volumes, which the wheel lacks: label numbers with evenly spread hues."""
    os.makedirs(folder)
    lines = ["0 Background 0 0 0 0"]
    for label in range(1, 256):
        color = QtGui.QColor.fromHsvF(label * 0.618034 % 1, 0.6, 0.9)
        lines.append(f"{label} {label} {color.red()} {color.green()} {color.blue()} 255")
    with open(os.path.join(folder, "GenericColors.txt"), "w", encoding="ascii") as file:
        file.write("\n".join(lines) + "\n")


def _printQtMessage(kind, context, text):
    """Qt's warnings, without the one that its windowless platform prints for every shown window."""
    if "propagateSizeHints" not in text:
        print(text, file=sys.stderr)


def qtApplication():
    """The one QApplication, without a window system, in Slicer's light look."""
    existing = QtWidgets.QApplication.instance()
    if existing:
        return existing
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    QtCore.qInstallMessageHandler(_printQtMessage)
    application = QtWidgets.QApplication(["Slicer"])
    application.setOrganizationName("NA-MIC")
    application.setApplicationName("Slicer-headless")
    application.setStyle("Fusion")
    application.setPalette(_lightPalette())
    font = QtGui.QFont("DejaVu Sans")
    font.setPointSize(9)
    application.setFont(font)
    application.setQuitOnLastWindowClosed(False)
    return application


def _lightPalette():
    palette, colour = QtGui.QPalette(), QtGui.QColor
    shades = {
        "Window": "#efefef",
        "WindowText": "#1d1d1d",
        "Base": "#ffffff",
        "AlternateBase": "#f5f5f5",
        "Text": "#1d1d1d",
        "Button": "#ececec",
        "ButtonText": "#1d1d1d",
        "Mid": "#b8b8b8",
        "Highlight": "#3d7fc4",
        "HighlightedText": "#ffffff",
        "PlaceholderText": "#8a8a8a",
        "ToolTipBase": "#ffffdc",
        "ToolTipText": "#000000",
    }
    for role, value in shades.items():
        palette.setColor(getattr(QtGui.QPalette, role), colour(value))
    for role in ("Text", "ButtonText", "WindowText"):
        palette.setColor(QtGui.QPalette.Disabled, getattr(QtGui.QPalette, role), colour("#9a9a9a"))
    return palette


def ownSettings(folder):
    """Keeps QSettings out of the person's own settings files."""
    QtCore.QSettings.setDefaultFormat(QtCore.QSettings.IniFormat)
    QtCore.QSettings.setPath(QtCore.QSettings.IniFormat, QtCore.QSettings.UserScope, folder)


def temporaryFolder():
    return tempfile.mkdtemp(prefix="headless-slicer-")
