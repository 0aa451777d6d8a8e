"""The door: a real child process, spoken to in JSON lines."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from prosma.inference.segmenter import Segmenter
from small_volumes import smooth_volume
from tiny_model import make_tiny_package

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 120  # seconds; the machine may be busy


class Engine:
    """A worker process and its events."""

    def __init__(self, *arguments, code="import sys; from prosma.door.worker import main; main(sys.argv[1:])"):
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "training")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        self.log = b""
        self.reader = threading.Thread(target=self._drain, daemon=True)
        self.reader.start()
        self.ready = self.event()

    def _drain(self):
        for line in self.process.stderr:
            self.log += line

    def send(self, **request):
        self.write(json.dumps(request).encode() + b"\n")

    def write(self, data: bytes):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def event(self) -> dict:
        line = self.process.stdout.readline()
        assert line, f"the engine ended: {self.log.decode()}"
        return json.loads(line)

    def answer(self, job) -> tuple[dict, list[dict]]:
        """The result or error of a job, and its progress events."""
        events = []
        while True:
            event = self.event()
            if event.get("id") == job:
                if event["event"] in ("result", "error"):
                    return event, events
                events.append(event)

    def segment(self, job, package, folder, image, **options):
        self.send(id=job, do="segment", model=str(package.folder), **job_files(folder, image), **options)

    def close(self):
        self.process.stdin.close()
        self.process.wait(TIMEOUT)
        self.process.stdout.close()


def job_files(folder: Path, image) -> dict:
    folder.mkdir(exist_ok=True)
    np.save(folder / "channel0.npy", np.ascontiguousarray(image.array.T))
    return {"folder": str(folder), "channels": [{"file": "channel0.npy", "ijk_to_ras": image.ijk_to_ras.tolist()}]}


@pytest.fixture(scope="module")
def engine(tiny):
    engine = Engine("--preload", tiny.folder)
    yield engine
    engine.close()
    assert engine.process.returncode == 0


@pytest.fixture(scope="module")
def slow_package(tmp_path_factory):
    """A network that needs seconds for one tile."""
    network = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "features": [24, 24]}
    folder = tmp_path_factory.mktemp("m") / "slow"
    return make_tiny_package(folder, id="slow", spacing=None, patch_size=[128, 128, 128], network=network)


def big_volume():
    return smooth_volume((128, 128, 130))


def test_ready_tells_who_is_there(engine):
    ready = engine.ready
    assert ready["event"] == "ready"
    assert ready["pid"] == engine.process.pid
    assert ready["model"] == "tiny"
    assert ready["problem"] is None
    assert ready["devices"][0]["name"] == "cpu"
    assert ready["python"].count(".") == 2
    assert ready["torch"]


def test_result_equals_the_python_interface(engine, tiny, tmp_path):
    image, roi = smooth_volume((30, 25, 20)), [[2, 30], [0, 22], [1, 20]]
    outputs = ["probabilities", "uncertainty", "gate_map"]
    engine.segment("a", tiny, tmp_path / "job", image, outputs=outputs, roi=roi)
    result, progress = engine.answer("a")
    expected = Segmenter(tiny).segment(image, outputs, roi)
    assert result["event"] == "result", result
    i, j, k = result["labels"]["offset"]
    cropped = np.load(tmp_path / "job" / result["labels"]["file"])
    labels = np.zeros((20, 25, 30), cropped.dtype)
    labels[k : k + cropped.shape[0], j : j + cropped.shape[1], i : i + cropped.shape[2]] = cropped
    assert labels.tobytes() == np.ascontiguousarray(expected.labels.T).tobytes()
    assert all(cropped.any(axis=axes).take([0, -1]).all() for axes in ((0, 1), (0, 2), (1, 2)))
    for name in outputs[1:]:
        volume = result["volumes"][name]
        assert volume["offset"] == [2, 0, 1]
        np.testing.assert_array_equal(np.load(tmp_path / "job" / volume["file"]).T, getattr(expected, name))
    probabilities = result["volumes"]["probabilities"]
    reached = np.load(tmp_path / "job" / probabilities["file"]).transpose(0, 3, 2, 1)
    corner = np.subtract(probabilities["offset"], (2, 0, 1))
    whole = np.zeros_like(expected.probabilities)
    whole[0] = 255
    whole[(slice(None), *(slice(c, c + n) for c, n in zip(corner, reached.shape[1:], strict=True)))] = reached
    np.testing.assert_array_equal(whole, expected.probabilities)
    assert probabilities["reach"] == [[list(pair) for pair in box] for box in expected.reach]
    assert [s["voxels"] for s in result["segments"]] == np.bincount(labels.ravel(), minlength=3)[1:].tolist()
    assert result["segments"][0]["ml"] == pytest.approx(result["segments"][0]["voxels"] * image.voxel_ml, abs=1e-5)
    assert result["device"] == expected.device
    assert result["statistics"]["removed_share"] == pytest.approx(expected.statistics["removed_share"])
    assert {"total", "network"} <= set(result["seconds"])
    fractions = [event["fraction"] for event in progress]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_several_channels_components_and_another_grid(engine, tmp_path):
    package = make_tiny_package(tmp_path / "two", channels=2, spacing=None, patch_size=[16, 16, 16])
    image = smooth_volume((20, 16, 16), channels=2)
    engine.segment("c", package, tmp_path / "job", image)
    together, _ = engine.answer("c")
    folder = tmp_path / "apart"
    folder.mkdir()
    channels = []
    for index, (array, matrix) in enumerate([(image.array[0], image.ijk_to_ras), (image.array[1], image.ijk_to_ras)]):
        np.save(folder / f"{index}.npy", np.ascontiguousarray(array.T))
        channels.append({"file": f"{index}.npy", "ijk_to_ras": matrix.tolist()})
    engine.send(id="d", do="segment", model=str(package.folder), folder=str(folder), channels=channels)
    apart, _ = engine.answer("d")
    assert apart["segments"] == together["segments"]
    channels[1]["ijk_to_ras"][0][3] += 2.0
    engine.send(id="e", do="segment", model=str(package.folder), folder=str(folder), channels=channels)
    moved, _ = engine.answer("e")
    assert "another grid" in moved["notices"][0]


def test_describe_loads_a_model_once(engine, tmp_path):
    package = make_tiny_package(tmp_path / "other", id="other")
    engine.send(id="1", do="describe", model=str(package.folder), device="cpu")
    engine.send(id="2", do="describe", model=str(package.folder), device="cpu")
    first, _ = engine.answer("1")
    second, _ = engine.answer("2")
    assert (first["model"], first["device"]) == ("other", "cpu")
    assert second["seconds"] <= first["seconds"]


def test_models_loaded_in_advance_give_way_to_what_a_person_waits_for(slow_package, tiny, tmp_path):
    engine = Engine("--preload", slow_package.folder)
    engine.segment("running", slow_package, tmp_path / "one", big_volume())
    while engine.event()["stage"] != "Segmenting":
        pass
    for name in ("first", "second"):
        engine.send(id=name, do="describe", model=str(tiny.folder), device="cpu")
    (tmp_path / "images").mkdir()
    engine.send(id="cases", do="cases", images=str(tmp_path / "images"), output=str(tmp_path), format=".nrrd")
    engine.send(id="x", do="cancel", job="running")
    ended = []
    while len(ended) < 4:
        event = engine.event()
        if event["event"] in ("result", "error"):
            ended.append(event["id"])
    assert ended == ["running", "cases", "first", "second"]
    engine.close()


def test_a_changed_package_is_loaded_again_and_a_damaged_one_refused(engine, tmp_path, volume):
    answers = []
    for seed in (1, 2):
        package = make_tiny_package(tmp_path / "m", seed=seed, spacing=None, patch_size=[16, 16, 16])
        engine.segment(seed, package, tmp_path / "job", volume)
        answers.append(engine.answer(seed)[0]["segments"])
    assert answers[0] != answers[1]
    data = bytearray(package.weights_path.read_bytes())
    data[-1] ^= 1
    package.weights_path.write_bytes(data)
    engine.segment("bad", package, tmp_path / "job", volume)
    error, _ = engine.answer("bad")
    assert (error["event"], error["code"]) == ("error", "bad_model")
    assert "sha256" in error["message"]
    assert error["remedy"]


def test_nothing_found_gives_no_file(engine, tmp_path, volume):
    import torch
    from safetensors.torch import load_file, save

    from prosma.package import write_package

    package = make_tiny_package(tmp_path / "m", spacing=None, patch_size=[16, 16, 16])
    weights = load_file(package.weights_path)
    weights["head.bias"] = torch.tensor([100.0, 0, 0])
    model = {key: value for key, value in package.model.items() if key != "weights"}
    package = write_package(tmp_path / "m", model, save(weights), "# Nothing\n")
    engine.segment("n", package, tmp_path / "job", volume)
    result, _ = engine.answer("n")
    assert result["labels"]["file"] is None
    assert [segment["voxels"] for segment in result["segments"]] == [0, 0]


# --- attacks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"garbage",
        b"\xff\xfe\x00",
        b"[1, 2]",
        b'"text"',
        b"{}",
        b'{"id": {"a": 1}, "do": "segment"}',
        b'{"id": "x"}',
        b'{"id": "x", "do": "fly"}',
        b'{"id": "x", "do": "segment"}',
        b'{"id": "x", "do": "segment", "folder": 5, "channels": 7, "model": []}',
        b'{"id": "x", "do": "describe"}',
        b'{"id": "x", "do": "describe", "model": "nowhere"}',
        b'{"id": "x", "do": "describe", "model": "a\\u0000b"}',
        b'{"id": "x", "do": "segment", "model": "m", "folder": "\\ud800", "channels": [{"file": "\\ud800.npy"}]}',
        b"[" * 100000,
    ],
)
def test_requests_that_make_no_sense_get_an_error_and_nothing_worse(engine, line, tmp_path):
    engine.write(line + b"\n")
    event = engine.event()
    assert event["event"] == "error"
    assert event["code"] in ("bad_input", "bad_model")
    assert event["message"]
    assert event["remedy"]
    assert event["id"] in (None, "x")


def test_files_outside_the_jobs_folder_are_neither_read_nor_removed(engine, tiny, tmp_path, volume):
    secret = tmp_path / "secret.npy"
    np.save(secret, np.ascontiguousarray(volume.array[0].T))
    (tmp_path / "job").mkdir()
    for job, name in enumerate(("../secret.npy", str(secret), "", ".", 5, None, "a\0b")):
        channels = [{"file": name, "ijk_to_ras": np.eye(4).tolist()}]
        engine.send(id=job, do="segment", model=str(tiny.folder), folder=str(tmp_path / "job"), channels=channels)
        assert engine.answer(job)[0]["code"] == "bad_input"
    assert secret.exists()


@pytest.mark.parametrize(
    ("array", "matrix", "why"),
    [
        (np.zeros((5, 0, 5), np.int16), np.eye(4), "empty"),
        (np.full((8, 8, 8), np.nan, np.float32), np.eye(4), "no finite"),
        (np.zeros((8, 8, 8), np.complex64), np.eye(4), "complex"),
        (np.zeros((3, 8, 8, 8, 1), np.int16), np.eye(4), "dimensions"),
        (np.zeros((8, 8, 8), np.int16), np.diag([1.0, 0, 1, 1]), "singular"),
        (
            np.zeros((8, 8, 8), np.int16),
            np.array([[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
            "right",
        ),
        (
            np.zeros((8, 8, 8), np.int16),
            [[1, 2], [3, 4]],
            "each a list of 4, each a number",
        ),
        (
            np.zeros((8, 8, 8), np.int16),
            "nothing",
            "each a list of 4, each a number",
        ),
    ],
)
def test_unusable_volumes_are_refused(engine, tiny, tmp_path, array, matrix, why):
    np.save(tmp_path / "channel0.npy", array)
    matrix = matrix.tolist() if isinstance(matrix, np.ndarray) else matrix
    channels = [{"file": "channel0.npy", "ijk_to_ras": matrix}]
    engine.send(id="v", do="segment", model=str(tiny.folder), folder=str(tmp_path), channels=channels)
    error, _ = engine.answer("v")
    assert error["code"] == "bad_input", error
    assert why in error["message"]


def test_arrays_that_are_cut_off_or_pickled_are_refused(engine, tiny, tmp_path, volume):
    request = {"do": "segment", "model": str(tiny.folder), **job_files(tmp_path, volume)}
    file = tmp_path / "channel0.npy"
    for number, data in enumerate((b"", b"\x93NUMPY", file.read_bytes()[:500], b"cos\nsystem\n(S'true'\ntR.")):
        file.write_bytes(data)
        engine.send(id=number, **request)
        assert engine.answer(number)[0]["code"] == "bad_input"


# --- cancel and end -------------------------------------------------------------------------------------------------


def test_cancel_stops_the_running_job_and_drops_queued_ones(slow_package, tiny, tmp_path):
    engine = Engine("--preload", slow_package.folder)
    engine.segment("running", slow_package, tmp_path / "one", big_volume(), outputs=["probabilities"])
    engine.segment("queued", slow_package, tmp_path / "two", big_volume())
    while engine.event()["stage"] != "Segmenting":
        pass
    engine.send(id="x", do="cancel", job="queued")
    assert engine.event() == {
        "event": "error",
        "id": "queued",
        "code": "cancelled",
        "message": "The job was cancelled.",
        "remedy": "",
        "fit": None,
    }
    engine.send(id="y", do="cancel", job="running")
    error, _ = engine.answer("running")
    assert error["code"] == "cancelled"
    assert [file.name for file in (tmp_path / "one").iterdir()] == ["channel0.npy"], "results of the job are removed"
    engine.segment("next", tiny, tmp_path / "three", smooth_volume())
    assert engine.answer("next")[0]["event"] == "result"
    engine.send(id="z", do="cancel", job="long gone")
    engine.close()


def test_the_process_is_gone_at_once_when_stdin_closes_in_a_tile(slow_package, tmp_path):
    engine = Engine("--preload", slow_package.folder)
    engine.segment("a", slow_package, tmp_path / "one", big_volume(), outputs=["probabilities"])
    engine.segment("b", slow_package, tmp_path / "two", big_volume())
    (tmp_path / "two" / "notes.txt").write_text("not the engine's")
    while engine.event()["stage"] != "Segmenting":
        pass
    engine.process.stdin.close()
    told = [json.loads(line)["event"] for line in engine.process.stdout]
    engine.process.wait(TIMEOUT)
    engine.process.stdout.close()
    assert set(told) <= {"progress"}, "no job went on to its end"
    assert not (tmp_path / "one").exists(), "the private folder of the unfinished job is removed"
    assert [file.name for file in (tmp_path / "two").iterdir()] == ["notes.txt"], "but nothing else"


def test_shutdown_ends_the_process(tiny):
    engine = Engine()
    engine.send(id="1", do="shutdown")
    assert engine.process.wait(TIMEOUT) == 0
    engine.process.stdout.close()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_no_engine_outlives_a_killed_host(tiny):
    """A host that starts an engine and is killed: the engine's stdin closes with it."""
    host = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys, time\n"
            "p = subprocess.Popen([sys.executable, '-m', 'prosma.worker'], stdin=subprocess.PIPE)\n"
            "time.sleep(1000)",
        ],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT / "training")},
    )
    pid = json.loads(host.stdout.readline())["pid"]
    os.kill(host.pid, signal.SIGKILL)
    host.wait()
    host.stdout.close()
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline and is_running(pid):
        time.sleep(0.05)
    assert not is_running(pid)


