"""Fitting a promptable network: every step answers what simulated people said last, and the answers make the next strokes."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ...correct.prompting import prompted
from ...network.gate_monitor import GateMonitor
from ..data.patches import PatchNumbers
from ..recipe import Recipe, Strokes
from ..strokes.scenes import Scene, Scenes
from ..strokes.sessions import Session
from ..strokes.sets import Volume, read_sets
from .fitting import SegmentationTask

REPORTED = (1, 3, 5)  # strokes after which validation tells Dice


class Numbers(Dataset):
    """The numbers 0, 1, 2, ... themselves: a scene is a function of the seed and its number."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> dict:
        return {"number": number}


class PromptTask(SegmentationTask):
    """A promptable network under training.

    A batch is a row of sessions, each at a round of its own. The network answers all of them in one step, and the answers
    become the masks that the next strokes correct. Every epoch begins with new sessions, so that resuming changes nothing.
    """

    def __init__(self, recipe: dict) -> None:
        super().__init__(recipe)
        assert self.recipe.strokes is not None
        self.settings = self.recipe.strokes
        self.size = patch_size(self.recipe)
        self.scenes: Scenes | None = None
        self.validation: list[Scene] = []
        self.sessions: list[Session | None] = []
        self.curves: list[list[float]] = []

    def take(self, volumes: dict[str, list[Volume]]) -> None:
        """The data to learn from and to validate on."""
        channels = len(self.recipe.model["channels"])
        dimension = self.recipe.model["dimension"]
        self.scenes = Scenes(volumes["train"], self.settings, channels, dimension)
        calm = Scenes(volumes["val"], calmed(), channels, dimension)
        count = self.settings.validation_scenes
        self.validation = [calm.draw(np.random.default_rng((7919, n))) for n in range(count)]

    def on_train_epoch_start(self) -> None:
        self.sessions = []

    def training_step(self, batch: dict, batch_index: int) -> Tensor:
        numbers = [int(number) for number in batch["number"]]
        self.sessions += [None] * (len(numbers) - len(self.sessions))
        seen = [self.seen(slot, number) for slot, number in enumerate(numbers)]
        images = torch.from_numpy(np.stack([patch for patch, _ in seen])).to(self.device)
        labels = torch.from_numpy(np.stack([truth for _, truth in seen]))[:, None].long().to(self.device)
        images = images.contiguous(memory_format=self.layout)
        if batch_index:
            outputs = self.network(images)
        else:
            with GateMonitor(self.network) as monitor:
                outputs = self.network(images)
            self.log_gates(monitor.statistics())
        loss = self.loss(outputs, labels)
        logits = outputs[0] if isinstance(outputs, list) else outputs
        self.hand_out(log_odds(logits.detach()))
        self.log(
            "train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(images), sync_dist=True
        )
        return loss

    def seen(self, slot: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """What the network sees next in a slot, and the truth: the next round of its session, or a new one's first."""
        session = self.sessions[slot]
        if session is not None:
            if not session.closer and session.rng.random() < self.settings.closer_share:
                closer = session.look_closer()
                if closer is not None:
                    return flat(closer, self.size)
            goes_on = (
                session.rounds < self.settings.most_rounds and session.rng.random() < self.settings.continued_share
            )
            if goes_on and session.speak():
                return flat(session.look(), self.size)
        assert self.scenes is not None
        rng = np.random.default_rng((self.recipe.fitting.seed, number))
        while True:
            session = Session(self.scenes.draw(rng), full(self.size), rng)
            if session.speak():
                self.sessions[slot] = session
                return flat(session.look(), self.size)

    def hand_out(self, odds: np.ndarray) -> None:
        """Each session takes its answer."""
        for session, answer in zip(self.sessions, odds, strict=True):
            assert session is not None
            session.receive(answer.reshape(session.size))

    def validation_step(self, batch: dict, index: int) -> None:
        network = self.answering(self.average.module)
        for number in batch["number"].tolist():
            scene, rng = self.validation[number], np.random.default_rng((104729, number))
            self.curves.append(curve_of(scene, network, self.size, self.settings.validation_rounds, rng))

    def on_validation_epoch_end(self) -> None:
        curves = np.array(self.curves)
        self.curves = []
        for strokes in REPORTED:
            if strokes <= curves.shape[1]:
                self.log(f"val/dice/{strokes}", float(curves[:, strokes - 1].mean()), sync_dist=True)
        self.log("val/dice", float(curves.mean()), prog_bar=True, sync_dist=True)

    def answering(self, module: torch.nn.Module):
        """The network as a function of one patch (numpy)."""

        def network(patch: np.ndarray) -> np.ndarray:
            images = torch.from_numpy(patch.reshape(1, len(patch), *self.size)).to(self.device)
            with torch.no_grad():
                logits = module(images.contiguous(memory_format=self.layout))
            return log_odds(logits)[0].reshape(full(self.size))

        return network


def log_odds(logits: Tensor) -> np.ndarray:
    """(B, 2, S) -> log odds of the object (B, S)."""
    return (logits[:, 1] - logits[:, 0]).float().cpu().numpy()


def patch_size(recipe: Recipe) -> tuple[int, ...]:
    """Of the network: three numbers, or two."""
    return tuple(recipe.model["patch_size"])


def full(size: Sequence[int]) -> tuple[int, int, int]:
    """A patch's size as that of a volume: pictures have one slice."""
    return (size[0], size[1], 1) if len(size) == 2 else (size[0], size[1], size[2])


def flat(seen: tuple[np.ndarray, np.ndarray], size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Patch and truth with as many axes as the network has."""
    patch, truth = seen
    return patch.reshape(len(patch), *size), truth.reshape(tuple(size))


def calmed() -> Strokes:
    """Settings of scenes as they are in the data: whole labels from nothing, images unchanged."""
    calm = Strokes(stretch=1.0)
    for name in vars(calm):
        if name.endswith(("_share", "_probability")):
            setattr(calm, name, 0.0)
    return calm


def curve_of(scene: Scene, network, size: Sequence[int], rounds: int, rng: np.random.Generator) -> list[float]:
    """Dice after each of so many strokes, as in use."""
    session = Session(scene, full(size), rng)
    curve: list[float] = []
    for _ in range(rounds):
        if session.speak():
            said = session.said
            said.mask = prompted(scene.image, said, scene.spacing, network, full(size)).on(said.mask)
        curve.append(dice(said.mask, scene.truth))
    return curve


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Of two bool arrays that are not both empty."""
    return float(2 * np.count_nonzero(first & second) / (np.count_nonzero(first) + np.count_nonzero(second)))


class Prompts:
    """What `train` needs of a recipe with `strokes`: as `fitting.Cases`."""

    def __init__(self, recipe: Recipe, data) -> None:
        assert recipe.strokes is not None
        self.recipe, self.strokes = recipe, recipe.strokes
        self.volumes = read_sets(data, recipe.strokes, recipe.model["dimension"], fold=recipe.fitting.fold)
        self.counts = {part: len(found) for part, found in self.volumes.items()}

    def task(self) -> PromptTask:
        """The network with the people who talk to it."""
        task = PromptTask(copy.deepcopy(self.recipe.to_dict()))
        task.take(self.volumes)
        return task

    def loaders(self, rank: int, world: int, workers: int) -> tuple[DataLoader, DataLoader]:
        """Numbers of scenes, for training and for validation; scenes are drawn in the task, which has the answers."""
        fitting = self.recipe.fitting
        sampler = PatchNumbers(fitting.iterations, fitting.batch_size, rank, world)
        endless = Numbers(fitting.epochs * fitting.iterations * fitting.batch_size * world)
        loader = DataLoader(endless, batch_size=fitting.batch_size, sampler=sampler)
        return loader, DataLoader(Numbers(self.strokes.validation_scenes), batch_size=1)
