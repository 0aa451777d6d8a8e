from prosma.image.box import placed, start_of
from ProSMASegmentationLib.Base import OwnedFolder
from ProSMASegmentationLib.Base.EventLoopTask import EventLoopTask
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError, asProSMAError

NOTHING_ELSEWHERE = {"log_odds": -6.0}  # where a model saw nothing of the segment; the engine looks at -4 ... 4


class NetworkStrokes:
    """Has the engine answer strokes with a promptable model. Nothing in it blocks the event loop.

    The image is handed over once, for all strokes on it. A new question takes the place of the one that is not answered.

    :param onAnswer: called with the question's token, the box along K, J, I that may have changed, the mask (boolean
      array) in it, and notices for a person. :param onError: called with the token and a ProSMAError.
    """

    def __init__(self, onAnswer, onError):
        self._onAnswer, self._onError = onAnswer, onError
        self._folder = self._imageKey = self._channels = None
        self._task = self._waiting = self._request = None
        self._number = 0
        self._kept = {}  # name of a part: (array, file) that the next question may have too

    @property
    def isBusy(self):
        return self._waiting is not None or self._request is not None

    def ask(self, package, grid, parts, token):
        """Ask what the mask becomes.

        :param package: of the model. :param grid: EditedGrid. :param parts: see ``StrokesSession.parts``.
        """
        self.cancel()
        self._number += 1
        self._waiting = (self._number, package, parts, token)
        self.handOver(grid)
        if self._task is None:
            self._send()

    def cancel(self):
        """Forget the question that is not answered. Its answer will not be told."""
        self._waiting = None
        if self._request is not None:
            request, self._request = self._request, None
            _engine().cancel(request)

    def close(self):
        """Forget the image too."""
        self.cancel()
        if self._task is not None:
            self._task.cancel()
        folder, self._folder, self._task, self._imageKey = self._folder, None, None, None
        self._kept = {}
        if folder is not None:
            OwnedFolder.remove(folder)

    # ---- handing over

    def handOver(self, grid):
        """Begin to write the image for the engine, unless that was done."""
        key = grid.imageKey()
        if key == self._imageKey:
            return
        waiting = self._waiting
        self.close()
        self._waiting = waiting
        self._imageKey = key
        self._folder = OwnedFolder.newFolder(OwnedFolder.JOB)
        self._task = EventLoopTask(self._write(grid), self._onWritten, self._fail).start()

    def _write(self, grid):
        import numpy

        from ProSMASegmentationLib.Volumes.VolumeReader import slabs

        channels = numpy.moveaxis(grid.channels(), 0, -1)
        channels = channels[..., 0] if channels.shape[-1] == 1 else channels
        with open(self._folder / "image.npy", "wb") as file:
            header = {"descr": channels.dtype.str, "fortran_order": False, "shape": channels.shape}
            numpy.lib.format.write_array_header_1_0(file, header)
            for slab in slabs(channels):
                file.write(numpy.ascontiguousarray(slab).data)
                yield
        return [{"file": "image.npy", "ijk_to_ras": grid.imageToWorld.tolist()}]

    def _onWritten(self, channels):
        self._task, self._channels = None, channels
        if self._waiting is not None:
            self._send()

    # ---- asking

    def _send(self):
        (number, package, parts, token), folder = self._waiting, self._folder
        self._waiting = None
        try:
            files = {name: self._written(name, number, *part) for name, part in parts.items()}
            request = {
                "do": "prompt",
                "model": str(package.folder.absolute()),
                "folder": str(folder),
                "channels": self._channels,
                "number": number,
                **files,
            }
            self._request = _engine().request(request, lambda event: self._onEvent(folder, number, token, files, event))
        except (OSError, ProSMAError) as error:
            self._fail(error, token)

    def _written(self, name, number, box, array):
        """Write a part into a file, unless the same array was written for the last question."""
        import numpy

        last = self._kept.get(name)
        if last is None or last[0] is not array:
            file = f"{name}_{number}.npy"
            numpy.save(self._folder / file, numpy.ascontiguousarray(array))
            if name in NOTHING_ELSEWHERE:
                self._kept[name] = (array, file)
        else:
            file = last[1]
        return {"file": file, "offset": list(start_of(box))[::-1], "elsewhere": NOTHING_ELSEWHERE.get(name, 0.0)}

    # ---- answers

    def _onEvent(self, folder, number, token, files, event):
        if event["event"] not in ("result", "error"):
            return
        isAwaited = number == self._number and self._request is not None
        answer = error = None
        if isAwaited and event["event"] == "result":
            try:
                answer = self._read(folder, event)
            except (OSError, ValueError) as found:
                error = found
        elif isAwaited:
            error = ProSMAError(event["code"], event["message"], event["remedy"])
        kept = {file for _array, file in self._kept.values()}
        names = {part["file"] for part in files.values()} - kept
        for name in names | {event.get("mask", {}).get("file") or ""} - {""}:
            (folder / name).unlink(missing_ok=True)
        if isAwaited:
            self._request = None
            if error is not None:
                self._fail(error, token)
            else:
                self._onAnswer(token, *answer, event["notices"])

    def _read(self, folder, event):
        import numpy

        found = event["mask"]
        mask = numpy.load(folder / found["file"]) > 0
        return placed(found["offset"][::-1], mask.shape), mask

    def _fail(self, error, token=None):
        if self._waiting is not None and token is None:
            token = self._waiting[3]
        self.close()
        error = OwnedFolder.unusable(error) if isinstance(error, OSError) else asProSMAError(error)
        self._onError(token, error)


def _engine():
    """The application's engine, also after a reload of the panel."""
    from ProSMASegmentationLib.Engine.EngineClient import EngineClient

    return EngineClient.shared()