def is_running(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="file size limits as on Linux")
def test_a_full_disk_is_said_in_words_and_the_engine_lives_on(tiny, tmp_path, volume):
    code = (
        "import sys, resource; from prosma.door.worker import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); main(sys.argv[1:])"
    )
    engine = Engine("--preload", tiny.folder, code=code)
    engine.segment("a", tiny, tmp_path / "job", volume, outputs=["probabilities"])
    error, _ = engine.answer("a")
    assert (error["code"], "space" in error["remedy"]) == ("internal", True)
    assert [file.name for file in (tmp_path / "job").iterdir()] == ["channel0.npy"]
    engine.segment("b", tiny, tmp_path / "job", volume)
    assert engine.answer("b")[0]["event"] == "result"
    engine.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory limits as on Linux")
def test_too_little_memory_is_said_in_words_and_the_engine_makes_room_for_a_new_one(slow_package, tmp_path):
    code = (
        "import sys, resource, torch; from prosma.door.worker import main\n"
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + 300_000_000,) * 2); main(sys.argv[1:])"
    )
    engine = Engine(code=code)
    engine.segment("a", slow_package, tmp_path / "one", big_volume())
    error, _ = engine.answer("a")
    assert error["code"] == "out_of_memory", error
    assert error["remedy"]
    assert engine.process.wait(timeout=30) == 0


