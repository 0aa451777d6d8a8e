#!/usr/bin/env bash
# What widely used readers do with valid volume files and pictures, and with some that are damaged, seen with the versions
# pinned below. Makes its own files (random voxels), needs Python 3.10 to 3.13 and a package index, and fails if a behaviour
# changes. What is right is said by nibabel, Pillow or the bytes written.
#
# 1. SimpleITK reads, where scan.nii.gz is named and another scan.nii lies beside it, the voxels of that.
# 2. SimpleITK places a NIfTI by its qform where the sform has code 2 and turns the axes otherwise; nibabel by the sform.
# 3. SimpleITK takes the voxel size of a NIfTI from pixdim where the matrix of the sform says another; nibabel the matrix.
# 4. SimpleITK fills what a cut off NIfTI lacks with zeros where bitpix is smaller than the data type, without an error.
# 5. SimpleITK adds the intercept of a NIfTI whose slope is 0; by nifti1.h (and nibabel) neither counts then.
# 6. SimpleITK reads damaged packed voxels of a MetaImage without an error; they are others.
# 7. SimpleITK takes microns of NRRD (space units) and MetaImage (DistanceUnits) for mm; those of NIfTI it converts.
# 8. SimpleITK fills what a cut off BMP lacks, without an error.
# 9. SimpleITK reads a TIFF that stores white as 0 as a negative; Pillow inverts it.
# 10. Pillow opens a PNG of 16 bits in colour as 8 bits; of 12 bits in 16, 15 of 255 shades are left.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check \
    SimpleITK==2.5.7 nibabel==5.4.2 pillow==13.0.0 "numpy>=1.26"
cat > facts.py <<'EOF'
import struct
import sys
import zlib
from importlib.metadata import version
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
from PIL import Image

sitk.ProcessObject.SetGlobalWarningDisplay(False)
failed = []
print(", ".join(f"{name} {version(name)}" for name in ("SimpleITK", "nibabel", "pillow", "numpy")))


