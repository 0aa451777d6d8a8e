import gzip
import struct

HEADER = struct.Struct("<i10s18sihcc8h3f4h8f3fhcc4f2i80s24s2h6f4f4f4f16s4s")
VOXELS_AT = 352  # bytes from the file's beginning: header and an empty extension
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
MILLIMETRES = b"\x02"
SCANNER = 1  # meaning of the matrix: coordinates of the scanner
FAST = 1  # compression; images are mostly noise, label maps long runs


class NiftiFile:
    """A NIfTI-1 file (``.nii.gz``) that is written slab by slab, so that a large volume does not hold up Slicer.

    :param path: the file, which is made anew.
    :param shape: K, J, I. :param dtype: numpy type of the voxels.
    :param ijkToRas: 4 x 4 rows from voxels to mm; NIfTI's world is RAS, as Slicer's.
    """

    def __init__(self, path, shape, dtype, ijkToRas):
        import numpy

        self._dtype = numpy.dtype(dtype).newbyteorder("<")
        self._file = gzip.GzipFile(path, "wb", FAST)
        self._file.write(_header(shape, self._dtype, ijkToRas).ljust(VOXELS_AT, b"\0"))

    def write(self, slab):
        """The next slices, (K, J, I)."""
        import numpy

        self._file.write(numpy.ascontiguousarray(slab, self._dtype).data)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self._file.close()


def _header(shape, dtype, ijkToRas):
    """The first 348 bytes; see nifti.nimh.nih.gov/nifti-1."""
    spacing = [sum(ijkToRas[row][axis] ** 2 for row in range(3)) ** 0.5 for axis in range(3)]
    dimensions = [3, *reversed(shape), 1, 1, 1, 1]
    nothing = b""
    return HEADER.pack(
        HEADER.size,
        *(nothing, nothing, 0, 0, b"r", b"\0"),
        *dimensions,
        *(0, 0, 0, 0),  # no intent
        *(KINDS[dtype.name], 8 * dtype.itemsize, 0),
        *(1, *spacing, 0, 0, 0, 0),
        *(VOXELS_AT, 1, 0),  # values are as they are: slope 1, intercept 0
        *(0, b"\0", MILLIMETRES),
        *(0, 0, 0, 0, 0, 0),
        *(b"ProSMA", nothing),
        *(0, SCANNER),
        *(0, 0, 0, 0, 0, 0),  # no quaternion: the matrix below says it all
        *(number for row in range(3) for number in ijkToRas[row]),
        *(nothing, b"n+1\0"),
    )
