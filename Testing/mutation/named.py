"""Seven faults that went unnoticed once, each by its name: `python Testing/mutation/run.py --named`."""

from __future__ import annotations

import ast
from dataclasses import dataclass


@dataclass(frozen=True)
class Named:
    """A fault: whose code it is put into (see run.py), and which text there becomes which."""

    name: str
    subject: str
    right: str
    wrong: str

    def tree(self, source: str) -> ast.Module:
        """The faulty source. ValueError where the right text is not there exactly once."""
        if source.count(self.right) != 1:
            raise ValueError(f"'{self.right}' occurs {source.count(self.right)} times in the code of '{self.subject}'.")
        return ast.parse(source.replace(self.right, self.wrong))


NAMED = (
    Named("the Dice half of the loss is left out", "loss", "return dice + (errors", "return (errors"),
    Named("the decoder grid's average becomes a maximum", "gate", "3: F.avg_pool3d", "3: F.max_pool3d"),
    Named("the sigmoid gate's factor is 2, not 4", "gate", "+ 4 * evidence", "+ 2 * evidence"),
    Named("effective_channels without its square", "gate_monitor", "mean.sum() ** 2 /", "mean.sum() /"),
    Named("the window is twice as wide", "tiling", "(length / 8)", "(length / 4)"),
    Named("refine's margin is 0", "refine", "MARGIN = 0.5", "MARGIN = 0.0"),
    Named("refine's edges cost nothing", "features", "EDGE_COST = 1.0", "EDGE_COST = 0.0"),
)  # fmt: skip
