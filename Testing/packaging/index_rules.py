"""The rules of the Slicer Extensions Index, re-implemented for a checkout of this repository.

Source: the Index's script check_description_files.py, which reads CMakeLists.txt with the regular expressions given
here, the schema v1.0.2 of catalogue entries, and the template of the Index's pull requests. What needs the network (that
each address answers) is replaced by a look at the file behind the address in this repository.
"""

import json
import re
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

NAME = "ProSMA"
SCHEMA = (
    "https://raw.githubusercontent.com/Slicer/Slicer/main/Schemas/slicer-extension-catalog-entry-schema-v1.0.2.json#"
)
TYPES = {
    "$schema": str,
    "category": str,
    "scm_url": str,
    "scm_revision": str,
    "scm_type": str,
    "build_dependencies": list,
    "dicom_support_rule": str,
    "build_subdirectory": str,
    "enabled": bool,
    "tier": int,
}
REQUIRED = ("$schema", "category", "scm_url")
CATEGORIES = (
    "Active Learning",
    "Analysis",
    "Neuroimaging",
    "Segmentation",
    "Training",
)  # those that would fit, of some 60
LICENCES = ("LICENSE", "LICENCE", "License.txt", "license.txt", "LICENSE.txt", "COPYING", "COPYING.txt")
LIMIT = 100 * 2**20  # bytes of a checkout, .git included
ICON_SIZE = (128, 128)
PNG = b"\x89PNG\r\n\x1a\n"

PROJECT = re.compile(r"project\s*\(\s*([^\s\)\n\r]+)", re.IGNORECASE)
ICON = re.compile(r'set\s*\(EXTENSION_ICONURL\s*"([^"]+)"[ ]*\)', re.IGNORECASE)
SCREENSHOTS = re.compile(r'set\s*\(EXTENSION_SCREENSHOTURLS\s*"([^"]+)"\)', re.IGNORECASE)
SETTING = re.compile(r'^set\(EXTENSION_(\w+) "?([^"\n]*)"?\)', re.MULTILINE)
# Keyword of ProSMA.s4ext: what CMakeLists.txt calls it.
SAME_TEXTS = {
    "homepage": "HOMEPAGE",
    "contributors": "CONTRIBUTORS",
    "category": "CATEGORY",
    "iconurl": "ICONURL",
    "screenshoturls": "SCREENSHOTURLS",
    "description": "DESCRIPTION",
    "keywords": "KEYWORDS",
    "depends": "DEPENDS",
    "tier": "TIER",
    "build_subdirectory": "BUILD_SUBDIRECTORY",
}
# Keyword of ProSMA.s4ext: key of ProSMA.json.
SAME_SOURCE = {
    "scm": "scm_type",
    "scmurl": "scm_url",
    "scmrevision": "scm_revision",
    "category": "category",
    "build_subdirectory": "build_subdirectory",
    "tier": "tier",
}


def problems(root: Path) -> list[str]:
    """Return one sentence for each rule that the checkout at ``root`` breaks, each beginning with the rule's name."""
    cmake = (root / "CMakeLists.txt").read_text(encoding="utf-8")
    entry = json.loads((root / f"{NAME}.json").read_text(encoding="utf-8"))
    s4ext = read_s4ext(root / f"{NAME}.s4ext")
    return [
        *_schema(entry),
        *_entry(root, entry),
        *_project(cmake),
        *_pictures(root, cmake, entry.get("scm_url", "")),
        *_agreement(cmake, entry, s4ext),
        *_files(root),
    ]


