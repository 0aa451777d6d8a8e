"""Where training/prosma/correct/refine.npz comes from: small networks fitted to the strokes of the simulated user.

    python Testing/benchmarks/fit_refine.py hippocampus-mr DIR 4 12 head-neck-oar-ct DIR 12 3 \\
        polyp-colonoscopy DIR 15 32

Of each MODEL and its data DIR, with brushes around the given radius: at most so many training cases, evenly spread, and as
many of every other validation case (the split val-even of the simulated user), because a model errs less, and less
typically, where it was trained. Choices are made on val-odd. The cases are few so that it ends within minutes. Volumes and
photographs have networks of their own; those without a data set stay as they are. After each stroke it is known which of
the voxels around really should have changed sides. Both kinds of strokes take part. Some masks are moved first, so that
Refine also learns what gross mistakes look like. The user first works with a plain brush; from what is fitted to that, the
strokes of a second round follow Refine, as later strokes depend on what the earlier ones did. Both rounds are fitted in the
end. Data sets count alike, strokes by the voxels around them. Writes the file anew.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np
import simulated_user as user
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from prosma.correct import refine as engine
from prosma.correct import stroke_features, stroke_network
from prosma.image.box import smallest

STROKES = 16  # of each segment, in each round
SIZES = (0.5, 1.0, 0.75, 1.5)  # of brushes, as shares of the given radius
VOXELS = 150  # that are kept of each stroke's surroundings, most of them near the border
HIDDEN = (32, 32)
BATCH, STEPS, RATE, DECAY = 2048, 3000, 5e-3, 1e-2
MARGIN = 0.3  # of the Refine that the second round follows; the weights do not depend on the engine's choice
MOVED = 4  # one segment of so many is also corrected from a moved mask
SHIFT = 0.3  # of a segment's size
DIGITS = 4  # of the weights


def present_networks() -> dict:
    """Those in use, which stay as they are without a data set of their dimensions; none if they take other features."""
    try:
        return dict(stroke_network.load_networks())
    except RuntimeError:
        return {}


NETWORKS = present_networks()


class Recorder:
    """Corrects the segments of one data set and notes the evidence around each stroke and the truth."""

    def __init__(self) -> None:
        self.features, self.truth, self.counts, self.names = [], [], [], ()
        self.random = np.random.default_rng(0)

    def follow(self, subject: user.Subject, brush: user.Brush, by_refine: bool) -> None:
        """Correct a segment and take notes; strokes follow each other as those of Refine or of a plain brush do."""

        def noting(subject, mask, stroke, adds, earlier):
            found, place = surroundings(subject, mask, stroke, adds, earlier, brush)
            if found.candidates.any():
                self.note(found, (subject.reference[place] == adds)[found.candidates])
            joining = stroke.copy()
            if by_refine:
                layers = NETWORKS["network", engine.dimension(mask.shape)]
                joining[place][found.candidates] = stroke_network.logits(found.features, layers) > MARGIN
            return user.paint(subject, mask, joining, adds, earlier)

        user.correct(subject, noting, brush, STROKES)

    def note(self, found: stroke_features.Evidence, truth: np.ndarray) -> None:
        """Note some of the candidates; each stands for as many as its chance to be taken was small."""
        chance = 1 / (1 + found.features[:, found.names.index("depth")].astype(float))
        chance /= chance.sum()
        kept = self.random.choice(len(chance), VOXELS, p=chance)
        self.names = found.names
        self.features.append(found.features[kept])
        self.truth.append(truth[kept])
        self.counts.append(1 / (VOXELS * chance[kept]))


def surroundings(subject, mask, stroke, adds, earlier, brush) -> tuple[stroke_features.Evidence, tuple[slice, ...]]:
    """The evidence that Refine has for a stroke, and the box that it is about."""
    spacing = np.asarray(subject.spacing, float)
    extent = smallest(stroke)
    reach = user.reach_given(brush) or engine.default_reach(stroke, extent, spacing)
    box, scene = engine.surroundings(stroke, extent, subject.image, spacing, subject.probability, reach, earlier)
    place = tuple(slice(*pair) for pair in box)
    return stroke_features.evidence((mask if adds else ~mask)[place], stroke[place], scene, 1 if adds else -1), place


def moved(subject: user.Subject, number: int) -> user.Subject:
    """The segment with its mask moved along one axis; the network's probabilities stay where they are."""
    axes = [axis for axis, n in enumerate(subject.mask.shape) if n > 1]
    size = subject.mask.sum() ** (1 / len(axes))
    steps = max(2, round(SHIFT * size)) * (-1) ** number
    return replace(subject, mask=np.roll(subject.mask, steps, axis=axes[number % len(axes)]))


