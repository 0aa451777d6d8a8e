#!/usr/bin/env bash
# What SimpleITK does with valid pictures that are a little unusual, seen with the versions pinned below. Makes its own files
# (random values), needs Python 3.10 to 3.13 and a package index, and fails if a behaviour changes. What is right is said by
# the values written, in a JPEG by Pillow.
#
# 1. A TIFF of half precision is read as whole numbers: the bits of the fractions.
# 2. A TIFF of 16 bits with its colours in planes of their own is read with 8 bits.
# 3. A TIFF with red, green, blue and transparency in planes of their own: the colours are multiplied by the transparency.
# 4. A TIFF of grey and transparency gives one channel, which is not the grey.
# 5. A JPEG whose colours are halved: they are repeated, where Pillow interpolates; where they are not halved both agree.
# 6. A JPEG with a hole in it is read without an error; the only word about it is a line on standard output or error.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check SimpleITK==2.5.7 pillow==13.0.0 "numpy>=1.26"
cat > facts.py <<'EOF'
import io
import struct
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image

sitk.ProcessObject.SetGlobalWarningDisplay(False)
random, failed = np.random.default_rng(0), []
print(", ".join(f"{name} {version(name)}" for name in ("SimpleITK", "pillow", "numpy")))


def fact(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        print(f"    changed; it was {expected}")
        failed.append(what.split(".")[0])


def tiff(name, values, planar=False, sample_format=1, transparent=False):
    """TIFF 6.0, little-endian, not packed, one strip for each plane."""
    rows, columns, samples = values.shape
    planes = [np.ascontiguousarray(values[..., n]) for n in range(samples)] if planar else [values]
    strips = [plane.tobytes() for plane in planes]
    body = b"".join(strips)
    fields = {256: [columns], 257: [rows], 258: [8 * values.dtype.itemsize] * samples, 259: [1], 277: [samples]}
    fields |= {262: [2 if samples > 2 else 1], 278: [rows], 279: [len(strip) for strip in strips], 284: [1 + planar]}
    fields |= {273: [8 + sum(map(len, strips[:n])) for n in range(len(strips))], 339: [sample_format] * samples}
    fields |= {338: [2]} if transparent else {}
    end, entries, more = 8 + len(body) + 2 + 12 * len(fields) + 4, b"", b""
    for tag, numbers in sorted(fields.items()):
        content = struct.pack(f"<{len(numbers)}I", *numbers)
        entries += struct.pack("<HHI", tag, 4, len(numbers))
        entries += content if len(numbers) == 1 else struct.pack("<I", end + len(more))
        more += b"" if len(numbers) == 1 else content
    head = struct.pack("<2sHI", b"II", 42, 8 + len(body))
    Path(name).write_bytes(head + body + struct.pack("<H", len(fields)) + entries + bytes(4) + more)


def itk(name):
    return sitk.GetArrayFromImage(sitk.ReadImage(name))


half = random.random((18, 20, 1)).astype("<f2")
tiff("half.tif", half, sample_format=3)
same_bits = np.array_equal(itk("half.tif"), half[..., 0].view("<u2"))
fact("1. half precision as whole numbers, bit by bit", same_bits, True)

sixteen = random.integers(0, 65536, (18, 20, 3)).astype("<u2")
tiff("planes.tif", sixteen, planar=True)
found = itk("planes.tif")
fact("2. 16 bits in planes", str(found.dtype), "uint8")
tiff("together.tif", sixteen)
fact("2. 16 bits together", np.array_equal(itk("together.tif"), sixteen), True)

clear = random.integers(0, 256, (18, 20, 4)).astype(np.uint8)
tiff("clear.tif", clear, planar=True, transparent=True)
multiplied = clear[..., :3] * (clear[..., 3:] / 255)
error = np.abs(itk("clear.tif")[..., :3] - multiplied).max()
fact("3. colours in planes are multiplied by the transparency, but for rounding", bool(error <= 1), True)

grey = random.integers(0, 256, (18, 20, 2)).astype(np.uint8)
tiff("grey.tif", grey, transparent=True)
found = itk("grey.tif")
fact("4. grey and transparency: shape", found.shape, (18, 20))
fact("4. it is the grey", np.array_equal(found, grey[..., 0]), False)

smooth = Image.fromarray(random.integers(0, 255, (5, 6, 3)).astype(np.uint8)).resize((64, 48))
for name, halved in (("whole", 0), ("halved", 2)):
    smooth.save(f"{name}.jpg", quality=95, subsampling=halved)
    apart = np.abs(itk(f"{name}.jpg").astype(int) - np.asarray(Image.open(f"{name}.jpg"))).max()
    fact(f"5. colours {name}: apart from Pillow by more than 5 of 255", bool(apart > 5), name == "halved")

stream = io.BytesIO()
Image.fromarray(random.integers(0, 255, (40, 48, 3)).astype(np.uint8)).save(stream, "JPEG", restart_marker_blocks=2)
data = bytearray(stream.getvalue())
first = data.find(b"\xff\xda") + 14
del data[first + 500 : first + 650]
Path("hole.jpg").write_bytes(data)
command = [sys.executable, "-c", "import SimpleITK; SimpleITK.ReadImage('hole.jpg')"]
done = subprocess.run(command, capture_output=True, text=True, check=False)
fact("6. a hole: exit code", done.returncode, 0)
fact("6. a word about it", "Corrupt JPEG data" in done.stdout + done.stderr, True)
sys.exit(f"changed: {', '.join(failed)}" if failed else 0)
EOF
env/bin/python facts.py
