"""Fitting a network to labelled images: a Lightning module, and `train` that runs or resumes it."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from monai.data import DataLoader as MonaiDataLoader
from monai.inferers import sliding_window_inference
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from ...errors import EngineError
from ...fast.allocator import keep_freed_memory
from ...fast.training_network import use_fast_training
from ...files import replaced_when_whole, write_json
from ...network.gate import selection_parameters
from ...network.gate_monitor import GateMonitor
from ...network.unet import ProSMAUNet
from ..checkpoints import epochs_to_resume
from ..data.dataset import IGNORED, DatasetError
from ..data.patches import training_loader
from ..data.pictures import side_by_side
from ..recipe import Recipe, RecipeError
from .loss import DeepSupervisionLoss, nearest
from .norm import use_fast_norm
from .sources import training_data

SAMPLE_SIDE = 224  # pixels of each picture in TensorBoard
CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def downscaled(images: Tensor, labels: Tensor, scale: float, divisor: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Both at ``scale`` times their size, rounded to multiples of ``divisor`` (at least two)."""
    shape = [max(2, round(size * scale / d)) * d for size, d in zip(images.shape[2:], divisor, strict=True)]
    shape = [min(pair) for pair in zip(shape, images.shape[2:], strict=True)]
    return nn.functional.interpolate(images, size=shape, mode="area"), nearest(labels, torch.Size(shape))


def learning_rate_factor(schedule: str, progress: float) -> float:
    """Share of the learning rate that is left after ``progress`` (0 to 1) of the steps."""
    progress = min(progress, 1.0)
    return (1 - progress) ** 0.9 if schedule == "poly" else 0.5 * (1 + math.cos(math.pi * progress))


