"""Models that others made: odd ones never take the panel down, their texts are never markup, their licences are asked for."""

import json
import os
import random
import shutil

import pytest
import scenes
from hosts import run_host

import headless_slicer
from headless_slicer import click, qt
from prosma.package import bundled_models_folder
from tiny_model import make_tiny_package
from type_fuzz import WRONG, changed, places

BUNDLED = sorted(bundled_models_folder().glob("*/model.json"))
FINDERS = sorted(bundled_models_folder().glob("*/finder.json"))
MARKUP = '<img src="file:///x.png"><b>bold</b> &amp;'


def write_mutants(folder, number, seed):
    """Bundled models, each with an id of its own and then one wrong value in its description or its finder's."""
    draw = random.Random(seed)
    for count in range(number):
        path = draw.choice([*BUNDLED, *FINDERS])
        package = shutil.copytree(path.parent, folder / f"m{count:03}")
        description = package / "model.json"
        description.write_text(json.dumps({**json.loads(description.read_text()), "id": f"m{count}"}))
        content = json.loads((package / path.name).read_text())
        place = draw.choice(list(places(content)))
        (package / path.name).write_text(json.dumps(changed(content, place, draw.choice(WRONG))))


@pytest.mark.parametrize(
    ("number", "seed"), [(20, 6), *(pytest.param(150, n, marks=pytest.mark.slow) for n in range(2, 6))]
)
def test_the_panel_starts_among_models_with_wrong_values(environment, tmp_path, number, seed):
    home = tmp_path / "home"
    write_mutants(home / "models", number, seed)
    os.mkfifo(home / "models" / "pipe")
    (home / "models" / "loop").symlink_to("loop")
    (home / "models" / "endless").mkdir()
    (home / "models" / "endless" / "model.json").symlink_to("/dev/zero")
    facts = run_host({**environment, "PROSMA_HOME": str(home)}, "list", "")
    usable = [id for id, _ in facts["rows"] if id]
    assert usable[: len(BUNDLED)] == [path.parent.name for path in BUNDLED]
    assert len(facts["rows"]) == len(BUNDLED) + number + 2, "each one is a row"
    assert len(facts["details"]) == len(usable) > len(BUNDLED)
    assert all(text.strip() for text in facts["details"])
    broken = [text for id, text in facts["rows"] if not id]
    assert all("(cannot be used)" in text and "fault of ProSMA" not in text for text in broken)
    assert {"loop", "endless"} <= {text.partition(" ")[0] for text in broken}


@pytest.fixture
def marked_up(panel, models):
    """A model whose every text looks like markup, in the list."""
    folder = models.home / "models" / "marked"
    package = make_tiny_package(folder, spacing=[3.5, 3.5, 3.5])
    texts = {
        **dict.fromkeys(("name", "version", "description", "modality"), MARKUP),
        "channels": [{"name": MARKUP}],
        "labels": [{"value": n, "name": f"{n} {MARKUP}", "color": [n, 2, 3]} for n in (1, 2)],
        "training": {"data": MARKUP, "licence": MARKUP, "citation": MARKUP},
        "seconds": {"cpu": 1.0, "cuda": None, "hardware": MARKUP},
        "results": {"split": MARKUP, "cases": 1, "dice": {"mean": 0.5}},
    }
    marked = {**package.model, **texts, "id": "marked", "accept_licence": True}
    (folder / "model.json").write_text(json.dumps(marked))
    broken = models.home / "models" / "torn"
    shutil.copytree(folder, broken)
    torn = json.loads((broken / "model.json").read_text())
    (broken / "model.json").write_text(json.dumps({**torn, "id": "torn", "orientation": MARKUP}))
    click(panel.ui.setupCollapsibleButton)
    click(panel.ui.checkButton)
    click(panel.ui.setupCollapsibleButton)
    yield panel
    shutil.rmtree(folder)
    shutil.rmtree(broken)
    panel.logic.library.refresh()


def texts_taken_for_markup(panel):
    """What Qt would show as rich text: labels that do not say otherwise, and tool tips."""
    found = []
    for label in panel.ui.modelList.window().findChildren(qt.QLabel):
        text = label.text
        if MARKUP[:9] in text and label.textFormat != qt.Qt.PlainText:
            found.append(text)
    widgets = [*panel.ui.modelList.window().findChildren(qt.QWidget)]
    tips = [widget.toolTip for widget in widgets]
    tips += [panel.ui.modelList.item(row).toolTip() for row in range(panel.ui.modelList.count)]
    return found + [tip for tip in tips if "<img" in tip]


def test_texts_of_a_package_are_shown_letter_by_letter(marked_up):
    panel = marked_up
    scenes.choose(panel, "marked")
    scenes.select(panel, scenes.add_volume(scenes.texture((24, 24, 24))))
    assert MARKUP in panel.ui.modelDetails.plainText
    assert any("&lt;img" in panel.ui.modelList.item(row).toolTip() for row in range(panel.ui.modelList.count))
    headless_slicer.answer(qt.QMessageBox.Yes)
    assert scenes.click_segment(panel).state == "finished"
    asked = headless_slicer.messages[-1].text
    assert "<img" not in asked and "&lt;img" in asked
    assert texts_taken_for_markup(panel) == []


def test_a_changed_licence_is_asked_for_again(panel, models):
    """Whatever was accepted before under this id and version; and once for the panel and the command line together."""
    from prosma.cli import main

    folder = make_tiny_package(models.home / "models" / "strict", id="strict", accept_licence=True).folder
    library = panel.logic.library
    library.refresh()
    library.acceptLicence(library.package("strict"))
    scan = models.home / "scan.nii"
    assert library.licenceIsAccepted(library.package("strict"))
    assert main(["segment", str(scan), "-m", "strict", "-o", str(models.home / "x.nrrd")]) != 0, "there is no such file"
    model = json.loads((folder / "model.json").read_text())
    model["training"]["licence"] = "Another one"
    (folder / "model.json").write_text(json.dumps(model))
    library.refresh()
    assert not library.licenceIsAccepted(library.package("strict"))
    library.acceptLicence(library.package("strict"))
    (folder / "LICENSE.txt").write_text("And more of it")
    assert not library.licenceIsAccepted(library.package("strict"))
    shutil.rmtree(folder)
    library.refresh()
