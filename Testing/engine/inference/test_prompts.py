"""Strokes answered by a promptable model, through Python and the command line; random weights, real inference."""

import shutil

import nibabel
import numpy as np
import pytest
import SimpleITK

from prosma import Image, Prompts, Segmenter
from prosma.cancel import Cancelled
from prosma.cli import main
from prosma.correct.crop import inside
from prosma.correct.prompt_input import BELONGS, Said
from prosma.correct.prompting import prompted
from prosma.errors import EngineError
from prosma.image.box import slices
from prosma.package import PackageError
from prosma.package.schema import check_description
from remedies import tries
from tiny_model import make_tiny_package, make_tiny_promptable

SHAPE = (50, 44, 40)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    return Segmenter(make_tiny_promptable(tmp_path_factory.mktemp("prompt") / "package"), "cpu")


@pytest.fixture(scope="module")
def image():
    values = np.random.default_rng(0).normal(100, 20, (1, *SHAPE)).astype(np.float32)
    return Image(values, np.diag([1.0, 1.0, 1.5, 1.0]))


def stroke(where):
    array = np.zeros(SHAPE, bool)
    array[where] = True
    return array


def test_strokes_are_honoured_and_nothing_beyond_the_change_is_touched(segmenter, image):
    add, remove = stroke(np.s_[20:30, 20, 18]), stroke(np.s_[24:28, 26:28, 18])
    mask = np.random.default_rng(1).random(SHAPE) > 0.5
    before = mask.copy()
    result = segmenter.prompt(image, Prompts(add=add, remove=remove, mask=mask))
    assert np.array_equal(mask, before) and result.box is not None
    after = result.on(mask)
    assert after[add & ~remove].all() and not after[remove].any()
    outside = np.ones(SHAPE, bool)
    outside[slices(result.box)] = False
    assert np.array_equal(after[outside], mask[outside])
    again = segmenter.prompt(image, Prompts(add=add, remove=remove, mask=mask))
    assert again.box == result.box and np.array_equal(again.mask, result.mask)


def test_earlier_strokes_stay_true_and_the_last_word_counts(segmenter, image):
    first, second = stroke(np.s_[20:30, 20, 18]), stroke(np.s_[25:27, 18:23, 18])
    mask = segmenter.prompt(image, Prompts(add=first)).on(np.zeros(SHAPE, bool))
    after = segmenter.prompt(image, Prompts(remove=second, earlier_add=first, mask=mask)).on(mask)
    assert after[first & ~second].all() and not after[second].any()
    back = segmenter.prompt(image, Prompts(add=second, earlier_add=first, earlier_remove=second, mask=after)).on(after)
    assert back[first | second].all()


def test_earlier_strokes_far_away_stay_true_where_the_mask_does_not_follow_them(tmp_path):
    shape = (200, 44, 40)
    values = np.random.default_rng(0).normal(100, 20, (1, *shape)).astype(np.float32)
    segmenter = Segmenter(make_tiny_promptable(tmp_path / "package"), "cpu")
    add, far, taken, mask = (np.zeros(shape, bool) for _ in range(4))
    add[20:30, 20, 18] = far[180:185, 20, 18] = taken[150:155, 20, 18] = mask[140:160, 15:25, 18] = True
    prompts = Prompts(add=add, earlier_add=far, earlier_remove=taken, mask=mask)
    after = segmenter.prompt(Image(values, np.eye(4)), prompts).on(mask)
    assert after[add | far].all() and not after[taken].any()
    assert np.array_equal(after[170:], far[170:])


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        (Prompts(), "Nothing says"),
        (Prompts(remove=stroke(np.s_[3:5, 3, 3])), "only strokes that take away"),
        (Prompts(add=np.ones((3, 3, 3), bool)), "add has 3 x 3 x 3 voxels, the image 50 x 44 x 40"),
        (Prompts(box=((5, 5), (0, 3), (0, 3))), "is empty or reaches beyond"),
        (Prompts(box=((5, 51), (0, 3), (0, 3))), "is empty or reaches beyond"),
    ],
)
def test_what_makes_no_sense_is_refused(segmenter, image, prompts, words):
    with pytest.raises(EngineError, match=words) as caught:
        segmenter.prompt(image, prompts)
    assert caught.value.code == "bad_input" and caught.value.remedy


