"""Writes ProSMASegmentation/Files.cmake, the list of what the extension installs, from the files that git knows.

Run by `make cmake-lists`. A list that is written, not globbed, ships no stray file; tests say when it is not current.
"""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
TARGET = ROOT / "ProSMASegmentation/Files.cmake"
HEADER = "# What the extension installs. Written by `make cmake-lists`; do not edit.\n"


def tracked(folder: str) -> list[str]:
    """Files of a folder that git tracks, or would with `git add`, as sorted paths below it."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    found = subprocess.run(command, cwd=ROOT / folder, check=True, capture_output=True, text=True).stdout
    return sorted(name for name in found.split("\0") if name and (ROOT / folder / name).is_file())


def lists() -> dict[str, list[str]]:
    """CMake variable -> files, below the folder that CMake takes them from."""
    module = [name for name in tracked("ProSMASegmentation") if not name.endswith(("CMakeLists.txt", ".cmake"))]
    effect = [name for name in module if name.startswith("SegmentEditorProSMAStrokes")]
    module = [name for name in module if name not in effect]
    engine = tracked("training/prosma")
    return {
        "MODULE_PYTHON_SCRIPTS": [name for name in module if name.endswith(".py")],
        "MODULE_PYTHON_RESOURCES": [name for name in module if not name.endswith(".py")],
        "EFFECT_PYTHON_SCRIPTS": [name for name in effect if name.endswith(".py")],
        "EFFECT_PYTHON_RESOURCES": [name for name in effect if not name.endswith(".py")],
        "ENGINE_PYTHON_SCRIPTS": [name for name in engine if name.endswith(".py")],
        "ENGINE_PYTHON_RESOURCES": [name for name in engine if not name.endswith(".py")],
        "SAMPLES": [f"${{SAMPLES_DIR}}/{name}" for name in tracked("Resources/Samples")],
    }


def text() -> str:
    """The whole file."""
    blocks = (f"set({name}\n" + "".join(f"  {file}\n" for file in files) + "  )\n" for name, files in lists().items())
    return HEADER + "\n" + "\n".join(blocks)


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
