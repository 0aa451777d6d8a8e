"""Where training/prosma/refine_weights.py comes from: small networks fitted to the strokes of the simulated user.

    python Testing/benchmarks/fit_refine.py hippocampus-mr DIR 4 12 head-neck-oar-ct DIR 12 12 \\
        polyp-colonoscopy DIR 15 32

Takes training cases alone: of each MODEL and its data DIR, with brushes around the given radius, at most so many cases,
evenly spread, which are few so that it ends within minutes. Volumes and photographs have networks of their own; those
without a data set stay as they are. After each stroke it is known which of the voxels around really should have changed
sides. Some masks are moved first, so that Refine also learns what gross mistakes look like. The user first works with a
plain brush; from what is fitted to that, the strokes of a second round follow Refine, as later strokes depend on what the
earlier ones did. Both rounds are fitted in the end. Data sets count by their strokes, strokes by the voxels around them.
Writes the file anew.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import simulated_user as user
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from prosma import refine as engine
from prosma import refine_weights

SEGMENTS = 2  # at most, for each case on the average; where cases have many, the first cases give them all
STROKES = 12  # of each segment
SIZES = (0.5, 1.0, 0.75, 1.5)  # of brushes, as shares of the given radius; every other one is a ball in volumes
VOXELS = 150  # that are kept of each stroke's surroundings
HIDDEN = 16
BATCH, STEPS, RATE, DECAY = 2048, 1500, 1e-2, 1e-2
MOVED = 3  # one segment of so many is also corrected from a moved mask
SHIFT = 0.3  # of a segment's size
DIGITS = 4  # of the weights in the file
OF_LOG_ODDS = {"log_odds", "log_odds_around", "offset", "offset_next_to", "need"}


class Recorder:
    """A method of correcting, for one data set, that notes the evidence around each stroke and the truth."""

    def __init__(self) -> None:
        self.features, self.truth, self.counts, self.names = [], [], [], ()
        self.random = np.random.default_rng(0)

    def follow(self, subject: user.Subject, brush: user.Brush, method: user.Method, reach: float | None) -> None:
        """Correct a segment and take notes. `reach` in mm as in `refine`."""

        def noting(subject, mask, stroke, adds, earlier):
            self.note(subject, mask, stroke, adds, earlier, reach)
            return method(subject, mask, stroke, adds, earlier)

        user.correct(subject, noting, brush, STROKES)

    def note(self, subject, mask, stroke, adds, earlier, reach) -> None:
        spacing = np.asarray(subject.spacing, float)
        reach = reach or engine.default_reach(stroke, engine.smallest_box(stroke), spacing)
        box, scene = engine.surroundings(stroke, subject.image, spacing, subject.probability, reach, earlier)
        place = tuple(slice(*pair) for pair in box)
        own = (mask if adds else ~mask)[place]
        found = engine.evidence(own, stroke[place], scene, 1 if adds else -1)
        kept = self.random.permutation(len(found.features))[:VOXELS]
        if len(kept):
            self.names = found.names
            self.features.append(found.features[kept])
            self.truth.append((subject.reference[place] == adds)[found.candidates][kept])
            self.counts.append(np.full(len(kept), len(found.features) / len(kept)))


def moved(subject: user.Subject, number: int) -> user.Subject:
    """The segment with its mask moved along one axis; the network's probabilities stay where they are."""
    axes = [axis for axis, n in enumerate(subject.mask.shape) if n > 1]
    size = subject.mask.sum() ** (1 / len(axes))
    steps = max(2, round(SHIFT * size)) * (-1) ** number
    return replace(subject, mask=np.roll(subject.mask, steps, axis=axes[number % len(axes)]))


def record(subjects: list[user.Subject], radius: float, by_refine: bool, recorder: Recorder) -> None:
    """One round of corrections; half of them with a reach that follows from the stroke alone."""
    for number, subject in enumerate(subjects):
        brush = user.Brush(radius * SIZES[number % len(SIZES)], bool(number % 2))
        given = number // len(SIZES) % 2
        method = user.refining(brush, True, reach_given=bool(given)) if by_refine else user.paint
        recorder.follow(subject, brush, method, engine.REACH * brush.radius if given else None)


