import slicer


class SegmentEditors:
    """The Segment Editor widgets of the application: that of its module, the panel's own, those of other extensions."""

    @staticmethod
    def all():
        """Each editor once. Qt searches: walking through Slicer's thousands of widgets in Python takes many times longer."""
        editors = []
        for window in slicer.app.topLevelWidgets():
            found = window.findChildren(slicer.qMRMLSegmentEditorWidget)
            own = [window] if window.inherits("qMRMLSegmentEditorWidget") else []
            editors += [editor for editor in (*own, *found) if editor not in editors]
        return editors

    @classmethod
    def saveStateForUndo(cls, segmentationNode):
        """Make what follows one undo step in every Segment Editor that edits this segmentation."""
        for editor in cls.all():
            if editor.segmentationNode() is segmentationNode:
                editor.saveStateForUndo()
