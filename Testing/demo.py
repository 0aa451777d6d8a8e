"""One click on Segment on the bundled sample, from the panel to the saved file, in a headless Slicer. `make demo` runs it.

Writes demo/<sample>.seg.nrrd and demo/screenshot.png and prints what was measured. Exits with 0 only if all of that happened
and the segmentation in the file agrees with the reference. Where the machine lacks Qt's libraries the command line takes
the place of the panel; where it lacks EGL or fonts there is no picture; both are said.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import SimpleITK

import system_libraries

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "Resources" / "Samples"
MODEL = "hippocampus-mr"
LEAST_DICE = 0.87
SECONDS_TO_START, SECONDS_TO_SEGMENT = 120, 300
MM3_PER_ML = 1000
PICTURE_SIZE = (1600, 1000)  # pixels; tall enough for the whole panel


class DemoError(RuntimeError):
    """What did not happen that should have."""


def main() -> int:
    options = _options()
    options.output.mkdir(parents=True, exist_ok=True)
    sample = _sample()
    file = options.output / f"{Path(sample['file']).name.split('.')[0]}.seg.nrrd"
    picture = options.output / "screenshot.png"
    for old in (file, picture):
        old.unlink(missing_ok=True)
    try:
        run = _with_command_line if system_libraries.missing() else _with_panel
        measured = run(sample, file, picture)
        agreement = compare(file, SAMPLES / sample["reference"])
    except (DemoError, OSError) as error:
        print(f"The demo failed: {error}", file=sys.stderr)
        return 1
    mean = sum(dice for dice, _ml in agreement.values()) / len(agreement)
    _report(measured, agreement, mean, [file, picture])
    if mean < options.least_dice:
        print(f"The demo failed: the mean Dice is below {options.least_dice}.", file=sys.stderr)
        return 1
    return 0


def _options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "demo", help="folder for the results")
    parser.add_argument("--least-dice", type=float, default=LEAST_DICE, help="exit with 1 below this mean Dice")
    return parser.parse_args()


def _sample() -> dict:
    samples = json.loads((SAMPLES / "samples.json").read_text(encoding="utf-8"))["samples"]
    return next(sample for sample in samples if sample["model"] == MODEL)


def _with_panel(sample: dict, file: Path, picture: Path) -> dict:
    """Do it as a person does: choose the model, load the sample, click Segment, click Show 3D, save."""
    import headless_slicer

    widget = headless_slicer.loadModule(ROOT / "ProSMASegmentation" / "ProSMASegmentation.py")
    try:
        import slicer

        from headless_slicer import views

        job = click_segment(headless_slicer, widget)
        headless_slicer.click(widget.ui.show3DButton)
        segments = job.segmentationNode.GetSegmentation().GetNumberOfSegments()
        headless_slicer.processEvents(until=lambda: widget.ui.volumesTable.rowCount == segments)
        if not slicer.util.saveNode(job.segmentationNode, str(file)):
            raise DemoError(f"{file} could not be written")
        drawn = views.screenshot(picture, panel=widget.parent, size=PICTURE_SIZE)
        if not drawn:
            print(f"Notice: {drawn.reason}")
        return {
            "way": "the panel",
            "device": job.result["device"],
            "total": job.seconds["total"],
            "network": job.seconds["network"],
            "removed": job.result["statistics"]["removed_share"],
        }
    except DemoError:
        raise
    except (RuntimeError, TimeoutError) as error:
        raise DemoError(f"{error} {widget.ui.messageLabel.text}".strip()) from error
    finally:
        headless_slicer.close()


def click_segment(headless_slicer, widget):
    """Choose the model, load its sample, wait for the engine, click Segment and wait. Returns the finished job."""
    ui, panel = widget.ui, widget.panel
    ui.modelSearch.setText("hippocampus")
    ui.modelList.setCurrentRow(0)
    headless_slicer.click(ui.sampleButton)
    engine = panel.logic.engine
    headless_slicer.processEvents(
        until=lambda: engine.state != engine.STARTING and ui.segmentButton.enabled, timeout=SECONDS_TO_START
    )
    headless_slicer.click(ui.segmentButton)
    job = panel.job
    if job is None:
        raise DemoError("the click on Segment started nothing.")
    headless_slicer.processEvents(until=lambda: not job.isActive, timeout=SECONDS_TO_SEGMENT)
    if job.state != job.FINISHED:
        raise DemoError(str(job.error))
    return job


def _with_command_line(sample: dict, file: Path, _picture: Path) -> dict:
    """Where Qt cannot be loaded: the same engine, model and volume, by the command line."""
    print(system_libraries.notice())
    command = [
        sys.executable,
        "-m",
        "prosma.cli",
        "segment",
        SAMPLES / sample["file"],
        "-m",
        MODEL,
        "-o",
        file,
        "--json",
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=SECONDS_TO_SEGMENT)
    if done.returncode != 0:
        raise DemoError(done.stderr.strip())
    (case,) = json.loads(done.stdout)["cases"]
    return {
        "way": "the command line",
        "device": case["device"],
        "total": case["seconds"]["total"],
        "network": case["seconds"]["network"],
        "removed": case["removed_share"],
    }


def compare(file: Path, reference: Path) -> dict[str, tuple[float, float]]:
    """Return segment name -> (Dice with the reference's voxels of the same value, ml), read from a .seg.nrrd file.

    Raises:
        DemoError: the file has no segments.
    """
    truth = SimpleITK.ReadImage(str(reference), SimpleITK.sitkUInt8)
    found = SimpleITK.ReadImage(str(file))
    voxels = SimpleITK.GetArrayFromImage(
        SimpleITK.Resample(found, truth, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor, 0)
    )
    wanted = SimpleITK.GetArrayFromImage(truth)
    voxel_ml = abs(truth.GetSpacing()[0] * truth.GetSpacing()[1] * truth.GetSpacing()[2]) / MM3_PER_ML
    agreement = {}
    for key in found.GetMetaDataKeys():
        if key.endswith("_LabelValue"):
            value = int(found.GetMetaData(key))
            mine, theirs = voxels == value, wanted == value
            dice = 2 * (mine & theirs).sum() / max(1, mine.sum() + theirs.sum())
            agreement[found.GetMetaData(key.replace("_LabelValue", "_Name"))] = (
                float(dice),
                float(mine.sum()) * voxel_ml,
            )
    if not agreement:
        raise DemoError(f"{file.name} holds no segments")
    return agreement


def _report(measured: dict, agreement: dict, mean: float, files: list[Path]) -> None:
    print(f"Segmented by {measured['way']} on {measured['device']}.")
    for name, (dice, ml) in agreement.items():
        print(f"  {name}: Dice {dice:.3f}, {ml:.2f} ml")
    print(f"Dice, mean:        {mean:.3f}")
    print(f"Seconds:           {measured['total']:.2f} in all, {measured['network']:.2f} in the network")
    print(f"Gate removed:      {measured['removed']:.1%} of the features on the skips")
    for file in files:
        print(f"{'Written:' if file.is_file() else 'Not written:':<18} {os.path.relpath(file)}")


if __name__ == "__main__":
    sys.exit(main())
