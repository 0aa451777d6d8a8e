"""What the pictures of the panel were made of, so that a test can tell when they are out of date. Needs no Qt."""

import hashlib
import io
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
RECORD = Path("Resources/Panel/pictures.json")
PANEL = Path("ProSMASegmentation/Resources/UI/ProSMASegmentation.ui")
SEEN = 8  # of 255: a smaller difference of a colour is not seen
FEW = 0.004  # share of pixels whose colour a palette of 256 may miss by more than that
ALIKE = 0.002  # share of pixels in which pictures that show the same may differ: with other weights an outline moves a little
UNSEEN = ("toolTip", "SlicerParameterName")  # properties that no picture shows


def made_of(root: Path = ROOT) -> dict:
    """Versions of ProSMA and of the bundled models, and a digest of what can be seen of the panel's .ui file."""
    models = [
        json.loads(file.read_text(encoding="utf-8"))
        for file in sorted((root / "ProSMASegmentation/Resources/Models").glob("*/model.json"))
    ]
    code = (root / "training/prosma/__init__.py").read_text(encoding="utf-8")
    return {
        "prosma": re.search(r'^__version__ = "(.+)"$', code, re.MULTILINE)[1],
        "models": {model["id"]: model["version"] for model in models},
        "panel": _digest_of_panel(root / PANEL),
    }


def settle(file: Path, before: bytes | None) -> None:
    """Make a new picture small without a change that is seen; where it shows what the one before it did, that one stays.

    Git keeps each picture for ever.
    """
    new = Image.open(file).convert("RGB")
    if before is not None and _are_alike(new, Image.open(io.BytesIO(before)).convert("RGB")):
        file.write_bytes(before)
        return
    few = new.quantize(256, kmeans=5, dither=Image.Dither.NONE)  # misses a third of what median cut alone misses
    (few if _are_alike(few.convert("RGB"), new, FEW) else new).save(file, optimize=True)


def _are_alike(one: Image.Image, other: Image.Image, share: float = ALIKE) -> bool:
    if one.size != other.size:
        return False
    differ = np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).max(-1) > SEEN
    return bool(differ.mean() < share)


def write_record(pictures: list[Path], output: Path = ROOT) -> Path:
    """Write what the pictures, which lie in `output`, were made of, and the SHA-256 of each, beside those of the panel."""
    digests = {picture.relative_to(output).as_posix(): digest(picture) for picture in pictures}
    text = json.dumps({"made_of": made_of(), "pictures": digests}, indent=2)
    (output / RECORD).write_text(text + "\n", encoding="utf-8")
    return output / RECORD


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest_of_panel(path: Path) -> str:
    root = ElementTree.parse(path).getroot()
    for parent in [*root.iter()]:
        for child in parent.findall("property"):
            if child.get("name") in UNSEEN:
                parent.remove(child)
    return hashlib.sha256(ElementTree.canonicalize(ElementTree.tostring(root), strip_text=True).encode()).hexdigest()