def test_models_for_strokes_and_others_are_not_mixed_up(segmenter, image, tmp_path):
    with pytest.raises(EngineError, match="segments what strokes mean"):
        segmenter.segment(image)
    usual = Segmenter(make_tiny_package(tmp_path / "usual"), "cpu")
    with pytest.raises(EngineError, match="answers no strokes"):
        usual.prompt(image, Prompts(add=stroke(np.s_[3, 3, 3])))
    picture = Image(np.zeros((1, 30, 30, 1), np.float32), np.eye(4))
    with pytest.raises(EngineError, match="a single picture"):
        segmenter.prompt(picture, Prompts(add=np.ones((30, 30, 1), bool)))
    assert segmenter.package.is_promptable and not usual.package.is_promptable


def test_pictures_colours_and_several_channels(segmenter, image, tmp_path):
    flat = Segmenter(make_tiny_promptable(tmp_path / "flat", dimension=2, channels=3, id="flat"), "cpu")
    values = np.random.default_rng(0).normal(0, 1, (1, 40, 30, 1)).astype(np.float32)
    add = np.zeros((40, 30, 1), bool)
    add[10:20, 15, 0] = True
    for channels in (1, 3, 4):
        picture = Image(np.repeat(values, channels, 0), np.eye(4), spacing_known=False)
        result = flat.prompt(picture, Prompts(add=add))
        assert result.on(np.zeros_like(add))[add].all()
        assert any("first 3" in notice for notice in result.notices) == (channels == 4)
    clear = np.repeat(image.array, 3, 0) * [[[[1]]], [[[1]]], [[[1]]]]
    add = stroke(np.s_[20:30, 20:22, 18])
    clear[1][add] += 500  # what was stroked stands out in the second channel
    result = segmenter.prompt(Image(clear.astype(np.float32), image.ijk_to_ras), Prompts(add=add))
    assert any("channel 2" in notice for notice in result.notices)


def test_a_cancelled_run_ends(segmenter, image):
    with pytest.raises(Cancelled):
        segmenter.prompt(image, Prompts(add=stroke(np.s_[20:30, 20, 18])), cancelled=lambda: True)


def test_packages_must_have_the_channels_that_they_name(tmp_path):
    model = make_tiny_promptable(tmp_path / "right").model
    model["network"]["in_channels"] = 6
    with pytest.raises(PackageError, match=r"network.in_channels' should be 7"):
        check_description(model)
    model["network"].update(in_channels=7, out_channels=3)
    model["labels"] = [{**model["labels"][0], "value": n, "name": f"object {n}"} for n in (1, 2)]
    with pytest.raises(PackageError, match=r"one label"):
        check_description(model)
    with pytest.raises(PackageError, match=r"prompt.channels"):
        make_tiny_promptable(tmp_path / "unknown", prompts=("likeness", "smell"))


def test_a_network_that_knows_the_object_fills_it_from_one_stroke():
    """The cube grows until the object fits, and its voxels come back to the image's grid."""
    grid = np.ogrid[:80, :70, :40]
    truth = sum(((g - c) * s) ** 2 for g, c, s in zip(grid, (40, 36, 20), (1, 1, 2), strict=True)) <= 25**2
    image = np.where(truth, 100.0, 0.0).astype(np.float32)[None]
    said = Said.nothing(truth.shape)
    said.belongs[38:44, 36, 20] = True
    said.newest = ((38, 44), (36, 37), (20, 21))
    cubes = []

    def oracle(patch):
        cubes.append(patch)
        return np.where(patch[0] > 0, 4.0, -4.0)

    result = prompted(image, said, (1, 1, 2), oracle, (32, 32, 32))
    mask = result.on(said.mask)
    assert len(cubes) > 1 and 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.95
    assert inside(result.box, truth.shape) == result.box


