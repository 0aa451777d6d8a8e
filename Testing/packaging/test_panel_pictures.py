"""The pictures of the panel are those of the present panel and models: `make screenshots` after either has changed."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pictures
import system_libraries

ROOT = Path(__file__).parents[2]
RECORD = json.loads((ROOT / pictures.RECORD).read_text(encoding="utf-8"))


def test_the_pictures_show_the_present_panel_and_models():
    assert RECORD["made_of"] == pictures.made_of(ROOT), "the pictures are out of date: make screenshots"


def test_the_pictures_are_those_that_the_command_made():
    made = {name: pictures.digest(ROOT / name) for name in RECORD["pictures"]}
    assert made == RECORD["pictures"]
    there = {f"Resources/Panel/{file.name}" for file in (ROOT / "Resources/Panel").glob("*.png")}
    assert there | {"Resources/screenshot.png"} == {*RECORD["pictures"]}


def test_every_picture_is_shown_in_a_page():
    pages = [ROOT / "Resources/Panel.md", ROOT / "README.md"]
    shown = {
        (page.parent / target).relative_to(ROOT).as_posix()
        for page in pages
        for target in re.findall(r"!\[[^]]+\]\(([^)]+\.png)\)", page.read_text(encoding="utf-8"))
    }
    assert shown == {*RECORD["pictures"], "Resources/strokes.png"}, "the last one is of stroke_pictures.py"


def test_a_picture_that_shows_the_same_stays_and_a_new_one_is_made_small_without_a_change(tmp_path):
    shown = np.zeros((100, 200, 3), np.uint8)
    shown[20:60, 30:90] = (200, 30, 10)
    moved, other = shown.copy(), shown.copy()
    moved[60, 30:60] = (200, 30, 10)  # 30 of 20,000 pixels
    other[70:90, 100:180] = (0, 0, 250)
    before = (tmp_path / "before.png", tmp_path / "new.png")
    Image.fromarray(shown).save(before[0])
    content = before[0].read_bytes()
    for array, stays in ((moved, True), (other, False)):
        Image.fromarray(array).save(before[1], compress_level=0)
        pictures.settle(before[1], content)
        assert (before[1].read_bytes() == content) == stays
    assert np.array_equal(np.asarray(Image.open(before[1]).convert("RGB")), other)
    assert before[1].stat().st_size < 1000
    many = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    Image.fromarray(many).save(before[1])
    pictures.settle(before[1], None)
    assert np.array_equal(np.asarray(Image.open(before[1])), many), "of many colours all are kept"


@pytest.mark.slow
@pytest.mark.skipif(bool(system_libraries.missing()), reason=system_libraries.notice())
def test_the_command_makes_all_of_them(tmp_path):
    command = [sys.executable, ROOT / "Testing/screenshots.py", "--output", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / pictures.RECORD).read_text(encoding="utf-8"))
    assert record["made_of"] == pictures.made_of(ROOT)
    assert {*record["pictures"]} == {*RECORD["pictures"]}
    assert {name: pictures.digest(tmp_path / name) for name in record["pictures"]} == record["pictures"]


@pytest.fixture
def copy(tmp_path):
    """What the record is made of, to be changed by a test."""
    models = "ProSMASegmentation/Resources/Models"
    for file in ("training/prosma/__init__.py", str(pictures.PANEL), *_descriptions(models)):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    return tmp_path


def _descriptions(models):
    return [file.relative_to(ROOT).as_posix() for file in (ROOT / models).glob("*/model.json")]


def replace(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert text.count(old) >= 1
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "old", "new", "differs"),
    [
        ("ProSMASegmentation/Resources/Models/prostate-t2/model.json", '"version": "', '"version": "9', True),
        ("training/prosma/__init__.py", '__version__ = "', '__version__ = "9', True),
        (str(pictures.PANEL), "<string>Segment</string>", "<string>Go</string>", True),
        (str(pictures.PANEL), "<height>190</height>", "<height>191</height>", True),
        (str(pictures.PANEL), "<string>Check a model package", "<string>Look at a model package", False),  # a tool tip
        (str(pictures.PANEL), " <widget", "\n  <widget", False),
    ],
)
def test_a_change_that_can_be_seen_asks_for_new_pictures(copy, file, old, new, differs):
    assert pictures.made_of(copy) == pictures.made_of(ROOT)
    replace(copy / file, old, new)
    assert (pictures.made_of(copy) != pictures.made_of(ROOT)) is differs
