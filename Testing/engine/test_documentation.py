"""The pages of docs/ are true: their examples run, and what they link to is there."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "Resources/Panel.md"]
)
ENGINE = ROOT / "training"
WITH_EXAMPLES = [
    ".".join(path.relative_to(ENGINE).with_suffix("").parts)
    for path in sorted((ENGINE / "prosma").rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]
DOORS = (
    *("prosma.read_image", "prosma.write_labels", "prosma.Segmenter", "prosma.find_packages", "prosma.ProSMAUNet"),
    *("prosma.Image", "prosma.network.gate.ProximalSkipGate", "prosma.network.gate.soft_threshold"),
    *("prosma.image.resampling.resample", "prosma.correct.refine.refine"),
)


def test_the_examples_of_the_python_page_run(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    failed, tried = doctest.testfile(str(ROOT / "docs/python.md"), module_relative=False)
    assert tried > 20 and not failed


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_the_examples_of_docstrings_run(module, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted and not result.failed


@pytest.mark.parametrize("door", DOORS)
def test_each_public_door_has_an_example(door):
    module, _, name = door.rpartition(".")
    assert ">>> " in getattr(importlib.import_module(module), name).__doc__


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def test_every_page_is_in_the_list_of_pages():
    listed = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    assert all(f"({page.name})" in listed for page in (ROOT / "docs").glob("*.md") if page.name != "README.md")
