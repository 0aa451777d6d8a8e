"""Reads which files the CMake lists of the extension install, without CMake.

Understands what the lists use: ``set``, variables, ``include``, ``add_subdirectory``, ``file(COPY)`` into the build tree
(which is installed as a whole), and the two macros ``slicerMacroBuildScriptedModule`` and ``ctkMacroCompilePythonScript``.
A list made with ``file(GLOB)`` is refused: then a stray file would be shipped.
"""

import re
from pathlib import Path

LIBRARY = "lib"  # stands for Slicer's folder of scripted modules, in the build tree and in an installed extension
BUILD = "build"  # stands for the build tree
IGNORED = {"__pycache__", "CMakeLists.txt", "Files.cmake", "Testing"}
COMMAND = re.compile(r"(\w+)\s*\(([^()]*)\)")
WORD = re.compile(r'"([^"]*)"|(\S+)')
KEYWORDS = {
    *("NAME", "SCRIPTS", "RESOURCES", "WITH_GENERIC_TESTS", "WITH_SUBDIR"),
    *("TARGET_NAME", "SOURCE_DIR", "DESTINATION_DIR", "INSTALL_DIR", "NO_INSTALL_SUBDIR", "GLOBAL_TARGET"),
}


def installed_files(root: Path) -> dict[str, Path]:
    """Return installed path (below the folder of scripted modules) -> file of the checkout, as CMake lists them."""
    variables = {
        "ProSMA_SOURCE_DIR": [str(root)],
        "CMAKE_BINARY_DIR": [BUILD],
        "Slicer_QTSCRIPTEDMODULES_LIB_DIR": [LIBRARY],
        "Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR": [LIBRARY],
    }
    return _folder(root, variables)


def expected_files(root: Path) -> dict[str, Path]:
    """Return installed path -> file for everything that belongs into the extension: module, engine and sample data."""
    module, engine, samples = root / "ProSMASegmentation", root / "training/prosma", root / "Resources/Samples"
    return {
        **{_relative(path, module): path for path in _files(module)},
        **{f"prosma/{_relative(path, engine)}": path for path in _files(engine)},
        **{f"Resources/Samples/{_relative(path, samples)}": path for path in _files(samples)},
    }


def problems(root: Path) -> list[str]:
    """Return one sentence for each difference between the CMake lists and the folders."""
    listed, expected = installed_files(root), expected_files(root)
    missing = sorted(set(expected) - set(listed))
    absent = sorted(name for name, path in listed.items() if not path.is_file())
    stray = sorted(name for name in set(listed) - set(expected) if name not in absent)
    return (
        [f"not listed: {name} would not be installed" for name in missing]
        + [f"no such file: {name} is listed in CMake" for name in absent]
        + [f"outside: {name} is installed from a folder that does not belong to the extension" for name in stray]
    )


def _files(folder: Path) -> list[Path]:
    return [
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not IGNORED & set(path.relative_to(folder).parts)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _folder(folder: Path, variables: dict[str, list[str]]) -> dict[str, Path]:
    variables = {**variables, "CMAKE_CURRENT_SOURCE_DIR": [str(folder)]}
    files: dict[str, Path] = {}
    _read(folder / "CMakeLists.txt", folder, variables, files)
    return files


def _read(script: Path, folder: Path, variables: dict[str, list[str]], files: dict[str, Path]) -> None:
    """Add what a CMake file sets to `variables`, and what it installs to `files`."""
    text = re.sub(r"(?m)^\s*#.*$", "", script.read_text(encoding="utf-8"))
    for command, arguments in COMMAND.findall(text):
        words = _expand(arguments, variables)
        if command == "set":
            variables[words[0]] = words[1:]
        elif command == "file" and words[0].startswith("GLOB"):
            raise ValueError(f"{folder.name}/CMakeLists.txt uses file({words[0]}): list the files")
        elif command == "file" and words[0] == "COPY":
            target = words[-1].removeprefix(f"{BUILD}/{LIBRARY}/")
            files |= {f"{target}/{Path(name).name}": Path(name) for name in words[1:-2]}
        elif command == "include" and words and words[0].startswith(str(folder)):
            _read(Path(words[0]), folder, variables, files)
        elif command == "add_subdirectory":
            files |= _folder(folder / words[0], variables)
        elif command == "slicerMacroBuildScriptedModule":
            files |= _macro(folder, "", _options(words))
        elif command == "ctkMacroCompilePythonScript":
            options = _options(words)
            target = options["INSTALL_DIR"][0].removeprefix(LIBRARY).strip("/")
            files |= _macro(Path(options.get("SOURCE_DIR", [str(folder)])[0]), target, options)


def _expand(arguments: str, variables: dict[str, list[str]]) -> list[str]:
    words = []
    for quoted, plain in WORD.findall(arguments):
        word = re.sub(r"\$\{(\w+)\}", lambda match: ";".join(variables.get(match[1], [])), quoted or plain)
        words += [part for part in word.split(";") if part]
    return words


def _options(words: list[str]) -> dict[str, list[str]]:
    options: dict[str, list[str]] = {}
    for word in words:
        if word in KEYWORDS:
            current = options.setdefault(word, [])
        else:
            current.append(word)
    return options


def _macro(source: Path, target: str, options: dict[str, list[str]]) -> dict[str, Path]:
    scripts = [name if name.endswith(".py") else f"{name}.py" for name in options.get("SCRIPTS", [])]
    return {f"{target}/{name}".strip("/"): source / name for name in scripts + options.get("RESOURCES", [])}
