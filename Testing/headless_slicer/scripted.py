"""Stand-in for `slicer.ScriptedLoadableModule`: the base classes of scripted modules."""

import importlib
import logging
import os
import unittest

import slicer

from . import qt

__all__ = [
    "ScriptedLoadableModule",
    "ScriptedLoadableModuleLogic",
    "ScriptedLoadableModuleTest",
    "ScriptedLoadableModuleWidget",
]


class ScriptedLoadableModule:
    """Describes a module; `parent` takes title, categories, help text and so on."""

    def __init__(self, parent):
        super().__init__()
        self.parent = parent
        self.moduleName = type(self).__name__
        parent.title, parent.helpText, parent.acknowledgementText = "", "", ""
        parent.categories, parent.dependencies, parent.contributors = [], [], []
        for extension in (".svg", ".png"):
            icon = self.resourcePath(f"Icons/{self.moduleName}{extension}")
            if os.path.isfile(icon):
                parent.icon = qt.QIcon(icon)
                break
        slicer.selfTests[self.moduleName] = self.runTest

    def resourcePath(self, filename):
        return os.path.join(os.path.dirname(self.parent.path), "Resources", filename)

    def getDefaultModuleDocumentationLink(self, docPage=None):
        url = slicer.app.documentationBaseUrl + (docPage or f"/user_guide/modules/{self.moduleName.lower()}.html")
        return f'<p>For more information see the <a href="{url}">online documentation</a>.</p>'

    def runTest(self, msec=100, **keywords):
        """Runs the module's test class, `<module name>Test`."""
        testClass = getattr(importlib.import_module(type(self).__module__), self.moduleName + "Test", None)
        if testClass is None:
            raise AssertionError(f"{type(self).__module__} has no class {self.moduleName}Test")
        test = testClass()
        test.messageDelay = msec
        test.runTest(**keywords)


class ScriptedLoadableModuleWidget:
    """A module's panel; widgets go into `self.layout`."""

    def __init__(self, parent=None):
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = slicer.util.settingsValue("Developer/DeveloperMode", False, slicer.util.toBool)
        self.parent = parent or slicer.qMRMLWidget()
        if parent is None:
            self.parent.setLayout(qt.QVBoxLayout())
            self.parent.setMRMLScene(slicer.mrmlScene)
        self.layout = self.parent.layout()
        if parent is None:
            self.setup()
            self.parent.show()
        slicer.app.moduleManager().connect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def resourcePath(self, filename):
        return os.path.join(os.path.dirname(slicer.util.modulePath(self.moduleName)), "Resources", filename)

    def setup(self):
        """Derived classes make their widgets here, after a call of this method."""

    def cleanup(self):
        """Called before the module goes away."""

    def onReload(self):
        slicer.util.reloadScriptedModule(self.moduleName)

    def _onModuleAboutToBeUnloaded(self, moduleName):
        if moduleName == self.moduleName:
            self.cleanup()
            slicer.app.moduleManager().disconnect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)


class ScriptedLoadableModuleLogic:
    """A module's computation, usable without the panel; it owns the parameter node."""

    def __init__(self, parent=None):
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self):
        if self.isSingletonParameterNode:
            node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
            if node is not None:
                node.SetAttribute("ModuleName", self.moduleName)  # closing a scene may have removed it
                return node
        nodes = [] if self.isSingletonParameterNode else self.getAllParameterNodes()
        return nodes[0] if nodes else slicer.mrmlScene.AddNode(self.createParameterNode())

    def getAllParameterNodes(self):
        nodes = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
        return [node for node in nodes if node.GetAttribute("ModuleName") == self.moduleName]

    def createParameterNode(self):
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)  # the Python variable owns it now
        if self.isSingletonParameterNode:
            node.SetSingletonTag(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """A module's self-test; `runTest` is what Reload and Test calls."""

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.enableScreenshots, self.screenshotScaleFactor = False, 1.0

    def delayDisplay(self, message, requestedDelay=None, msec=None):
        """Logs the message and lets events be processed; nobody needs time to read it here."""
        logging.info(message)
        slicer.app.processEvents()

    def takeScreenshot(self, name, description, type=-1):
        self.delayDisplay(description)

    def runTest(self):
        logging.warning("No test is defined in %s", type(self).__name__)
