"""Several networks as one (training/prosma/inference/ensemble.py): what they answer, and all that a run does beside it."""

import itertools

import numpy as np
import pytest
import torch
from test_worker import Engine

from prosma.cancel import Cancelled
from prosma.correct.prompt_input import PROMPT_CHANNELS
from prosma.inference.segmenter import Segmenter
from prosma.package.weights import load_network
from small_volumes import smooth_shades, smooth_volume
from tiny_model import make_tiny_ensemble, make_tiny_package, make_tiny_promptable

EVERYTHING = ("probabilities", "uncertainty", "gate_map")
SHAPE = (24, 20, 16)


def networks_of(folder, count=3, **overrides):
    made = [make_tiny_package(folder / str(seed), seed=seed, **overrides) for seed in range(count)]
    return made, make_tiny_ensemble(folder / "all", *made)


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Three packages that take any grid as it is, and one with the weights of all."""
    return networks_of(tmp_path_factory.mktemp("several"), spacing=None, patch_size=[16, 16, 16])


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("is_fast", [True, False])
def test_the_answer_is_the_mean_of_plain_probabilities(dimension, is_fast, tmp_path, monkeypatch):
    if not is_fast:
        monkeypatch.setattr("prosma.fast.network.why_wrong", lambda *_, **__: "for this test")
    patch = list(SHAPE[:dimension])
    singles, package = networks_of(tmp_path, dimension=dimension, spacing=None, patch_size=patch, mirror_axes=[0])
    image = smooth_volume(SHAPE) if dimension == 3 else smooth_shades((*patch, 1))
    array = torch.from_numpy((image.array - image.array.mean()) / image.array.std()).float()
    array = array[None] if dimension == 3 else array[None, ..., 0]
    for mirror in (False, True):
        expected = np.zeros((3, *patch))
        for single in singles:
            network = load_network(single)
            with torch.inference_mode():
                expected += network(array)[0].softmax(0).numpy() / len(singles) / (1 + mirror)
                if mirror:
                    expected += network(array.flip(2)).flip(2)[0].softmax(0).numpy() / len(singles) / 2
        found = Segmenter(package, "cpu").segment(image, EVERYTHING, mirror=mirror, refuse_unfit=False)
        scores = found.probabilities if dimension == 3 else found.probabilities[..., 0]
        np.testing.assert_allclose(scores / 255, expected, atol=0.004)
        assert found.gate_map.shape == image.shape


def test_what_the_gates_did_is_averaged_over_the_networks(several):
    singles, package = several
    image = smooth_volume((16, 16, 16))
    found = Segmenter(package, "cpu").segment(image, EVERYTHING)
    alone = [Segmenter(single, "cpu").segment(image, EVERYTHING) for single in singles]
    assert len(found.statistics["levels"]) == len(alone[0].statistics["levels"]) == 2
    for number, level in enumerate(found.statistics["levels"]):
        for key in ("zeros", "ones", "mean", "effective_channels"):
            assert level[key] == pytest.approx(np.mean([each.statistics["levels"][number][key] for each in alone]))
    shares = [each.statistics["removed_share"] for each in alone]
    assert found.statistics["removed_share"] == pytest.approx(np.mean(shares)) and len(set(shares)) == 3
    maps = np.mean([each.gate_map.astype(float) for each in alone], axis=0)
    np.testing.assert_allclose(found.gate_map, maps, atol=1)


def test_the_fit_is_told_by_features_of_the_first(several):
    singles, package = several
    image = smooth_volume((20, 20, 20))
    from prosma.inference.pipeline import prepare

    found, first, second = (
        segmenter.features(prepare(image, segmenter.package), [16, 16, 16])
        for segmenter in (Segmenter(each, "cpu") for each in (package, *singles[:2]))
    )
    np.testing.assert_array_equal(found, first)
    assert not np.allclose(found, second)


def test_it_can_be_cancelled_between_two_networks(several):
    _, package = several
    segmenter, volume = Segmenter(package, "cpu"), smooth_volume((16, 16, 16))
    calls: list[int] = []
    for number, network in enumerate(segmenter.networks):
        network.register_forward_pre_hook(lambda *_, number=number: calls.append(number))
    expected = segmenter.segment(volume).labels
    assert calls == [0, 1, 2]
    calls.clear()
    with pytest.raises(Cancelled):
        segmenter.segment(volume, cancelled=lambda: 1 in calls)
    assert calls == [0, 1], "the second had begun, and the third never did"
    stages = sum(1 for network in segmenter.networks for _ in (*network.encoder, *network.decoder))
    asked = itertools.count()
    segmenter.segment(volume, cancelled=lambda: next(asked) < 0)
    assert next(asked) >= stages, "asked before each stage of each network"
    hooks = [module._forward_pre_hooks for network in segmenter.networks for module in network.encoder]
    assert not any(hooks)
    np.testing.assert_array_equal(segmenter.segment(volume).labels, expected)


def test_where_memory_does_not_suffice_for_the_last_all_take_less(several, monkeypatch):
    _, package = several
    segmenter, volume = Segmenter(package, "cpu"), smooth_volume((16, 16, 16))
    last = segmenter.networks[-1]
    forward = last.forward

    def limited(x):
        if x.numel() > 8 * 16 * 16:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory")
        return forward(x)

    monkeypatch.setattr(last, "forward", limited)
    result = segmenter.segment(volume, shortcuts=False)
    assert "8 x 16 x 16" in result.notices[-1]
    monkeypatch.setattr(last, "forward", forward)
    if segmenter.networks[0].can_halve_on_cpu():
        assert len(result.notices) == 2
    assert [network.half_on for network in segmenter.networks] == ["", "", ""], "the next run tries as usual"
    assert segmenter.segment(volume).notices == []


def test_strokes_are_answered_with_the_mean_probability(tmp_path):
    from prosma.inference.prompts import network_of

    singles = [make_tiny_promptable(tmp_path / str(seed), seed=seed) for seed in (3, 4)]
    package = make_tiny_ensemble(tmp_path / "all", *singles)
    patch = np.random.default_rng(0).normal(size=(1 + len(PROMPT_CHANNELS), 16, 16, 16)).astype(np.float32)
    found = network_of(Segmenter(package, "cpu"), (16, 16, 16))(patch)
    alone = [network_of(Segmenter(single, "cpu"), (16, 16, 16))(patch) for single in singles]
    share = np.mean([1 / (1 + np.exp(-each.astype(np.float64))) for each in alone], axis=0)
    np.testing.assert_allclose(found, np.log(share / (1 - share)), atol=1e-3)
    sure = network_of(Segmenter(make_tiny_ensemble(tmp_path / "sure", *decided(tmp_path)), "cpu"), (16, 16, 16))(patch)
    assert np.isfinite(sure).all() and (sure < -80).all(), "a probability of nothing is no infinity"


def decided(folder):
    return [make_tiny_promptable(folder / f"sure{seed}", seed=seed, bias=[500.0, -500.0]) for seed in (3, 4)]


def test_the_warm_engine_answers_as_python_does(several, tmp_path):
    _, package = several
    engine, volume = Engine("--preload", str(package.folder)), smooth_volume((20, 18, 16))
    try:
        assert engine.ready["model"] == "tiny"
        for number in range(2):
            engine.segment(number, package, tmp_path / str(number), volume)
            result, _ = engine.answer(number)
            assert result["event"] == "result"
    finally:
        engine.close()
    expected = Segmenter(package, "cpu").segment(volume)
    voxels = [segment["voxels"] for segment in result["segments"]]
    assert voxels == np.bincount(expected.labels.ravel(), minlength=3)[1:].tolist()
    assert result["statistics"]["removed_share"] == pytest.approx(expected.statistics["removed_share"])
