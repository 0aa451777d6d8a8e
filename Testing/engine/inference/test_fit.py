"""Whether an image fits a model: features, statistics, verdicts, and what the doors make of them."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from prosma.cli.app import main
from prosma.image.geometry import Image
from prosma.image.reading import read_image
from prosma.image.writing import write_labels
from prosma.inference import distance, encoder_features, fit
from prosma.inference.distance import Distance, Faults
from prosma.inference.fit import DoesNotFit, FitStatistics
from prosma.inference.pipeline import prepare
from prosma.inference.segmenter import Segmenter
from prosma.learning.data.dataset import IGNORED, LabelledFolder
from prosma.learning.packing.fit_statistics import drawn_box, fit_statistics
from prosma.package import ModelPackage, bundled_models_folder
from prosma.package.importing import import_package
from prosma.package.weights import load_network
from remedies import tries
from small_volumes import smooth_volume
from tiny_model import make_tiny_package

ROOT = Path(__file__).resolve().parents[3]
SAMPLE = ROOT / "Resources/Samples/hippocampus_017.nii.gz"
SIZE = (20, 20, 20)
HIPPOCAMPUS = bundled_models_folder() / "hippocampus-mr"


@pytest.fixture(scope="module")
def strange(tmp_path_factory) -> Path:
    """A volume of a hippocampus' size that shows nothing but noise, with the values of a CT."""
    path = tmp_path_factory.mktemp("strange") / "noise.nii.gz"
    noise = np.random.default_rng(0).normal(0, 300, (36, 50, 36)).astype(np.int16)
    image = Image(noise[None], np.eye(4))
    import SimpleITK as sitk

    picture = sitk.GetImageFromArray(np.ascontiguousarray(image.array[0].T))
    sitk.WriteImage(picture, str(path))
    return path


@pytest.fixture(scope="module")
def features():
    """Of 40 cases, 12 features that go together in threes."""
    random = np.random.default_rng(0)
    return random.normal(size=(40, 4)) @ random.normal(size=(4, 12)) + random.normal(size=(40, 12)) + 5


# --- features


