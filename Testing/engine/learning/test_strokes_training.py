"""A simulated person and a network in turns: what is drawn from the data, what the person says, what the network sees."""

import json
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import pytest
import torch
import yaml
from scipy import ndimage

from prosma import Prompts, Segmenter, read_image
from prosma.cli import main
from prosma.correct.crop import box_on_array, cube, cut, first_cube, grown_cube, marked, touches
from prosma.correct.prompt_input import BELONGS, LIKENESS, LOG_ODDS, MASK, PROMPT_CHANNELS, Said, patch_of
from prosma.image.box import shape_of, slices
from prosma.learning.data.dataset import DatasetError
from prosma.learning.fit.fitting import train
from prosma.learning.recipe import Recipe, Strokes
from prosma.learning.strokes.objects import pseudo_object
from prosma.learning.strokes.person import next_remark
from prosma.learning.strokes.scenes import Scene, Scenes, start_wrong
from prosma.learning.strokes.sessions import Session
from prosma.learning.strokes.sets import read_sets

RECIPES = Path(__file__).parents[3] / "training/recipes"
NAMES = {"background": 0, "right kidney": 1, "spleen": 2}


def ball(shape, centre, radius, spacing=(1, 1, 1)):
    grid = np.ogrid[tuple(slice(n) for n in shape)]
    return sum(((g - c) * s) ** 2 for g, c, s in zip(grid, centre, spacing, strict=True)) <= radius**2


def write_set(folder, cases, seed):
    """A set of volumes with two balls, bright and dark: label 1 and label 2."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for case in cases:
        labels = np.zeros((30, 28, 26), np.uint8)
        labels[ball(labels.shape, rng.uniform(8, 12, 3), 5)] = 1
        labels[ball(labels.shape, rng.uniform(18, 21, 3), 4)] = 2
        image = np.array([0, 300, -200])[labels] + rng.normal(0, 20, labels.shape)
        affine = np.diag([1.0, 1.0, 1.5, 1.0])
        nibabel.save(nibabel.Nifti1Image(image.astype(np.int16), affine), folder / "imagesTr" / f"{case}_0000.nii.gz")
        nibabel.save(nibabel.Nifti1Image(labels, affine), folder / "labelsTr" / f"{case}.nii.gz")
    (folder / "dataset.json").write_text(json.dumps({"labels": NAMES}))
    (folder / "splits.json").write_text(json.dumps({"train": cases[:-1], "val": cases[-1:]}))
    return folder


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A folder of three sets of volumes."""
    base = tmp_path_factory.mktemp("sets")
    for number, name in enumerate(("first", "second", "unseen")):
        write_set(base / name, [f"{name}{n}" for n in range(3)], number)
    return base


def small_recipe(**fitting):
    recipe = yaml.safe_load((RECIPES / "strokes-3d.yaml").read_text(encoding="utf-8"))
    recipe["model"]["patch_size"] = [16, 16, 16]
    recipe["network"]["features"] = [4, 8]
    recipe["strokes"].update(left_out=["unseen"], validation_scenes=2, validation_rounds=5)
    recipe["fitting"].update(epochs=2, iterations=3, batch_size=2, validate_every=1, **fitting)
    return recipe


def test_sets_and_labels_that_are_left_out_are_never_seen(sets):
    strokes = Strokes(left_out=["unseen"], left_out_labels=["Spleen"])
    volumes = read_sets(sets, strokes, 3)
    assert {volume.set for part in volumes.values() for volume in part} == {"first", "second"}
    assert [len(volumes[part]) for part in ("train", "val")] == [4, 2]
    for volume in volumes["train"]:
        raw = np.asanyarray(nibabel.load(sets / volume.set / "labelsTr" / f"{volume.id}.nii.gz").dataobj)
        where = np.argwhere(raw == 1)
        assert volume.boxes == {1: tuple((int(a), int(b) + 1) for a, b in zip(where.min(0), where.max(0), strict=True))}
    with pytest.raises(DatasetError, match="leave out"):
        read_sets(sets / "unseen", strokes, 3)


def test_a_name_that_leaves_nothing_out_is_told_and_a_fold_is_that_of_the_sets(sets, caplog):
    read_sets(sets, Strokes(left_out=["unsene", "unseen"], left_out_labels=["spleeen", "spleen"]), 3)
    assert "leaves out unsene, spleeen, but nothing" in caplog.text
    caplog.clear()
    strokes = Strokes(left_out=["unseen"], left_out_labels=["spleen"])
    read_sets(sets, strokes, 3)
    assert not caplog.text
    with pytest.raises(DatasetError, match="no fold 99"):
        read_sets(sets, strokes, 3, fold=99)