def test_a_first_stroke_is_looked_at_in_larger_cubes_while_the_object_may_go_on():
    """A network that sees no end of the object marks little but rules nothing out; correcting a mask, that is enough."""
    truth = np.zeros((80, 80, 80), bool)
    truth[15:65, 15:65, 15:65] = True
    image = np.where(truth, 100.0, 0.0).astype(np.float32)[None]
    cubes = []

    def careful(patch):
        cubes.append(patch)
        if np.ptp(patch[0]) < 1e-3:
            return np.where(patch[BELONGS] > 0, 4.0, -2.0)
        return np.where(patch[0] > 0, 4.0, -6.0)

    said = Said.nothing(truth.shape)
    said.belongs[38:42, 40, 40] = True
    said.newest = ((38, 42), (40, 41), (40, 41))
    mask = prompted(image, said, (1, 1, 1), careful, (32, 32, 32)).on(said.mask)
    assert len(cubes) > 1 and 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.95
    cubes.clear()
    said.mask[36:39, 39:42, 39:42] = True
    prompted(image, said, (1, 1, 1), careful, (32, 32, 32))
    assert len(cubes) == 1


@pytest.mark.parametrize("shape", [(70, 60, 50), (70, 60, 1)])
def test_what_a_box_goes_around_lies_in_it_or_a_little_beside_and_no_larger_cube_is_looked_at(shape):
    place = tuple((1, n - 30) if n > 1 else (0, 1) for n in shape)
    said = Said.nothing(shape)
    said.region, said.newest = np.zeros(shape, bool), place
    said.region[slices(place)] = True
    cubes = []

    def everything(patch):
        cubes.append(patch)
        return np.full(patch.shape[1:], 9.0, np.float32)

    image = np.random.default_rng(0).normal(0, 1, (1, *shape)).astype(np.float32)
    size = [32 if n > 1 else 1 for n in shape]
    mask = prompted(image, said, (1.0, 1.0, 1.0), everything, size).on(said.mask)
    assert len(cubes) == 1 and mask[slices(place)].all()
    rows = np.argwhere(mask)
    for axis, (low, high) in enumerate(place):
        beside = 0.15 * (high - low) + 4  # voxels of a patch are up to three of the image's
        assert low - beside <= rows[:, axis].min() and rows[:, axis].max() < high + beside


def test_a_lasso_on_a_slice_leaves_open_how_far_the_object_goes_on_others():
    ball = np.linalg.norm(np.indices((60, 60, 60)) - 30, axis=0) < 13
    image = np.where(ball, 100.0, 0.0).astype(np.float32)[None]
    said = Said.nothing(ball.shape)
    said.region, said.newest = np.zeros(ball.shape, bool), ((17, 43), (17, 43), (30, 31))
    said.region[slices(said.newest)] = True
    mask = prompted(image, said, (1, 1, 1), lambda patch: np.where(patch[0] > 0, 4.0, -4.0), (32, 32, 32)).on(said.mask)
    assert 2 * (mask & ball).sum() / (mask.sum() + ball.sum()) > 0.9


