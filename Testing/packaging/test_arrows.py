"""The two halves stay apart: what each file of the extension may import."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULE, ENGINE = ROOT / "ProSMASegmentation", ROOT / "training/prosma"
SLICER = {
    "slicer",
    "qt",
    "ctk",
    "vtk",
    "vtkmodules",
    "SampleData",
    "SegmentEditorEffects",
    "SegmentStatistics",
    "qSlicerSegmentationsEditorEffectsPythonQt",
    "PyTorchUtils",
    "MRMLCorePython",
}
BUNDLED_WITH_SLICER = {"numpy", "SimpleITK"}
LIGHT = {
    "prosma.package.model_package": set(),
    "prosma.image.geometry": {"numpy"},
    "prosma.image.header_faults": {"numpy"},
    "prosma.image.reading": {"numpy", "SimpleITK"},
    "prosma.batch.records": set(),
    "prosma.image.resampling": {"numpy"},
    "prosma.correct.sensitivity": {"numpy"},
    "prosma.steps": set(),
    "prosma.files": set(),
    "prosma.correct.review": {"numpy", "SimpleITK"},
    "prosma.correct.refine": {"numpy", "SimpleITK"},
    "prosma.correct.refine_weights": set(),
}  # what they need
STANDARD = set(sys.stdlib_module_names)


def imports(path: Path, inside_functions: bool = True) -> set[str]:
    """The dotted names of all imports in a file, or only of those that run when it is imported."""
    nodes = [ast.parse(path.read_text(encoding="utf-8"))]
    names: set[str] = set()
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{origin(node, path)}.{alias.name}" for alias in node.names}
        if inside_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            nodes += ast.iter_child_nodes(node)
    return names


def origin(node: ast.ImportFrom, path: Path) -> str:
    """The dotted name of what an import takes from; a relative one is resolved against the file's package."""
    if not node.level:
        return node.module
    package = path.parents[node.level - 1].relative_to(ENGINE.parent)
    return ".".join([*package.parts, *([node.module] if node.module else [])])


def tops(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def files(folder: Path) -> list:
    return [pytest.param(path, id=path.relative_to(ROOT).as_posix()) for path in sorted(folder.rglob("*.py"))]


@pytest.mark.parametrize("path", files(MODULE))
def test_the_module_imports_no_torch_and_nothing_that_slicer_lacks(path):
    assert not tops(imports(path)) & {"torch", "safetensors", "monai", "lightning"}
    at_load = tops(imports(path, inside_functions=False))
    assert at_load <= STANDARD | SLICER | BUNDLED_WITH_SLICER | {
        "ProSMASegmentationLib",
        "ProSMASegmentation",
        "SegmentEditorProSMARefineLib",
        "prosma",
    }
    assert "PyTorchUtils" not in at_load, "another extension's module may be absent"


@pytest.mark.parametrize("path", files(MODULE))
def test_the_module_takes_only_the_light_parts_of_the_engine(path):
    taken = {name for name in imports(path) if name.startswith("prosma.")}
    assert all(name in LIGHT or name.startswith(("prosma.package.", "prosma.__version__")) for name in taken), taken


@pytest.mark.parametrize("path", files(ENGINE))
def test_the_engine_imports_nothing_of_slicer(path):
    assert not tops(imports(path)) & (SLICER | {"PySide6", "ProSMASegmentation", "ProSMASegmentationLib"})


def test_the_package_itself_needs_only_the_standard_library():
    assert tops(imports(ENGINE / "__init__.py")) <= STANDARD


@pytest.mark.parametrize("name", LIGHT)
def test_the_light_parts_need_only_what_slicer_bundles(name):
    """And of the engine only each other: any other part could need torch."""
    path = ENGINE / f"{name.removeprefix('prosma.').replace('.', '/')}.py"
    assert tops(imports(path)) <= STANDARD | LIGHT[name] | {"prosma"}
    taken = {name.rpartition(".")[0] for name in imports(path) if name.startswith("prosma.")}
    assert taken <= set(LIGHT), taken


def test_the_gate_needs_torch_alone():
    assert tops(imports(ENGINE / "network/gate.py")) <= STANDARD | {"torch"}


@pytest.mark.parametrize("path", [param for param in files(ENGINE) if "/learning/" not in param.id])
def test_inference_does_not_need_the_code_for_training(path):
    """The command line may import it, inside the commands that train."""
    names = imports(path, inside_functions=path.parent.name != "cli")
    assert not {name for name in names if name.startswith("prosma.learning")}
