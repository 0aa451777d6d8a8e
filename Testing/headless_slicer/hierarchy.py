"""Subject hierarchy items for new nodes, which in Slicer the application's plugins make."""

import slicer
import vtk

OWNERS = {  # class of the node -> plugin that owns its item; the first that fits
    "vtkMRMLSegmentationNode": "Segmentations",
    "vtkMRMLLabelMapVolumeNode": "LabelMaps",
    "vtkMRMLVolumeNode": "Volumes",
    "vtkMRMLModelNode": "Models",
    "vtkMRMLMarkupsNode": "Markups",
    "vtkMRMLTransformNode": "Transforms",
    "vtkMRMLTableNode": "Tables",
    "vtkMRMLTextNode": "Texts",
}


def _owner(node):
    return next((plugin for class_, plugin in OWNERS.items() if node.IsA(class_)), None)


class HierarchyKeeper:
    """Adds and removes items of `scene`'s subject hierarchy as nodes come and go."""

    def __init__(self, scene):
        self.scene = scene
        self._observe(scene.NodeAddedEvent, self._added)
        self._observe(scene.NodeAboutToBeRemovedEvent, self._removed)
        for event in (scene.EndImportEvent, scene.EndBatchProcessEvent, scene.EndRestoreEvent):
            scene.AddObserver(event, lambda *_: self.addMissing())

    def _observe(self, event, method):
        @vtk.calldata_type(vtk.VTK_OBJECT)
        def call(caller, event, node):
            method(node)

        self.scene.AddObserver(event, call)

    def _hierarchy(self):
        return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)

    def _added(self, node):
        if not self.scene.IsBatchProcessing():
            self._addItem(node)

    def _addItem(self, node):
        plugin = _owner(node)
        if plugin is None or node.GetHideFromEditors():
            return
        hierarchy = self._hierarchy()
        if not hierarchy.GetItemByDataNode(node):
            item = hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)
            hierarchy.SetItemOwnerPluginName(item, plugin)

    def _removed(self, node):
        if _owner(node) is None or self.scene.IsClosing():
            return
        hierarchy = self._hierarchy()
        item = hierarchy.GetItemByDataNode(node)
        if item:
            hierarchy.RemoveItem(item, False, False)

    def addMissing(self):
        """Gives an item to every node that lacks one, for instance after a scene was read."""
        for node in [self.scene.GetNthNode(index) for index in range(self.scene.GetNumberOfNodes())]:
            self._addItem(node)
