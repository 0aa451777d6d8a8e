"""Which room may import which: the contracts, and what in a tree of sources breaks them.

A tree is a dict from a file's dotted name ("prosma.image.labels") to its text. Imports inside functions count as well.
"""

from __future__ import annotations

import ast
import functools
import sys
from pathlib import Path

STANDARD = set(sys.stdlib_module_names)
SLICER = {
    *("slicer", "qt", "ctk", "vtk", "vtkmodules", "SampleData", "SegmentEditorEffects", "SegmentStatistics"),
    *("qSlicerSegmentationsEditorEffectsPythonQt", "PyTorchUtils", "MRMLCorePython", "PySide6"),
    *("ProSMASegmentation", "ProSMASegmentationLib"),
}

# What every room of the engine may import: files that import no room themselves.
FLOOR = {"prosma.cancel", "prosma.contracts", "prosma.errors", "prosma.files", "prosma.steps"}

# Each room of the engine, and the rooms that it may import. A room stands behind those, so that there is no way round in
# a circle.
ROOMS: dict[str, set[str]] = {
    "network": set(),
    "fast": {"network"},
    "image": set(),
    "package": set(),
    "correct": {"image"},
    "outputs": {"image"},
    "inference": {"network", "fast", "image", "package", "correct"},
    "batch": {"image", "package", "outputs", "inference"},
    "pacs": {"image", "package", "outputs", "inference", "batch"},
    "door": {"image", "package", "correct", "inference", "batch"},
    "learning": {"network", "fast", "image", "package", "correct", "outputs", "inference"},
    "benchmarking": {"network", "fast", "image", "package", "inference", "learning"},
    "cli": {"fast", "image", "package", "outputs", "inference", "batch", "pacs", "learning", "benchmarking"},
    "worker": {"door"},
}
EXCEPTIONS = {"prosma.package.weights": {"network"}}  # the one file of its room that needs torch

# What the rooms may import besides the standard library; the floor nothing.
ENGINE_NEEDS = {"torch", "numpy", "SimpleITK", "safetensors", "rich"}
LIGHT = {"numpy", "SimpleITK"}
OUTSIDE = {
    **dict.fromkeys(ROOMS, ENGINE_NEEDS),
    "network": {"torch"},
    "fast": {"torch"},
    "image": LIGHT | {"pydicom"},
    "correct": LIGHT,
    "package": set(),
    "outputs": LIGHT | {"pydicom"},
    "pacs": {"pydicom", "dicomweb_client", "requests", "retrying"},
    "learning": ENGINE_NEEDS | {"lightning", "monai", "scipy", "PIL", "matplotlib", "yaml", "filelock"},
    "benchmarking": ENGINE_NEEDS
    | {"lightning", "monai", "dynamic_network_architectures", "nnunetv2"},  # if they are there
}
OUTSIDE_EXCEPTIONS = {
    "prosma.package.weights": {"torch", "safetensors"},
    "prosma.batch.tables": {"pyarrow"},  # if it is there
    "prosma.outputs.dicom_seg": {"highdicom"},
    "prosma.batch.cluster": {"dask", "distributed"},
    "prosma.batch.cluster_worker": {"distributed"},
}

# The rooms of training: each may import those before it. `recipe` lies on the floor below them.
LEARNING = ("data", "strokes", "judge", "packing", "fit", "compare", "report")

# The rooms of the module in Slicer: each may import those before it.
MODULE = ("Base", "Volumes", "Models", "Results", "Correct", "Engine", "Outputs", "Learn", "Batch", "Logic", "Panel")


def read_tree(folder: Path) -> dict[str, str]:
    """The sources of a package by their dotted names; a package's own file goes by the package's name."""
    tree = {}
    for path in sorted(folder.rglob("*.py")):
        parts = [folder.name, *path.relative_to(folder).with_suffix("").parts]
        tree[".".join(parts)] = path.read_text(encoding="utf-8")
    return tree


@functools.lru_cache(maxsize=1000)
def imports(name: str, text: str, inside_functions: bool = True) -> frozenset[str]:
    """The dotted names that a file imports, or only those that are imported when it is; relative ones are resolved."""
    nodes: list[ast.AST] = [ast.parse(text)]
    names: set[str] = set()
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{origin(node, name)}.{alias.name}" for alias in node.names}
        if inside_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            nodes += ast.iter_child_nodes(node)
    return frozenset(names)


def origin(node: ast.ImportFrom, name: str) -> str:
    """The dotted name of what an import in the file `name` takes from."""
    if not node.level:
        return node.module or ""
    package = name.split(".")[: -node.level]
    return ".".join([*package, *([node.module] if node.module else [])])


def room_of(name: str) -> str | None:
    """The room of the engine that a dotted name lies in; None for what lies on the floor."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "prosma" and parts[1] in ROOMS else None


def engine_faults(tree: dict[str, str]) -> list[str]:
    """One line for each import in the engine that a contract forbids."""
    faults = []
    for name, text in tree.items():
        home = room_of(name)
        rooms = {home} | ROOMS[home] | EXCEPTIONS.get(name, set()) if home else set()
        outside = STANDARD | OUTSIDE.get(home, set()) | OUTSIDE_EXCEPTIONS.get(name, set())
        for taken in sorted(imports(name, text)):
            top = taken.partition(".")[0]
            if not (on_floor(taken) or room_of(taken) in rooms if top == "prosma" else top in outside):
                faults.append(f"{name} imports {taken}")
    return faults


def on_floor(taken: str) -> bool:
    """Whether an import is of a file on the floor, or of something in it."""
    return taken == "prosma.__version__" or taken in FLOOR or taken.rpartition(".")[0] in FLOOR


def row_faults(tree: dict[str, str], package: str, rooms: tuple[str, ...]) -> list[str]:
    """One line for each import within a package against the order of its rooms.

    Files outside any room import none, but for the package's own, which may import the first.
    """
    faults = []
    for name, text in tree.items():
        if not name.startswith(f"{package}."):
            continue
        home = inner_room(name, package)
        before = rooms[: rooms.index(home) + 1] if home in rooms else rooms[: name == f"{package}.__init__"]
        for taken in sorted(imports(name, text)):
            other = inner_room(taken, package)
            if other in rooms and other not in before:
                faults.append(f"{name} imports {taken}")
    return faults


def inner_room(name: str, package: str) -> str | None:
    """The part of a dotted name behind the package's."""
    return name.removeprefix(f"{package}.").split(".")[0] if name.startswith(f"{package}.") else None


def main() -> int:
    """Prints what breaks a contract in this checkout; the exit status says whether anything does."""
    root = Path(__file__).resolve().parents[2]
    engine = read_tree(root / "training/prosma")
    panel = read_tree(root / "ProSMASegmentation/ProSMASegmentationLib")
    faults = engine_faults(engine) + row_faults(engine, "prosma.learning", LEARNING)
    faults += row_faults(panel, "ProSMASegmentationLib", MODULE)
    print("\n".join(faults) or "All imports between rooms are allowed.")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
