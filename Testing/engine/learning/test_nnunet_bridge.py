"""ProSMA's trainers inside the real nnU-Net v2: from a raw dataset to predictions. `make test-nnunet` runs them all."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

TRAINERS = Path(__file__).resolve().parents[3] / "training" / "nnunet"
CASES = ("hippocampus_001", "hippocampus_003", "hippocampus_004")
UNSEEN = "hippocampus_006"
DATASET = "Dataset004_Hippocampus"
CONFIGURATIONS = ("2d", "3d_fullres")
RESIDUAL = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"


def test_without_prosma_the_error_says_what_to_install():
    code = f"import sys; sys.path.insert(0, {str(TRAINERS)!r}); import nnUNetTrainerProSMA"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode
    assert "pip install <SlicerProSMA checkout>/training" in done.stderr.splitlines()[-1]


@pytest.fixture(scope="module")
def nnunet(tmp_path_factory):
    """The folder of nnU-Net's three folders, its environment set for small runs in this process."""
    pytest.importorskip("nnunetv2", reason="nnU-Net is not installed here: make test-nnunet")
    import_torchvision()
    root = tmp_path_factory.mktemp("nnunet")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            (root / name).mkdir()
            patch.setenv(name, str(root / name))
        patch.setenv("nnUNet_extTrainer", str(TRAINERS))
        patch.setenv("nnUNet_n_proc_DA", "1")  # the planner accepts no 0
        patch.setenv("nnUNet_def_n_proc", "1")
        patch.setenv("nnUNet_compile", "f")
        yield root


def import_torchvision() -> None:
    """nnU-Net imports it for trainers of transformers. Built for CUDA, it misses its operators beside a CPU build of torch.

    It then fails to import for want of the names of two of them, which nothing here calls.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        importlib.import_module("torchvision")


@pytest.fixture(scope="module")
def planned(nnunet) -> Path:
    """The preprocessed folder of a dataset of three cases, its plans cut down to what a CPU trains in seconds."""
    shared = Path(os.environ.get("PROSMA_SHARED_DATA") or TRAINERS.parents[2] / "shared" / "data") / "hippocampus"
    if not shared.is_dir():
        pytest.skip("the labelled images are not here")
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    raw = nnunet / "nnUNet_raw" / DATASET
    for folder in ("imagesTr", "labelsTr"):
        (raw / folder).mkdir(parents=True)
    for case in CASES:
        shutil.copy(shared / "imagesTr" / f"{case}_0000.nii.gz", raw / "imagesTr")
        shutil.copy(shared / "labelsTr" / f"{case}.nii.gz", raw / "labelsTr")
    (nnunet / "unseen").mkdir()
    shutil.copy(shared / "imagesTr" / f"{UNSEEN}_0000.nii.gz", nnunet / "unseen")
    labels = {"background": 0, "anterior": 1, "posterior": 2}
    dataset = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": len(CASES), "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps(dataset))

    api.extract_fingerprints([4], num_processes=1, show_progress_bar=False)
    api.plan_experiments([4])
    preprocessed = nnunet / "nnUNet_preprocessed" / DATASET
    shrink(preprocessed / "nnUNetPlans.json")
    api.preprocess([4], configurations=CONFIGURATIONS, num_processes=(1,), show_progress_bar=False)
    return preprocessed


def shrink(path: Path) -> None:
    """Fewer features, small batches, small 3D patches; stages, strides and kernels stay as nnU-Net planned them."""
    plans = json.loads(path.read_text())
    for name in CONFIGURATIONS:
        configuration = plans["configurations"][name]
        configuration["batch_size"] = 2
        arguments = configuration["architecture"]["arch_kwargs"]
        arguments["features_per_stage"] = [min(8 * 2**stage, 32) for stage in range(arguments["n_stages"])]
    plans["configurations"]["3d_fullres"]["patch_size"] = [24, 32, 24]
    path.write_text(json.dumps(plans))


def trainer_for(configuration: str, name: str, resume: bool = False):
    """The trainer as nnUNetv2_train makes it, cut down to a few iterations."""
    from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint

    torch.manual_seed(0)
    os.environ.update(nnUNet_n_proc_DA="0")  # patches are made in this process
    trainer = get_trainer_from_args(
        DATASET, configuration, "all", name, continue_training=resume, device=torch.device("cpu")
    )
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 2, 10, 2
    maybe_load_checkpoint(trainer, continue_training=resume, validation_only=False)
    return trainer


def build(preprocessed: Path, configuration: str, trainer_class, **arguments):
    """The network of one trainer class for these plans, with ``arguments`` in place of the plans' own."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = PlansManager(str(preprocessed / "nnUNetPlans.json"))
    manager = plans.get_configuration(configuration)
    manager.network_arch_init_kwargs.update(arguments)
    torch.manual_seed(0)
    return trainer_class.build_network_architecture(plans, manager, 1, 3, True)


