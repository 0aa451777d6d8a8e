"""A Slicer of its own, as a process: batch_host.py IMAGES RESULTS segments a folder, and says each result.

The folder Testing must be on PYTHONPATH.
"""

import sys

import scenes

import headless_slicer


def main():
    images, results = sys.argv[1:]
    panel = headless_slicer.loadModule(scenes.MODULE).panel
    queue = panel.logic.batch(images, model="coarse", outputFolder=results, wait=False)
    queue.onProgress.append(lambda _queue, _item: print("done", len(queue.having("finished")), flush=True))
    headless_slicer.processEvents(until=lambda: not queue.isActive, timeout=300)
    headless_slicer.close()


if __name__ == "__main__":
    main()