def test_a_scene_is_a_function_of_its_number_and_shows_labels_that_were_asked_for(sets):
    strokes = Strokes(left_out=["unseen"], left_out_labels=["spleen"], pseudo_share=0.0, merged_share=0.0, stretch=1.0)
    for name in vars(strokes):
        if name.endswith("_probability") or name in ("inverted_share", "started_share", "part_share"):
            setattr(strokes, name, 0.0)
    volumes = read_sets(sets, strokes, 3)["train"]
    scenes = Scenes(volumes, strokes)
    for number in range(6):
        scene, again = (scenes.draw(np.random.default_rng(number)) for _ in range(2))
        assert np.array_equal(scene.image, again.image) and np.array_equal(scene.truth, again.truth)
        assert sorted(scene.spacing) == pytest.approx([1, 1, 1.5])
        assert scene.truth.sum() in {int((volume.labels == 1).sum()) for volume in volumes}
        assert scene.image[0][scene.truth].min() > scene.image[0][~scene.truth].mean()  # label 1 is the bright ball
        assert not scene.mask.any() and scene.log_odds is None


def test_changed_scenes_keep_object_and_image_together(sets):
    """Turned, stretched, thick or flipped: the bright ball stays where the object is."""
    strokes = Strokes(left_out=["unseen"], left_out_labels=["spleen"], pseudo_share=0.0, rotation_probability=1.0)
    strokes.thick_probability, strokes.curve_probability, strokes.inverted_share = 0.5, 0.0, 0.0
    strokes.window_probability = strokes.field_probability = strokes.noise_probability = 0.0
    scenes = Scenes(read_sets(sets, strokes, 3)["train"], strokes)
    for number in range(12):
        scene = scenes.draw(np.random.default_rng(number))
        bright = scene.image[0] > scene.image[0].max() * 0.5
        assert 2 * (bright & scene.truth).sum() / (bright.sum() + scene.truth.sum()) > 0.8


def test_a_person_strokes_inside_the_object_on_one_slice_then_in_what_is_wrong():
    truth = ball((30, 40, 20), (14, 20, 9), 9, (1, 1, 2))
    points = inside = 0
    for number in range(60):
        rng = np.random.default_rng(number)
        remark = next_remark(truth, np.zeros_like(truth), (1, 1, 2), rng, first=True)
        stroke = np.zeros_like(truth)
        stroke[slices(remark.box)] = remark.voxels
        if remark.region:
            assert (stroke & truth).any()
            continue
        assert remark.belongs and 1 in shape_of(remark.box)
        inside += (stroke & truth).sum() > 0.9 * stroke.sum()
        points += stroke.sum() <= 9
    assert inside > 40 and 2 < points < 30
    mask = truth | ball(truth.shape, (14, 33, 9), 5, (1, 1, 2))  # a part too many
    mask[:12] &= ~truth[:12]  # a larger one is missing: x below 12
    for number in range(20):
        remark = next_remark(truth, mask, (1, 1, 2), np.random.default_rng(number), first=False)
        stroke = np.zeros_like(truth)
        stroke[slices(remark.box)] = remark.voxels
        wrong = truth & ~mask if remark.belongs else mask & ~truth
        assert ndimage.binary_dilation(wrong, iterations=3)[stroke].all()
    assert next_remark(truth, truth, (1, 1, 2), np.random.default_rng(0), first=False) is None


def test_pseudo_objects_are_connected_regions_of_like_values():
    image = np.random.default_rng(0).normal(0, 0.05, (40, 40, 40))
    image[ball(image.shape, (20, 20, 20), 10)] += 2
    alike = []
    for number in range(12):
        result = pseudo_object(image, (1, 1, 1), np.random.default_rng(number))
        if result is None:
            continue
        box, voxels = result
        values = image[slices(box)]
        assert voxels.any() and not voxels.all()
        alike.append(values[voxels].std() < 0.7 * values.std())
    assert len(alike) > 5 and np.mean(alike) > 0.6
    assert pseudo_object(np.zeros((40, 40, 40)), (1, 1, 1), np.random.default_rng(0)) is None


