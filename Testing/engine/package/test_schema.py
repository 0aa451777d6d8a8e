"""What model.json may say: the bundled models, broken ones, and that the published JSON schema says the same."""

import copy
import inspect
import json
import math
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosma.contracts import Mismatch, check
from prosma.learning.recipe import Recipe, RecipeError
from prosma.network.bottleneck import BOTTLENECKS
from prosma.network.gate import FIELD_GRIDS, GATES
from prosma.network.unet import SKIPS, SMALL, ProSMAUNet
from prosma.package import PackageError, bundled_models_folder
from prosma.package.schema import AnyModel, Model3D, Network3D, check_description, published_schema
from type_fuzz import WRONG, changed, places

ROOT = Path(__file__).resolve().parents[3]
PUBLISHED = ROOT / "docs" / "model.schema.json"
BUNDLED = {
    path.parent.name: json.loads(path.read_text()) for path in sorted(bundled_models_folder().glob("*/model.json"))
}
JUDGE = jsonschema.Draft202012Validator(json.loads(PUBLISHED.read_text()))


def allows(model) -> bool:
    """Whether the dataclasses allow a model.json, without the rules that concern several values."""
    try:
        check(AnyModel, model)
    except Mismatch as error:
        assert error.message.endswith(".") and len(error.message) < 600
        return False
    return True


def test_the_published_schema_is_current():
    jsonschema.Draft202012Validator.check_schema(json.loads(PUBLISHED.read_text()))
    assert PUBLISHED.read_text() == published_schema(), "run: make schema"


@pytest.mark.parametrize("name", BUNDLED)
def test_every_bundled_model_is_allowed_by_both(name):
    check_description(BUNDLED[name])
    assert JUDGE.is_valid(BUNDLED[name])


@pytest.mark.parametrize("every", [11, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", BUNDLED)
def test_both_judge_every_broken_model_alike(name, every):
    """Every value replaced by wrong ones, and every entry left out; NaN is no JSON, so no JSON schema knows of it."""
    model = BUNDLED[name]
    verdicts = []
    for place in list(places(model))[::every]:
        for wrong in [value for value in WRONG if not (isinstance(value, float) and math.isnan(value))]:
            broken = changed(model, place, wrong)
            verdicts.append(allows(broken))
            assert verdicts[-1] == JUDGE.is_valid(broken), (place, wrong)
        broken = copy.deepcopy(model)
        parent = broken
        for step in place[:-1]:
            parent = parent[step]
        del parent[place[-1]]
        assert allows(broken) == JUDGE.is_valid(broken), place
    assert set(verdicts) == {True, False}, "some changes, such as a mean of 0, are right"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: x % 1)
    | st.text(),
    lambda part: st.lists(part, max_size=4) | st.dictionaries(st.text(max_size=5), part, max_size=4),
    max_leaves=6,
)


@given(name=st.sampled_from(sorted(BUNDLED)), position=st.floats(0, 1, exclude_max=True), value=JSON)
def test_both_judge_any_value_at_any_place_alike(name, position, value):
    found = list(places(BUNDLED[name]))
    broken = changed(BUNDLED[name], found[int(position * len(found))], value)
    assert allows(broken) == JUDGE.is_valid(broken)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("labels", 0, "color", 0), 255),
        (("intensity", "percentiles", 0), 0),
        (("intensity", "power"), 4),
        (("mirror_axes",), []),
        (("mirror_axes",), None),
        (("field_of_view",), None),
        (("patch_size", 0), 1024),
        (("spacing",), None),
        (("labels", 0, "terminology"), None),
        (("some_later_entry",), {"of": ["any", "kind"]}),
    ],
)
def test_the_last_right_value_is_right(path, value):
    check_description(changed(BUNDLED["hippocampus-mr"], path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("labels", 0, "color", 0), 256),
        (("intensity", "percentiles", 0), -0.1),
        (("intensity", "power"), 4.01),
        (("patch_size", 0), 1025),
        (("spacing", 0), 1000.1),
        (("spacing", 0), float("inf")),
        (("network", "threshold_init"), 0),
        (("results", "dice", "mean"), 1.01),
        (("labels", 0, "terminology", "type", 1), "1~2"),
        (("name",), "\ud800"),
        (("patch_size", 0), 16.0),
    ],
)
def test_the_first_wrong_value_is_wrong_and_named(path, value):
    with pytest.raises(PackageError) as refused:
        check_description(changed(BUNDLED["hippocampus-mr"], path, value))
    name = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")
    assert f"'{name}' should be" in refused.value.message and refused.value.remedy


def test_the_schema_knows_the_networks_choices_and_defaults():
    """The light half names them, because Slicer's process cannot ask the network."""
    properties = json.loads(PUBLISHED.read_text())["$defs"]["Network3D"]["properties"]
    assert tuple(properties["skip"]["enum"]) == SKIPS
    assert tuple(properties["gate"]["enum"]) == GATES
    assert set(properties["field_grid"]["enum"]) == set(FIELD_GRIDS)
    assert tuple(properties["bottleneck"]["enum"]) == BOTTLENECKS
    plain = Network3D(spatial_dims=3, in_channels=1, out_channels=2)
    defaults = {name: each.default for name, each in inspect.signature(ProSMAUNet).parameters.items()}
    assert tuple(plain.features) == SMALL == defaults["features"]
    assert set(defaults) == {*properties, "deep_supervision"}
    for name in (
        "skip",
        "gate",
        "channel_gate",
        "field_grid",
        "threshold_init",
        "gain_init",
        "strides",
        "kernel_sizes",
        "bottleneck",
        "bottleneck_blocks",
        "bottleneck_heads",
    ):
        assert getattr(plain, name) == defaults[name], name
    assert tuple(plain.dilations) == defaults["dilations"]


def test_a_checked_model_is_typed():
    model = check_description(BUNDLED["head-neck-oar-ct"])
    assert isinstance(model, Model3D)
    assert (model.labels[4].name, model.labels[4].color, model.intensity.rule) == ("mandible", [222, 198, 101], "ct")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"channels": [{"name": "MR"}, {"name": "MR"}]}, "'channels[1].name' should be another name"),
        ({"name": "two\nlines"}, "'name' should be a line of text"),
    ],
)
def test_a_recipe_that_no_package_can_come_of_is_refused_before_the_training(change, words):
    recipe = Recipe.read(ROOT / "training" / "recipes" / "hippocampus-mr.yaml")
    recipe.check_package()
    recipe.model.update(change)
    with pytest.raises(RecipeError) as refused:
        recipe.check_package()
    assert words in refused.value.message and "Correct the recipe" in refused.value.remedy
