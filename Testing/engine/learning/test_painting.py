"""Images painted from label maps: places stay, greys are drawn (training/prosma/learning/data/painting.py)."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from prosma.cli import main
from prosma.learning.data.dataset import DatasetError
from prosma.learning.data.painting import FINE, PaintedCases, PaintedPatch, label_maps, rotation
from prosma.learning.recipe import Painting, Recipe, RecipeError

RECIPES = Path(__file__).resolve().parents[3] / "training" / "recipes"
PATCH, SPACING = (24, 28, 20), (4.0, 4.0, 4.0)
LEFT, RIGHT, SKULL = 17, 53, 506
STILL = {
    "rotation": 0.0,
    "scale": [1.0, 1.0],
    "shift": 0.0,
    "cut_probability": 0.0,
    "alike": [[LEFT, RIGHT]],
    "structures": [[LEFT], [RIGHT]],
}


def head():
    """A head of 48 x 56 x 40 voxels of 2 mm: a skull, a brain, and two structures at unlike places on its left and right."""
    structures = np.zeros((48, 56, 40), np.int16)
    structures[4:44, 4:52, 4:36], structures[6:42, 6:50, 6:34] = SKULL, 3
    structures[12:18, 20:32, 14:20], structures[30:36, 24:36, 16:22] = LEFT, RIGHT
    return {"structures": torch.from_numpy(structures), "spacing": np.array([2.0, 2.0, 2.0]), "id": "head"}


def painter(**changes):
    return PaintedPatch(Painting(**{**STILL, **changes}), PATCH, SPACING, {"rule": "zscore"})


def paint(seed, **changes):
    painted = painter(**changes)
    painted.set_random_state(seed)
    return painted(head())


def test_a_deformed_head_keeps_its_structures_but_moves_them_smoothly():
    """Heads differ in form; the displacement's standard deviation at its knots is what was drawn."""
    moved = [paint(seed, deformation=6.0)["label"] for seed in range(6)]
    assert all((label == value).any() for label in moved for value in (1, 2))
    assert len({label.numpy().tobytes() for label in moved}) > 3, "mirrored or not, there are two without it"
    painted = painter(deformation=6.0)
    painted.set_random_state(1)
    fields = [painted.displacement((48, 56, 40)) for _ in range(60)]
    assert fields[0].shape == (3, 48, 56, 40)
    assert max(float(field.diff(dim=axis).abs().max()) for field in fields for axis in (1, 2, 3)) < 6.0
    corners = np.array([field[:, ::47, ::55, ::39].numpy() for field in fields])  # knots: nothing is interpolated there
    assert 3.0 < corners.std() < 4.0, "uniform up to 6 mm: sqrt(12) mm over all draws"


def test_labels_stay_where_the_structures_are_or_are_mirrored_with_their_sides():
    """Two label voxels along each axis become one; a mirrored head has its numbers exchanged: left is left."""
    structures = head()["structures"].numpy()
    expected = np.zeros(PATCH, np.uint8)
    for value, number in ((1, LEFT), (2, RIGHT)):
        filled = (structures == number).reshape(24, 2, 28, 2, 20, 2).mean((1, 3, 5))
        expected[filled > 0.4] = value
    mirrored = np.array([0, 2, 1], np.uint8)[expected[::-1]]
    found = [paint(seed)["label"][0].numpy() for seed in range(12)]
    kinds = [np.array_equal(label, expected) for label in found]
    assert any(kinds) and not all(kinds)
    assert all(np.array_equal(label, expected if kind else mirrored) for label, kind in zip(found, kinds, strict=True))


@given(st.integers(0, 10_000))
def test_left_stays_left_however_the_head_is_turned(seed):
    label = paint(seed, rotation=20.0, scale=[0.8, 1.2], shift=0.1)["label"][0].numpy()
    places = [np.argwhere(label == value)[:, 0] for value in (1, 2)]
    if all(len(place) for place in places):
        assert places[0].mean() < places[1].mean(), "the first axis points to the right"


def test_a_patch_depends_on_its_random_state_alone():
    first, again, other = (paint(seed, rotation=20.0) for seed in (1, 1, 2))
    assert torch.equal(first["image"], again["image"]) and torch.equal(first["label"], again["label"])
    assert not torch.equal(first["image"], other["image"])
    assert first["image"].shape == (1, *PATCH) and first["image"].dtype == torch.float32
    assert abs(float(first["image"].mean())) < 1e-4 and abs(float(first["image"].std()) - 1) < 1e-3