def test_a_faulty_mask_to_begin_with_is_wrong_but_not_far_off():
    truth = ball((40, 40, 40), (20, 20, 20), 10)
    overlaps, odds = [], 0
    for number in range(20):
        scene = Scene(truth[None].astype(np.float32), truth, (1, 1, 1), np.zeros_like(truth))
        start_wrong(scene, np.random.default_rng(number))
        overlaps.append(2 * (scene.mask & truth).sum() / (scene.mask.sum() + truth.sum()))
        if scene.log_odds is not None:
            odds += 1
            assert ((scene.log_odds > 0) == scene.mask).mean() > 0.99
    assert 0.5 < np.mean(overlaps) < 0.97 and min(overlaps) < 0.9 and 3 < odds < 17


def test_the_cube_follows_what_was_said_and_grows_where_the_change_touches_it():
    box = first_cube(((40, 60), (50, 51), (20, 24)), (1.0, 1.0, 2.0), (100, 100, 50), zoom=2.5)
    assert shape_of(box) == (50, 50, 25)  # 2.5 times 20 mm
    assert all(
        low <= first and last <= high
        for (low, high), (first, last) in zip(box, ((40, 60), (50, 51), (20, 24)), strict=True)
    )
    assert shape_of(first_cube(((5, 6), (5, 6), (5, 6)), (1, 1, 2), (100, 100, 50))) == (32, 32, 16)  # a point
    assert cube(((0, 2), (0, 2), (0, 1)), 30, np.ones(3), (100, 20, 1)) == ((0, 30), (-5, 25), (0, 1))
    change = np.zeros((16, 16, 16), bool)
    change[12:, 4:12, 4:12] = True
    assert touches(change, box, (100, 100, 50)) and not touches(change[::-1], ((0, 50), *box[1:]), (100, 100, 50))
    around = box_on_array(change, ((10, 42), (0, 32), (0, 16)))
    assert around == ((34, 42), (8, 24), (4, 12))
    assert shape_of(grown_cube(((10, 42), (0, 32), (0, 16)), around, (1, 1, 2), (100, 100, 50))) == (48, 48, 24)


def test_patches_hold_what_was_said_where_it_was_said():
    image = np.random.default_rng(0).normal(100, 10, (1, 60, 50, 40)).astype(np.float32)
    image[0, 20:30, 20:30, 20:30] += 200
    said = Said.nothing(image.shape[1:])
    said.belongs[25, 22:28, 25] = True
    said.mask[22:28, 22:28, 22:28] = True
    box = ((10, 42), (-4, 28), (8, 40))
    patch = patch_of(image, said, box, (32, 32, 32))
    assert patch.shape == (1 + len(PROMPT_CHANNELS), 32, 32, 32) and patch.dtype == np.float32
    assert np.argwhere(patch[BELONGS]).tolist() == [[15, j + 4, 17] for j in range(22, 28)]
    assert np.array_equal(patch[MASK][:, 4:] > 0, said.mask[10:42, 0:28, 8:40])
    assert abs(patch[0].mean()) < 1e-4 and abs(patch[0].std() - 1) < 1e-4
    bright = image[0, 10:42, 0:28, 8:40] > 200
    likeness = patch[LIKENESS][:, 4:]
    assert likeness[bright].mean() > 0.5 and likeness[~bright].mean() < 0.1
    assert not patch[LOG_ODDS].any()
    half = marked(said.belongs, ((0, 60), (0, 50), (0, 40)), (30, 25, 20))  # a thin stroke on a coarse grid
    assert np.argwhere(half).tolist() == [[12, j, 12] for j in (11, 12, 13)]
    wide = marked(said.belongs, ((20, 30), (20, 30), (20, 30)), (20, 20, 20))
    assert wide.sum() == 8 * said.belongs.sum()
    assert cut(image, ((0, 60), (0, 50), (0, 40)), (60, 50, 40)).tolist() == image.tolist()


def test_the_answer_becomes_the_mask_and_the_next_stroke_corrects_it(sets):
    truth = ball((48, 48, 48), (22, 24, 24), 12)
    image = truth[None].astype(np.float32) + np.random.default_rng(0).normal(0, 0.1, (1, *truth.shape)).astype(
        np.float32
    )
    session = Session(Scene(image, truth, (1, 1, 1), np.zeros_like(truth)), (24, 24, 24), np.random.default_rng(3))
    assert session.speak()
    patch, goal = session.look()
    assert patch[BELONGS].any() and goal.any()
    session.receive(np.where(goal, 5.0, -5.0))  # a perfect answer
    assert 2 * (session.said.mask & truth).sum() / (session.said.mask.sum() + truth.sum()) > 0.9
    assert session.said.mask[session.said.belongs].all()
    before = session.said.mask.copy()
    assert session.speak()
    session.look()
    session.receive(np.full(goal.shape, -5.0))  # everything is wrong: strokes stay
    assert session.said.mask[session.said.belongs].all() and session.said.mask.sum() < before.sum()