def test_a_volume_refused_for_its_size_does_not_end_the_engine(tiny, tmp_path, volume):
    code = (
        "import sys; from prosma.inference import pipeline; from prosma.door.worker import main\n"
        "sizes = iter([1000]); pipeline.physical_memory = lambda: next(sizes, 0); main(sys.argv[1:])"
    )
    engine = Engine(code=code)
    engine.segment("a", tiny, tmp_path / "one", volume)
    assert engine.answer("a")[0]["code"] == "out_of_memory"
    engine.segment("b", tiny, tmp_path / "two", volume)
    assert engine.answer("b")[0]["event"] == "result"
    engine.close()


# --- start ----------------------------------------------------------------------------------------------------------


def test_without_torch_it_starts_and_says_so(tiny, tmp_path, volume):
    code = "import sys; sys.modules['torch'] = None; from prosma.door.worker import main; main(sys.argv[1:])"
    engine = Engine("--preload", tiny.folder, code=code)
    assert engine.ready["torch"] is None
    assert engine.ready["devices"] == []
    assert engine.ready["problem"]["code"] == "no_torch"
    assert engine.ready["problem"]["remedy"]
    engine.segment("a", tiny, tmp_path, volume)
    assert engine.answer("a")[0]["code"] == "no_torch"
    engine.close()


