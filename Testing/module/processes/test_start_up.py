"""What Slicer's start-up pays for ProSMA: both modules are loaded and registered without numpy or anything as heavy."""

import os
import subprocess
import sys

import scenes

START = """
import importlib.util, sys
import headless_slicer, slicer

headless_slicer.start()
for name in ("numpy", "scipy", "SimpleITK", "torch", "vtk.util.numpy_support"):
    sys.modules[name] = None  # from now on an import of it is an error
for path in sys.argv[1:]:
    name = path.rpartition("/")[2].removesuffix(".py")
    spec = importlib.util.spec_from_file_location(name, path)
    source = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(source)
    module = slicer.qSlicerScriptedLoadableModule(name, path)
    getattr(source, name)(module)
    print(module.title)
slicer.app.sendOnce("startupCompleted()")
import SampleData
print(len(SampleData.SampleDataLogic.sampleDataSourcesByCategory("ProSMA")))
library = [name for name in sys.modules if name.startswith("ProSMASegmentationLib.")]
print(len(library) > 40, "prosma.image.tags" in sys.modules)
"""


def test_slicers_start_up_needs_no_numpy():
    paths = [str(scenes.MODULE.parents[1] / "Testing"), str(scenes.MODULE.parent)]
    done = subprocess.run(
        [sys.executable, "-c", START, str(scenes.MODULE), str(scenes.EFFECT_MODULE)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n") == ["ProSMA Segmentation", "SegmentEditorProSMAStrokes", "1", "True True", ""]
