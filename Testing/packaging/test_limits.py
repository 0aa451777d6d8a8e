"""Nothing grows beyond what one can take in: folders, files, functions."""

import ast
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("ProSMASegmentation", "training", "Testing")
MOST_FILES, MOST_LINES, MOST_LINES_OF_A_FUNCTION = 25, 500, 60


def crowded_folders(files: list[Path]) -> list[str]:
    """Folders with more code files than they may have."""
    return [f"{folder}: {n} files" for folder, n in Counter(file.parent for file in files).items() if n > MOST_FILES]


def long_code(name: str, text: str) -> list[str]:
    """The file, and each of its functions, that are longer than they may be."""
    lines = len(text.splitlines())
    found = [f"{name}: {lines} lines"] if lines > MOST_LINES else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            if length > MOST_LINES_OF_A_FUNCTION:
                found.append(f"{name}: {node.name} has {length} lines")
    return found


@pytest.mark.parametrize("part", PARTS)
def test_folders_files_and_functions_stay_small(part):
    files = sorted((ROOT / part).rglob("*.py"))
    assert files
    assert not crowded_folders(files)
    assert not [line for file in files for line in long_code(file.name, file.read_text(encoding="utf-8"))]


def test_the_limits_are_felt():
    files = [Path("folder") / f"{n}.py" for n in range(MOST_FILES)]
    assert not crowded_folders(files)
    assert crowded_folders([*files, Path("folder/more.py")]) == [f"folder: {MOST_FILES + 1} files"]
    longest = "def f():\n" + "    pass\n" * (MOST_LINES_OF_A_FUNCTION - 1)
    assert not long_code("f.py", longest)
    assert long_code("f.py", longest + "    pass\n") == ["f.py: f has 61 lines"]
    assert not long_code("f.py", "x = 1\n" * MOST_LINES)
    assert long_code("f.py", "x = 1\n" * (MOST_LINES + 1)) == ["f.py: 501 lines"]
