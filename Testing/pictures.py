"""What the pictures of the panel were made of, so that a test can tell when they are out of date. Needs no Qt."""

import hashlib
import json
import re
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
RECORD = Path("Resources/Panel/pictures.json")
PANEL = Path("ProSMASegmentation/Resources/UI/ProSMASegmentation.ui")
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
