"""Which of several ways is fastest is measured once and remembered (training/prosma/fast/autotune.py)."""

import json

import pytest
import torch

from prosma.cancel import Cancelled
from prosma.fast import autotune, network
from prosma.inference.segmenter import Segmenter
from tiny_model import make_tiny_package


@pytest.fixture
def counted(monkeypatch):
    """Three ways that say when they run, with nothing remembered yet; the second takes the least time by far."""
    calls = []
    monkeypatch.setattr(autotune, "_known", {})
    cost = {"first": 300_000, "second": 1000, "third": 200_000}
    return calls, {
        name: lambda name=name, cost=cost: (calls.append(name), sum(range(cost))) for name, cost in cost.items()
    }


def test_the_fastest_way_is_measured_once_and_remembered(counted, tmp_path, monkeypatch):
    calls, ways = counted
    monkeypatch.setenv("PROSMA_HOME", str(tmp_path / "home"))
    assert autotune.fastest("a sum", ways) == "second"
    assert set(calls) == set(ways)
    calls.clear()
    assert autotune.fastest("a sum", ways) == "second"
    monkeypatch.setattr(autotune, "_known", {})  # as in the next process
    assert autotune.fastest("a sum", ways) == "second"
    assert not calls
    (question,) = json.loads((tmp_path / "home" / autotune.FILE_NAME).read_text())
    assert "a sum" in question and torch.__version__ in question
    assert autotune.fastest("another sum", ways) == "second"
    assert calls


def test_a_way_that_is_hardly_faster_is_not_taken():
    assert autotune.best_of({"first": 1.0, "second": 0.95}) == "first"
    assert autotune.best_of({"first": 1.0, "second": 0.85}) == "second"


@pytest.mark.parametrize("content", ["not JSON", "[]", '{"a sum": 7}'])
def test_a_damaged_or_unwritable_file_does_no_harm(content, counted, tmp_path, monkeypatch):
    _, ways = counted
    monkeypatch.setenv("PROSMA_HOME", str(tmp_path))
    (tmp_path / autotune.FILE_NAME).write_text(content)
    assert autotune.fastest("a sum", ways) == "second"
    monkeypatch.setattr(autotune, "_known", {})
    monkeypatch.setenv("PROSMA_HOME", str(tmp_path / autotune.FILE_NAME / "below a file"))
    assert autotune.fastest("a sum", ways) == "second"


def test_a_measurement_that_is_not_wanted_any_more_ends_without_an_answer(counted, tmp_path, monkeypatch):
    monkeypatch.setenv("PROSMA_HOME", str(tmp_path))
    calls, ways = counted
    with autotune.stoppable(lambda: len(calls) == 2), pytest.raises(Cancelled):
        autotune.fastest("a sum", ways)
    assert calls == ["first", "second"]
    assert not autotune.read_answers()
    assert autotune.fastest("a sum", ways) == "second", "nothing stops the next one"


def test_a_model_whose_loading_is_cancelled_while_it_is_measured_is_not_loaded(tmp_path, monkeypatch):
    monkeypatch.setenv("PROSMA_HOME", str(tmp_path))
    monkeypatch.setattr(network, "computes_in_half", lambda device: True)  # as on a processor with bfloat16
    monkeypatch.setattr(network, "FEW_WEIGHTS", 0)
    package = make_tiny_package(tmp_path / "model")
    with pytest.raises(Cancelled):
        Segmenter(package, "cpu", cancelled=lambda: True)
    assert not autotune.read_answers()
    assert Segmenter(package, "cpu", cancelled=lambda: False).device == "cpu"
