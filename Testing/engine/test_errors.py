"""One family of errors for people; everything else is named as a fault of ProSMA."""

import ast
import importlib
import pickle
from pathlib import Path

import pytest

import prosma
from prosma.cancel import Cancelled
from prosma.cli import app, models
from prosma.errors import EngineError, UserFacingError
from prosma.package import PackageError

ENGINE = Path(prosma.__file__).parent


def error_classes():
    """(module, name) of every class of the engine that is called an error, by its source."""
    for file in sorted(ENGINE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.name.endswith(("Error", "Cancelled")):
                yield ".".join(("prosma", *file.relative_to(ENGINE).with_suffix("").parts)), node.name


def test_every_error_class_of_the_engine_is_of_the_family():
    found = [getattr(importlib.import_module(module), name) for module, name in error_classes()]
    assert len(found) >= 11
    assert [error for error in found if not issubclass(error, UserFacingError)] == []
    assert [error for error in found if issubclass(error, (ValueError, RuntimeError))] == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserFacingError("No.", "Do so."), "bad_input"),
        (PackageError("No.", "Do so."), "bad_model"),
        (PackageError("No.", "Do so.", "bad_output"), "bad_output"),
        (EngineError("no_torch", "No.", "Do so."), "no_torch"),
        (Cancelled(), "cancelled"),
    ],
)
def test_an_error_is_the_same_after_the_way_to_another_process(error, code):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and again.code == code
    assert (again.message, again.remedy, str(again)) == (error.message, error.remedy, str(error))


@pytest.mark.parametrize("fault", [ValueError("axis 3 is out of bounds"), RuntimeError("no"), TypeError("'x'")])
def test_a_fault_of_ours_is_never_shown_as_advice(fault, monkeypatch, capsys):
    def broken(options):
        raise fault

    monkeypatch.setattr(models, "find_packages", broken)
    assert app.main(["models"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "fault of ProSMA" in said and type(fault).__name__ in said and "--debug" in said
    assert app.main(["--debug", "models"]) == 1
    assert "Traceback" in capsys.readouterr().err
