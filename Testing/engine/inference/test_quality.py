"""Expected quality: what is measured of the scores, what follows from it, and where it is told."""

import csv
import itertools
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from test_cli import write_image

from prosma.cli.app import main
from prosma.image.reading import read_image
from prosma.image.resampling import UNIT
from prosma.image.tags import quality_in_words, quality_word
from prosma.inference.quality import FEATURES, Expected, LabelStatistics, QualityStatistics, features
from prosma.inference.quality_meter import QualityMeter, Sums
from prosma.inference.segmenter import Segmenter
from prosma.learning.packing import quality_statistics as making
from prosma.learning.packing.degraded_copies import coarse, cut_box, degraded_copies
from prosma.package import ModelPackage, bundled_models_folder
from small_volumes import smooth_volume
from tiny_model import make_tiny_package

ROOT = Path(__file__).resolve().parents[3]
SAMPLE = ROOT / "Resources/Samples/hippocampus_017.nii.gz"


def scores_of(shape, seed=0) -> np.ndarray:
    """Random scores of three classes that sum to UNIT, (3, *shape) int16."""
    share = np.random.default_rng(seed).dirichlet([1, 1, 1], shape)
    return np.moveaxis(np.floor(share * UNIT), -1, 0).astype(np.int16)


def faces(mask, spacing):
    """Area between the voxels of a mask and others, and at the grid's end, voxel by voxel."""
    inner = outer = 0.0
    for axis, step in enumerate(spacing):
        area = np.prod(spacing) / step
        lines = np.moveaxis(mask, axis, 0)
        inner += area * sum(int((a != b).sum()) for a, b in itertools.pairwise(lines))
        outer += area * int(lines[0].sum() + lines[-1].sum())
    return inner, outer


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_what_the_meter_sums_up_is_that_of_the_whole_array_however_it_comes(axis):
    scores, spacing = scores_of((6, 7, 9)), (2.0, 1.0, 0.5)
    meter = QualityMeter(3, axis, spacing, 3)
    for part in np.array_split(scores, 3, axis=axis + 1):
        meter.add(part)
    labels = scores.argmax(axis=0)
    for value, sums in enumerate(meter.close(), start=1):
        mask, share = labels == value, scores[value] / UNIT
        assert sums.voxels == mask.sum() and sums.voxel_ml == 1e-3
        assert sums.inside == pytest.approx(share[mask].sum()) and sums.all == pytest.approx(share.sum())
        assert sums.unsure == ((share > 0.1) & (share < 0.9)).sum() and sums.greatest == share.max()
        assert (sums.likely, sums.sure) == ((share > 0.5).sum(), (share >= 0.9).sum())
        assert (sums.surface, sums.border) == pytest.approx(faces(mask, spacing))


@pytest.mark.parametrize("axis", [0, 2])
def test_slices_of_a_2d_model_are_images_of_their_own(axis):
    scores = scores_of((6, 7, 4))
    meter = QualityMeter(3, axis, (1.0, 1.0, 5.0), 2)
    for part in np.array_split(scores, 2, axis=axis + 1):
        meter.add(part)
    mask = scores.argmax(axis=0) == 1
    slices = [faces(mask[..., k : k + 1], (1.0, 1.0, 5.0)) for k in range(4)]
    ends = 2 * int(mask.sum())  # above and below a slice
    (sums, _) = meter.close()
    assert sums.surface == pytest.approx(sum(inner for inner, _ in slices))
    assert sums.border == pytest.approx(sum(outer for _, outer in slices) - ends)


def test_features_in_literal_numbers():
    sums = Sums(0.002, voxels=1000, inside=900.0, all=1000.0, unsure=100, likely=1000, sure=700, greatest=0.99)
    sums.surface, sums.border = 300.0, 100.0
    found = features(sums, median=np.log(4.0), deviation=0.1)
    unusual, shares = np.log(2.001 / 4), [np.log(9), np.log(9), np.log(99), np.log(1011 / 711), np.log(811 / 1011)]
    rest = [np.log(1.1), np.log(2), unusual, -unusual - 0.2, 0, np.log(400.001 / 100)]
    np.testing.assert_allclose(found, [*shares, *rest])


