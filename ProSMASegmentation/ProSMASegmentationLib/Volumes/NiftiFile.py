import gzip

from slicer.i18n import tr as _

from ProSMASegmentationLib.Base.ProSMAError import ProSMAError

KINDS = {  # numpy's name of a voxel type: code of NIfTI-1
    "uint8": 2,
    "int16": 4,
    "int32": 8,
    "float32": 16,
    "float64": 64,
    "int8": 256,
    "uint16": 512,
    "uint32": 768,
    "int64": 1024,
    "uint64": 1280,
}
FAST = 1  # compression; images are mostly noise, label maps long runs


class NiftiFile:
    """A NIfTI-1 file (``.nii.gz``) that is written slab by slab, so that a large volume does not hold up Slicer.

    :param path: the file, which is made anew.
    :param shape: K, J, I. :param dtype: numpy type of the voxels.
    :param ijkToRas: 4 x 4 rows from voxels to mm; NIfTI's world is RAS, as Slicer's.
    :raises ProSMAError: ``bad_input``, if the volume is too large for this kind of file.
    """

    def __init__(self, path, shape, dtype, ijkToRas):
        import numpy

        from prosma.image.formats.nifti_writing import LARGEST_SIZE, geometry_of, label_header

        if max(shape) > LARGEST_SIZE:
            raise ProSMAError(
                "bad_input",
                _("The volume has {number} voxels along an axis; NIfTI files have at most {most}.").format(
                    number=max(shape), most=LARGEST_SIZE
                ),
                _("Crop it, or resample it to larger voxels, and segment it again."),
            )
        self._dtype = numpy.dtype(dtype).newbyteorder("<")
        geometry = geometry_of(numpy.array(ijkToRas, float))
        header = label_header(tuple(reversed(shape)), KINDS[self._dtype.name], self._dtype.itemsize, geometry)
        self._file = gzip.GzipFile(path, "wb", FAST)
        self._file.write(header)

    def write(self, slab):
        """The next slices, (K, J, I)."""
        import numpy

        self._file.write(numpy.ascontiguousarray(slab, self._dtype).data)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self._file.close()