@pytest.mark.parametrize("dims", [2, 3])
def test_features_are_the_moments_of_the_convolutions_of_the_middle(tmp_path, dims, monkeypatch):
    patch = [16, 24, 16][:dims]
    network = {"spatial_dims": dims, "in_channels": 1, "out_channels": 3, "features": [4, 8]}
    package = make_tiny_package(tmp_path / "m", dimension=dims, network=network, patch_size=patch, spacing=None)
    segmenter, plain = Segmenter(package, "cpu"), load_network(package)
    prepared = prepare(smooth_volume((30, 20, 40) if dims == 3 else (30, 20, 1)), package)
    expected = []

    def note(layer, _inputs, result):
        values = result[0].flatten(1).double() - layer.bias.double()[:, None]
        expected.extend([values.mean(1), torch.log(values.std(1, correction=0) + 1e-3)])

    for layer in plain.encoder.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Conv3d):
            layer.register_forward_hook(note)
    array = prepared.array if dims == 3 else prepared.array[..., 0]
    middle = array[:, 7:23, :, 12:28] if dims == 3 else array[:, 7:23]  # of (30, 20, 40)
    missing = patch[1] - 20
    middle = np.pad(middle, [(0, 0), (0, 0), (missing // 2, missing - missing // 2), (0, 0)][: dims + 1])
    with torch.inference_mode():
        plain(torch.from_numpy(middle)[None])
    encoder = torch.cat(expected[:8]).numpy()
    found = segmenter.features(prepared, patch)
    np.testing.assert_allclose(found[: len(encoder)], encoder, atol=2e-3)
    np.testing.assert_allclose(found[len(encoder) :], encoder_features.image_features(middle))
    segmenter.network = load_network(package)
    np.testing.assert_allclose(segmenter.features(prepared, patch), found, atol=2e-3)


def test_features_of_the_image_itself():
    ramp = np.arange(8, dtype=np.float32)
    array = np.stack([np.tile(ramp[:, None], (1, 4)), np.zeros((8, 4), np.float32)])
    found = encoder_features.image_features(array)
    np.testing.assert_allclose(found[:5], np.quantile(ramp.repeat(4), [0.05, 0.25, 0.5, 0.75, 0.95]))
    assert found[5:10].tolist() == [0] * 5
    np.testing.assert_allclose(found[10:12], [3.5, np.log(np.std(ramp) + 1e-3)])
    # Mean steps of both channels along each axis; from the third scale on one voxel is left along the second axis.
    steps = [np.log(s / 2 + 1e-3) for s in (1, 0, 2, 0, 4)]
    np.testing.assert_allclose(found[12:], [*steps[:2], *steps[2:4], steps[4], 0, 0, 0])


def test_of_a_large_image_only_the_usual_size_is_looked_at():
    array = np.arange(2 * 10 * 12, dtype=np.float32).reshape(2, 10, 12)
    found = encoder_features.central_patch(array, (8, 8), (4, 20))
    assert found.shape == (2, 8, 8)
    np.testing.assert_array_equal(found[:, 2:6], array[:, 3:7, 2:10])
    assert not found[:, :2].any() and not found[:, 6:].any()


@pytest.mark.parametrize(
    ("shape", "part"),
    [
        ((35, 50, 37), [(0, 35), (0, 50), (0, 37)]),  # as usual: all of it
        ((34, 53, 38), [(0, 34), (0, 53), (0, 38)]),  # a little more, which one tile holds
        ((34, 44, 44), [(0, 34), (0, 44), (0, 40)]),  # two tiles, of which neither is nearer to the middle
        ((40, 56, 40), [(2, 37), (3, 53), (1, 38)]),  # one tile, but much more than usual
        ((70, 90, 70), [(17, 52), (20, 70), (16, 53)]),
        ((34, 44, 76), [(0, 34), (0, 44), (18, 58)]),  # three tiles, of which the second is in the middle
    ],
)
def test_where_a_tile_of_the_run_shows_nearly_the_middle_it_is_looked_at(shape, part):
    found = encoder_features.part_looked_at(shape, (40, 56, 40), (35, 50, 37))
    assert [(along.start, along.stop) for along in found] == part


def test_what_a_finder_saw_is_unusual_and_only_other_values_do_not_fit():
    looks, values = fit.Fit("unfit", 9.0, ("It looks odd.",)), fit.Fit("unfit", 9.0, ("It is a CT.",), other_kind=True)
    found = looks.with_structure_found()
    assert found.verdict == "unusual" and found.warnings[0] == "It looks odd."
    assert found.warnings[1].startswith("The finder saw the structure")
    assert values.with_structure_found() == values
    usual = fit.Fit("fits", 1.0)
    assert fit.worst([usual.with_structure_found(), looks.with_structure_found(), usual]).verdict == "unusual"


# --- statistics


def test_the_distance_is_that_of_mahalanobis_and_of_what_is_left(features):
    statistics = FitStatistics.of_cases(features[:30, None], features[30:, None], "0" * 64, SIZE)
    train = features[:30]
    deviation = train.std(axis=0) + 1e-3 * np.abs(train.mean(axis=0)).mean() + 1e-6
    z, other = ((rows - train.mean(axis=0)) / deviation for rows in (train, features[30:]))
    values, vectors = np.linalg.eigh(z.T @ z / len(z))
    first, rest = vectors[:, ::-1][:, :10], vectors[:, ::-1][:, 10:]
    along = ((other @ first) ** 2 / values[::-1][:10]).mean(axis=1)
    left = ((other @ rest) ** 2).sum(axis=1) / ((z @ rest) ** 2).sum(axis=1).mean()
    np.testing.assert_allclose(statistics.joint(features[30:]), along + left, rtol=0.03)


def test_scores_are_those_of_other_cases_about_zero_and_of_strangers_high(features):
    statistics = FitStatistics.of_cases(features[:30, None], features[30:, None], "0" * 64, SIZE)
    assert abs(np.median(statistics.score(features[30:]))) < 1
    assert (statistics.score(features[30:]) < fit.UNUSUAL).mean() >= 0.9
    assert (statistics.score(features + 30) > fit.UNFIT).all()
    assert [fit.verdict_of(score, score) for score in (0, 2.4, 2.5, 3.9, 4, float("nan"))] == [
        *("fits", "fits", "unusual", "unusual", "unfit", "unfit")
    ]
    assert fit.verdict_of(9, 1) == "unusual"
    with pytest.raises(ValueError, match="9 training cases"):
        FitStatistics.of_cases(features[:9, None], features[30:, None], "0" * 64, SIZE)


def test_the_images_own_features_count_for_themselves(features):
    few = FitStatistics.of_cases(features[:30, None], features[30:, None], "0" * 64, SIZE, image_features=3)
    joint = FitStatistics.of_cases(features[:30, None], features[30:, None], "0" * 64, SIZE).score(features)
    image = Distance.of_cases(features[:30, None, -3:], features[30:, None, -3:]).score(features[:, -3:])
    assert (joint > image).any() and (image > joint).any()
    np.testing.assert_array_equal(few.score(features), np.maximum(joint, image))


def copies_of(features, **moves) -> dict[str, list[np.ndarray]]:
    """Of each of 30 training cases one copy with each fault, which moves its features."""
    return {name: [row[None] + move for row in features[:30]] for name, move in moves.items()}


def test_ridge_regression_finds_the_direction_of_fishers_discriminant(features):
    small = (features - features.mean(axis=0)) / 4  # nothing is cut off
    one, other = small[:20], small[20:] + np.arange(12) / 4
    weights, middle = distance.discriminant(one, other, ridge=0.3)
    targets = np.repeat([-1.0, 1.0], 20)
    rows = np.concatenate([one, other]) - (one.mean(axis=0) + other.mean(axis=0)) / 2
    ridge = 0.3 * np.square(rows).sum() / 40
    expected = np.linalg.solve(rows.T @ rows + ridge * np.eye(12), rows.T @ targets)
    np.testing.assert_allclose(weights, expected, atol=1e-9)
    np.testing.assert_allclose(middle, (one.mean(axis=0) + other.mean(axis=0)) / 2)


def test_faults_of_copies_are_known_again_and_what_cannot_be_seen_is_left_out(features):
    move = np.zeros(12)
    move[2], nothing = 12, np.zeros(12)
    copies = copies_of(features, **{"noise": move, "turned: i mirrored": nothing})
    few = {"clipped": [rows if n < 9 else rows[:0] for n, rows in enumerate(copies["noise"])]}
    statistics = FitStatistics.of_cases(
        features[:30, None], features[30:, None], "0" * 64, SIZE, copies={**copies, **few}
    )
    assert isinstance(statistics.faults, Faults) and statistics.faults.names == ("noise",)
    assert [statistics.fault_of(row + move) for row in features[30:]] == ["noise"] * 10
    assert sum(statistics.fault_of(row) is not None for row in features[30:]) <= 1
    joint, fault = statistics.joint.score(features + move), statistics.fault_scores(features + move)[:, 0]
    np.testing.assert_array_equal(statistics.score(features + move), np.maximum(joint, np.minimum(fault, fit.UNUSUAL)))


@pytest.mark.parametrize(
    ("fault", "words"),
    [("noise", "noisier"), ("inverted", "inverted"), ("turned: j mirrored", "mirrored or turned"), ("beside", "ROI")],
)
def test_the_reason_names_the_fault(features, fault, words):
    move = np.full(12, 6.0)
    statistics = FitStatistics.of_cases(
        features[:30, None], features[30:, None], "0" * 64, SIZE, copies=copies_of(features, **{fault: move})
    )
    model = {"name": "It", "intensity": {"rule": "clip-zscore"}, "modality": "MR"}
    found = fit.judged(statistics, features[35] + move, model, lowest=0.0)
    assert found.verdict != "fits" and words in found.reasons[1]
    as_ct = fit.judged(statistics, features[35] + move, model, lowest=-1000.0)
    assert as_ct.reasons[1:] == ("This looks like a CT (its values begin at -1000); the model was trained on MR.",)


def test_statistics_are_kept_small_and_come_back(features):
    copies = copies_of(features, noise=np.full(12, 6.0))
    statistics = FitStatistics.of_cases(features[:30, None], features[30:, None], "ab" * 32, SIZE, 3, copies)
    content = statistics.to_bytes()
    again = FitStatistics.from_bytes(content)
    assert (again.weights, again.size, again.faults.names) == ("ab" * 32, SIZE, ("noise",))
    np.testing.assert_allclose(again.score(features), statistics.score(features), atol=0.05)
    np.testing.assert_allclose(again.fault_scores(features), statistics.fault_scores(features), atol=0.05)


def spoiled(content: bytes, **changes) -> bytes:
    with np.load(io.BytesIO(content)) as file:
        arrays = {name: file[name] for name in file.files}
    stream = io.BytesIO()
    np.savez_compressed(stream, **{**arrays, **changes})
    return stream.getvalue()


def test_a_file_that_cannot_be_right_judges_nothing_and_breaks_nothing(features, tmp_path):
    package = make_tiny_package(tmp_path / "m")
    copies = copies_of(features, noise=np.full(12, 6.0))
    statistics = FitStatistics.of_cases(features[:30, None], features[30:, None], package.sha256, SIZE, copies=copies)
    good = statistics.to_bytes()
    for content, why in (
        (good[:-40], "cannot be used"),
        (b"nothing", "cannot be used"),
        (spoiled(good, joint_mean=np.zeros(3)), "do not fit each other"),
        (spoiled(good, joint_numbers=np.array([1.0, np.nan, 1.0])), "cannot be right"),
        (spoiled(good, joint_deviation=np.zeros(12)), "cannot be right"),
        (spoiled(good, fault_weights=np.zeros((1, 3))), "do not fit each other"),
        (spoiled(good, fault_numbers=np.zeros((2, 1))), "cannot be right"),
        (spoiled(good, joint_mean=np.zeros(12, object)), "cannot be used"),
        (spoiled(good, joint_mean=np.zeros(2_000_000)), "too much"),
        (spoiled(good, weights=np.array("cd" * 32)), "other weights"),
        (spoiled(good, size=np.array([4, 4])), "another network"),
        (good, "another network"),
    ):
        package.fit_path.write_bytes(content)
        result = Segmenter(package, "cpu").segment(smooth_volume())
        assert result.fit.verdict == "unknown"
        assert why in result.fit.reasons[0]
        assert not result.notices


def test_an_older_package_cannot_judge_and_says_so(tiny, volume):
    result = Segmenter(tiny, "cpu").segment(volume).fit
    assert result.as_dict() == {"verdict": "unknown", "score": None, "reasons": list(result.reasons)}
    assert "no statistics of its training images" in result.reasons[0]


# --- making them


def labelled_folder(folder: Path, count: int) -> LabelledFolder:
    """Smooth volumes with labels; the last two cases are for validation."""
    names = [f"case{n:02d}" for n in range(count)]
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for n, name in enumerate(names):
        image = smooth_volume((20, 22, 24), seed=n)
        write_labels(
            folder / "imagesTr" / f"{name}_0000.nii.gz", np.clip(image.array[0], 0, 255).astype(np.uint8), image, []
        )
        write_labels(folder / "labelsTr" / f"{name}.nii.gz", np.ones(image.shape, np.uint8), image, [])
    splits = {"train": names[:-2], "val": names[-2:], "test": []}
    (folder / "splits.json").write_text(json.dumps(splits))
    (folder / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "MR"}, "labels": {"background": 0, "it": 1}})
    )
    return LabelledFolder.open(folder)