def fact(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        print(f"    changed; it was {expected}")
        failed.append(what.split(".")[0])


def nifti(name, sform, scode, qform, qcode, edits=(), array=None):
    image = nibabel.Nifti1Image(voxels if array is None else array, sform)
    image.set_sform(sform, scode)
    image.set_qform(qform, qcode)
    image.header.set_xyzt_units("mm")
    content = bytearray(image.to_bytes())
    for place, kind, *values in edits:
        struct.pack_into("<" + kind, content, place, *values)
    Path(name).write_bytes(content)


def itk(name):
    return sitk.GetArrayFromImage(sitk.ReadImage(name))


random = np.random.default_rng(0)
voxels = random.integers(1, 500, (6, 7, 8)).astype(np.int16)
matrix = np.diag([-2.0, -1.5, 3.0, 1.0])

nibabel.save(nibabel.Nifti1Image(voxels, matrix), "scan.nii.gz")
nibabel.save(nibabel.Nifti1Image(voxels[::-1].copy(), matrix), "scan.nii")
seen = itk("scan.nii.gz").T
fact("1. SimpleITK, scan.nii.gz beside scan.nii: equal to the one, to the other",
     (np.array_equal(seen, voxels), np.array_equal(seen, voxels[::-1])), (False, True))

turned = np.array([[0.0, 2, 0, 0], [-1.5, 0, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]])
nifti("forms.nii", turned, 2, matrix, 1)
place = np.array(sitk.ReadImage("forms.nii").TransformIndexToPhysicalPoint([4, 0, 0])) * (-1, -1, 1)
fact("2. the fifth voxel by a sform of code 2 and by the qform, by nibabel, by SimpleITK",
     [np.round((m @ [4, 0, 0, 1])[:2]).tolist() for m in (turned, matrix, nibabel.load("forms.nii").affine)]
     + [np.round(place[:2]).tolist()], [[0.0, -6.0], [-8.0, 0.0], [0.0, -6.0], [-8.0, 0.0]])

nifti("sizes.nii", matrix, 1, matrix, 0, [(80, "3f", 1, 1, 1)])
fact("3. SimpleITK, voxel size of a matrix of 2 x 1.5 x 3 mm with a pixdim of 1",
     sitk.ReadImage("sizes.nii").GetSpacing(), (1.0, 1.0, 1.0))

nifti("short.nii", matrix, 1, matrix, 1, [(72, "h", 8)])
content = Path("short.nii").read_bytes()
Path("short.nii").write_bytes(content[: 352 + 336])
seen = itk("short.nii").T.reshape(-1, order="F")
fact("4. SimpleITK, voxels of 336 that are 0 in a half NIfTI (right: an error)", int((seen == 0).sum()), 168)

nifti("slope.nii", matrix, 1, matrix, 1, [(112, "2f", 0, 5)])
fact("5. SimpleITK and nibabel, what is added by slope 0, intercept 5",
     (float((itk("slope.nii").T - voxels).max()), float((np.asarray(nibabel.load("slope.nii").dataobj) - voxels).max())),
     (5.0, 0.0))

packed = bytearray(zlib.compress(voxels.tobytes(order="F")))
header = ("ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = True\n"
          f"CompressedDataSize = {len(packed)}\nDimSize = 6 7 8\nElementType = MET_SHORT\nElementDataFile = LOCAL\n")
packed[len(packed) // 2] ^= 255
Path("damaged.mha").write_bytes(header.encode() + packed)
try:
    zlib.decompress(bytes(packed))
    by_zlib = "no error"
except zlib.error:
    by_zlib = "an error"
fact("6. SimpleITK, damaged packed MetaImage: zlib gives; SimpleITK's voxels are right",
     (by_zlib, np.array_equal(itk("damaged.mha").T, voxels)), ("an error", False))

data = voxels.tobytes(order="F")
Path("um.nrrd").write_bytes(b"NRRD0004\ntype: short\ndimension: 3\nsizes: 6 7 8\nendian: little\nencoding: raw\n"
                            b"space: left-posterior-superior\nspace directions: (500,0,0) (0,500,0) (0,0,500)\n"
                            b'space origin: (0,0,0)\nspace units: "um" "um" "um"\n\n' + data)
Path("um.mha").write_bytes(b"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
                           b"DistanceUnits = um\nElementSpacing = 500 500 500\nDimSize = 6 7 8\nElementType = MET_SHORT\n"
                           b"ElementDataFile = LOCAL\n" + data)
nifti("um.nii", np.diag([500.0, 500, 500, 1]), 1, np.diag([500.0, 500, 500, 1]), 1, [(123, "B", 3)])
fact("7. SimpleITK, 500 microns in NRRD, MetaImage, NIfTI (right: 0.5 mm)",
     [sitk.ReadImage(name).GetSpacing()[0] for name in ("um.nrrd", "um.mha", "um.nii")], [500.0, 500.0, 0.5])

grey = random.integers(1, 255, (40, 60)).astype(np.uint8)
Image.fromarray(grey).save("whole.bmp")
Path("cut.bmp").write_bytes(Path("whole.bmp").read_bytes()[:-1200])
fact("8. SimpleITK, rows of a BMP that lacks 20 of 40 (right: an error)", itk("cut.bmp").shape[0], 40)

Image.fromarray(grey).save("white.tif")
content = bytearray(Path("white.tif").read_bytes())
(place,) = struct.unpack_from("<I", content, 4)
for entry in range(place + 2, place + 2 + 12 * struct.unpack_from("<H", content, place)[0], 12):
    if struct.unpack_from("<H", content, entry)[0] == 262:  # PhotometricInterpretation
        struct.pack_into("<H", content, entry + 8, 0)
Path("white.tif").write_bytes(content)
fact("9. a stored 254 of a TIFF with white as 0, by SimpleITK and Pillow",
     (int(itk("white.tif")[grey == 254][0]), int(np.asarray(Image.open("white.tif"))[grey == 254][0])), (254, 1))

shades = random.integers(0, 4096, (40, 60, 3)).astype(np.uint16)
sitk.WriteImage(sitk.GetImageFromArray(shades, isVector=True), "colour.png")
seen = Image.open("colour.png")
fact("10. Pillow, 12 bits in a PNG of 16 bits in colour: mode, greatest value", (seen.mode, int(np.asarray(seen).max())), ("RGB", 15))

sys.exit(f"changed: {failed}" if failed else 0)
EOF
env/bin/python facts.py
