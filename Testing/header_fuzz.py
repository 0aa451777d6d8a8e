"""Damaged headers, seeded: what a reader may meet on a bad day. Not a test; test_header_fuzz.py reads what this makes.

python Testing/header_fuzz.py COUNT [SEED]     run so many and print what came of them
"""

from __future__ import annotations

import collections
import gzip
import json
import random
import struct
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from picture_fuzz import DAMAGED

from tiny_model import make_tiny_package

PICTURES = tuple(DAMAGED)
FORMATS = ("nii", "nii.gz", "nrrd", "mha", "dcm", *PICTURES)
SPECIAL = (0.0, -0.0, -1.0, 1e-38, 3.4e38, float("nan"), float("inf"), -float("inf"), 1e9, 0.5)
WORDS = (
    "nan",
    "inf",
    "-1",
    "0",
    "1e99",
    "99999999999999999999",
    "",
    "x",
    "1 1 1 1 1 1 1 1 1 1",
    "%s%n",
    "(",
    "\x00",
    "é",
)
LIMIT_S = 20.0


def original(folder: Path, kind: str) -> Path:
    """A good file (for dcm: a folder of six slices) of 20 x 18 x 16 voxels. Pictures are made when they are damaged."""
    import SimpleITK as sitk

    voxels = np.random.default_rng(0).integers(0, 1000, (16, 18, 20)).astype(np.int16)
    if kind == "dcm":
        return dicom_series(folder / "dcm", voxels[:6])
    path = folder / f"a.{kind}"
    picture = sitk.GetImageFromArray(voxels)
    picture.SetSpacing([1.0, 1.2, 1.5])
    sitk.WriteImage(picture, str(path), useCompression=kind in ("nii.gz", "nrrd"))
    return path


def dicom_series(folder: Path, voxels: np.ndarray) -> Path:
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

    folder.mkdir()
    for k, plane in enumerate(voxels):
        slice_, meta = Dataset(), FileMetaDataset()
        meta.MediaStorageSOPClassUID = slice_.SOPClassUID = MRImageStorage
        meta.MediaStorageSOPInstanceUID = slice_.SOPInstanceUID = f"1.2.3.4.{k + 1}"
        meta.TransferSyntaxUID, slice_.file_meta = ExplicitVRLittleEndian, meta
        slice_.StudyInstanceUID, slice_.SeriesInstanceUID, slice_.Modality = "1.2.3", "1.2.3.4", "MR"
        slice_.InstanceNumber, slice_.ImagePositionPatient = k + 1, [0.0, 0.0, 1.5 * k]
        slice_.ImageOrientationPatient, slice_.PixelSpacing = [1, 0, 0, 0, 1, 0], [1.2, 1.0]
        slice_.Rows, slice_.Columns = plane.shape
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 1
        slice_.RescaleSlope, slice_.RescaleIntercept = "1", "0"
        slice_.PixelData = plane.tobytes()
        pydicom.dcmwrite(folder / f"{k}.dcm", slice_, enforce_file_format=True)
    return folder


