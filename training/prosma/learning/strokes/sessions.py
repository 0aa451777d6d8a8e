"""Sessions: a person and a promptable network in turns, stroke by stroke, on one scene."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from ...correct.crop import box_on_array, cube, cut, first_cube, grown_cube, inside, longest, touches
from ...correct.prompt_input import MASK, Said, patch_of
from ...correct.prompting import MOST_GROWTHS, answered, near_newest, zoom_of
from ...image.box import Box, slices
from .person import next_remark
from .scenes import Scene

GROWS = 0.5  # share of the cubes that grow where the object goes on
SCALES = (0.6, 2.0)  # of the edge of the first cube, so that the network meets objects that are cut off, and small ones


class Session:
    """One scene, and what was said about it so far. `size`: voxels of the network's patch."""

    def __init__(self, scene: Scene, size: Sequence[int], rng: Generator) -> None:
        self.scene, self.size, self.rng = scene, tuple(size), rng
        self.said = Said.nothing(scene.truth.shape)
        self.said.mask, self.said.log_odds = scene.mask, scene.log_odds
        self.rounds = 0
        self.box: Box = self.said.newest
        self.patch = np.zeros(0, np.float32)
        self.closer = False

    def speak(self) -> bool:
        """The person says the next thing; False where nothing is wrong any more."""
        first = not self.said.mask.any()
        remark = next_remark(self.scene.truth, self.said.mask, self.scene.spacing, self.rng, first)
        if remark is None:
            return False
        remark.said_in(self.said)
        self.rounds += 1
        return True

    def look(self) -> tuple[np.ndarray, np.ndarray]:
        """The network's input and the truth on its grid (uint8), after `speak`: the cube grows as it does in use.

        In use the network's own answer says where the object goes on; here the truth does, so that no answer is waited for.
        """
        scene, shape = self.scene, self.scene.truth.shape
        low, high = SCALES
        zoom = zoom_of(self.said) * low * (high / low) ** self.rng.random()
        box = first_cube(self.said.newest, scene.spacing, shape, zoom)
        for step in range(MOST_GROWTHS + 1):
            patch = patch_of(scene.image, self.said, box, self.size)
            truth = cut(scene.truth, box, self.size) > 0.5
            change = near_newest(truth, patch, self.said, box)
            around = box_on_array(change, box)
            if step == MOST_GROWTHS or around is None or not touches(change, box, shape) or self.rng.random() > GROWS:
                break
            box = grown_cube(box, around, scene.spacing, shape)
        self.box, self.patch, self.closer = box, patch, False
        return patch, truth.astype(np.uint8)

    def look_closer(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The same at twice the scale, somewhere at the mask's border; None where the patch is as fine as the image."""
        spacing, shape = np.array(self.scene.spacing), self.scene.truth.shape
        edge = longest(self.box, spacing) / 2
        if edge < 0.75 * max(self.size) * spacing.min():
            return None
        place = inside(self.box, shape)
        mask = self.said.mask[slices(place)]
        wide = [n for n in range(3) if mask.shape[n] > 1]
        border = np.argwhere(np.diff(mask, axis=wide[int(self.rng.integers(len(wide)))]))
        if not len(border):
            return None
        where = border[int(self.rng.integers(len(border)))] + [low for low, _ in place]
        self.box = cube(tuple((int(n), int(n) + 1) for n in where), edge, spacing, shape)
        self.patch, self.closer = patch_of(self.scene.image, self.said, self.box, self.size), True
        return self.patch, (cut(self.scene.truth, self.box, self.size) > 0.5).astype(np.uint8)

    def receive(self, odds: np.ndarray) -> None:
        """The network's answer (log odds on its grid) becomes the mask, as in use."""
        new = odds > 0
        anywhere = new != (self.patch[MASK] > 0.5)
        change = anywhere if self.closer else near_newest(new, self.patch, self.said, self.box)
        self.said.mask = answered(odds, change, self.said, self.box).on(self.said.mask)
