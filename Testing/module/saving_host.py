"""A Slicer of its own, as a process: saving_host.py FOLDER saves a case, and after a line on stdin one after the other.

Prints the name of each case that is saved. The folder Testing must be on PYTHONPATH; its model is called two.
"""

import sys

import numpy as np
import scenes

import headless_slicer

SHAPE = (10, 14, 12)  # K, J, I


def main():
    from prosma.steps import finish

    panel = headless_slicer.loadModule(scenes.MODULE).panel
    from ProSMASegmentationLib.Results.ResultWriter import ResultWriter

    logic = panel.logic
    volumes = [scenes.add_volume(scenes.texture(SHAPE, seed=seed), f"scan {seed}") for seed in range(2)]
    labels = np.digitize(scenes.texture(SHAPE, seed=3), (450, 600)).astype(np.uint8)
    node = finish(ResultWriter(volumes[0], logic.library.package("two")).write(labels, (0, 0, 0)))

    def save():
        print(*logic.saveTrainingCase(node, sys.argv[1], volumes, "two"), flush=True)

    save()
    if sys.stdin.readline():
        while True:
            save()
    headless_slicer.close()


if __name__ == "__main__":
    main()
