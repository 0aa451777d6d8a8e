import slicer

from prosma.image import tags
from ProSMASegmentationLib.Results.ResultWriter import ResultWriter, segmentationOf


class SequenceResults:
    """The segmentations of a sequence's frames: a second sequence, which the same browsers show.

    It is made with the first result, found again by its reference and its model, and saved with the scene. Edits of the
    segmentation that a browser shows go into it.

    :param sequenceNode: the sequence of volumes, ``source``.
    """

    def __init__(self, sequenceNode, package):
        self.source = sequenceNode
        self._package = package

    @property
    def node(self):
        """The sequence of segmentations, or None."""
        for node in slicer.util.getNodesByClass("vtkMRMLSequenceNode"):
            if (
                node.GetNodeReference(tags.NODE_SOURCE) is self.source
                and node.GetAttribute(tags.NODE_MODEL) == self._package.id
            ):
                return node
        return None

    def at(self, indexValue):
        """The segmentation of a frame, or None."""
        node = self.node
        return node.GetDataNodeAtValue(indexValue) if node is not None else None

    def put(self, segmentationNode, indexValue):
        """Add a segmentation. Returns the node that the sequence keeps."""
        node = self.node
        isNew = node is None
        if isNew:
            node = self._newSequence()
        node.SetDataNodeAtValue(segmentationNode, indexValue)
        if isNew:
            self._showInBrowsers(node)
        self.show()
        return node.GetDataNodeAtValue(indexValue)

    def show(self):
        """Have the browsers show what the sequence holds now."""
        node = self.node
        for browser in _browsersOf(node):
            slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
            proxy = browser.GetProxyNode(node)
            if proxy is not None and proxy.GetDisplayNode() is None:
                proxy.CreateDefaultDisplayNodes()

    def _newSequence(self):
        name = slicer.mrmlScene.GenerateUniqueName(f"{self.source.GetName()} - {self._package.name}")
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", name)
        node.SetIndexName(self.source.GetIndexName())
        node.SetIndexUnit(self.source.GetIndexUnit())
        node.SetIndexType(self.source.GetIndexType())
        node.SetNumericIndexValueTolerance(self.source.GetNumericIndexValueTolerance())
        node.SetNodeReferenceID(tags.NODE_SOURCE, self.source.GetID())
        node.SetAttribute(tags.NODE_MODEL, self._package.id)
        return node

    def _showInBrowsers(self, node):
        for browser in _browsersOf(self.source):
            browser.AddSynchronizedSequenceNodeID(node.GetID())
            browser.SetSaveChanges(node, True)
            # A frame without a result must not show the segments of another one.
            browser.SetMissingItemMode(node, browser.MissingItemSetToDefault)


class FrameWriter(ResultWriter):
    """Writes the result of a frame into a SequenceResults, under the rules for what a person edited."""

    def __init__(self, results, indexValue, volumeNode, package, options):
        super().__init__(volumeNode, package, results.at(indexValue), options)
        self._results = results
        self._indexValue = indexValue

    def _newNode(self, segments):
        node = segmentationOf(segments.values(), self._package.name)
        node.SetReferenceImageGeometryParameterFromVolumeNode(self._volume)
        node.SetNodeReferenceID(node.GetReferenceImageGeometryReferenceRole(), None)  # the frame is in no scene
        return self._results.put(node, self._indexValue)

    def _intoOutput(self, segments, untouched, newSurfaces):
        node = super()._intoOutput(segments, untouched, newSurfaces)
        self._results.show()
        return node

    def _makeVisible(self, node):
        """That is a matter of the node that the browser shows."""


def _browsersOf(sequenceNode):
    return [
        browser
        for browser in slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode")
        if browser.IsSynchronizedSequenceNodeID(sequenceNode.GetID(), True)
    ]