def classes() -> tuple:
    """nnU-Net's own trainer and ProSMA's two, found as nnU-Net finds them."""
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    names = ("nnUNetTrainer", "nnUNetTrainerProSMA", "nnUNetTrainerProSMADecoderGrid")
    return tuple(recursive_find_trainer_class_by_name(name) for name in names)


@pytest.fixture(scope="module", params=list(zip(CONFIGURATIONS, ("DecoderGrid", ""), strict=True)), ids=CONFIGURATIONS)
def trained(request, planned):
    """A trainer that nnU-Net found by name, after its whole training."""
    configuration, suffix = request.param
    trainer = trainer_for(configuration, f"nnUNetTrainerProSMA{suffix}")
    trainer.run_training()
    return trainer


@pytest.mark.slow
def test_training_lowers_the_loss_and_the_checkpoint_predicts_an_unseen_case(trained, nnunet, tmp_path):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    from prosma.image.reading import read_image

    losses = trained.logger.get_value("train_losses", step=None)
    assert losses[-1] < losses[0]

    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(trained.output_folder_base, ("all",))
    predictor.predict_from_files_sequential(str(nnunet / "unseen"), str(tmp_path))
    image = read_image(nnunet / "unseen" / f"{UNSEEN}_0000.nii.gz")
    prediction = read_image(tmp_path / f"{UNSEEN}.nii.gz")
    assert prediction.array.shape == image.array.shape
    assert np.allclose(prediction.ijk_to_ras, image.ijk_to_ras)
    assert set(np.unique(prediction.array)) <= {0, 1, 2}
    x = torch.randn(1, 1, *(16, 32, 32)[-trained.network.spatial_dims :])
    with torch.no_grad():
        assert torch.equal(predictor.network.eval()(x), trained.network.eval()(x))


@pytest.mark.slow
def test_the_rest_of_the_optimizer_is_nnunets_own(trained):
    rest, selection = trained.optimizer.param_groups
    gates = trained.network.gates
    expected = {id(p) for gate in gates for p in (gate.spatial.rho, gate.spatial.gain)}
    assert {id(p) for p in selection["params"]} == expected
    assert len(rest["params"]) + len(expected) == len(list(trained.network.parameters()))
    assert (rest["weight_decay"], selection["weight_decay"]) == (trained.weight_decay, 0)
    assert rest["lr"] == selection["lr"] == pytest.approx(1e-2 * 0.5**0.9)
    assert rest["momentum"] == selection["momentum"] == 0.99


@pytest.mark.slow
def test_continuing_restores_weights_and_momentum(trained):
    again = trainer_for(trained.configuration_name, type(trained).__name__, resume=True)
    assert again.current_epoch == trained.num_epochs
    for name, tensor in trained.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], tensor), name
    first, second = trained.optimizer.state_dict()["state"], again.optimizer.state_dict()["state"]
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key]["momentum_buffer"], second[key]["momentum_buffer"]) for key in first)


