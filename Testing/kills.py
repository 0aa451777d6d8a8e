"""Kills at random moments: what a power cut, a full memory or an impatient person does to work that is under way.

python Testing/kills.py [KIND=NUMBER ...] [--seed N]     without kinds: 200 kills of all kinds

Each kill ends a real process with SIGKILL: the command `prosma` (forked when it has imported its libraries, which take longer
than the work here), for an import and for saving a case the library that the panel uses. Half of the kills end its child
processes too. Then the work is started again, as a person would. A fault is:

lost      what was there before is not there any more, or work that was told as done
half      a file at its final name is not whole
blocked   the work cannot be done any more
leftover  after work that was done to its end there lie files that undisturbed work does not leave, or processes run on

Not a test; test_kills.py runs a few.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np
import torch
from killed_work import LIMIT_S, ROOT, Fault, Work, end, program

from prosma.package import ModelPackage
from tiny_model import make_tiny_package

PLAN = {"import": 60, "batch": 60, "case": 30, "finetune": 20, "export": 15, "train": 15}
IMPORT = """
import sys
from prosma.package import import_package
print("ready", flush=True)
import_package(sys.argv[1])
"""


def same_package(folder: Path, *packages: ModelPackage) -> ModelPackage:
    """Which of the packages lies there. Fault where it is none of them."""
    try:
        found = ModelPackage.open(folder)
        torch_weights(found)
    except Exception as error:
        raise Fault(f"lost or half: {folder.name}: {error}") from error
    for package in packages:
        if (found.sha256, found.version) == (package.sha256, package.version):
            return package
    raise Fault(f"half: {folder.name} is neither the older nor the newer one")


def torch_weights(package: ModelPackage) -> dict:
    from safetensors.torch import load_file

    return load_file(package.weights_path)


class Import(Work):
    """A model imported in place of an older one, as the panel does."""

    kind, resumes = "import", False

    def prepare(self) -> None:
        self.versions = [
            make_tiny_package(self.folder / f"v{n}", seed=n, version=f"{n}.0.0", network=wide(3)) for n in (1, 2)
        ]
        self.next = self.versions[0]

    def start(self) -> subprocess.Popen:
        process = program([sys.executable, "-c", IMPORT, str(self.next.folder)], self)
        process.stdout.readline()
        return process

    def begin(self) -> None:
        self.next = self.versions[self.next is self.versions[0]]

    def finish(self) -> None:
        with self.start() as process:
            if process.wait(LIMIT_S):
                raise Fault("blocked: it cannot be imported")

    def kill(self) -> bool:
        with self.start() as process:
            time.sleep(self.draw.random() * 0.05)
            return end(process)

    def check(self) -> None:
        """The next start: `prosma models`."""
        with program([sys.executable, "-m", "prosma.cli", "models", "--json"], self) as process:
            found = json.loads(process.communicate(timeout=LIMIT_S)[0])
        if [model["id"] for model in found["models"]].count("tiny") != 1 or found["broken"]:
            raise Fault(f"lost: {[model['id'] for model in found['models']]}, {found['broken']}")
        same_package(self.home / "models" / "tiny", *self.versions)
        self.check_leftovers()

    def check_done(self) -> None:
        if same_package(self.home / "models" / "tiny", *self.versions) is not self.next:
            raise Fault("blocked: the older one is still there")


class Batch(Work):
    """Images of a folder segmented."""

    kind = "batch"

    def prepare(self) -> None:
        make_tiny_package(self.folder / "model")
        (self.folder / "images").mkdir()
        for n in range(6):
            nibabel.save(image(n), self.folder / "images" / f"case{n}.nii.gz")

    def command(self) -> list[str]:
        options = ["images", "-m", "model", "-o", "out", "--device", "cpu"]
        return ["segment", *options, "--format", ".nii.gz", "--workers", str(self.workers)]

    @property
    def workers(self) -> int:
        return 2 if self.draw.random() < 0.3 else 1

    def finish(self) -> None:
        super().finish()
        if not hasattr(self, "expected"):
            self.expected = self.results()

    def begin(self) -> None:
        shutil.rmtree(self.folder / "out")

    def results(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.folder / "out").glob("case*")}

    def check(self) -> None:
        for name, content in self.results().items():
            if content != self.expected[name]:
                raise Fault(f"half: {name}")

    def check_done(self) -> None:
        if self.results() != self.expected:
            raise Fault(f"lost or half: {sorted(self.results())}")


class Training(Work):
    """A run, killed and resumed: the weights are those of an undisturbed one."""

    kind = "train"

    def prepare(self) -> None:
        data_set(self.folder / "data")
        write_recipe(self.folder / "recipe.yaml")

    def command(self) -> list[str]:
        options = ["--data", "data", "-o", "run", "--resume", "--deterministic", "--workers", "0", "--device", "cpu"]
        return ["train", "recipe.yaml", *options]

    def finish(self) -> None:
        super().finish()
        if not hasattr(self, "expected"):
            self.expected = self.weights()

    def begin(self) -> None:
        shutil.rmtree(self.folder / "run")

    def weights(self) -> dict:
        return torch.load(self.folder / "run" / "last.ckpt", weights_only=True)["state_dict"]

    def check(self) -> None:
        for path in (self.folder / "run").glob("*.ckpt"):
            try:
                torch.load(path, weights_only=True)
            except Exception as error:
                raise Fault(f"half: {path.name}: {error}") from error
        for path in (self.folder / "run").glob("*.json"):
            try:
                json.loads(path.read_text())
            except ValueError as error:
                raise Fault(f"half: {path.name}: {error}") from error

    def check_done(self) -> None:
        found = self.weights()
        if not all(torch.equal(found[name], self.expected[name]) for name in self.expected):
            raise Fault("lost: the weights are not those of an undisturbed run")
        epochs = [epoch["epoch"] for epoch in json.loads((self.folder / "run" / "history.json").read_text())["epochs"]]
        if epochs != list(range(len(epochs))):
            raise Fault(f"lost: epochs {epochs} in history.json")

    def names(self) -> set[str]:
        """Each resumed part logs its curves in a file of its own."""
        return {name for name in super().names() if "tfevents" not in name}


class _NewPackage(Work):
    """Work that writes a package in place of an older one."""

    def begin(self) -> None:
        """Sometimes there is no older one."""
        self.before = None
        shutil.rmtree(self.folder / "package", ignore_errors=True)
        if self.draw.random() < 0.6:
            shutil.copytree(self.older.folder, self.folder / "package")
            self.before = self.older

    def check(self) -> None:
        place = self.folder / "package"
        from prosma.package.folders import tidy

        tidy(self.folder)  # as whoever lists or opens it does
        if place.exists() or self.before is not None:
            same_package(place, self.older, self.expected)

    def finish(self) -> None:
        super().finish()
        if not hasattr(self, "expected"):
            shutil.copytree(self.folder / "package", self.folder / "expected")
            self.expected = ModelPackage.open(self.folder / "expected")

    def check_done(self) -> None:
        if same_package(self.folder / "package", self.older, self.expected) is not self.expected:
            raise Fault("blocked: the older package is still there")


class Export(_NewPackage):
    """A run made a package."""

    kind = "export"

    def prepare(self) -> None:
        self.older = make_tiny_package(self.folder / "older", version="0.1.0")
        data_set(self.folder / "data")
        write_recipe(self.folder / "recipe.yaml")
        options = ["--data", "data", "-o", "run", "--workers", "0", "--device", "cpu", "--max-epochs", "1"]
        self.next = ["train", "recipe.yaml", *options]
        Work.finish(self)
        self.next = ["export", "run", "-o", "package", "--again"]

    def command(self) -> list[str]:
        return self.next


class FineTuning(_NewPackage):
    """A model that learns from cases."""

    kind = "finetune"

    def prepare(self) -> None:
        self.older = make_tiny_package(self.folder / "older", version="0.1.0")
        data_set(self.folder / "data")

    def command(self) -> list[str]:
        options = ["--data", "data", "-o", "package", "--steps", "2", "--batch-size", "1", "--device", "cpu"]
        return ["finetune", "older", *options]

    def begin(self) -> None:
        """What is there already is refused from the start."""
        self.before = None
        shutil.rmtree(self.folder / "package")

    def finish(self) -> None:
        """Where the new package was ready before the kill, all is done."""
        if not (self.folder / "package").exists():
            super().finish()


class Case(Work):
    """A corrected result saved to learn from, in Slicer."""

    kind = "case"

    def prepare(self) -> None:
        make_tiny_package(self.home / "models" / "tiny", channels=2, id="two")
        self.saved: list[str] = []

    def start(self) -> subprocess.Popen:
        host = ROOT / "Testing" / "module" / "saving_host.py"
        with (self.folder / "log.txt").open("w") as log:
            return program([sys.executable, str(host), "cases"], self, stderr=log)

    def finish(self) -> None:
        """A Slicer that saves one case and ends."""
        with self.start() as process:
            told, _ = process.communicate(timeout=LIMIT_S)
            if process.returncode:
                raise Fault(f"blocked: exit code {process.returncode}: {(self.folder / 'log.txt').read_text()[-800:]}")
        self.saved += told.split()

    def kill(self) -> bool:
        """A Slicer that saves one case, and others until it is killed."""
        with self.start() as process:
            self.saved += process.stdout.readline().split()
            process.stdin.write("go on\n")
            process.stdin.flush()
            time.sleep(self.draw.random() * 1.5)
            running = end(process)
            self.saved += process.stdout.read().split()
            return running

    def begin(self) -> None:
        self.check_done()

    def check(self) -> None:
        for path in (*(self.folder / "cases").glob("*Tr/*.nii.gz"),):
            try:
                assert np.asanyarray(nibabel.load(path).dataobj).shape == (12, 14, 10)
            except Exception as error:
                raise Fault(f"half: {path.name}: {error}") from error
        self.check_known(self.saved)

    def check_known(self, names) -> None:
        for name in names:
            parts = [f"labelsTr/{name}.nii.gz", f"records/{name}.json"]
            parts += [f"imagesTr/{name}_{channel:04d}.nii.gz" for channel in range(2)]
            if missing := [part for part in parts if not (self.folder / "cases" / part).is_file()]:
                raise Fault(f"lost: {missing}")

    def check_done(self) -> None:
        self.check()
        labels = {path.name.removesuffix(".nii.gz") for path in (self.folder / "cases" / "labelsTr").iterdir()}
        self.check_known(labels)
        described = json.loads((self.folder / "cases" / "dataset.json").read_text())["numTraining"]
        if described != len(labels):
            raise Fault(f"half: dataset.json tells of {described} cases of {len(labels)}")

    def names(self) -> set[str]:
        """Cases may become more, by those that were saved; a killed Slicer's own temporary folder is not ours."""
        ours = {name for name in super().names() if not name.endswith((".nii.gz", ".json")) or "/." in name}
        return {name for name in ours if not name.startswith("tmp/headless-slicer-")}