def record(subjects: list[user.Subject], radius: float, by_refine: bool, recorder: Recorder) -> None:
    """One round of corrections: brushes of all sizes, every other segment with the other kind of stroke, and of each
    kind every other with a ball."""
    for number, subject in enumerate(subjects):
        cut = (number + by_refine) % 2 == 1
        brush = user.Brush(radius * SIZES[number // 4 % len(SIZES)], number // 2 % 2 == 1, cut)
        recorder.follow(subject, brush, by_refine)


def fit(recorders: list[Recorder], source: str) -> stroke_network.Layers:
    """The layers of a network for what was recorded in several data sets."""
    torch.manual_seed(0)
    chosen = [name in stroke_network.FEATURES[source] for name in recorders[0].names]
    features = torch.tensor(np.concatenate([part[:, chosen] for each in recorders for part in each.features]))
    truth = torch.tensor(np.concatenate([part for each in recorders for part in each.truth])).float()
    counts = [np.concatenate(each.counts) for each in recorders]
    weight = torch.tensor(np.concatenate([part / part.mean() for part in counts])).float()
    mean, width = features.mean(dim=0), features.std(dim=0) + 1e-6
    sizes = [features.shape[1], *HIDDEN, 1]
    layers = [torch.nn.Linear(*pair) for pair in pairwise(sizes)]
    network = torch.nn.Sequential(*[part for layer in layers for part in (torch.nn.ReLU(), layer)][1:])
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    features = (features - mean) / width
    for _ in range(STEPS):
        batch = torch.randint(0, len(features), (BATCH,))
        loss = binary_cross_entropy_with_logits(network(features[batch])[:, 0], truth[batch], weight[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():  # the first layer takes the features as they are
        layers[0].weight /= width
        layers[0].bias -= layers[0].weight @ mean
    return [(rounded(layer.weight.detach().T), rounded(layer.bias.detach())) for layer in layers]


def rounded(values: torch.Tensor) -> np.ndarray:
    """With so many digits as are kept, which says how much the weights mean."""
    return np.round(values.double().numpy(), DIGITS).astype(np.float32)


def commit() -> str:
    """The commit that the weights are fitted with."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def segments(model: str, data: str, cases: int) -> list[user.Subject]:
    """What to learn from, of one data set."""
    return [subject for split in ("train", "val-even") for subject in user.subjects(model, data, split, cases)]


def with_moved(subjects: list[user.Subject]) -> list[user.Subject]:
    """The segments, and some of them once more with their masks moved."""
    return subjects + [moved(subject, number) for number, subject in enumerate(subjects[::MOVED])]


def main(arguments: list[str]) -> int:
    if not arguments or len(arguments) % 4:
        print(__doc__, file=sys.stderr)
        return 2
    torch.set_num_threads(1)  # the order of sums depends on the threads
    quadruples = zip(*(arguments[n::4] for n in range(4)), strict=True)
    sets = [(with_moved(segments(model, data, int(cases))), float(radius)) for model, data, radius, cases in quadruples]
    recorders: dict[int, list[Recorder]] = {}
    everyone = [(subjects, radius, Recorder()) for subjects, radius in sets]
    for subjects, _, recorder in everyone:
        recorders.setdefault(engine.dimension(subjects[0].mask.shape), []).append(recorder)
    for by_refine in (False, True):
        for subjects, radius, recorder in everyone:
            record(subjects, radius, by_refine, recorder)
        for dimensions, recorded in recorders.items():
            NETWORKS["network", dimensions] = fit(recorded, "network")
    for dimensions, recorded in recorders.items():
        NETWORKS["image", dimensions] = fit(recorded, "image")
    stroke_network.save_networks(NETWORKS, date.today().isoformat(), commit())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
