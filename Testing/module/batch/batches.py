"""What the tests of batches share: small cases, starting as a person does, and what was made."""

from pathlib import Path

import numpy as np
import scenes

from headless_slicer import click, processEvents

VOLUMES, SEQUENCE, FOLDER = range(3)
NODES, FILES = range(2)
SECONDS = 300  # on a machine that is busy with other things


def start(panel, source=VOLUMES, results=None, images=None):
    """Choose and click Start batch, as a person does. Returns the queue."""
    ui = panel.ui
    ui.batchSourceComboBox.setCurrentIndex(source)
    if images is not None:
        ui.batchImagesPath.currentPath = str(images)
    if source != FOLDER:
        ui.batchOutputComboBox.setCurrentIndex(NODES if results is None else FILES)
    if results is not None:
        assert ui.batchResultsPath.isVisible()
        ui.batchResultsPath.currentPath = str(results)
    click(ui.batchButton)
    return panel.batch.queue


def run(panel, *arguments, **options):
    """The same, and wait for the end."""
    queue = start(panel, *arguments, **options)
    processEvents(until=lambda: not queue.isActive, timeout=SECONDS)
    processEvents()
    return queue


def states(queue):
    return [item.state for item in queue.items]


def small(seed=0, size=16):
    return scenes.texture((size, size, size), seed=seed)


def add_volumes(number, broken=()):
    """Small volumes; those in ``broken`` hold one value throughout."""
    return [
        scenes.add_volume(np.full((16, 16, 16), 7, "int16") if n in broken else small(n), name=f"scan {n}")
        for n in range(number)
    ]


def add_files(folder, number, broken=()):
    """Small volumes as files; those in ``broken`` are cut off."""
    import slicer

    folder.mkdir()
    for n in range(number):
        path = folder / f"case{n:02d}.nrrd"
        node = scenes.add_volume(small(n), name=path.stem)
        slicer.util.saveNode(node, str(path))
        slicer.mrmlScene.RemoveNode(node)
        if n in broken:
            path.write_bytes(path.read_bytes()[:200])
    return folder


def nodes():
    """Each segmentation of the scene, with the times of the last change of its voxels."""
    import slicer

    found = {}
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        for segment in map(node.GetSegmentation().GetSegment, scenes.segment_ids(node)):
            image = segment.GetRepresentation("Binary labelmap")
            found[node.GetName(), segment.GetName()] = image.GetMTime()
    return found


def fingerprints(node):
    """The fingerprints that the segments were written with, in the order of their labels."""
    segments = scenes.segment_ids(node)
    return [
        scenes.tag(node, segment, "ProSMA.fingerprint")
        for segment in sorted(segments, key=lambda each: scenes.tag(node, each, "ProSMA.label"))
    ]


def files(folder):
    """Each result in a folder, with the time of its last change."""
    return {file.name: file.stat().st_mtime_ns for file in Path(folder).glob("*.seg.nrrd")}


def a_sequence(frames=3):
    """A sequence of volumes in a browser, without other volumes in the scene."""
    import slicer

    node = scenes.add_volume(small(), name="frame")
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "heart")
    sequence.SetIndexName("time")
    sequence.SetIndexUnit("s")
    for number in range(frames):
        slicer.util.updateVolumeFromArray(node, small(number))
        sequence.SetDataNodeAtValue(node, f"{number / 2}")
    slicer.mrmlScene.RemoveNode(node)
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "browser")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    browse(browser, 0)
    return sequence, browser


def browse(browser, number):
    """Move the browser to a frame, as its slider does."""
    import slicer

    browser.SetSelectedItemNumber(number)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    processEvents()