def damage_bytes(content: bytes, header: int, chance: random.Random) -> bytes:
    """One to four fields of a binary header become others; now and then the file is cut off."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(0, min(header, len(data) - 8))
        how = chance.choice(("byte", "bit", "number", "short", "float"))
        if how == "byte":
            data[place] = chance.randrange(256)
        elif how == "bit":
            data[place] ^= 1 << chance.randrange(8)
        elif how == "number":
            struct.pack_into("<i", data, place & ~3, chance.choice((0, -1, 1, 2**31 - 1, -(2**31), 65536, 7)))
        elif how == "short":
            struct.pack_into("<h", data, place & ~1, chance.choice((0, -1, 1, 32767, -32768, 8, 3)))
        else:
            struct.pack_into("<f", data, place & ~3, chance.choice(SPECIAL))
    return bytes(data[: chance.randrange(len(data))] if chance.random() < 0.05 else data)


def damage_text(content: bytes, chance: random.Random) -> bytes:
    """Words of a text header become others, lines go or come twice, letters change."""
    end = content.find(b"\n\n") if content.startswith(b"NRRD") else content.find(b"LOCAL") + 5
    lines, voxels = content[:end].decode("latin-1").split("\n"), content[end:]
    for _ in range(chance.randint(1, 3)):
        n = chance.randrange(len(lines))
        how = chance.choice(("word", "word", "gone", "twice", "letter", "long"))
        if how == "word":
            words = lines[n].split(" ")
            words[chance.randrange(len(words))] = chance.choice(WORDS)
            lines[n] = " ".join(words)
        elif how == "gone" and len(lines) > 2:
            del lines[n]
        elif how == "twice":
            lines.insert(n, lines[n])
        elif how == "letter" and lines[n]:
            place = chance.randrange(len(lines[n]))
            lines[n] = lines[n][:place] + chr(chance.randrange(1, 256)) + lines[n][place + 1 :]
        elif how == "long":
            lines[n] += " 9" * chance.choice((10, 5000))
    return "\n".join(lines).encode("latin-1") + voxels


def damaged(source: Path, target: Path, kind: str, seed: int) -> Path:
    """A damaged copy of `source` at `target`, or a damaged picture; the same for the same seed."""
    chance = random.Random(f"{kind}-{seed}")
    if kind in PICTURES:
        target.write_bytes(DAMAGED[kind](chance))
        return target
    if kind == "dcm":
        target.mkdir()
        worse = chance.randrange(6)
        for file in sorted(source.iterdir()):
            content = file.read_bytes()
            whole = content if file.name != f"{worse}.dcm" else damage_bytes(content, len(content) - 720, chance)
            (target / file.name).write_bytes(whole)
        return target
    content = source.read_bytes()
    if kind == "nii.gz" and chance.random() < 0.8:  # what is packed, else the packing
        content = gzip.compress(damage_bytes(gzip.decompress(content), 352, chance))
    elif kind in ("nrrd", "mha"):
        content = damage_text(content, chance)
    else:
        content = damage_bytes(content, 352 if kind == "nii" else 60, chance)
    target.write_bytes(content)
    return target


def outcomes(count: int, folder: Path, seed: int = 0) -> list[dict]:
    """What came of `count` damaged headers, of all formats in turn, read as a batch reads them and prepared for a model.

    For pictures it is a 2D model of colours.

    `what`: read, refused (in a sentence with a remedy), died (the reading process; named), or a fault: `unforeseen` (an
    exception that nobody expected) or `slow`.
    """
    from prosma.batch.image_reader import ImageReader
    from prosma.errors import UserFacingError
    from prosma.inference.pipeline import prepare

    volumes = make_tiny_package(folder / "volumes", patch_size=[16, 16, 16])
    colours = {"rule": "range", "low": 0, "high": 255}
    pictures = make_tiny_package(folder / "pictures", dimension=2, channels=3, intensity=colours, modality="photograph")
    sources = {kind: original(folder, kind) for kind in FORMATS if kind not in PICTURES}
    reader, results = ImageReader(limit=LIMIT_S), []
    try:
        for number in range(count):
            kind = FORMATS[number % len(FORMATS)]
            path = damaged(sources.get(kind), folder / f"{number}.{kind}", kind, seed + number)
            began, notices, text = time.perf_counter(), (), ""
            try:
                image = reader.read([path])
                notices = prepare(image, pictures if kind in PICTURES else volumes).notices
                what = "read"
            except UserFacingError as error:
                text = str(error)
                named = error.code != "internal" and bool(error.remedy)
                what = "died" if "image library" in text else "refused" if named else "unforeseen"
            except Exception as error:
                what, text = "unforeseen", repr(error)
            seconds = time.perf_counter() - began
            what = "slow" if seconds > LIMIT_S or "was not read within" in text else what
            results.append(
                {"number": number, "kind": kind, "what": what, "text": text, "notices": notices, "path": path}
            )
    finally:
        reader.close()
    return results


def counts(results: list[dict]) -> dict:
    """How often each came, by format."""
    table: dict = collections.defaultdict(collections.Counter)
    for result in results:
        table[result["kind"]][result["what"] + (" with a notice" if result["notices"] else "")] += 1
    return {kind: dict(sorted(found.items())) for kind, found in table.items()}


def main() -> None:
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with tempfile.TemporaryDirectory() as folder:
        results = outcomes(count, Path(folder), seed)
    for result in results:
        if result["what"] in ("unforeseen", "slow", "died"):
            print(result["number"], result["kind"], result["what"], result["text"][:200])
    print(json.dumps(counts(results), indent=1))


if __name__ == "__main__":
    main()