def test_a_second_look_mends_the_border_of_large_objects_and_nothing_else():
    grid = np.ogrid[:120, :110, :60]
    truth = sum(((g - c) * s) ** 2 for g, c, s in zip(grid, (60, 52, 30), (1, 1, 2), strict=True)) <= 40**2
    truth &= ~((grid[0] % 8 < 3) & (grid[1] > 70))  # teeth that a coarse patch cannot hold
    image = np.where(truth, 100.0, 0.0).astype(np.float32)[None]
    said = Said.nothing(truth.shape)
    said.belongs[30:90, 50, 30] = True
    said.newest = ((30, 90), (50, 51), (30, 31))
    overlaps, found, looks = [], [], []

    def oracle(patch):
        looks.append(patch)
        return np.where(patch[0] > 0, 4.0, -4.0)

    for fine in (False, True):
        result = prompted(image, said, (1, 1, 2), oracle, (32, 32, 32), fine)
        mask = result.on(said.mask)
        found.append(result)
        overlaps.append(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
    assert overlaps[1] > overlaps[0] + 0.05 and overlaps[1] > 0.93
    assert len(looks) <= 6, "a person waits for it"
    assert found[0].box == found[1].box and not said.mask.any()
    assert found[1].on(said.mask)[said.belongs].all()


@tries("cli/prompt.py: so that it holds no log odds")
def test_the_command_line_gives_the_same_bytes_and_refuses_in_words(segmenter, image, tmp_path, capsys):
    add, mask = stroke(np.s_[20:30, 20, 18]), stroke(np.s_[18:40, 10:30, 10:30])
    files = {"image": image.array[0], "add": add, "mask": mask, "elsewhere": add[1:]}
    for name, array in files.items():
        stored = array.astype(np.float32 if name == "image" else np.uint8)
        nibabel.save(nibabel.Nifti1Image(stored, image.ijk_to_ras), tmp_path / f"{name}.nii.gz")
    path = {name: str(tmp_path / f"{name}.nii.gz") for name in (*files, "out", "box", "none")}
    usual = ["prompt", path["image"], "-m", str(segmenter.package.folder), "--device", "cpu"]
    assert main([*usual, "--add", path["add"], "--mask", path["mask"], "-o", path["out"]]) == 0
    expected = segmenter.prompt(image, Prompts(add=add, mask=mask)).on(mask)
    assert np.array_equal(np.asanyarray(nibabel.load(path["out"]).dataobj), expected)
    assert main([*usual, "--box", "10", "30", "10", "30", "5", "25", "-o", path["box"]]) == 0
    boxed = segmenter.prompt(image, Prompts(box=((10, 30), (10, 30), (5, 25)))).on(np.zeros(SHAPE, bool))
    assert np.array_equal(np.asanyarray(nibabel.load(path["box"]).dataobj), boxed)
    odds = np.random.default_rng(5).normal(0, 3, SHAPE).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(odds, image.ijk_to_ras), tmp_path / "odds.nii.gz")
    both = SimpleITK.GetImageFromArray(np.stack([-odds.T, odds.T], axis=-1), isVector=True)
    both.CopyInformation(SimpleITK.ReadImage(path["image"]))
    SimpleITK.WriteImage(both, tmp_path / "two.mha")  # as `segment` writes probabilities
    more = ["--lasso", path["mask"], "--earlier-remove", path["add"], "--log-odds", str(tmp_path / "odds.nii.gz")]
    assert main([*usual, *more, "-o", str(tmp_path / "more.nii.gz")]) == 0
    prompts = Prompts(region=mask, earlier_remove=add, log_odds=odds)
    expected = segmenter.prompt(image, prompts).on(np.zeros(SHAPE, bool))
    assert np.array_equal(np.asanyarray(nibabel.load(tmp_path / "more.nii.gz").dataobj), expected)
    without = segmenter.prompt(image, Prompts(region=mask, earlier_remove=add)).on(np.zeros(SHAPE, bool))
    assert not np.array_equal(expected, without), "a model's log odds make a difference"
    (tmp_path / "link.nii.gz").symlink_to(path["image"])
    (tmp_path / "folder.nii.gz").mkdir()
    nibabel.save(nibabel.Nifti1Image(np.full(SHAPE, np.nan, np.float32), image.ijk_to_ras), tmp_path / "nan.nii.gz")
    capsys.readouterr()
    for arguments, words in (
        (["--add", path["add"], "-o", path["out"]], "is there already"),
        (["--add", path["add"], "-o", path["add"]], "made from"),
        (["--add", path["add"], "-o", str(tmp_path / "link.nii.gz"), "--again"], "made from"),
        (["--add", path["add"], "-o", str(tmp_path / "folder.nii.gz"), "--again"], "is a folder"),
        (
            ["--add", path["add"], "--log-odds", str(tmp_path / "nan.nii.gz"), "-o", path["none"]],
            "nan.nii.gz: The volume",
        ),
        (["--add", path["elsewhere"], "-o", path["none"]], "does not lie on the image's grid"),
        (["--add", str(tmp_path / "absent.nii.gz"), "-o", path["none"]], "There is no label map --add"),
        (["--lasso", path["elsewhere"], "-o", path["none"]], "does not lie on the image's grid"),
        (["--add", path["add"], "--log-odds", path["elsewhere"], "-o", path["none"]], "Make the image from this image"),
        (["--add", path["add"], "--log-odds", path["add"], "-o", path["none"]], "no value below 0"),
        (
            ["--add", path["add"], "--log-odds", str(tmp_path / "two.mha"), "-o", path["none"]],
            "2 channels, one for each",
        ),
        (["-o", path["none"]], "Nothing says"),
        (["--add", path["add"], "-o", str(tmp_path / "absent/out.nii.gz")], "no folder"),
        (["--add", path["add"], "-o", str(tmp_path / "out.txt")], "does not end like a label map"),
    ):
        assert main([*usual, *arguments]) == 1
        assert words in capsys.readouterr().err
    assert not (tmp_path / "none.nii.gz").exists()
    assert main([*usual, "--add", path["add"], "-o", path["out"], "--again"]) == 0
    assert main([*usual, "--add", path["add"], "--add", path["mask"], "-o", str(tmp_path / "two.nii.gz")]) == 0
    expected = segmenter.prompt(image, Prompts(add=add | mask)).on(np.zeros(SHAPE, bool))
    assert np.array_equal(np.asanyarray(nibabel.load(tmp_path / "two.nii.gz").dataobj), expected)


