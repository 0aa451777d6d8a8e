"""What cuda.sh runs: parts one after the other, each in a process and with a limit of its own, and one JSON file of all."""

from __future__ import annotations

import argparse
import functools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from prosma.files import write_json

ROOT = Path(__file__).parents[2]
PARTS = {"tests": 200, "forward": 70, "whole": 110, "training": 90}  # seconds at most; the whole has a limit as well
NO_CARD = 2


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", nargs="?", type=Path, default=Path("cuda.json"))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--seconds", type=float, default=480.0, help="for everything")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--part", choices=PARTS, help="run this one here and print its result (what the parts are run with)"
    )
    options = parser.parse_args(arguments)
    if options.part:
        print(json.dumps(RUN[options.part](options.device)), flush=True)
        return 0
    card = describe_card()
    if options.device == "cuda" and card["problem"]:
        print(f"Nothing was measured: {card['problem']}. Rehearse with --device cpu.", file=sys.stderr)
        return NO_CARD
    return run_parts(options, card)


def run_parts(options: argparse.Namespace, card: dict) -> int:
    """Each part in turn, for as long as there is time; the file is written anew after each."""
    began = time.monotonic()
    report = {"device": options.device, "card": card, "date": time.strftime("%Y-%m-%d %H:%M"), "parts": {}}
    for name in options.only:
        left = options.seconds - (time.monotonic() - began)
        limit = min(PARTS[name], left)
        print(f"{name}: at most {max(limit, 0):.0f} s", file=sys.stderr, flush=True)
        report["parts"][name] = run_apart(name, options.device, limit)
        report["seconds"] = round(time.monotonic() - began, 1)
        write_json(options.output, report)
    problems = {name: part["problem"] for name, part in report["parts"].items() if "problem" in part}
    for name, problem in problems.items():
        print(f"{name}: {problem}", file=sys.stderr)
    print(f"{options.output}: {report['seconds']} s", file=sys.stderr)
    return 1 if problems else 0


def run_apart(name: str, device: str, limit: float) -> dict:
    """The result of a part, or its `problem` in one line."""
    if limit < 1:
        return {"problem": "there was no time left"}
    command = [sys.executable, __file__, "--part", name, "--device", device]
    began, pipe = time.monotonic(), subprocess.PIPE
    part = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    try:
        out, errors = part.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(part.pid, signal.SIGKILL)  # with what the part has started itself
        part.communicate()
        return {"problem": f"not done after {limit:.0f} s", "seconds": round(limit, 1)}
    seconds = round(time.monotonic() - began, 1)
    lines = [line for line in out.splitlines() if line.startswith("{")]
    if part.returncode or not lines:
        last = (errors.strip().splitlines() or ["it said nothing"])[-1]
        return {"problem": f"exit code {part.returncode}: {last}", "seconds": seconds}
    return {**json.loads(lines[-1]), "seconds": seconds}


def describe_card() -> dict:
    """The card, or why there is none."""
    import torch

    from prosma.inference.devices import cuda_problem

    problem = cuda_problem()
    if problem:
        return {"problem": problem, "torch": torch.__version__}
    facts = torch.cuda.get_device_properties(0)
    return {
        "problem": "",
        "name": facts.name,
        "memory_gb": round(facts.total_memory / 2**30, 1),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "bfloat16": torch.cuda.is_bf16_supported(),
    }