def test_a_packages_statistics_are_made_from_its_training_cases_and_travel_with_it(tmp_path):
    folder = labelled_folder(tmp_path / "data", 14)
    package = make_tiny_package(tmp_path / "m", orientation="RAS", spacing=None, patch_size=[16, 16, 16])
    content = fit_statistics(Segmenter(package, "cpu"), folder)
    package.fit_path.write_bytes(content)
    imported = import_package(package.folder)
    assert imported.fit_path.read_bytes() == content
    segmenter = Segmenter(imported, "cpu")
    own = read_image(folder.cases["case12"].images)
    assert segmenter.fit_of(own).verdict == "fits"
    inverted = replace(own, array=255 - own.array)
    assert segmenter.fit_of(inverted).score > segmenter.fit_of(own).score


def test_a_box_as_people_draw_it_holds_all_labels():
    labels, random = np.zeros((20, 30, 40), np.uint8), np.random.default_rng(0)
    assert drawn_box(labels, random) == ((0, 20), (0, 30), (0, 40))
    labels[5:9, 10:12, 30:40] = 2
    labels[0, 0, 0] = IGNORED
    boxes = [drawn_box(labels, random) for _ in range(50)]
    for (a, b), (c, d), (e, f) in boxes:
        assert 0 <= a <= 5 and 9 <= b <= 20 and 0 <= c <= 10 and 12 <= d <= 30 and 0 <= e <= 30 and f == 40
    assert len({box[0] for box in boxes}) > 20