class SegmentationTask(pl.LightningModule):
    """A ProSMA-UNet under training, with the moving average of its weights, which is what is kept."""

    def __init__(self, recipe: dict) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.recipe = Recipe.from_dict(recipe)
        fitting = self.recipe.fitting
        torch.manual_seed(fitting.seed)
        layout = CHANNELS_LAST[self.recipe.model["dimension"]]
        network = ProSMAUNet(**self.recipe.network_arguments, deep_supervision=fitting.deep_supervision)
        faster = use_fast_training if fitting.fast else use_fast_norm
        faster(network)
        module: Any = network  # torch's stubs know no memory_format
        self.network: ProSMAUNet = module.to(memory_format=layout)
        self.average = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(fitting.average_decay))
        self.average.requires_grad_(False)  # several devices wait for the gradient of every weight that has one
        self.loss = DeepSupervisionLoss(fitting.dice_smooth, fitting.fast)
        self.layout = layout
        self.overlaps: list[Tensor] = []

    def training_step(self, batch: dict, batch_index: int) -> Tensor:
        images, labels = batch["image"], batch["label"]
        fitting = self.recipe.fitting
        if self.current_epoch < fitting.early_share * fitting.epochs:
            images, labels = downscaled(images, labels, fitting.early_scale, self.network.divisor)
        images = images.contiguous(memory_format=self.layout)
        if batch_index:
            loss = self.loss(self.network(images), labels)
        else:
            with GateMonitor(self.network) as monitor:
                loss = self.loss(self.network(images), labels)
            self.log_gates(monitor.statistics())
        self.log(
            "train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(images), sync_dist=True
        )
        return loss

    def log_gates(self, statistics: dict) -> None:
        """Sparsity once an epoch: a gate that stays dense or dies is to be seen from the first epoch on."""
        if not statistics["levels"]:
            return
        self.log("gate/removed", statistics["removed_share"], prog_bar=True)
        for level, values in enumerate(statistics["levels"]):
            for name in ("zeros", "ones", "mean", "dead_channels", "effective_channels"):
                self.log(f"gate/level{level}/{name}", float(values[name]))
            for name in ("gain", "threshold"):
                if values[name]:
                    self.log(f"gate/level{level}/{name}_median", values[name][1])

    def on_train_batch_end(self, *_: object) -> None:
        self.average.update_parameters(self.network)

    def validation_step(self, batch: dict, index: int) -> None:
        images = batch["image"].contiguous(memory_format=self.layout)
        logits: Any = sliding_window_inference(
            images, self.recipe.model["patch_size"], 1, self.average.module, overlap=0.5, mode="gaussian"
        )
        predicted, labels = logits.argmax(1), batch["label"][:, 0]
        self.overlaps.append(label_dice(predicted, labels, logits.shape[1]))
        if index == 0 and self.trainer.is_global_zero and isinstance(self.logger, TensorBoardLogger):
            self.show(batch["image"], predicted, labels)

    def show(self, images: Tensor, predicted: Tensor, labels: Tensor) -> None:
        """Image, prediction and reference of one case side by side in TensorBoard."""
        maps = [predicted[0], labels[0].where(labels[0] != IGNORED, 0)]
        arrays = [tensor.cpu().numpy() for tensor in (images[0], *maps)]
        picture = side_by_side(arrays[0], arrays[1:], self.recipe.model, SAMPLE_SIDE)
        logger: Any = self.logger
        logger.experiment.add_image("val/sample", picture, self.global_step, dataformats="HWC")

    def on_validation_epoch_end(self) -> None:
        dice = torch.stack(self.overlaps).nanmean(0)
        self.overlaps.clear()
        found = {"val/dice": dice.nanmean()}
        found |= {
            f"val/dice/{label['name']}": value for label, value in zip(self.recipe.model["labels"], dice, strict=True)
        }
        for name, value in found.items():
            if not value.isnan():  # labels that no case has and that were found in none have no Dice
                self.log(name, value, prog_bar=name == "val/dice", sync_dist=True)

    def configure_optimizers(self) -> Any:
        fitting = self.recipe.fitting
        selection = selection_parameters(self.network)
        apart = {id(parameter) for parameter in selection}
        rest = [parameter for parameter in self.network.parameters() if id(parameter) not in apart]
        groups = [{"params": rest, "lr": fitting.learning_rate, "weight_decay": fitting.weight_decay}]
        if selection:
            rate = fitting.learning_rate * fitting.selection_rate_factor
            groups.append({"params": selection, "lr": rate, "weight_decay": 0.0})
        # One pass over all weights. On cards PyTorch knows better which way is best.
        fused = True if fitting.fast and self.device.type == "cpu" else None
        if fitting.optimizer == "adamw":
            optimizer: torch.optim.Optimizer = torch.optim.AdamW(groups, fused=fused)
        else:
            optimizer = torch.optim.SGD(groups, momentum=0.99, nesterov=True, fused=fused)
        steps = fitting.epochs * fitting.iterations
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(fitting.schedule, step / steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def label_dice(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Dice of each class but the background over (B, S) label arrays; NaN where a class is in neither.

    Voxels that the labels leave out (IGNORED) do not count.
    """
    overlaps, known = [], labels != IGNORED
    for value in range(1, classes):
        first, second = (predicted == value) & known, labels == value
        overlaps.append(2 * (first & second).sum() / (first.sum() + second.sum()))
    return torch.stack(overlaps)


class Records(Callback):
    """Metrics of each epoch and the seconds spent, over all resumed parts; in the checkpoint and in RUN/history.json.

    ``cases``: number of cases for each part of the data.
    """

    def __init__(self, path: Path, cases: dict[str, int]) -> None:
        self.path = path
        self.cases = cases
        self.seconds = 0.0
        self.epochs: list[dict] = []

    def state_dict(self) -> dict:
        return {"seconds": self.seconds, "epochs": self.epochs}

    def load_state_dict(self, state: dict) -> None:
        self.seconds, self.epochs = state["seconds"], list(state["epochs"])

    def on_train_epoch_start(self, *_: object) -> None:
        self.start = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: object) -> None:
        self.seconds += time.monotonic() - self.start
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        self.epochs.append({"epoch": trainer.current_epoch, **metrics})
        if trainer.is_global_zero:
            facts = {"seconds": round(self.seconds), "hardware": hardware(trainer), "cases": self.cases}
            write_json(self.path, {**facts, "epochs": self.epochs})


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside the old one and then puts it in its place.

    Lightning's own way goes through the folder for temporary files, which may be another disk: a process killed while it
    copies from there leaves half a checkpoint and nothing to resume from.
    """

    def save_checkpoint(self, checkpoint: dict, path: str | os.PathLike, storage_options: object = None) -> None:
        with replaced_when_whole(Path(path)) as temporary:
            try:
                torch.save(checkpoint, temporary)
            except RuntimeError as error:  # what PyTorch makes of a full disk
                raise EngineError(
                    "bad_output",
                    f"The checkpoint '{path}' could not be written; the one before is kept.",
                    "Is the disk full? Make room on it and go on with --resume.",
                ) from error


def hardware(trainer: pl.Trainer) -> str:
    """What a run is computed on, in words."""
    on_cuda = trainer.strategy.root_device.type == "cuda"
    threads = torch.get_num_threads()
    device = torch.cuda.get_device_name() if on_cuda else f"{threads} CPU thread{'s' if threads > 1 else ''}"
    return device if trainer.world_size == 1 else f"{trainer.world_size} processes, each on {device}"


class Cases:
    """What `train` needs of a recipe that learns from images and their labels. `counts`: of cases, train and val."""

    def __init__(self, recipe: Recipe, data: str | os.PathLike | Sequence[str | os.PathLike]) -> None:
        self.recipe = recipe
        self.training, self.validation, self.transforms = training_data(recipe, data)
        self.counts = {"train": len(self.training), "val": len(self.validation)}

    def task(self) -> SegmentationTask:
        """The network with its loss."""
        return SegmentationTask(copy.deepcopy(self.recipe.to_dict()))

    def loaders(self, rank: int, world: int, workers: int) -> tuple[DataLoader, DataLoader]:
        """Of training and of validation, for one of `world` processes."""
        loader = training_loader(self.training, self.transforms, self.recipe, rank, world, workers)
        return loader, MonaiDataLoader(self.validation, batch_size=1, num_workers=0)


def source_of(recipe: Recipe, data: str | os.PathLike | Sequence[str | os.PathLike]) -> Any:
    """Cases, or for a recipe with `strokes` the simulated people of `prompting`, which is a task of its own."""
    if recipe.strokes is None:
        return Cases(recipe, data)
    from .prompting import Prompts

    return Prompts(recipe, data)


def train(
    recipe: Recipe,
    data: str | os.PathLike | Sequence[str | os.PathLike],
    run: str | os.PathLike,
    *,
    resume: bool = False,
    deterministic: bool = False,
    devices: int | str = "auto",
    nodes: int = 1,
    accelerator: str = "auto",
    workers: int = 1,
    threads: int | None = None,
) -> Path:
    """Train on one or several folders into the folder ``run`` and return the path of the last checkpoint.

    ``resume`` goes on from the last finished epoch; every patch and every random change depends on the recipe's seed
    and the step alone, so that an interrupted run continues as if it had not been interrupted (to the bit with
    ``deterministic``). Several ``devices`` (with the accelerator ``cpu``: processes) see the patches that one device
    would see with a batch so much larger; Lightning starts them, or takes those that torchrun or SLURM started on
    ``nodes`` machines. Every one of them validates on all cases. Raises DatasetError or RecipeError before training
    starts, also where the run is there and ``resume`` was not asked for, or was begun with another network or model.
    """
    run, last = Path(run), Path(run) / "last.ckpt"
    if last.is_file() and not resume:
        raise RecipeError(
            f"'{run}' already holds a run.", "Go on with --resume, or choose another --out.", code="bad_output"
        )
    done = epochs_to_resume(run, recipe) if last.is_file() else 0
    keep_freed_memory()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    if threads:
        torch.set_num_threads(threads)
    recipe.check_package()
    source = source_of(recipe, data)
    run.mkdir(parents=True, exist_ok=True)
    pl.seed_everything(recipe.fitting.seed, verbose=False)
    task = source.task()
    trainer = make_trainer(
        recipe, run, source.counts, accelerator, devices=devices, num_nodes=nodes, deterministic=deterministic
    )
    if trainer.is_global_zero:
        write_json(run / "recipe.json", recipe.to_dict())
    loader, validation = source.loaders(trainer.global_rank, trainer.world_size, workers)
    if done:
        # Lightning starts to draw patches before it tells the sampler which epoch it resumes.
        sampler: Any = loader.sampler
        sampler.set_epoch(done)
    with deaths_in_words():
        trainer.fit(task, loader, validation, ckpt_path=last if done else None, weights_only=True)
    return last


def make_trainer(recipe: Recipe, run: Path, counts: dict[str, int], accelerator: str, **hardware) -> pl.Trainer:
    """Lightning's trainer with what a recipe asks for, that records into the folder ``run``."""
    return pl.Trainer(
        precision=precision(recipe.fitting.precision, accelerator),
        max_epochs=recipe.fitting.epochs,
        gradient_clip_val=recipe.fitting.gradient_clip,
        check_val_every_n_epoch=recipe.fitting.validate_every,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=run,
        plugins=[WholeCheckpoints()],
        logger=TensorBoardLogger(run, name="", version="tensorboard"),
        callbacks=[
            ModelCheckpoint(run, "last", every_n_epochs=1, save_on_train_epoch_end=True, enable_version_counter=False),
            Records(run / "history.json", counts),
            TQDMProgressBar(refresh_rate=10),
        ],
        **{**hardware, **trainer_device(accelerator)},
    )


def trainer_device(device: str) -> dict[str, Any]:
    """Lightning's options for a device as prosma calls it: of `cuda:1` the card of that number alone.

    >>> trainer_device("cuda:1"), trainer_device("cpu")
    ({'accelerator': 'cuda', 'devices': [1]}, {'accelerator': 'cpu'})
    """
    kind, _, number = device.partition(":")
    return {"accelerator": kind, **({"devices": [int(number)]} if number else {})}


@contextlib.contextmanager
def deaths_in_words():
    """DatasetError, with what to do, where a worker of the data loader died: /dev/shm is full, or it was killed."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        of_worker = "DataLoader worker" in text
        if "shm" in text or (of_worker and ("No space left" in text or "Bus error" in text)):
            raise DatasetError(
                "The processes that prepare patches ran out of shared memory (/dev/shm), as in a container with a small one. "
                "Train with --workers 0, or give the container more, for instance with docker run --ipc=host."
            ) from error
        if of_worker and ("killed by signal" in text or "exited unexpectedly" in text):
            raise DatasetError(
                "A process that prepares patches was ended from outside, as the system does where memory is short, and a "
                "cluster at a limit. Finished epochs are kept: go on with --resume, and with --workers 0, which needs less."
            ) from error
        raise


def precision(setting: str, accelerator: str = "auto") -> Any:
    """``auto`` is bf16 mixed precision on a CUDA card that has it, fp16 on an older one, float32 on a CPU."""
    if setting != "auto":
        return setting
    if accelerator == "cpu" or not torch.cuda.is_available():
        return "32-true"
    return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