def read_s4ext(path: Path) -> dict[str, str]:
    """Return keyword -> value of an extension description: one pair a line, ``#`` begins a comment line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = (line.split(None, 1) for line in lines if line.strip() and not line.startswith("#"))
    return {pair[0]: pair[1].strip() if len(pair) == 2 else "" for pair in pairs}


def _schema(entry: dict):
    for key in REQUIRED:
        if not entry.get(key):
            yield f"schema: {key} is missing from the catalogue entry"
    for key, value in entry.items():
        if key not in TYPES:
            yield f"schema: the catalogue entry may not have the key {key}"
        elif type(value) is not TYPES[key]:
            yield f"schema: {key} must be of type {TYPES[key].__name__}"
    if entry.get("$schema") != SCHEMA:
        yield f"schema: must be {SCHEMA}"
    if entry.get("scm_type", "git") not in ("git", "local"):
        yield "schema: scm_type must be git or local"
    if entry.get("tier", 1) not in range(1, 6):
        yield "schema: tier must be 1 to 5"
    if not all(isinstance(name, str) and name for name in entry.get("build_dependencies", [])):
        yield "schema: build_dependencies must be names"


def _entry(root: Path, entry: dict):
    if b"\r" in (root / f"{NAME}.json").read_bytes():
        yield "line endings: the catalogue entry must have LF line endings"
    if entry.get("category") not in CATEGORIES:
        yield f"category: {entry.get('category')} is none of {CATEGORIES}"
    address = urlsplit(entry.get("scm_url", ""))
    if address.scheme not in ("git", "https") or not address.netloc:
        yield "address: scm_url must be https://host/path or git://host/path"
    if not Path(address.path).stem.startswith("Slicer"):
        yield "repository name: must start with Slicer"


def _project(cmake: str):
    names = PROJECT.findall(cmake)
    if not names or names[0].strip("\"'") != NAME:
        yield f"name: the first project() must be {NAME}, as the catalogue entry's file"
    if names and names[0].startswith("Slicer"):
        yield "name: an extension's name must not start with Slicer"


def _pictures(root: Path, cmake: str, scm_url: str):
    repository = urlsplit(scm_url).path.strip("/").removesuffix(".git")
    icons = ICON.findall(cmake)
    screenshots = [url for urls in SCREENSHOTS.findall(cmake) for url in urls.split()]
    if len(icons) != 1:
        yield "icon: there must be one quoted EXTENSION_ICONURL"
    if not screenshots:
        yield "screenshots: there must be one quoted EXTENSION_SCREENSHOTURLS, closed at once"
    for url in icons[:1] + screenshots:
        what = "icon" if url in icons else "screenshots"
        if "$" in url or not url.startswith("https://"):
            yield f"{what}: {url} must be a full https address without variables"
            continue
        raw = f"https://raw.githubusercontent.com/{repository}/main/"
        picture = root / url.removeprefix(raw)
        if not url.startswith(raw) or not picture.is_file():
            yield f"{what}: there is no file of this repository behind {url}"
        elif not picture.read_bytes().startswith(PNG):
            yield f"{what}: {picture.name} is not a PNG picture"
        elif what == "icon" and _png_size(picture) != ICON_SIZE:
            yield f"icon: must be {ICON_SIZE[0]} x {ICON_SIZE[1]} pixels, not {_png_size(picture)}"


def _png_size(path: Path) -> tuple[int, int]:
    header = path.read_bytes()[16:24]
    return int.from_bytes(header[:4], "big"), int.from_bytes(header[4:], "big")


def _agreement(cmake: str, entry: dict, s4ext: dict[str, str]):
    settings = dict(SETTING.findall(cmake))
    for keyword, name in SAME_TEXTS.items():
        if not settings.get(name) or s4ext.get(keyword) != settings[name]:
            yield f"agreement: {keyword} in {NAME}.s4ext is not EXTENSION_{name} in CMakeLists.txt"
    for keyword, key in SAME_SOURCE.items():
        if s4ext.get(keyword) != str(entry.get(key)):
            yield f"agreement: {keyword} in {NAME}.s4ext is not {key} in {NAME}.json"
    if settings.get("DEPENDS", "").split() != entry.get("build_dependencies"):
        yield f"agreement: EXTENSION_DEPENDS is not build_dependencies in {NAME}.json"
    for name, file in (("LICENSE_FILE", "LICENSE.txt"), ("README_FILE", "README.md")):
        if settings.get(name) != "${CMAKE_CURRENT_SOURCE_DIR}/" + file:
            yield f"agreement: EXTENSION_{name} must name {file}, else Slicer's own is packaged"


def _files(root: Path):
    if not any((root / name).is_file() for name in LICENCES):
        yield "licence: there is no licence file in the top folder"
    readme = root / "README.md"
    if not readme.is_file() or "](Resources/screenshot.png)" not in readme.read_text(encoding="utf-8"):
        yield "readme: README.md must show Resources/screenshot.png"
    size = checkout_size(root)
    if size > LIMIT:
        yield f"size: a checkout has {size / 2**20:.0f} MB, more than {LIMIT / 2**20:.0f} MB"


def checkout_size(root: Path) -> int:
    """Return the bytes of a fresh clone of ``root``: tracked files and their history; all files where there is no git.

    Only what HEAD reaches counts: a folder that has been worked in also holds objects of branches and of deleted commits.
    """
    if not (root / ".git").exists():
        return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    git = ["git", "-c", f"safe.directory={root}", "-C", str(root)]
    tracked = subprocess.run([*git, "ls-files", "-z"], check=True, capture_output=True, text=True).stdout.split("\0")
    objects = [*git, "rev-list", "--disk-usage", "--objects", "HEAD"]
    history = int(subprocess.run(objects, check=True, capture_output=True, text=True).stdout)
    return sum((root / name).stat().st_size for name in tracked if name and (root / name).is_file()) + history
