from slicer.i18n import tr as _

from prosma.image.box import placed, slabs, slices_kji, start_of
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Engine.SegmentationJob import SegmentationJob
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
        self._refuseChanged()
        volume = self.volumeNode
        shares = numpy.load(self._folder / found["file"], mmap_mode="r")
        name = _("{volume} - gate map of {model}").format(volume=volume.GetName(), model=self.package.name)
        output = ScalarOutput(
            name, COLOR, volume.GetImageData().GetDimensions(), ijkToRasOf(volume), hidesNothing=False
        )
        yield from output.clear()
        whole = placed(found["offset"], shares.shape[::-1])
        for box in slabs(whole, VOXELS_PER_STEP):
            output.array[slices_kji(box)] = shares[slices_kji(box, start_of(whole))] / numpy.float32(FULL)
            yield
        return output

    def _finish(self, output):
        self._task = None
        self.outputNode = output.add(self.volumeNode)
        self._end(self.FINISHED)