def test_paired_structures_share_their_grey_and_others_do_not():
    painted = painter()
    painted.set_random_state(3)
    image = painted.painted(torch.tensor([LEFT] * 4000 + [RIGHT] * 4000 + [3] * 4000))
    left, right, brain = image[:4000].mean(), image[4000:8000].mean(), image[8000:].mean()
    assert abs(left - right) < 0.02 < abs(left - brain)


def test_a_stripped_head_has_no_skull():
    painted = painter(stripped=[500, 600], stripped_probability=1.0, empty_probability=1.0)
    seen = []
    original = painted.painted
    painted.painted = lambda structures: seen.append(structures) or original(structures)
    painted.set_random_state(0)
    painted(head())
    assert SKULL not in seen[0] and LEFT in seen[0]


def test_beyond_the_field_of_view_is_padding_without_labels():
    label = paint(5, cut_probability=1.0)
    cut = [axis for axis in range(3) if (label["image"][0].movedim(axis, 0).flatten(1) == 0).all(1).any()]
    assert cut, "some whole planes are padding"
    padding = label["image"][0] == 0
    assert not label["label"][0][padding].any()


@pytest.mark.parametrize("axis", range(3))
def test_a_rotation_keeps_lengths_and_its_axis(axis):
    angles = np.zeros(3)
    angles[axis] = np.pi / 2
    matrix = rotation(angles)
    assert np.allclose(matrix @ matrix.T, np.eye(3)) and np.allclose(matrix[axis], np.eye(3)[axis])
    assert np.isclose(np.linalg.det(matrix), 1) and np.allclose(np.abs(matrix).sum(), 3)


def write_heads(folder, names):
    structures = head()["structures"].numpy()
    (folder / "labelsTr").mkdir(parents=True)
    for name in names:
        image = SimpleITK.GetImageFromArray(structures.transpose(2, 1, 0))
        image.SetSpacing((2, 2, 2))
        image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))  # RAS: ITK's own axes point to L and P
        SimpleITK.WriteImage(image, str(folder / "labelsTr" / f"{name}.nii.gz"))
    (folder / "splits.json").write_text(json.dumps({"train": names[:2], "val": names[2:]}))
    return folder


def test_label_maps_are_read_in_the_orientation_of_the_model(tmp_path):
    folder = write_heads(tmp_path / "heads", ["a", "b", "c"])
    path = folder / "labelsTr/c.nii.gz"
    SimpleITK.WriteImage(SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(path)), "PIR"), str(path))
    (found,) = label_maps(folder, "val")
    assert np.array_equal(found["structures"].numpy(), head()["structures"].numpy())
    assert np.allclose(found["spacing"], 2)
    with pytest.raises(DatasetError, match="no case for 'test'"):
        label_maps(folder, "test")
    with pytest.raises(DatasetError, match="no label maps"):
        label_maps(tmp_path, "train")


def test_validation_paintings_never_change():
    cases = PaintedCases([head()], painter(rotation=20.0), 3)
    assert len(cases) == 3
    assert torch.equal(cases[1]["image"], cases[1]["image"]) and not torch.equal(cases[0]["image"], cases[1]["image"])
    with pytest.raises(IndexError):
        cases[3]
    assert FINE == 2


def test_a_model_is_trained_resumed_and_exported_from_label_maps(tmp_path):
    folder = write_heads(tmp_path / "heads", ["a", "b", "c"])
    recipe = yaml.safe_load((RECIPES / "hippocampus-finder.yaml").read_text(encoding="utf-8"))
    recipe["model"]["patch_size"] = [16, 16, 16]
    recipe["network"]["features"] = [4, 8]
    recipe["fitting"].update(epochs=1, iterations=2, batch_size=1, validate_every=1)
    path = tmp_path / "finder.yaml"
    path.write_text(yaml.safe_dump(recipe))
    assert Recipe.from_dict(json.loads(json.dumps(Recipe.read(path).to_dict()))) == Recipe.read(path)
    run, package = tmp_path / "run", tmp_path / "package"
    train = ["train", str(path), "--data", str(folder), "--out", str(run), "--workers", "0"]
    assert main(train) == 0
    assert json.loads((run / "history.json").read_text())["cases"] == {"train": 2, "val": 20}
    assert main([*train, "--resume"]) == 0
    assert main(["export", str(run), "-o", str(package)]) == 0
    assert json.loads((package / "model.json").read_text())["labels"][1]["name"] == "right hippocampus"


def test_structures_are_checked_against_the_labels():
    content = yaml.safe_load((RECIPES / "hippocampus-finder.yaml").read_text(encoding="utf-8"))
    content["painting"]["structures"] = [[17]]
    with pytest.raises(RecipeError, match=r"structures.*2 labels"):
        Recipe.from_dict(content)