def test_too_few_cases_make_no_statistics(tmp_path):
    folder = labelled_folder(tmp_path / "data", 11)
    assert fit_statistics(Segmenter(make_tiny_package(tmp_path / "m"), "cpu"), folder) is None


# --- at the doors


def report_of(capsys) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_every_bundled_model_can_judge_in_at_most_50_kb():
    for folder in bundled_models_folder().iterdir():
        package = ModelPackage.open(folder)
        if package.is_promptable:  # takes any image
            continue
        assert package.fit_path.stat().st_size <= 50_000
        assert isinstance(FitStatistics.of_package(package.fit_path, package.sha256), FitStatistics)


def test_the_sample_fits_its_model(tmp_path, capsys):
    assert main(["segment", str(SAMPLE), "-m", "hippocampus-mr", "-o", str(tmp_path / "a.nii.gz"), "--json"]) == 0
    (case,) = report_of(capsys)["cases"]
    assert case["fit"]["verdict"] == "fits" and case["fit"]["reasons"] == []
    assert case["fit"]["score"] < fit.UNUSUAL


def test_what_does_not_fit_is_refused_with_an_exit_code_of_its_own_and_nothing_written(strange, tmp_path, capsys):
    output = tmp_path / "results" / "a.nii.gz"
    command = ["segment", str(strange), "-m", "hippocampus-mr", "-o", str(output), "--json"]
    assert main(command) == 4
    printed = capsys.readouterr()
    (case,) = json.loads(printed.out)["cases"]
    assert case["error"]["code"] == "does_not_fit"
    assert case["fit"]["verdict"] == "unfit" and case["fit"]["score"] > fit.UNFIT
    assert "looks like a CT" in case["fit"]["reasons"][1]
    assert "--force" in printed.err and "does not look like" in printed.err
    assert not output.exists()


