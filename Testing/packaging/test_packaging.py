"""What is shipped is what is in the folders, and the Extensions Index would take it. Each rule is broken once."""

import json
import random
import re
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import cmake_lists
import index_rules
import pytest
import write_cmake_lists

ROOT = Path(__file__).parents[2]
DESCRIPTIONS = ("CMakeLists.txt", "ProSMA.json", "ProSMA.s4ext", "LICENSE.txt", "README.md")
FOLDERS = ("ProSMASegmentation", "training/prosma", "Resources")


@pytest.fixture
def copy(tmp_path) -> Path:
    """The parts of the repository that are packaged, as links, so that a test may replace each file."""
    for name in DESCRIPTIONS:
        shutil.copy(ROOT / name, tmp_path)
    for name in FOLDERS:
        shutil.copytree(
            ROOT / name, tmp_path / name, copy_function=_link, ignore=shutil.ignore_patterns("__pycache__", ".*")
        )
    return tmp_path


def _link(source: str, target: str) -> None:
    Path(target).symlink_to(source)


def edit(path: Path, pattern: str, replacement: str) -> None:
    """Replace the one match of ``pattern`` in a copied file."""
    text, count = re.subn(pattern, replacement, path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert count == 1, f"{pattern} occurs {count} times in {path.name}"
    replace(path, text.encode())


def replace(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def edit_entry(root: Path, **changes) -> None:
    """Set keys of the catalogue entry; None removes one."""
    path = root / "ProSMA.json"
    entry = json.loads(path.read_text(encoding="utf-8")) | changes
    replace(path, json.dumps({key: value for key, value in entry.items() if value is not None}, indent=2).encode())


def png(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(width)) * height)
    return index_rules.PNG + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_the_extensions_index_would_accept_the_repository():
    assert index_rules.problems(ROOT) == []


def test_every_file_of_the_extension_is_installed_and_every_listed_file_exists():
    assert cmake_lists.problems(ROOT) == []


def test_the_description_names_what_each_bundled_model_segments():
    """By a word of the model's name, such as `hippocampus` of `Hippocampus (MR)`."""
    description = index_rules.read_s4ext(ROOT / S4EXT)["description"].casefold()
    for path in (ROOT / "ProSMASegmentation/Resources/Models").glob("*/model.json"):
        name = json.loads(path.read_text(encoding="utf-8"))["name"].casefold()
        words = [word for word in re.findall(r"[a-z]+", name.split("(")[0]) if len(word) > 3]
        assert any(word in description for word in words), name


def test_the_untouched_copy_has_no_problems(copy):
    assert index_rules.problems(copy) + cmake_lists.problems(copy) == []


def test_the_size_is_that_of_a_clone_and_not_of_what_a_working_folder_has_kept(tmp_path):
    def git(*words):
        who = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
        subprocess.run(["git", *who, "-C", str(tmp_path), *words], check=True, capture_output=True)

    git("init", "--quiet")
    (tmp_path / "kept").write_bytes(random.Random(0).randbytes(10_000))
    git("add", "kept")
    git("commit", "--quiet", "-m", "kept")
    git("checkout", "--quiet", "-b", "other")
    (tmp_path / "other").write_bytes(random.Random(1).randbytes(500_000))
    git("add", "other")
    git("commit", "--quiet", "-m", "other")
    assert index_rules.checkout_size(tmp_path) > 1_000_000
    git("checkout", "--quiet", "-")
    assert 20_000 < index_rules.checkout_size(tmp_path) < 25_000


def large_file(root: Path) -> None:
    with (root / "large.bin").open("wb") as file:
        file.truncate(index_rules.LIMIT + 1)


CMAKE, S4EXT, MODULE_CMAKE = "CMakeLists.txt", "ProSMA.s4ext", "ProSMASegmentation/CMakeLists.txt"
BREAKS = {
    "schema: $schema is missing": lambda root: edit_entry(root, **{"$schema": None}),
    "schema: category is missing": lambda root: edit_entry(root, category=None),
    "schema: scm_url is missing": lambda root: edit_entry(root, scm_url=None),
    "schema: must be": lambda root: edit_entry(root, **{"$schema": index_rules.SCHEMA.replace("v1.0.2", "v1.0.0")}),
    "schema: the catalogue entry may not have the key": lambda root: edit_entry(root, homepage="https://example.com"),
    "schema: enabled must be of type bool": lambda root: edit_entry(root, enabled="yes"),
    "schema: scm_type": lambda root: edit_entry(root, scm_type="svn"),
    "schema: tier": lambda root: edit_entry(root, tier=6),
    "schema: build_dependencies": lambda root: edit_entry(root, build_dependencies=[1]),
    "category:": lambda root: edit_entry(root, category="Segmentations"),
    "address:": lambda root: edit_entry(root, scm_url="git@github.com:ProSMA/SlicerProSMA.git"),
    "repository name:": lambda root: edit_entry(root, scm_url="https://github.com/ProSMA/ProSMA.git"),
    "line endings:": lambda root: replace(
        root / "ProSMA.json", (root / "ProSMA.json").read_bytes().replace(b"\n", b"\r\n")
    ),
    "name: the first project()": lambda root: edit(root / CMAKE, r"^project\(ProSMA\)", "project(ProSMAUNet)"),
    "name: an extension's name": lambda root: edit(root / CMAKE, r"^project\(ProSMA\)", "project(SlicerProSMA)"),
    "icon: there must be one": lambda root: edit(root / CMAKE, r"set\(EXTENSION_ICONURL ", "set(ICON "),
    "icon: ${HOME}": lambda root: edit(root / CMAKE, r'(ICONURL ").*/(Resources/ProSMA.png)', r"\1${HOME}/\2"),
    "icon: there is no file": lambda root: (root / "Resources/ProSMA.png").unlink(),
    "icon: must be 128 x 128": lambda root: replace(root / "Resources/ProSMA.png", png(64, 64)),
    "icon: ProSMA.png is not a PNG": lambda root: replace(root / "Resources/ProSMA.png", b"GIF89a"),
    "screenshots: there must be one": lambda root: edit(root / CMAKE, r'(screenshot.png")\)', r"\1\n  )"),
    "screenshots: there is no file": lambda root: (root / "Resources/screenshot.png").unlink(),
    "agreement: description": lambda root: edit(root / S4EXT, r"^description .*$", "description Something else"),
    "agreement: depends": lambda root: edit(root / S4EXT, r"^depends .*$", "depends NA"),
    "agreement: scmurl": lambda root: edit(root / S4EXT, r"^scmurl .*$", "scmurl https://github.com/ProSMA/Slicer"),
    "agreement: EXTENSION_DEPENDS": lambda root: edit_entry(root, build_dependencies=["PyTorch", "NNUNet"]),
    "agreement: EXTENSION_LICENSE_FILE": lambda root: edit(root / CMAKE, r"^set\(EXTENSION_LICENSE_FILE.*\n", ""),
    "agreement: EXTENSION_README_FILE": lambda root: edit(root / CMAKE, r"^set\(EXTENSION_README_FILE.*\n", ""),
    "licence:": lambda root: (root / "LICENSE.txt").unlink(),
    "readme:": lambda root: (root / "README.md").unlink(),
    "size:": large_file,
    "not listed: ProSMASegmentationLib/Forgotten.py": lambda root: replace(
        root / "ProSMASegmentation/ProSMASegmentationLib/Forgotten.py", b""
    ),
    "not listed: SegmentEditorProSMAStrokesLib/Forgotten.py": lambda root: replace(
        root / "ProSMASegmentation/SegmentEditorProSMAStrokesLib/Forgotten.py", b""
    ),
    "not listed: Resources/Models/new/model.json": lambda root: replace(
        root / "ProSMASegmentation/Resources/Models/new/model.json", b"{}"
    ),
    "not listed: prosma/forgotten.py": lambda root: replace(root / "training/prosma/forgotten.py", b""),
    "not listed: Resources/Samples/new.nii.gz": lambda root: replace(root / "Resources/Samples/new.nii.gz", b""),
    "no such file: ProSMASegmentation.py": lambda root: (root / "ProSMASegmentation/ProSMASegmentation.py").unlink(),
    "no such file: SegmentEditorProSMAStrokes.py": lambda root: (
        root / "ProSMASegmentation/SegmentEditorProSMAStrokes.py"
    ).unlink(),
    "no such file: prosma/worker.py": lambda root: (root / "training/prosma/worker.py").unlink(),
}


@pytest.mark.parametrize("rule", BREAKS)
def test_a_broken_rule_is_caught(copy, rule):
    BREAKS[rule](copy)
    problems = index_rules.problems(copy) + cmake_lists.problems(copy)
    assert any(problem.startswith(rule) for problem in problems), problems


def test_the_written_list_is_current():
    assert write_cmake_lists.TARGET.read_text(encoding="utf-8") == write_cmake_lists.text(), "run: make cmake-lists"


def test_globbing_is_refused(copy):
    path = copy / MODULE_CMAKE
    replace(path, path.read_bytes() + b"\nfile(GLOB everything *.py)\n")
    with pytest.raises(ValueError, match="list the files"):
        cmake_lists.installed_files(copy)
