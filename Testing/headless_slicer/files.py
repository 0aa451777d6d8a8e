"""Reading and writing of files for slicer.util: the part of `slicer.app.coreIOManager()` that needs no plugins."""

import os
import pathlib

import slicer
import vtk

TYPES = {  # file extension -> type of file; longer extensions first
    ".seg.nrrd": "SegmentationFile",
    ".seg.nhdr": "SegmentationFile",
    ".mrk.json": "MarkupsFile",
    ".nii.gz": "VolumeFile",
    **dict.fromkeys((".nrrd", ".nhdr", ".nii", ".mha", ".mhd", ".dcm", ".png", ".jpg", ".tif", ".img"), "VolumeFile"),
    **dict.fromkeys((".vtk", ".vtp", ".stl", ".obj", ".ply"), "ModelFile"),
    **dict.fromkeys((".h5", ".tfm"), "TransformFile"),
    **dict.fromkeys((".csv", ".tsv"), "TableFile"),
    ".txt": "TextFile",
    **dict.fromkeys((".mrml", ".mrb"), "SceneFile"),
}
NODES = {  # type of file -> class of the node it becomes
    "SegmentationFile": "vtkMRMLSegmentationNode",
    "MarkupsFile": "vtkMRMLMarkupsFiducialNode",
    "ModelFile": "vtkMRMLModelNode",
    "TransformFile": "vtkMRMLLinearTransformNode",
    "TableFile": "vtkMRMLTableNode",
    "TextFile": "vtkMRMLTextNode",
}
LABELMAP, SINGLE_FILE, DISCARD_ORIENTATION = 1, 4, 16  # options of vtkSlicerVolumesLogic.AddArchetypeVolume


def _extension(filename):
    name = str(filename).lower()
    return next((each for each in TYPES if name.endswith(each)), os.path.splitext(name)[1])


class CoreIOManager:
    """Loads and saves nodes with the real storage nodes."""

    def __init__(self, scene, volumesLogic):
        self._scene, self._volumes = scene, volumesLogic

    def fileType(self, filename):
        return TYPES.get(_extension(filename), "NoFile")

    def fileWriterFileType(self, node):
        return "SegmentationFile" if node.IsA("vtkMRMLSegmentationNode") else "VolumeFile"

    def loadNodes(self, fileType, properties, nodes=None, messages=None):
        filename = properties["fileName"]
        if not os.path.exists(filename):
            return self._fail(messages, f"File not found: {filename}")
        if fileType == "SceneFile":
            return self._loadScene(filename, properties.get("clear", False))
        loader = self._loadVolume if fileType == "VolumeFile" else self._loadWithStorage
        if fileType != "VolumeFile" and fileType not in NODES:
            return self._fail(messages, f"No reader for files of type {fileType}: {filename}")
        name = properties.get("name") or pathlib.Path(filename).name[: -len(_extension(filename)) or None]
        node = loader(fileType, filename, name, properties)
        if node is None:
            return self._fail(messages, f"Could not read {filename}")
        if nodes is not None:
            nodes.AddItem(node)
        return True

    @staticmethod
    def _fail(messages, text):
        if messages is not None:
            messages.AddMessage(vtk.vtkCommand.ErrorEvent, text)
        return False

    def _loadScene(self, filename, clear):
        if clear:
            self._scene.Clear(False)
        if str(filename).lower().endswith(".mrb"):
            return bool(self._scene.ReadFromMRB(filename, False))
        self._scene.SetURL(filename)
        return bool(self._scene.Import())

    def _loadVolume(self, fileType, filename, name, properties):
        options = sum(
            bit
            for key, bit in (
                ("labelmap", LABELMAP),
                ("singleFile", SINGLE_FILE),
                ("discardOrientation", DISCARD_ORIENTATION),
            )
            if properties.get(key)
        )
        node = self._volumes.AddArchetypeVolume(filename, name, options)
        if node is not None and properties.get("show", True):
            slicer.app.showVolume(node)
        return node

    def _loadWithStorage(self, fileType, filename, name, properties):
        node = self._scene.AddNewNodeByClass(NODES[fileType], self._scene.GenerateUniqueName(name))
        node.AddDefaultStorageNode(filename)
        if node.GetStorageNode().ReadData(node):
            if node.IsA("vtkMRMLDisplayableNode"):
                node.CreateDefaultDisplayNodes()
            return node
        self._scene.RemoveNode(node)
        return None

    def saveNodes(self, fileType, properties, messages=None):
        filename = str(properties["fileName"])
        if fileType == "SceneFile":
            return self._saveScene(filename)
        node = self._scene.GetNodeByID(properties["nodeID"])
        extension = _extension(filename)
        storage = node.GetStorageNode()
        if storage is None or not storage.SupportedFileType(filename):
            storage = self._scene.AddNewNodeByClass(self._storageClass(node, extension))
            node.SetAndObserveStorageNodeID(storage.GetID())
        storage.SetFileName(filename)
        storage.SetUseCompression(properties.get("useCompression", storage.GetUseCompression()))
        return bool(storage.WriteData(node))

    @staticmethod
    def _storageClass(node, extension):
        if node.IsA("vtkMRMLVolumeNode") and extension == ".nrrd":
            return "vtkMRMLNRRDStorageNode"
        return node.CreateDefaultStorageNode().GetClassName()

    def _saveScene(self, filename):
        if filename.lower().endswith(".mrb"):
            return bool(self._scene.WriteToMRB(filename))
        if filename.lower().endswith(".mrml"):
            self._scene.SetURL(filename)
            return bool(self._scene.Commit(filename))
        return bool(self._scene.SaveSceneToSlicerDataBundleDirectory(filename))

    def fileWriterExtensions(self, node):
        storage = node.CreateDefaultStorageNode()
        types = storage.GetSupportedWriteFileTypes()
        return tuple(types.GetValue(index) for index in range(types.GetNumberOfValues()))

    def extractKnownExtension(self, filename, node):
        return _extension(filename)

    def exportNodes(self, nodeIDs, filenames, properties, hardenTransform=False, messages=None):
        """Writes copies, so that the nodes keep their own files."""
        for nodeID, filename in zip(nodeIDs, filenames, strict=True):
            node = self._scene.GetNodeByID(nodeID)
            storage = slicer.mrmlScene.CreateNodeByClass(self._storageClass(node, _extension(filename)))
            storage.UnRegister(None)
            storage.SetScene(self._scene)
            storage.SetFileName(str(filename))
            if hardenTransform and node.GetParentTransformNode():
                raise RuntimeError("export with a hardened transform needs the Slicer application")
            if not storage.WriteData(node):
                return self._fail(messages, f"Could not write {filename}")
        return True
