"""The two halves stay apart: what each file of the extension may import. Rooms within a half: test_rooms.py."""

from pathlib import Path

import arrows
import pytest
from arrows import SLICER, STANDARD

ROOT = Path(__file__).parents[2]
MODULE, ENGINE = ROOT / "ProSMASegmentation", ROOT / "training/prosma"
BUNDLED_WITH_SLICER = {"numpy", "SimpleITK", "pydicom"}
LIGHT_ROOMS = ("image", "package", "correct")  # of the engine: the module may import their files, except for HEAVY
LIGHT_FILES = {
    "prosma.batch.records",
    *(f"prosma.{name}" for name in ("cancel", "contracts", "errors", "files", "steps")),
}
HEAVY = {"prosma.package.weights"}
ENGINE_FILES = set(arrows.read_tree(ENGINE))


def dotted(path: Path) -> str:
    """The name by which a file of the engine or of the module is imported."""
    folder = ENGINE.parent if path.is_relative_to(ENGINE) else MODULE
    return ".".join(path.relative_to(folder).with_suffix("").parts)


def imports(path: Path, inside_functions: bool = True) -> frozenset[str]:
    """The dotted names of all imports in a file, or only of those that run when it is imported."""
    return arrows.imports(dotted(path), path.read_text(encoding="utf-8"), inside_functions)


def is_light(name: str) -> bool:
    """Whether the module may import this file of the engine, or this part of it."""
    file = name if name in ENGINE_FILES else name.rpartition(".")[0]
    light = file in LIGHT_FILES or (arrows.room_of(file) in LIGHT_ROOMS and file not in HEAVY)
    return name == "prosma.__version__" or (file in ENGINE_FILES and light)


def tops(names) -> set[str]:
    return {name.partition(".")[0] for name in names}


def files(folder: Path) -> list:
    return [pytest.param(path, id=path.relative_to(ROOT).as_posix()) for path in sorted(folder.rglob("*.py"))]


def light_files() -> list:
    return [param for param in files(ENGINE) if is_light(dotted(param.values[0]))]


@pytest.mark.parametrize("path", files(MODULE))
def test_the_module_imports_no_torch_and_nothing_that_slicer_lacks(path):
    assert not tops(imports(path)) & {"torch", "safetensors", "monai", "lightning"}
    at_load = tops(imports(path, inside_functions=False))
    assert at_load <= STANDARD | SLICER | BUNDLED_WITH_SLICER | {
        "ProSMASegmentationLib",
        "ProSMASegmentation",
        "SegmentEditorProSMAStrokesLib",
        "prosma",
    }
    assert "PyTorchUtils" not in at_load, "another extension's module may be absent"


@pytest.mark.parametrize("path", files(MODULE))
def test_the_module_takes_only_the_light_parts_of_the_engine(path):
    for name in imports(path):
        if name.startswith("prosma."):
            assert is_light(name), name


@pytest.mark.parametrize("path", files(ENGINE))
def test_the_engine_imports_nothing_of_slicer(path):
    assert not tops(imports(path)) & SLICER


def test_the_package_itself_needs_only_the_standard_library():
    assert tops(imports(ENGINE / "__init__.py")) <= STANDARD


@pytest.mark.parametrize("path", light_files())
def test_the_light_parts_need_only_what_slicer_bundles(path):
    """And of the engine only each other: any other part could need torch."""
    assert tops(imports(path)) <= STANDARD | BUNDLED_WITH_SLICER | {"prosma"}
    for name in imports(path):
        if name.startswith("prosma."):
            assert is_light(name), name


def test_the_module_cannot_take_a_heavy_part_unseen():
    assert is_light("prosma.image.labels") and is_light("prosma.correct.refine.refine")
    weights = ("prosma.package.weights", "prosma.package.weights.load_network", "prosma.package")
    assert not any(map(is_light, (*weights, "prosma.network.gate", "prosma.inference.segmenter", "prosma.Segmenter")))
    relative = arrows.imports("prosma.inference.segmenter", "from ..learning.packing.card import sentence_of")
    assert relative == {"prosma.learning.packing.card.sentence_of"}


@pytest.mark.parametrize("path", [param for param in files(ENGINE) if "/learning/" not in param.id])
def test_inference_does_not_need_the_code_for_training(path):
    """The command line may import it inside the commands that train, and the benchmark inside what measures training."""
    names = imports(path, inside_functions=path.parent.name not in ("cli", "benchmarking"))
    assert not {name for name in names if name.startswith("prosma.learning")}