def test_a_bad_package_to_preload_is_a_problem_not_an_end(tmp_path, tiny, volume):
    engine = Engine("--preload", tmp_path / "nowhere")
    assert engine.ready["model"] is None
    assert engine.ready["problem"]["code"] == "bad_model"
    engine.segment("a", tiny, tmp_path, volume)
    assert engine.answer("a")[0]["event"] == "result"
    engine.close()


@pytest.mark.skipif(not hasattr(os, "nice"), reason="no priorities as on POSIX")
def test_it_starts_light_and_humble_and_keeps_prints_off_stdout(tiny):
    """Imports are what the start costs; SimpleITK, scipy and MONAI would double it."""
    code = (
        "import os, sys; from prosma.door import worker\n"
        "introduce = worker.introduce\n"
        "heavy = ('SimpleITK', 'scipy', 'monai', 'lightning', 'rich', 'torch._dynamo')\n"
        "def report(*arguments):\n"
        "    print('hello'); os.system('echo from a child')\n"
        "    introduce(*arguments)\n"
        "    print('HEAVY', [m for m in heavy if m in sys.modules], 'NICE', os.nice(0), 'END', flush=True)\n"
        "worker.introduce = report; worker.main(sys.argv[1:])"
    )
    before = os.nice(0)
    engine = Engine("--preload", tiny.folder, code=code)
    assert engine.ready["event"] == "ready"
    deadline = time.monotonic() + TIMEOUT
    while b"END" not in engine.log and time.monotonic() < deadline:
        time.sleep(0.05)
    engine.close()
    log = engine.log.decode()
    assert "hello" in log
    assert "from a child" in log
    assert "HEAVY []" in log
    assert f"NICE {min(19, before + 5)} " in log
