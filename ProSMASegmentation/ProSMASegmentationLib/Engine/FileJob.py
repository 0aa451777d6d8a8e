from ProSMASegmentationLib.Engine.SegmentationJob import SegmentationJob


class FileJob(SegmentationJob):
    """One run whose result the engine writes into a file; nothing in the scene changes.

    :param output: path of the label map.
    :param readers: a VolumeReader for each channel, with ``digest``, their digest; or else
    :param images: paths of image files or DICOM folders, which the engine reads.

    Public, beside what SegmentationJob has: ``output``, and ``skipped``: ``finished`` if the result had been there, or
    ``edited`` if it was changed since; else empty.
    """

    def __init__(self, engine, package, output, request, readers=(), digest=None, images=()):
        given = {"images": [str(path) for path in images]} if images else {"input": digest}
        super().__init__(engine, package, list(readers), None, {**request, **given, "output": str(output)})
        self.output = output

    @property
    def skipped(self):
        return (self.result or {}).get("skipped", "")

    def _write(self):
        """The engine has done it."""
        yield

    def _finish(self, _written):
        self._succeed()

    def _onSceneClose(self, caller, event):
        if self._nodes:  # image files are in no scene
            super()._onSceneClose(caller, event)