def statistics_of(**changes) -> QualityStatistics:
    """The log odds of the expected Dice are 0.2 more than those of the agreement of probabilities and their argmax."""
    weights = [0.0] * FEATURES
    label = LabelStatistics(1, 0.0, 1.0, 0.1)
    made = QualityStatistics("0" * 64, [label], weights, [1.0] * FEATURES, [1.0, *weights[1:]], 0.1, 0.5)
    return replace(made, **changes)


def share(odds):
    return 1 / (1 + np.exp(-odds))


def test_the_expected_dice_follows_the_features_and_stays_a_dice():
    half = Sums(1e-3, voxels=10, inside=5.0, all=10.0)
    found = statistics_of().expected(1, half)
    assert asdict(found) == pytest.approx({"mean": share(0.2), "low": share(-0.3), "high": share(0.7)})
    sure = statistics_of().expected(1, Sums(1e-3, voxels=10, inside=10.0, all=10.0))
    assert sure.mean == pytest.approx(share(3.2)), "no feature counts farther than three scales"
    assert 0 < statistics_of(intercept=-300.0).expected(1, half).low < 1e-9
    assert statistics_of().expected(2, half) is None


def test_where_a_structure_may_be_absent_its_presence_counts():
    one = Expected(0.8, 0.7, 0.9)
    assert asdict(one.if_present(0.5, empty=False)) == pytest.approx({"mean": 0.4, "low": 0.35, "high": 0.9})
    assert asdict(one.if_present(0.1, empty=True)) == pytest.approx({"mean": 0.9, "low": 0.6, "high": 1.0})


@pytest.mark.parametrize(("mean", "word"), [(0.9, "good"), (0.85, "good"), (0.8, "fair"), (0.5, "poor")])
def test_a_plain_word_with_the_number_behind_it(mean, word):
    expected = {"mean": mean, "low": 0.4, "high": 0.95}
    assert quality_word(expected) == word
    assert quality_in_words(expected) == f"{word}, {mean:.2f} (0.40 to 0.95)"
    assert quality_word(None) == quality_in_words(None) == ""


def test_a_file_that_cannot_be_right_tells_nothing_and_breaks_nothing(tmp_path):
    good = asdict(statistics_of())
    path = tmp_path / "quality.json"
    for content in (
        {**good, "scale": [0.0] * FEATURES},
        {**good, "width": "much"},
        {**good, "centre": [0.0]},
        [],
        None,
    ):
        path.write_text("{" if content is None else json.dumps(content))
        assert QualityStatistics.of_package(path, "0" * 64) is None
    path.write_text(json.dumps(good))
    assert QualityStatistics.of_package(path, "0" * 64) == statistics_of()
    assert QualityStatistics.of_package(path, "1" * 64) is None
    assert QualityStatistics.of_package(tmp_path / "none", "0" * 64) is None


# --- making them


def rows_of(count: int) -> list[making.Row]:
    """Segments whose Dice is the agreement of their scores, less for those with label 2."""
    random, rows = np.random.default_rng(0), []
    for number in range(count):
        label, agreement = 1 + number % 2, random.uniform(0.5, 0.97)
        sums = Sums(1e-3, 100, 100 * agreement, 100.0, unsure=10, likely=100, sure=90, greatest=0.99, surface=60.0)
        dice = agreement - 0.2 * (label == 2) + random.normal(0, 0.01)
        rows.append(making.Row(f"case{number // 4}", "clean", label, sums, dice))
    return rows


