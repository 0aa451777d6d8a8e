import qt
import vtk


class SegmentationFollower:
    """Watches a segmentation node and calls back once, a moment after the last of its changes.

    :param onSettled: called without arguments, from the event loop.
    :param milliseconds: how long nothing must change before the call.
    """

    def __init__(self, onSettled, milliseconds):
        self.node = None
        self.paused = False  # changes made meanwhile are not followed
        self._tag = None
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(milliseconds)
        self._timer.connect("timeout()", onSettled)

    def follow(self, node):
        """Watch this node, or nothing for None. Returns whether it is another one than before."""
        if node is self.node:
            return False
        if self._tag is not None:
            self.node.RemoveObserver(self._tag)
            self._tag = None
        self.stop()
        self.node = node
        if node is not None:
            self._tag = node.AddObserver(vtk.vtkCommand.AnyEvent, self._onChange)
        return True

    def start(self):
        """Call back in a moment, as after a change."""
        self._timer.start()

    def stop(self):
        """Do not call back until the next change."""
        self._timer.stop()

    def _onChange(self, _node, event):
        if event != "DeleteEvent" and not self.paused:
            self._timer.start()
