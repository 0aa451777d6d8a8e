import hashlib

import slicer
import vtk
from slicer.i18n import tr as _

from ProSMASegmentationLib.Base.ProSMAError import ProSMAError

BYTES_PER_SLAB = 2 << 20  # copied in a few ms
LONGEST_MODALITY = 16  # characters; DICOM's code strings have no more


class VolumeReader:
    """Gives one volume node to the engine: geometry, and voxels written slab by slab into a ``.npy`` file.

    :param volumeNode: a scalar or vector volume.
    :raises ProSMAError: ``bad_input``, if the volume is one that cannot be segmented, whatever the model.
    """

    def __init__(self, volumeNode):
        self.node = volumeNode
        self._refuseWrongKind()
        image = volumeNode.GetImageData()
        self.dimensions = tuple(image.GetDimensions())  # I, J, K
        self.components = image.GetNumberOfScalarComponents()
        self.ijkToRas = ijkToRasOf(volumeNode)
        self._refuseWrongGeometry()
        self._seen = self._state()

    def hasChanged(self):
        """Whether the voxels, their number or their size are others than when this was made. A move does not count."""
        return self._state() != self._seen

    def _state(self):
        image = self.node.GetImageData()
        scalars = image.GetPointData().GetScalars() if image is not None else None
        if scalars is None:
            return None
        spacing = (f"{step:.6g}" for step in self.spacing)  # turned by a hardened transform it is rounded anew
        return (*image.GetDimensions(), scalars.GetMTime(), *spacing)

    @property
    def spacing(self):
        """Distances of voxels along I, J, K in mm."""
        return tuple(self.node.GetSpacing())

    def array(self):
        """The voxels without a copy, in Slicer's order (K, J, I) or (K, J, I, components)."""
        return slicer.util.arrayFromVolume(self.node)

    def geometry(self):
        """IJK to RAS as a list of four rows, without the node's parent transform."""
        return [[float(value) for value in row] for row in slicer.util.arrayFromVTKMatrix(self.ijkToRas)]

    def modality(self):
        """What the DICOM header that the volume was loaded from calls its kind, such as "CT"; empty if there was none."""
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        item = hierarchy.GetItemByDataNode(self.node) if hierarchy is not None else 0
        name = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
        return (hierarchy.GetItemAttribute(item, name) or "")[:LONGEST_MODALITY] if item else ""

    def write(self, path, components):
        """Steps (for EventLoopTask) that write the first ``components`` values of each voxel to ``path``.

        :raises ProSMAError: ``bad_input``, if there is nothing in the volume: all voxels equal, or none a number.
        """
        import numpy

        array = self.array()
        if array.ndim == 4:
            array = array[..., :components]
        variation = _Variation(self.node.GetName())
        with open(path, "wb") as file:
            header = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
            numpy.lib.format.write_array_header_1_0(file, header)
            for slab in slabs(array):
                variation.look(slab)
                file.write(numpy.ascontiguousarray(slab).data)
                yield slab.shape[0] / array.shape[0]
        variation.refuseIfNone()

    def _refuse(self, why, remedy):
        name = self.node.GetName() if self.node is not None else ""
        raise ProSMAError("bad_input", _("'{name}' {why}").format(name=name, why=why), remedy)

    def _refuseWrongKind(self):
        node = self.node
        if node is None:
            raise ProSMAError("bad_input", _("No volume is chosen."), _("Load or choose a volume first."))
        if node.IsA("vtkMRMLSequenceNode") or node.IsA("vtkMRMLDiffusionWeightedVolumeNode"):
            self._refuse(
                _("has several time points or directions (it is 4D)."), _("Choose a single frame of it as a volume.")
            )
        if not node.IsA("vtkMRMLScalarVolumeNode"):
            self._refuse(_("is no image volume."), _("Choose a scalar or colour volume."))
        if node.IsA("vtkMRMLLabelMapVolumeNode"):
            self._refuse(_("is a label map, not an image."), _("Choose the image that it belongs to."))
        image = node.GetImageData()
        if image is None or image.GetNumberOfPoints() == 0 or image.GetPointData().GetScalars() is None:
            self._refuse(_("is empty: it has no voxels."), _("Load the volume again."))
        if image.GetScalarType() in (vtk.VTK_VOID, vtk.VTK_BIT, vtk.VTK_STRING):
            self._refuse(
                _("has no numbers as voxels."), _("Convert it to the type Short with the module Cast Scalar Volume.")
            )

    def _refuseWrongGeometry(self):
        import numpy

        from prosma.image.geometry import is_sheared

        matrix = slicer.util.arrayFromVTKMatrix(self.ijkToRas)
        lengths = numpy.linalg.norm(matrix[:3, :3], axis=0)
        if not numpy.all(numpy.isfinite(matrix)) or numpy.any(lengths <= 0):
            self._refuse(
                _("has no valid geometry: its spacing or directions are zero or not numbers."),
                _("Correct its spacing and origin in the module Volumes, or load it again."),
            )
        if is_sheared(matrix):
            self._refuse(
                _("is sheared: its axes are not at right angles, as after a scan with a tilted gantry."),
                _(
                    "Resample it to a straight grid first, for example with the module Resample Scalar/Vector/DWI Volume."
                ),
            )


class _Variation:
    """Looks at slabs until two voxels differ; NaN and infinite voxels do not count."""

    def __init__(self, name):
        self._name = name
        self._first = None
        self._varies = False

    def look(self, slab):
        import numpy

        if self._varies:
            return
        if slab.dtype.kind == "f":
            slab = slab[numpy.isfinite(slab)]
        if slab.size == 0:
            return
        if self._first is None:
            self._first = slab.flat[0]
        self._varies = bool((slab != self._first).any())

    def refuseIfNone(self):
        if self._varies:
            return
        if self._first is None:
            why = _("'{name}' holds no number: every voxel is NaN or infinite.").format(name=self._name)
        else:
            why = _("'{name}' is empty: every voxel has the same value, {value}.").format(
                name=self._name, value=self._first
            )
        raise ProSMAError("bad_input", why, _("Check how it was loaded or computed."))


def ijkToRasOf(volumeNode):
    """The node's IJK to RAS matrix, without its parent transform."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return matrix


def digestOf(readers):
    """Steps (for EventLoopTask) that return a text which tells whether volumes still have the same voxels and geometry.

    The geometry counts in 1/10000 mm, since file formats round it.
    """
    import numpy

    digest = hashlib.sha256()
    for reader in readers:
        array = reader.array()
        geometry = numpy.round(numpy.array(reader.geometry()) * 1e4).astype("<i8")
        digest.update(f"{array.shape} {array.dtype.str}".encode() + geometry.tobytes())
        for slab in slabs(array):
            digest.update(numpy.ascontiguousarray(slab).data)
            yield
    return digest.hexdigest()


def slabs(array, bytesPerSlab=BYTES_PER_SLAB):
    """Views of ``array`` along its first axis, of about ``bytesPerSlab`` each."""
    bytesPerSlice = max(1, array[:1].size * array.dtype.itemsize)
    step = max(1, bytesPerSlab // bytesPerSlice)
    for start in range(0, array.shape[0], step):
        yield array[start : start + step]