def test_what_decides_the_dice_is_found_and_the_intervals_hold_four_of_five():
    rows, volumes = rows_of(200), {1: (-2.3, 0.2), 2: (-2.3, 0.2)}
    made = making.fitted(rows[:120], volumes, "0" * 64)
    found = [made.expected(row.label, row.sums) for row in rows[120:]]
    true = np.array([row.dice for row in rows[120:]])
    means = np.array([each.mean for each in found])
    assert np.corrcoef(means, true)[0, 1] > 0.95 and np.abs(means - true).mean() < 0.06
    inside = np.mean([each.low <= dice <= each.high for each, dice in zip(found, true, strict=True)])
    assert 0.6 <= inside <= 0.95
    assert max(len(repr(number)) for number in made.coefficients) <= 12


def test_few_cases_lean_on_what_is_known_of_other_models():
    rows, volumes = rows_of(24), {1: (-2.3, 0.2), 2: (-2.3, 0.2)}
    made = making.fitted(rows, volumes, "0" * 64)
    np.testing.assert_allclose(made.coefficients, making.SLOPES, atol=0.1)
    odds = [np.log(row.dice / (1 - row.dice)) for row in rows]
    assert made.intercept == pytest.approx(np.mean(odds), rel=1e-4)
    one, two = (label.offset for label in made.labels)
    assert one > 0.2 and two < -0.2


def test_degraded_copies_are_what_they_are_called():
    image = smooth_volume((20, 24, 40))
    labels = np.zeros(image.shape, np.uint8)
    labels[5:15, 8:16, 10:30] = 1
    model = {"dimension": 3, "intensity": {"rule": "clip-zscore"}}
    copies = {
        kind: (copy, truth) for kind, copy, truth in degraded_copies(image, labels, model, np.random.default_rng(3))
    }
    assert list(copies) == ["clean", "noise", "contrast", "coarse", "cut"]
    original = image.array.astype(float)
    assert copies["clean"][0] is image and (copies["noise"][0].array - original).std() > 0.02 * original.std()
    assert copies["contrast"][0].array.std() < 0.6 * original.std()
    cut, truth = copies["cut"]
    assert cut.shape == truth.shape and 0 < truth.sum() < labels.sum()
    blocks = coarse(np.arange(8.0).reshape(1, 8, 1, 1), 4, 3)[0, :, 0, 0]
    assert blocks.tolist() == [1.5] * 4 + [5.5] * 4
    assert coarse(np.arange(9.0).reshape(1, 1, 9, 1), 4, 3)[0, 0, 8, 0] == 8
    assert cut_box(np.zeros((4, 4, 4)), np.random.default_rng(0)) == ((0, 4),) * 3
    coloured = {"dimension": 2, "intensity": {"rule": "range", "low": 0, "high": 255}}
    shades = replace(image, array=(image.array - image.array.min()) / np.ptp(image.array) * 255)
    for kind, copy, _ in degraded_copies(shades, labels, coloured, np.random.default_rng(3)):
        assert kind in ("clean", "cut") or (copy.array.min() >= 0 and copy.array.max() <= 255)


# --- at the doors


def with_quality(folder: Path, **changes) -> ModelPackage:
    """A copy of the hippocampus model that knows what to expect of label 1, by `statistics_of`."""
    shutil.copytree(bundled_models_folder() / "hippocampus-mr", folder / "hippocampus-mr")
    package = ModelPackage.open(folder / "hippocampus-mr")
    made = statistics_of(weights=package.sha256, **changes)
    package.quality_path.write_text(json.dumps(asdict(made)))
    return package


def test_results_tell_it_for_labels_that_are_known(tmp_path):
    package = with_quality(tmp_path / "models")
    result = Segmenter(package, "cpu").segment(read_image(SAMPLE), outputs=["probabilities"])
    assert set(result.expected_dice) == {1}
    probabilities, mask = result.probabilities[1] / 255, result.labels == 1
    agreement = 2 * probabilities[mask].sum() / (probabilities.sum() + mask.sum())
    odds = min(3.0, np.log(agreement / (1 - agreement)))
    assert result.expected_dice[1].mean == pytest.approx(share(odds + 0.2), abs=0.01)