def test_training_resumes_to_the_bit_and_makes_a_package(sets, tmp_path):
    recipe = tmp_path / "strokes.yaml"
    recipe.write_text(yaml.safe_dump(small_recipe()))
    assert Recipe.from_dict(json.loads(json.dumps(Recipe.read(recipe).to_dict()))) == Recipe.read(recipe)
    run = tmp_path / "whole"
    assert (
        main(["train", str(recipe), "--data", str(sets), "--out", str(run), "--device", "cpu", "--deterministic"]) == 0
    )
    history = json.loads((run / "history.json").read_text())
    assert history["cases"] == {"train": 4, "val": 2}
    assert [set(epoch) >= {"train/loss", "val/dice", "val/dice/1", "val/dice/5"} for epoch in history["epochs"]] == [
        True
    ] * 2
    broken = tmp_path / "broken"
    half = Recipe.from_dict(small_recipe())

    class Stopped(Exception):
        pass

    from prosma.learning.fit.prompting import PromptTask

    usual = PromptTask.on_train_epoch_start

    def stop(task):
        if task.current_epoch == 1:
            raise Stopped
        usual(task)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(PromptTask, "on_train_epoch_start", stop)
        train(half, sets, broken, deterministic=True, accelerator="cpu", workers=0)
    train(half, sets, broken, resume=True, deterministic=True, accelerator="cpu", workers=0)
    whole, resumed = (torch.load(path / "last.ckpt", weights_only=True)["state_dict"] for path in (run, broken))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert main(["export", str(run), "-o", str(tmp_path / "package")]) == 0
    assert json.loads((tmp_path / "package/model.json").read_text())["id"] == "strokes-3d"


def test_pictures_and_slices_are_learnt_together(sets, tmp_path):
    """Colours, grey slices of volumes, masks of 0 and 255: one network for single slices."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "first").symlink_to(sets / "first")
    pictures = folder / "pictures"
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (pictures / name).mkdir(parents=True)
    for number in range(4):
        mask = ball((60, 50), rng.uniform(20, 35, 2), 9, (1, 1))
        colours = np.where(mask[..., None], [200, 60, 60], [90, 90, 120]) + rng.normal(0, 5, (60, 50, 3))
        PIL.Image.fromarray(colours.clip(0, 255).astype(np.uint8)).save(pictures / "images" / f"p{number}.png")
        PIL.Image.fromarray((mask * 255).astype(np.uint8)).save(pictures / "masks" / f"p{number}.png")
    volumes = read_sets(folder, Strokes(), 2)["train"]
    assert {volume.set: volume.labels.shape[2] for volume in volumes} == {"first": 26, "pictures": 1}
    scenes = Scenes(volumes, Strokes(), channels=3, dimension=2)
    for number in range(10):
        scene = scenes.draw(np.random.default_rng(number))
        assert scene.image.shape[0] == 3 and scene.truth.shape[2] == 1 and scene.truth.any()
    recipe = yaml.safe_load((RECIPES / "strokes-2d.yaml").read_text(encoding="utf-8"))
    recipe["model"]["patch_size"] = [32, 32]
    recipe["network"]["features"] = [4, 8]
    recipe["strokes"].update(validation_scenes=2)
    recipe["fitting"].update(epochs=1, iterations=3, batch_size=2, validate_every=1)
    path, run = tmp_path / "recipe.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(recipe))
    assert main(["train", str(path), "--data", str(folder), "--out", str(run), "--device", "cpu"]) == 0
    assert 0 <= json.loads((run / "history.json").read_text())["epochs"][0]["val/dice/5"] <= 1
    assert main(["export", str(run), "-o", str(tmp_path / "package")]) == 0
    segmenter = Segmenter(tmp_path / "package", "cpu")
    image = read_image([pictures / "images" / "p0.png"])
    stroke = np.zeros(image.shape, bool)
    stroke[25, 20:30, 0] = True
    assert segmenter.prompt(image, Prompts(add=stroke)).on(np.zeros(image.shape, bool))[stroke].all()