def fit(recorders: list[Recorder], with_log_odds: bool) -> dict:
    """The weights of a network for what was recorded in several data sets."""
    torch.manual_seed(0)
    chosen = [with_log_odds or name not in OF_LOG_ODDS for name in recorders[0].names]
    features = torch.tensor(np.concatenate([part[:, chosen] for each in recorders for part in each.features]))
    truth = torch.tensor(np.concatenate([part for each in recorders for part in each.truth])).float()
    counts = [np.concatenate(each.counts) for each in recorders]
    weight = torch.tensor(np.concatenate([part / part.mean() for part in counts])).float()
    mean, width = features.mean(dim=0), features.std(dim=0) + 1e-6
    first, last = torch.nn.Linear(features.shape[1], HIDDEN), torch.nn.Linear(HIDDEN, 1)
    network = torch.nn.Sequential(first, torch.nn.ReLU(), last)
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
    hidden = first.weight.detach().T / width[:, None]
    return {
        "hidden": rounded(hidden),
        "hidden_shift": rounded(first.bias.detach() - mean @ hidden),
        "output": rounded(last.weight.detach()[0]),
        "output_shift": round(float(last.bias.detach()), DIGITS),
    }


def rounded(values: torch.Tensor) -> list:
    """As plain numbers with so many digits as the file has."""
    return np.round(values.double().numpy(), DIGITS).tolist()


def write(weights: dict, names: tuple[str, ...]) -> None:
    """Write refine_weights.py."""
    lines = [
        '"""Weights of the networks in refine.py; written by Testing/benchmarks/fit_refine.py."""',
        "",
        "# ruff: noqa: E501",
        "# the network's log odds known or not, dimensions -> hidden layer (one row for each feature in this order, where",
        "# the last five need log odds) and output:",
        *(f"#   {name}" for name in names),
        "# fmt: off",
        "WEIGHTS = {",
    ]
    for kind, network in weights.items():
        lines.append(f"    {kind!r}: {{".replace("'", '"'))
        for name, value in network.items():
            rows = value if name == "hidden" else [value]
            text = "\n".join(f"            {row}," for row in rows)
            lines.append(
                f'        "{name}": [\n{text}\n        ],' if name == "hidden" else f'        "{name}": {value},'
            )
        lines.append("    },")
    Path(refine_weights.__file__).write_text("\n".join([*lines, "}", ""]), encoding="utf-8")


def training_segments(model: str, data: str, cases: int) -> list[user.Subject]:
    """What to learn from, of one data set."""
    return list(islice(user.subjects(model, data, "train", cases), SEGMENTS * cases))


def with_moved(subjects: list[user.Subject]) -> list[user.Subject]:
    """The segments, and some of them once more with their masks moved."""
    return subjects + [moved(subject, number) for number, subject in enumerate(subjects[::MOVED])]


def main(arguments: list[str]) -> int:
    if not arguments or len(arguments) % 4:
        print(__doc__, file=sys.stderr)
        return 2
    torch.set_num_threads(1)  # the order of sums depends on the threads
    quadruples = zip(*(arguments[n::4] for n in range(4)), strict=True)
    sets = [
        (with_moved(training_segments(model, data, int(cases))), float(radius))
        for model, data, radius, cases in quadruples
    ]
    recorders: dict[int, list[Recorder]] = {}
    everyone = [(subjects, radius, Recorder()) for subjects, radius in sets]
    for subjects, _, recorder in everyone:
        recorders.setdefault(engine.dimension(subjects[0].mask.shape), []).append(recorder)
    for by_refine in (False, True):
        for subjects, radius, recorder in everyone:
            record(subjects, radius, by_refine, recorder)
        for dimensions, recorded in recorders.items():
            engine.WEIGHTS["network", dimensions] = fit(recorded, True)
    for dimensions, recorded in recorders.items():
        engine.WEIGHTS["image", dimensions] = fit(recorded, False)
    write(engine.WEIGHTS, everyone[0][2].names)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