def test_the_command_line_says_it_in_words_json_tags_and_tables(tmp_path, capsys):
    package = with_quality(tmp_path / "models")
    images = tmp_path / "images"
    images.mkdir()
    (images / "a_0000.nii.gz").write_bytes(SAMPLE.read_bytes())
    command = ["segment", str(images), "-m", str(package.folder), "-o", str(tmp_path / "out")]
    assert main([*command, "--json"]) == 0
    (case,) = json.loads(capsys.readouterr().out.splitlines()[-1])["cases"]
    first, second = case["segments"]
    assert set(first["expected_dice"]) == {"mean", "low", "high"} and second["expected_dice"] is None
    header = (tmp_path / "out/a.seg.nrrd").read_bytes()[:4000].decode("latin-1")
    assert f"ProSMA.expectedDice:{json.dumps(first['expected_dice'])}" in header
    assert f"ProSMA.quality:{quality_in_words(first['expected_dice'])}" in header
    assert header.count("ProSMA.expectedDice") == header.count("ProSMA.quality") == 1
    assert main(["report", str(tmp_path / "out"), "--csv", str(tmp_path / "a.csv")]) == 0
    rows = list(csv.DictReader((tmp_path / "a.csv").open()))
    assert [row["expected_dice"] for row in rows] == [str(first["expected_dice"]["mean"]), ""]
    assert [row["quality"] for row in rows] == [quality_word(first["expected_dice"]), ""]
    assert rows[0]["fit"] == "fits"
    assert main(["segment", str(SAMPLE), "-m", str(package.folder), "-o", str(tmp_path / "b.nii.gz")]) == 0
    assert f"expected Dice: {quality_in_words(first['expected_dice'])}" in capsys.readouterr().out


def test_a_cohort_keeps_it_when_it_is_measured_afterwards_and_shows_the_worst_first(tmp_path, capsys):
    package = with_quality(tmp_path / "models", intercept=2.0, centre=[3.0, *[0.0] * (FEATURES - 1)])
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    noisy = read_image(SAMPLE)
    noise = np.random.default_rng(0).normal(0, 0.3 * noisy.array.std(), noisy.array.shape)
    write_image(images / "noisy.nrrd", replace(noisy, array=noisy.array + noise))
    (images / "good.nii.gz").write_bytes(SAMPLE.read_bytes())
    command = ["segment", str(images), "-m", str(package.folder), "-o", str(out)]
    assert main([*command, "--json"]) == 0
    cases = json.loads(capsys.readouterr().out.splitlines()[-1])["cases"]
    told = {case["case"]: case["segments"][0]["expected_dice"] for case in cases}
    assert main([*command, "--statistics"]) == 0
    assert main(["report", str(out), "--csv", str(tmp_path / "a.csv"), "--html", str(tmp_path / "a.html")]) == 0
    rows = [row for row in csv.DictReader((tmp_path / "a.csv").open()) if row["label"] == "1"]
    assert {row["case"].partition(".")[0]: float(row["expected_dice"]) for row in rows} == {
        name: dice["mean"] for name, dice in told.items()
    }
    assert all(float(row["surface_mm2"]) > 0 for row in rows)
    page = (tmp_path / "a.html").read_text()
    worst_first = sorted(told, key=lambda name: told[name]["mean"])
    places = [page.index(f"{quality_in_words(told[name])}.") for name in worst_first]
    assert told["noisy"] != told["good"] and places == sorted(places)


def test_a_model_without_it_says_nothing(tmp_path):
    result = Segmenter(make_tiny_package(tmp_path / "m"), "cpu").segment(smooth_volume())
    assert result.expected_dice == {} and set(result.measures) == {1, 2}
