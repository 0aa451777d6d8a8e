"""The section Masking of the Segment Editor: where editing is allowed and what it overwrites."""

import slicer

from .pythonqt import QtWidgets


def named(widget, name):
    widget.objectName = name
    return widget


class MaskingSection(QtWidgets.QGroupBox):
    """Where editing is allowed and what it overwrites; shows and changes a vtkMRMLSegmentEditorNode."""

    def __init__(self):
        super().__init__("Masking")
        self._node, self._filling = None, False
        self._mode = named(QtWidgets.QComboBox(), "MaskModeComboBox")
        self._intensity = named(QtWidgets.QCheckBox("Editable intensity range"), "SourceVolumeIntensityMaskCheckBox")
        self._low, self._high = QtWidgets.QDoubleSpinBox(), QtWidgets.QDoubleSpinBox()
        self._overwrite = named(QtWidgets.QComboBox(), "OverwriteModeComboBox")
        layout = QtWidgets.QFormLayout(self)
        layout.addRow("Editable area:", self._mode)
        layout.addRow(self._intensity)
        range_ = QtWidgets.QHBoxLayout()
        for box in (self._low, self._high):
            box.setRange(-1e9, 1e9)
            box.valueChanged.connect(self._rangeChanged)
            range_.addWidget(box)
        layout.addRow(range_)
        layout.addRow("Modify other segments:", self._overwrite)
        for text, mode in (("Overwrite all", "AllSegments"), ("Overwrite visible", "VisibleSegments")):
            self._overwrite.addItem(text, getattr(slicer.vtkMRMLSegmentEditorNode, f"Overwrite{mode}"))
        self._overwrite.addItem("Allow overlap", slicer.vtkMRMLSegmentEditorNode.OverwriteNone)
        self._mode.currentIndexChanged.connect(self._modeChanged)
        self._intensity.toggled.connect(self._intensityToggled)
        self._overwrite.currentIndexChanged.connect(self._overwriteChanged)

    def show(self, node):
        """Shows a node's choices."""
        self._node, self._filling = node, True
        self._mode.clear()
        names = ("Everywhere", "InsideAllSegments", "InsideVisibleSegments", "OutsideAllSegments")
        for name in (*names, "OutsideVisibleSegments"):
            self._mode.addItem(name, getattr(slicer.vtkMRMLSegmentationNode, f"EditAllowed{name}"))
        segmentation = node.GetSegmentationNode().GetSegmentation() if node.GetSegmentationNode() else None
        for segmentID in segmentation.GetSegmentIDs() if segmentation else ():
            self._mode.addItem(f"Inside {segmentation.GetSegment(segmentID).GetName()}", segmentID)
        single = node.GetMaskMode() == slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment
        chosen = self._mode.findData(node.GetMaskSegmentID() if single else node.GetMaskMode())
        self._mode.setCurrentIndex(max(chosen, 0))
        self._intensity.setChecked(node.GetSourceVolumeIntensityMask())
        for box, value in zip((self._low, self._high), node.GetSourceVolumeIntensityMaskRange(), strict=True):
            box.setValue(value)
            box.setVisible(node.GetSourceVolumeIntensityMask())
        self._overwrite.setCurrentIndex(self._overwrite.findData(node.GetOverwriteMode()))
        self._filling = False
        if single and chosen < 0:  # the segment was deleted
            node.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedEverywhere)

    def _modeChanged(self, index):
        if self._filling:
            return
        data = self._mode.itemData(index)
        if isinstance(data, str):
            self._node.SetMaskSegmentID(data)
            data = slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment
        self._node.SetMaskMode(data)

    def _intensityToggled(self, checked):
        if self._filling:
            return
        low, high = self._node.GetSourceVolumeIntensityMaskRange()
        volume = self._node.GetSourceVolumeNode()
        if checked and low == high and volume and volume.GetImageData():
            low, high = volume.GetImageData().GetScalarRange()
            quarter = 0.25 * (high - low)
            self._node.SetSourceVolumeIntensityMaskRange(low + quarter, high - quarter)
        self._node.SetSourceVolumeIntensityMask(checked)

    def _rangeChanged(self, _value):
        if not self._filling:
            self._node.SetSourceVolumeIntensityMaskRange(self._low.value, self._high.value)

    def _overwriteChanged(self, index):
        if not self._filling:
            self._node.SetOverwriteMode(self._overwrite.itemData(index))