def test_it_is_segmented_all_the_same_if_forced_and_the_result_says_what_it_is(strange, tmp_path, capsys):
    output = tmp_path / "a.nii.gz"
    assert main(["segment", str(strange), "-m", "hippocampus-mr", "-o", str(output), "--json", "--force"]) == 0
    printed = capsys.readouterr()
    (case,) = json.loads(printed.out)["cases"]
    assert case["fit"]["verdict"] == "unfit"
    assert any("does not look like" in notice for notice in case["notices"]) and output.exists()


def test_in_a_batch_the_others_are_done(strange, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    (images / "good_0000.nii.gz").write_bytes(SAMPLE.read_bytes())
    (images / "odd_0000.nii.gz").write_bytes(strange.read_bytes())
    assert main(["segment", str(images), "-m", "hippocampus-mr", "-o", str(tmp_path / "out"), "--json"]) == 3
    verdicts = {case["case"]: case["fit"]["verdict"] for case in report_of(capsys)["cases"]}
    assert verdicts == {"good": "fits", "odd": "unfit"}
    assert [path.name for path in (tmp_path / "out").glob("*.seg.nrrd")] == ["good.seg.nrrd"]


@tries("inference/segmenter.py: DoesNotFit(fit)")
def test_python_raises_the_verdict_unless_told_to_go_on(strange):
    segmenter, image = Segmenter(HIPPOCAMPUS, "cpu"), read_image(strange)
    with pytest.raises(DoesNotFit) as refusal:
        segmenter.segment(image)
    assert refusal.value.fit.verdict == "unfit" and refusal.value.remedy
    for option in ({"force": True}, {"refuse_unfit": False}):
        result = segmenter.segment(image, **option)
        assert result.fit == refusal.value.fit == segmenter.fit_of(image)
        assert result.notices == list(result.fit.reasons)


class Calls:
    """How often a network's first and last stage run, the encoder's and the decoder's."""

    def __init__(self, network) -> None:
        self.encoder = self.decoder = 0
        network.encoder[0].register_forward_pre_hook(lambda *_: self._count("encoder"))
        network.decoder[-1].register_forward_pre_hook(lambda *_: self._count("decoder"))

    def _count(self, name: str) -> None:
        setattr(self, name, getattr(self, name) + 1)


@pytest.mark.parametrize("half_on", ["", "cpu"])
@pytest.mark.parametrize(("slices", "tiles", "alone"), [(36, 1, 0), (44, 2, 0), (60, 2, 1)])
def test_the_encoder_runs_once_for_the_tile_that_the_fit_is_judged_by(slices, tiles, alone, half_on):
    sample = read_image(SAMPLE)
    image = replace(sample, array=np.pad(sample.array, [(0, 0)] * 3 + [(0, 60)], mode="symmetric")[..., :slices])
    segmenter = Segmenter(HIPPOCAMPUS, "cpu")
    segmenter.network.half_on = half_on
    statistics, segmenter._statistics = segmenter._statistics, "left out"
    plain = segmenter.segment(image, outputs=["probabilities", "gate_map"], overlap=0.375)
    segmenter._statistics = statistics
    calls = Calls(segmenter.network)
    result = segmenter.segment(image, outputs=["probabilities", "gate_map"], overlap=0.375, refuse_unfit=False)
    assert (calls.decoder, calls.encoder) == (tiles, tiles + alone)
    for name in ("labels", "probabilities", "gate_map"):
        np.testing.assert_array_equal(getattr(result, name), getattr(plain, name))
    assert result.statistics == plain.statistics and result.fit == segmenter.fit_of(image)
    assert segmenter.network.kept is None and calls.decoder == tiles
    assert min(result.seconds.values()) >= 0


def test_an_image_that_does_not_fit_is_refused_before_anything_is_decoded(strange):
    segmenter = Segmenter(HIPPOCAMPUS, "cpu")
    calls = Calls(segmenter.network)
    with pytest.raises(DoesNotFit):
        segmenter.segment(read_image(strange))
    assert (calls.encoder, calls.decoder) == (1, 0) and segmenter.network.kept is None


def test_half_precision_moves_scores_but_little(strange):
    segmenter = Segmenter(HIPPOCAMPUS, "cpu")
    segmenter.network.half_on = "cpu"  # whether this processor is quick at it or not
    statistics = FitStatistics.of_package(segmenter.package.fit_path, segmenter.package.sha256)
    for path in (SAMPLE, strange):
        prepared = prepare(read_image(path), segmenter.package)
        exact, rough = (segmenter.features(prepared, statistics.size, half=half) for half in (False, True))
        assert (exact != rough).any()
        np.testing.assert_allclose(statistics.score(rough[None]), statistics.score(exact[None]), atol=0.3, rtol=0.05)
        np.testing.assert_allclose(
            statistics.fault_scores(rough[None]), statistics.fault_scores(exact[None]), atol=0.3, rtol=0.05
        )


def test_of_a_picture_all_is_judged_and_of_a_volume_the_region_of_interest(tmp_path):
    flat = make_tiny_package(tmp_path / "flat", dimension=2)
    picture, seen = smooth_volume((30, 24, 3)), []
    segmenter = Segmenter(flat, "cpu")
    segmenter._fit_of = lambda prepared: seen.append(prepared.box) or fit.Fit("fits", 0.0)
    segmenter.segment(picture, roi=((4, 14), (5, 15), (1, 2)))
    assert seen == [((0, 30), (0, 24), (1, 2))]
    deep = Segmenter(make_tiny_package(tmp_path / "deep", spacing=None), "cpu")
    deep._fit_of = segmenter._fit_of
    deep.segment(smooth_volume((30, 24, 26)), roi=((4, 24), (5, 20), (3, 20)))
    assert seen[1:] == [((4, 24), (5, 20), (3, 20))]
