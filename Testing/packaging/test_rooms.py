"""The rooms of the engine and of the module: arrows run one way, and each contract is able to fail."""

import ast
import itertools
import re
from pathlib import Path

import pytest
from arrows import FLOOR, LEARNING, MODULE, OUTSIDE, ROOMS, engine_faults, on_floor, read_tree, row_faults

ROOT = Path(__file__).parents[2]
ENGINE = read_tree(ROOT / "training/prosma")
PANEL = read_tree(ROOT / "ProSMASegmentation/ProSMASegmentationLib")
HOW = "The contracts are the tables in Testing/packaging/arrows.py"


def planted(tree: dict[str, str], name: str, line: str, inside_a_function: bool = False) -> dict[str, str]:
    """A copy of one file with one more import at its end, as a tree of its own."""
    body = f"\n\ndef planted():\n    {line}\n" if inside_a_function else f"\n{line}\n"
    return {name: tree[name] + body}


def file_in(tree: dict[str, str], room: str) -> str:
    """The dotted name of some file in a room."""
    return next(name for name in tree if name == room or (name.startswith(f"{room}.") and "__init__" not in name))


def test_the_engines_rooms_import_what_their_contracts_allow():
    assert not engine_faults(ENGINE), HOW


def test_the_rooms_of_training_and_of_the_module_stand_in_a_row():
    assert not row_faults(ENGINE, "prosma.learning", LEARNING), HOW
    assert not row_faults(PANEL, "ProSMASegmentationLib", MODULE), HOW


def test_every_folder_is_a_room_with_a_contract():
    engine, panel = ROOT / "training/prosma", ROOT / "ProSMASegmentation/ProSMASegmentationLib"
    for folder, rooms in ((engine, ROOMS), (engine / "learning", LEARNING), (panel, MODULE)):
        found = {path.parent.name for path in folder.glob("*/__init__.py")}
        assert found <= set(rooms), HOW
    files = {f"prosma.{path.stem}" for path in engine.glob("*.py")} - {"prosma.__init__"}
    assert files <= FLOOR | {f"prosma.{room}" for room in ROOMS}, HOW


def test_the_contracts_themselves_allow_no_circle():
    before = set()
    for room, allowed in ROOMS.items():
        assert allowed <= before, f"{room} is allowed to import what stands behind it"
        before.add(room)


@pytest.mark.parametrize("inside", [False, True], ids=["at the top", "inside a function"])
def test_each_forbidden_arrow_between_rooms_is_seen(inside):
    pairs = [(home, other) for home, other in itertools.permutations(ROOMS, 2) if other not in ROOMS[home]]
    assert len(pairs) > len(ROOMS)
    for home, other in pairs:
        name, target = file_in(ENGINE, f"prosma.{home}"), file_in(ENGINE, f"prosma.{other}")
        up = "." * (name.count("."))
        relative = f"from {up}{target.removeprefix('prosma.')} import something"
        for line in (relative, f"import {target}", f"from {target} import something"):
            assert len(engine_faults(planted(ENGINE, name, line, inside))) == 1, (name, line)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("prosma.network.gate", "import numpy"),
        ("prosma.fast.onednn", "import SimpleITK"),
        ("prosma.image.labels", "import torch"),
        ("prosma.correct.refine", "from scipy import ndimage"),
        ("prosma.package.model_package", "import numpy as np"),
        ("prosma.package.model_package", "from ..network.unet import ProSMAUNet"),
        ("prosma.inference.segmenter", "import monai"),
        ("prosma.inference.segmenter", "from .. import Segmenter"),
        ("prosma.learning.recipe", "import slicer"),
        ("prosma.files", "import numpy"),
        ("prosma.errors", "from .network import gate"),
        ("prosma.__init__", "from .inference.segmenter import Segmenter"),
    ],
)
def test_each_forbidden_library_and_exception_is_seen(name, line):
    assert len(engine_faults(planted(ENGINE, name, line))) == 1


@pytest.mark.parametrize(
    ("tree", "package", "rooms"), [(ENGINE, "prosma.learning", LEARNING), (PANEL, "ProSMASegmentationLib", MODULE)]
)
def test_each_arrow_against_a_row_is_seen(tree, package, rooms):
    for first, second in itertools.combinations(rooms, 2):
        name = file_in(tree, f"{package}.{first}")
        for line in (f"from ..{second}.file import something", f"import {package}.{second}.file"):
            assert len(row_faults(planted(tree, name, line), package, rooms)) == 1, (name, line)
    floor = planted({**tree, f"{package}.loose": ""}, f"{package}.loose", f"from .{rooms[0]} import something")
    assert len(row_faults(floor, package, rooms)) == 1


def test_what_is_allowed_is_not_called_a_fault():
    for name, line in (
        ("prosma.fast.onednn", "from ..network.gate import SpatialGate"),
        ("prosma.inference.devices", "from ..files import write_json"),
        ("prosma.inference.devices", "from .. import __version__, files"),
    ):
        assert not engine_faults(planted(ENGINE, name, line))
    assert not on_floor("prosma.image.labels") and set(OUTSIDE) == set(ROOMS)


def first_pages():
    """Each folder with code in either half that has a first page, as far as it is a room."""
    for root in (ROOT / "training/prosma", ROOT / "ProSMASegmentation"):
        for page in root.rglob("__init__.py"):
            if page.parent.name not in ("prosma", "ProSMASegmentationLib"):
                yield pytest.param(page, id=page.parent.relative_to(ROOT).as_posix())


@pytest.mark.parametrize("page", list(first_pages()))
def test_the_first_page_of_a_room_names_all_its_files_and_none_that_is_gone(page):
    told = ast.get_docstring(ast.parse(page.read_text(encoding="utf-8"))) or ""
    files = {path.stem for path in page.parent.glob("*.py")} - {"__init__", "__main__"}
    assert not {name for name in files if f"`{name}`" not in told}
    rows = {name for line in told.splitlines() for name in re.findall(r"^\| `(\w+)` \|", line)}
    assert rows <= files | {path.stem for path in page.parent.iterdir()}
