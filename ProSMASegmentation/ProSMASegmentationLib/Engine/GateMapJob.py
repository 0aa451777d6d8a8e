from slicer.i18n import tr as _

from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Engine.SegmentationJob import SegmentationJob
from ProSMASegmentationLib.Results.KeptResult import slicesOf
from ProSMASegmentationLib.Volumes.ScalarOutput import ScalarOutput
from ProSMASegmentationLib.Volumes.VolumeReader import ijkToRasOf

COLOR = "vtkMRMLColorTableNodeRainbow"
VOXELS_PER_STEP = 1 << 20
FULL = 255  # the engine's value for 'all features kept'


class GateMapJob(SegmentationJob):
    """A run that leaves no segmentation but a volume: the share of skip features that the gates let pass, 0 to 1.

    ``outputNode`` is that volume's node. Otherwise as a SegmentationJob, which see.
    """

    def __init__(self, engine, package, readers, request):
        super().__init__(engine, package, readers, None, {**request, "outputs": ["gate_map"]})
        self.outputNode = None

    def _write(self):
        import numpy

        found = self.result["volumes"].get("gate_map")
        if not found:
            raise ProSMAError(
                "no_gates",
                _("The model '{name}' has no proximal gates, so there is no gate map.").format(name=self.package.name),
                _("Choose another model."),
            )
        self._refuseOtherSize()
        volume = self.volumeNode
        shares = numpy.load(self._folder / found["file"], mmap_mode="r")
        name = _("{volume} - gate map of {model}").format(volume=volume.GetName(), model=self.package.name)
        output = ScalarOutput(
            name, COLOR, volume.GetImageData().GetDimensions(), ijkToRasOf(volume), hidesNothing=False
        )
        yield from output.clear()
        sizes = list(reversed(shares.shape))
        box = [[start, start + size] for start, size in zip(found["offset"], sizes, strict=True)]
        target = output.array[slicesOf(box, (0, 0, 0))]
        step = max(1, VOXELS_PER_STEP // (sizes[0] * sizes[1]))
        for start in range(0, sizes[2], step):
            target[start : start + step] = shares[start : start + step] / numpy.float32(FULL)
            yield
        return output

    def _finish(self, output):
        self._task = None
        self.outputNode = output.add(self.volumeNode)
        self._end(self.FINISHED)