def tests(device: str) -> dict:
    """The tests marked `cuda`; on a CPU they are collected and must all be skipped."""
    marked = [
        str(path) for path in ROOT.glob("Testing/**/test_*.py") if "mark.cuda" in path.read_text(encoding="utf-8")
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider", *marked]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    summary = (done.stdout.strip().splitlines() or [""])[-1]
    wanted = "passed" if device == "cuda" else "skipped"
    problem = "" if done.returncode == 0 and wanted in summary and "failed" not in summary else done.stdout[-2000:]
    return {"summary": summary, **({"problem": problem} if problem else {})}


def forward(device: str) -> dict:
    """Milliseconds of a forward pass of each network, as it is in float32, and as ProSMA runs it."""
    import torch

    from prosma.benchmarking.forward import CLASSES, SHAPES, SKIPS
    from prosma.fast.network import accelerate
    from prosma.network.unet import SMALL, ProSMAUNet

    small = {"3d": (1, 1, 32, 32, 32), "2d": (1, 1, 64, 64)}
    tables = {}
    for name, shape in (SHAPES if device == "cuda" else small).items():
        image, rows = torch.randn(shape).to(device), []
        for skip, options in SKIPS.items():
            plain = ProSMAUNet(len(shape) - 2, 1, CLASSES, SMALL, **options).eval().to(device)
            ways = {"plain": plain, "half": accelerate(plain, device, "half")}
            with torch.inference_mode():
                times = {way: timed(functools.partial(net, image), device) for way, net in ways.items()}
                rows.append({"network": skip, **times})
        tables[name] = {"shape": list(shape), "rows": rows}
    return {"milliseconds": tables}


def whole(device: str) -> dict:
    """Seconds for a volume from int16 to labels: ours, and nnU-Net's predictor with its plain U-Net of these widths."""
    import numpy as np
    import torch

    from prosma.benchmarking.subjects import PATCH, body_volume, normalised_tensor, plain_unet, random_package
    from prosma.image.geometry import Image
    from prosma.inference.segmenter import Segmenter

    shape, patch = ((256, 256, 160), PATCH) if device == "cuda" else ((64, 48, 40), (32, 32, 32))
    features, classes = (16, 32, 64, 128, 256), 5
    volume = body_volume(shape)
    with tempfile.TemporaryDirectory() as folder:
        segmenter = Segmenter(random_package(Path(folder, "m"), classes, features, patch), device)
    image = Image(volume[None], np.eye(4))
    result: dict = {"shape": list(shape), "ours": timed(lambda: segmenter.segment(image), device, 3) / 1e3}
    try:
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    except ImportError as error:
        return {**result, "nnunet": f"not installed here: {error.name}"}
    network = plain_unet((1, 1, *shape), features, classes).eval().to(device)
    predictor = nnUNetPredictor(0.5, use_mirroring=False, device=torch.device(device), allow_tqdm=False)
    predictor.network = network
    predictor.configuration_manager = SimpleNamespace(patch_size=patch)
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=classes)
    tensor = normalised_tensor(volume)
    run = lambda: predictor.predict_sliding_window_return_logits(tensor).argmax(dim=0).to(torch.uint8).cpu()  # noqa: E731
    return {**result, "nnunet": timed(run, device, 3) / 1e3}


def training(device: str) -> dict:
    """Milliseconds of a training step: ours as `prosma train` has it there, nnU-Net's trainer, MONAI's AttentionUnet."""
    from prosma.benchmarking.training_subjects import SHAPES, STEPS

    features = (16, 32, 64, 128, 256) if device == "cuda" else (4, 8)
    small = {"3d": (2, 1, 16, 16, 16), "2d": (2, 1, 32, 32)}
    tables: dict = {}
    for name, shape in (SHAPES if device == "cuda" else small).items():
        tables[name] = {"shape": list(shape)}
        for subject in ("prosma", "nnunet", "attention"):
            task = {"shape": shape, "features": features, "device": device, "half": device == "cuda"}
            try:
                tables[name][subject] = timed(STEPS[subject](task), device)
            except ImportError as error:
                tables[name][subject] = f"not installed here: {error.name}"
    return {"milliseconds": tables}


def timed(run: Callable[[], object], device: str, times: int = 10) -> float:
    """Median milliseconds, after two runs that do not count."""
    import torch

    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    found = []
    for _ in range(times + 2):
        wait()
        began = time.perf_counter()
        run()
        wait()
        found.append(1e3 * (time.perf_counter() - began))
    return round(statistics.median(found[2:]), 3)


RUN = {"tests": tests, "forward": forward, "whole": whole, "training": training}

if __name__ == "__main__":
    sys.exit(main())