def wide(dimension: int) -> dict:
    """A network of some megabytes, so that copying it takes a moment."""
    return {"spatial_dims": dimension, "in_channels": 1, "out_channels": 3, "features": [16, 32, 64]}


def image(seed: int) -> nibabel.Nifti1Image:
    voxels = np.random.default_rng(seed).normal(size=(6, 6, 5)).repeat(4, 0).repeat(4, 1).repeat(4, 2)
    return nibabel.Nifti1Image(voxels.astype(np.float32), np.diag([1.0, 1.0, 1.0, 1.0]))


def data_set(folder: Path) -> None:
    """Four cases as nnU-Net has them, with splits."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for n in range(4):
        one = image(n)
        labels = np.digitize(np.asanyarray(one.dataobj), (0.0, 1.0)).astype(np.uint8)
        nibabel.save(one, folder / "imagesTr" / f"case_{n}_0000.nii.gz")
        nibabel.save(nibabel.Nifti1Image(labels, one.affine), folder / "labelsTr" / f"case_{n}.nii.gz")
    labels = {"background": 0, "structure 1": 1, "structure 2": 2}
    described = {"channel_names": {"0": "channel 0"}, "labels": labels, "numTraining": 4, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(described))
    splits = {"train": ["case_0", "case_1"], "val": ["case_2"], "test": ["case_3"]}
    (folder / "splits.json").write_text(json.dumps(splits))


def write_recipe(path: Path) -> None:
    """Two epochs of a small network."""
    import yaml

    from prosma.learning.recipe import Recipe

    recipe = Recipe.read(ROOT / "training" / "recipes" / "hippocampus-mr.yaml")
    recipe.model.pop("finder", None)
    recipe.model.update(patch_size=[16, 16, 16])
    recipe.network["features"] = [4, 8]
    for name, value in {"epochs": 2, "iterations": 1, "batch_size": 1, "validate_every": 1}.items():
        setattr(recipe.fitting, name, value)
    path.write_text(yaml.safe_dump(recipe.to_dict()))


KINDS = {work.kind: work for work in (Import, Batch, Export, FineTuning, Training, Case)}


def run(kind: str, kills: int, folder: Path, seed: int, say=print) -> tuple[int, list[str]]:
    """So many kills of one kind. How many there were, and the faults."""
    draw = random.Random(f"{kind}-{seed}")
    faults: list[str] = []
    number = done = attempts = 0
    while done < kills:
        work = KINDS[kind](folder / f"{kind}{number}", draw)
        number += 1
        say(f"{kind}: {work.seconds:.1f} s undisturbed")
        try:
            while done < kills:
                done += work.round(kills - done)
                attempts += 1
                if attempts > 3 * kills + 3:
                    raise Fault("the work always ended before its kill")
        except Fault as fault:
            done += 1
            faults.append(f"{kind}, after {done} kills: {fault}")
            say(faults[-1])
            attempts += 1
            if attempts > 3 * kills + 3:
                break
    return done, faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND=NUMBER", help=", ".join(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    plan = {kind: int(number) for kind, number in (each.split("=") for each in options.kinds)} or PLAN
    totals: collections.Counter = collections.Counter()
    with tempfile.TemporaryDirectory(prefix="kills-", ignore_cleanup_errors=True) as folder:
        for kind, kills in plan.items():
            began = time.monotonic()
            done, faults = run(kind, kills, Path(folder), options.seed)
            totals.update({"kills": done, "faults": len(faults)})
            print(f"{kind}: {done} kills, {len(faults)} faults, {time.monotonic() - began:.0f} s", flush=True)
    print(json.dumps(totals))
    sys.exit(bool(totals["faults"]))


if __name__ == "__main__":
    main()
