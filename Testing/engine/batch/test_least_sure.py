"""The page of a batch shows the cases that the model was least sure of, as their files are."""

import base64
import io
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_writing import noise, write_series
from PIL import Image as Picture

from prosma.batch.least_sure import COLOURS, least_sure
from prosma.cli import main
from prosma.image.reading import read_image, read_labels
from prosma.inference.segmenter import Segmenter
from prosma.outputs.preview import preview
from prosma.package import resolve
from remedies import tries
from small_volumes import smooth_volume
from tiny_model import make_tiny_package

SAMPLE = Path(__file__).resolve().parents[3] / "Resources/Samples/hippocampus_017.nii.gz"
PALETTE = [{"value": value, "color": COLOURS[value - 1]} for value in (1, 2)]


def run(*arguments) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return make_tiny_package(folder, spacing=None, patch_size=[16, 16, 16], seed=7)


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    for seed, name in enumerate(("a", "<i>b</i> & co", "c")):
        path = tmp_path / "images" / f"{name.replace('/', '_')}.nrrd"
        sitk.WriteImage(sitk.GetImageFromArray(np.ascontiguousarray(smooth_volume(seed=seed).array[0].T)), str(path))
    return tmp_path / "images"


class Page(HTMLParser):
    """The figures of a page: (alternative text, picture, caption); and all that it loads or names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.figures: list[list] = []
        self.loads: list[str] = []
        self.tags: set[str] = set()
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        facts = dict(attributes)
        self.loads += [facts[key] for key in ("src", "href") if key in facts]
        if tag == "figure":
            self.figures.append(["", None, ""])
        elif tag == "img":
            self.figures[-1][:2] = facts["alt"], base64.b64decode(facts["src"].removeprefix("data:image/png;base64,"))
        self.inside = tag == "figcaption" or (self.inside and tag == "b")

    def handle_data(self, data):
        if self.inside:
            self.figures[-1][2] += data

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "figcaption"


def page(folder, *options) -> Page:
    path = folder.parent / "page.html"
    assert run("report", folder, "--html", path, *options) == 0
    return Page(path.read_text(encoding="utf-8"))


def pixels(figure) -> np.ndarray:
    return np.asarray(Picture.open(io.BytesIO(figure[1])))


def test_the_least_sure_come_first_with_their_numbers(images, tiny, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("segment", images, "-m", tiny.folder, "-o", out, "--statistics") == 0
    segmenter, unsure = Segmenter(tiny, "cpu"), {}
    capsys.readouterr()
    assert run("report", out, "--json") == 0
    told = {case["case"]: case["segments"] for case in json.loads(capsys.readouterr().out)["cases"]}
    for path in images.iterdir():
        result = segmenter.segment(read_image(path), outputs=["uncertainty"])
        unsure[path.stem] = float(result.uncertainty[result.labels > 0].mean()) / 255
        for segment in told[path.stem]:
            mask = result.labels == segment["value"]
            assert segment["uncertainty"] == pytest.approx(float(result.uncertainty[mask].mean()) / 255, abs=1e-4)
    found = page(out)
    order = [figure[0] for figure in found.figures]
    assert sorted(order) == sorted(unsure)
    assert all(unsure[first] >= unsure[second] - 2e-4 for first, second in itertools.pairwise(order))
    for name, figure in zip(order, found.figures, strict=True):
        said = float(re.search(r"Mean uncertainty (\d\.\d+)", figure[2])[1])
        assert said == pytest.approx(unsure[name], abs=1e-3)
        image, labels = read_image(images / f"{name}.nrrd"), read_labels(out / f"{name}.seg.nrrd").array[0]
        np.testing.assert_array_equal(pixels(figure), preview(image, labels, PALETTE))
        assert figure[2].startswith(f"{name}: ") and figure[2].endswith("structure 1structure 2")
    assert [figure[0] for figure in page(out, "--pictures", 1).figures] == order[:1]
    assert page(out, "--pictures", 0).figures == []


def test_the_page_needs_nothing_else_and_names_are_texts(images, tiny, tmp_path):
    out = tmp_path / "out"
    assert run("segment", images, "-m", tiny.folder, "-o", out) == 0
    found = page(out)
    assert all(address.startswith("data:image/png;base64,") for address in found.loads) and len(found.loads) == 3
    assert not {"script", "link", "iframe", "i"} & found.tags
    assert "<i>b<_i> & co" in [figure[0] for figure in found.figures]
    assert "--statistics" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_known_model_shows_its_own_colours(tmp_path):
    out = tmp_path / "out"
    assert run("segment", SAMPLE, "-m", "hippocampus-mr", "-o", out / "r.seg.nrrd", "--device", "cpu") == 0
    (figure,) = page(out).figures
    package = resolve("hippocampus-mr")
    expected = preview(read_image(SAMPLE), read_labels(out / "r.seg.nrrd").array[0], package.labels)
    np.testing.assert_array_equal(pixels(figure), expected)
    assert package.labels[0]["name"] in figure[2]


def test_corrections_are_shown_and_what_is_gone_is_told(images, tiny, tmp_path):
    out = tmp_path / "out"
    assert run("segment", images, "-m", tiny.folder, "-o", out, "--format", ".nrrd") == 0
    picture = sitk.ReadImage(str(out / "a.nrrd"))
    picture[2:9, 2:9, 2:9] = 2
    sitk.WriteImage(picture, str(out / "a.nrrd"))
    (images / "c.nrrd").unlink()
    figures = {re.split(r"[:]", figure[2])[0]: figure for figure in page(out).figures}
    assert "edited since" in figures["a"][2]
    expected = preview(read_image(images / "a.nrrd"), read_labels(out / "a.nrrd").array[0], PALETTE)
    np.testing.assert_array_equal(pixels(figures["a"]), expected)
    assert figures["c"][1] is None and "No picture" in figures["c"][2] and "c.nrrd does not exist" in figures["c"][2]


@tries("batch/least_sure.py: Of DICOM results only previews")
def test_a_dicom_result_is_shown_by_its_preview(tiny, tmp_path):
    write_series(tmp_path / "series", noise())
    out = tmp_path / "out"
    arguments = ("segment", tmp_path / "series", "-m", tiny.folder, "-o", out / "r.dcm")
    assert run(*arguments) == 0
    (figure,) = page(out).figures
    assert figure[1] is None and "--also .preview.png" in figure[2]
    assert run(*arguments, "--also", ".preview.png") == 0  # the remedy
    (figure,) = page(out).figures
    assert figure[1] == (out / "r.preview.png").read_bytes()


def test_what_does_not_fit_comes_before_what_is_unsure():
    def case(name, verdict, score, *segments, state="done"):
        entries = [{"voxels": voxels, "uncertainty": mean} for voxels, mean in segments]
        return {"case": name, "state": state, "fit": {"verdict": verdict, "score": score}, "segments": entries}

    cases = [
        case("sure", "fits", 0.1, (100, 0.1), (0, None)),
        case("unsure", "fits", 0.1, (10, 0.9), (90, 0.1)),
        case("nothing", "fits", 0.1, (0, None)),
        case("unfit", "unfit", 6.0, (100, 0.01)),
        case("unusual", "unusual", 3.0, (100, 0.5)),
        case("gone", "unfit", 9.0, (100, 0.9), state="missing"),
        {"case": "old", "state": "done", "segments": [{"voxels": 5}]},
    ]
    assert [each["case"] for each in least_sure(cases, 9)] == ["unfit", "unusual", "nothing", "unsure", "sure", "old"]


def test_the_worst_expected_dice_comes_before_doubt():
    def case(name, *means):
        segments = [{"expected_dice": {"mean": mean, "low": 0.1, "high": 1.0}} for mean in means]
        return {"case": name, "state": "done", "segments": segments or [{"expected_dice": None}]}

    strange = {**case("strange", 0.99), "fit": {"verdict": "unusual"}}
    cases = [case("good", 0.9, 0.95), case("poor", 0.95, 0.4), case("unknown"), strange]
    assert [each["case"] for each in least_sure(cases, 9)] == ["strange", "poor", "good", "unknown"]