def test_strokes_in_a_jpeg_are_those_of_the_same_png(tmp_path, capsys):
    model = make_tiny_promptable(tmp_path / "flat", dimension=2, id="flat").folder
    values = np.random.default_rng(0).integers(0, 255, (60, 50), np.uint8)
    add = np.zeros((60, 50), np.uint8)
    add[21:34, 18:27] = 255
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values), tmp_path / "scan.png")
    found = []
    for kind in ("png", "jpg"):
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(add), tmp_path / f"add.{kind}", False, 30)
        words = ["--add", str(tmp_path / f"add.{kind}"), "-o", str(tmp_path / f"{kind}.nrrd"), "--device", "cpu"]
        assert main(["prompt", str(tmp_path / "scan.png"), "-m", str(model), *words]) == 0
        found.append(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(tmp_path / f"{kind}.nrrd")))
    smeared = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(tmp_path / "add.jpg"))
    assert np.array_equal(smeared > 127, add > 0) and not np.array_equal(smeared > 0, add > 0)
    assert np.array_equal(*found)


def test_without_m_the_installed_model_answers_and_where_there_is_none_the_remedy_works(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PROSMA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("prosma.package.folders.bundled_models_folder", lambda: None)
    values = np.random.default_rng(0).normal(100, 20, (20, 22, 24)).astype(np.float32)
    add = np.zeros(values.shape, np.uint8)
    add[8:12, 11, 12] = 1
    for name, array in (("scan", values), ("add", add)):
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / f"{name}.nii.gz")
    command = ["prompt", str(tmp_path / "scan.nii.gz"), "--add", str(tmp_path / "add.nii.gz"), "--device", "cpu"]
    make_tiny_promptable(tmp_path / "home/models/flat", dimension=2, id="flat")
    assert main([*command, "-o", str(tmp_path / "none.nii.gz")]) == 1
    said = capsys.readouterr().err
    assert "No model for strokes in volumes is installed" in said and str(tmp_path / "home/models") in said
    package = make_tiny_promptable(tmp_path / "elsewhere")
    shutil.copytree(package.folder, tmp_path / "home/models/strokes")  # what the sentence says
    assert main([*command, "-o", str(tmp_path / "out.nii.gz")]) == 0
    expected = Segmenter(package, "cpu").prompt(Image(values[None], np.eye(4)), Prompts(add=add > 0))
    found = np.asanyarray(nibabel.load(tmp_path / "out.nii.gz").dataobj)
    assert np.array_equal(found, expected.on(np.zeros(values.shape, bool)))