@pytest.mark.slow
def test_nnunets_own_validation_gives_what_the_checkpoint_predicts(planned, tmp_path):
    """The last part of nnUNetv2_train, with deep supervision switched off, against nnUNetv2_predict's predictor."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    from prosma.image.reading import read_image

    trainer = trainer_for("2d", "nnUNetTrainerProSMA")
    trainer.num_epochs = 1
    trainer.run_training()
    trainer.perform_actual_validation()
    summary = json.loads((Path(trainer.output_folder) / "validation" / "summary.json").read_text())
    assert len(summary["metric_per_case"]) == len(CASES)

    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(trainer.output_folder_base, ("all",))
    image = planned.parents[1] / "nnUNet_raw" / DATASET / "imagesTr" / f"{CASES[0]}_0000.nii.gz"
    predictor.predict_from_files_sequential([[str(image)]], [str(tmp_path / "prediction")])
    validated = read_image(Path(trainer.output_folder) / "validation" / f"{CASES[0]}.nii.gz").array
    assert (validated > 0).any()
    assert np.array_equal(read_image(tmp_path / "prediction.nii.gz").array, validated)


@pytest.mark.slow
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_without_gates_the_network_is_nnunets_own(planned, configuration):
    """With the same weights: the same outputs, fine to coarse; the gates are all that is added."""
    original_class, trainer_class, _ = classes()
    arguments = {}
    if configuration == "3d_fullres":  # the first stages as nnU-Net plans them for thick slices
        arguments["kernel_sizes"] = [[1, 3, 3], *[[3, 3, 3]] * 3]
        arguments["strides"] = [[1, 1, 1], [1, 2, 2], *[[2, 2, 2]] * 2]
    original = build(planned, configuration, original_class, **arguments)
    plain_class = type("Plain", (trainer_class,), {"skip_arguments": {"skip": "plain"}})
    plain = build(planned, configuration, plain_class, **arguments)
    heads = [*plain.auxiliary_heads, plain.head]
    parts = [
        (original.encoder, plain.encoder),
        (original.decoder.transpconvs, plain.upsamplings),
        (original.decoder.stages, plain.decoder),
        (original.decoder.seg_layers, torch.nn.ModuleList(heads)),
    ]
    with torch.no_grad():
        for theirs, ours in parts:
            for source, target in zip(theirs.parameters(), ours.parameters(), strict=True):
                assert source.std().item() == pytest.approx(
                    target.std().item(), rel=0.5, abs=1e-6
                )  # initialised in the same way
                target.copy_(source)
        x = torch.randn(2, 1, *(16, 32, 32)[-plain.spatial_dims :])
        for expected, found in zip(original(x), plain(x), strict=True):
            assert torch.allclose(found, expected, atol=1e-4)

    gated = build(planned, configuration, trainer_class, **arguments)
    assert gated.state_dict().keys() - plain.state_dict().keys() == {
        f"gates.{name}" for name in gated.gates.state_dict()
    }


@pytest.mark.slow
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_the_network_compiles_without_a_graph_break(planned, configuration):
    """nnU-Net compiles by default on CUDA, and turns deep supervision off and on again."""
    for trainer_class in classes()[1:]:
        torch.compiler.reset()
        network = build(planned, configuration, trainer_class)
        compiled = torch.compile(network, backend="eager", fullgraph=True)
        x = torch.randn(1, 1, *(16, 32, 32)[-network.spatial_dims :])
        assert len(compiled(x)) == len(network.auxiliary_heads) + 1
        network.deep_supervision = False
        assert torch.allclose(compiled(x), network(x), atol=1e-5)


@pytest.mark.slow
def test_plans_for_residual_encoders_give_plain_blocks_and_the_log_says_so(planned):
    from nnunetv2.run.run_training import get_trainer_from_args

    plans = json.loads((planned / "nnUNetPlans.json").read_text())
    plans["plans_name"] = "nnUNetResEncUNetMPlans"
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    architecture["network_class_name"] = RESIDUAL
    architecture["arch_kwargs"]["n_blocks_per_stage"] = architecture["arch_kwargs"].pop("n_conv_per_stage")
    architecture["arch_kwargs"]["n_conv_per_stage_decoder"] = [1] * (architecture["arch_kwargs"]["n_stages"] - 1)
    (planned / "nnUNetResEncUNetMPlans.json").write_text(json.dumps(plans))

    name, plans_name = "nnUNetTrainerProSMADecoderGrid", "nnUNetResEncUNetMPlans"
    trainer = get_trainer_from_args(DATASET, "3d_fullres", 0, name, plans_name, device=torch.device("cpu"))
    trainer.initialize()
    log = Path(trainer.log_file).read_text()
    assert "plain convolutional blocks in place of those of ResidualEncoderUNet" in log
    assert "two convolutions in every stage in place of [1, 2]" in log
    assert [block[0].out_channels for block in trainer.network.encoder] == architecture["arch_kwargs"][
        "features_per_stage"
    ]


@pytest.mark.slow
def test_plans_without_stages_are_refused_with_the_reason(planned):
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = PlansManager(str(planned / "nnUNetPlans.json"))
    manager = plans.get_configuration("3d_fullres")
    del manager.network_arch_init_kwargs["features_per_stage"]
    with pytest.raises(ValueError, match="Plan with nnU-Net's ExperimentPlanner"):
        classes()[1].build_network_architecture(plans, manager, 1, 3)
