"""Several processes share the cases of one folder: none twice, none forgotten, whoever of them dies."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from test_cli import names_in, run
from test_many_cases import make_images, report_of

from prosma.batch import claims
from prosma.batch.claims import Claims
from prosma.batch.pool import threads_each
from prosma.batch.records import RECORDS, Records
from prosma.cli import exit_codes

ROOT = Path(__file__).resolve().parents[3]
NAMES = [f"case{number:02d}" for number in range(12)]
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
# A crash in the network's library, in the processes that the environment names by a word of their command.
CRASHES = """
import os, sys
if os.environ["PROSMA_TEST_PROCESSES"] in " ".join(sys.orig_argv):
    sys.path.insert(0, os.environ["PROSMA_TEST_CODE"])
    from prosma.batch import loop
    original = loop.complete
    def complete(file, image, segmenter, facts, *more):
        mark = os.path.join(os.environ["PROSMA_TEST_MARKS"], facts["case"])
        if facts["case"] == "dies" or (facts["case"] == "dies-once" and not os.path.exists(mark)):
            more[0]("Preparing", 0.0, None)
            open(mark, "w").close()
            os.kill(os.getpid(), 9)
        return original(file, image, segmenter, facts, *more)
    loop.complete = complete
"""


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.seg.nrrd")}


def computed(folder: Path) -> Counter:
    """How often each result was written, by the records."""
    lines = map(json.loads, (folder / RECORDS).read_text().splitlines())
    return Counter(line["output"] for line in lines if "sha256" in line)


def started(*arguments, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "prosma.cli", "segment", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT / "training", env=environment, text=True, **options)


@pytest.fixture(scope="module")
def batch(tmp_path_factory, tiny):
    """Images, and their results by one process."""
    folder = tmp_path_factory.mktemp("batch")
    images = make_images(folder / "images", *NAMES)
    assert run("segment", images, "-m", tiny.folder, "-o", folder / "alone") == 0
    assert set(computed(folder / "alone").values()) == {1}
    return images, digests(folder / "alone")


def plant_crashes(folder: Path, processes: str, monkeypatch) -> None:
    """Let processes that are started from now on die over cases called `dies`, and once over `dies-once`."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(CRASHES)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("PROSMA_TEST_PROCESSES", processes)
    monkeypatch.setenv("PROSMA_TEST_CODE", str(ROOT / "training"))
    monkeypatch.setenv("PROSMA_TEST_MARKS", str(folder))


# --- whole commands --------------------------------------------------------------------------------------------------


@LINUX
def test_four_processes_do_each_case_once_though_one_is_killed(batch, tiny, tmp_path):
    images, expected = batch
    out = tmp_path / "out"
    processes = [
        started(images, "-m", tiny.folder, "-o", out, "--json", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for _ in range(4)
    ]
    assert json.loads(processes[0].stdout.readline())["event"] == "case", "it is in the middle of its work"
    processes[0].kill()
    reports = []
    for process in processes[1:]:
        said, _ = process.communicate(timeout=300)
        assert process.returncode == exit_codes.DONE
        reports.append(report_of(said))
    processes[0].communicate()
    assert digests(out) == expected
    again = [name for name, times in computed(out).items() if times > 1]
    assert len(again) <= 1, "none but one that was killed between its record and its place"
    for report in reports:
        assert [case["case"] for case in sorted(report["cases"], key=lambda case: case["case"])] == NAMES
    done = Counter(case["case"] for report in reports for case in report["cases"] if "seconds" in case)
    assert set(done.values()) <= {1}
    assert names_in(out) == sorted([*expected, RECORDS]), "claims are gone, those of the killed process too"


def test_parts_are_every_case_once(batch, tiny, tmp_path, capsys):
    images, expected = batch
    out = tmp_path / "out"
    for number, cases in ((1, NAMES[::3]), (2, NAMES[1::3]), (3, NAMES[2::3])):
        capsys.readouterr()
        assert run("segment", images, "-m", tiny.folder, "-o", out, "--part", f"{number}/3", "--json") == 0
        report = report_of(capsys.readouterr().out)
        assert [case["case"] for case in report["cases"]] == cases
        assert all("seconds" in case for case in report["cases"])
    assert digests(out) == expected
    for wrong in ("0/3", "4/3", "1", "a/b", "1/0"):
        assert run("segment", images, "-m", tiny.folder, "-o", out, "--part", wrong) != 0
        assert f"'{wrong}' names no part" in capsys.readouterr().err


@pytest.mark.slow
def test_workers_give_the_same_bytes_and_survive_the_death_of_one(batch, tiny, tmp_path, capfd, monkeypatch):
    images, expected = batch
    plant_crashes(tmp_path / "planted", "prosma.batch.pool_child", monkeypatch)
    mixed = tmp_path / "images"
    mixed.mkdir()
    for name in NAMES[:4]:
        (mixed / f"{name}.nrrd").write_bytes((images / f"{name}.nrrd").read_bytes())
    for name in ("dies", "dies-once"):
        (mixed / f"{name}.nrrd").write_bytes((images / "case00.nrrd").read_bytes())
    (mixed / "broken.nrrd").write_bytes(b"x")
    out = tmp_path / "out"
    code = run("segment", mixed, "-m", tiny.folder, "-o", out, "--workers", "2", "--json")
    cases = {case["case"]: case for case in report_of(capfd.readouterr().out)["cases"]}
    assert code == exit_codes.SOME_FAILED
    assert {name for name, case in cases.items() if "error" in case} == {"broken", "dies"}
    assert cases["broken"]["error"]["code"] == "bad_input"
    assert cases["dies"]["error"]["code"] == "out_of_memory"
    assert "died (SIGKILL), 2 times" in cases["dies"]["error"]["message"]
    found = digests(out)
    assert found.pop("dies-once.seg.nrrd") == expected["case00.seg.nrrd"]
    assert found == {f"{name}.seg.nrrd": expected[f"{name}.seg.nrrd"] for name in NAMES[:4]}
    assert set(computed(out).values()) == {1}
    assert not [name for name in names_in(out) if "claim" in name and "dies.seg" not in name]


@LINUX
def test_no_process_of_the_pool_outlives_a_killed_command(batch, tiny, tmp_path):
    images, expected = batch
    out = tmp_path / "out"
    process = started(
        images, "-m", tiny.folder, "-o", out, "--workers", "2", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.readline()
    children = descendants(process.pid)
    assert len(children) == 4, "two that compute, and one that reads for each"
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 60
    while any(claims.started(pid) for pid in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert run("segment", images, "-m", tiny.folder, "-o", out) == 0
    assert digests(out) == expected
    assert names_in(out) == sorted([*expected, RECORDS])


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that they started."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [each for child in children for each in (child, *descendants(child))]


@LINUX
def test_a_cluster_that_ends_a_command_leaves_nothing_claimed(batch, tiny, tmp_path):
    images, expected = batch
    out = tmp_path / "out"
    process = started(images, "-m", tiny.folder, "-o", out, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == exit_codes.STOPPED
    assert said.splitlines()[-1] == "prosma: Stopped."
    assert set(names_in(out)) <= {RECORDS, *expected}


def test_a_failure_is_not_tried_again_by_those_who_share_but_by_the_next_call(tiny, tmp_path, capsys):
    images = make_images(tmp_path / "images", "a")
    (images / "b.nrrd").write_bytes(b"x")
    out = tmp_path / "out"
    for _time in range(2):
        assert run("segment", images, "-m", tiny.folder, "-o", out) == exit_codes.SOME_FAILED
    failures = [line for line in Records(out).lines() if "error" in line]
    assert [line["output"] for line in failures] == ["b.seg.nrrd"] * 2
    mark = Records(out).count()
    assert Records(out).failure_since("b.seg.nrrd", mark - 1)["code"] == "bad_input"
    assert Records(out).failure_since("b.seg.nrrd", mark) is None
    capsys.readouterr()


# --- claims ----------------------------------------------------------------------------------------------------------


def other_owner(folder: Path, **facts) -> Path:
    path = folder / ".a.claim-0"
    path.write_text(json.dumps({"host": "elsewhere", "place": "another boot", "pid": 1, "started": 5, **facts}))
    return path


def test_one_has_a_claim_and_the_others_see_whose_it_is(tmp_path):
    with Claims(tmp_path) as one, Claims(tmp_path) as two:
        assert one.take("a")
        assert one.is_mine("a")
        assert one.holder("a") == {}
        assert not two.take("a")
        assert two.holder("a")["pid"] == os.getpid()
        assert two.take("b")
        one.release("a")
        assert two.take("a")
        assert not one.is_mine("a")
    assert not names_in(tmp_path)


def test_a_claim_that_a_full_disk_does_not_hold_keeps_nobody_off(tmp_path, monkeypatch):
    def full(*_arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Claims(tmp_path) as one, Claims(tmp_path) as other:
        with monkeypatch.context() as disk:
            disk.setattr(claims.json, "dump", full)
            with pytest.raises(OSError, match="No space left"):
                one.take("a")
        assert names_in(tmp_path) == []
        assert other.take("a")


@pytest.fixture
def restless():
    """Threads take turns so often that each place between two steps is met."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@LINUX
@pytest.mark.parametrize("left_by_the_dead", [False, True])
def test_of_many_that_try_at_once_one_gets_it(tmp_path, restless, left_by_the_dead):
    takers = [Claims(tmp_path).__enter__() for _ in range(8)]
    for attempt in range(100):
        name = f"a{attempt}"
        if left_by_the_dead:
            (tmp_path / f".{name}.claim-0").write_text(
                json.dumps({"place": claims.place(), "pid": 2**22 + 1, "started": 5})
            )
        start, got = threading.Barrier(len(takers)), []

        def take(taker, name=name, start=start, got=got):
            start.wait()
            if taker.take(name):
                got.append(taker)

        threads = [threading.Thread(target=take, args=(taker,)) for taker in takers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 1, attempt
        assert got[0].is_mine(name)
    for taker in takers:
        taker.__exit__()
    assert not names_in(tmp_path)


@LINUX
@pytest.mark.parametrize("a_third_begins", [False, True])
def test_who_is_late_for_a_dead_owners_case_does_not_get_it(tmp_path, monkeypatch, a_third_begins):
    """Between the look at a claim and the new one another ends with the case, and a third one begins with it."""
    dead = other_owner(tmp_path, place=claims.place(), pid=2**22 + 1)
    with Claims(tmp_path) as late, Claims(tmp_path) as third:

        def lives(path, original=late._lives):
            alive = original(path)
            dead.unlink()
            assert not a_third_begins or third.take("a")
            return alive

        monkeypatch.setattr(late, "_lives", lives)
        assert not late.take("a")
        assert not late.is_mine("a")
        assert third.is_mine("a") is a_third_begins
        monkeypatch.undo()
        assert names_in(tmp_path) == ([".a.claim-0"] if a_third_begins else [])
        assert late.take("a") is not a_third_begins
    assert not names_in(tmp_path)


@LINUX
def test_those_who_come_and_go_never_have_a_claim_together(tmp_path, restless):
    """Eight that take, hold and give up the same claim in turn; a counter would see two at once."""
    inside, worst, turns = [], [0], Counter()

    def come_and_go(number):
        with Claims(tmp_path) as ours:
            for _turn in range(100):
                if ours.take("a"):
                    inside.append(number)
                    worst[0] = max(worst[0], len(inside))
                    turns[number] += 1
                    time.sleep(0.0005)
                    inside.remove(number)
                    ours.release("a")

    threads = [threading.Thread(target=come_and_go, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert worst[0] == 1
    assert turns.total() > 0
    assert not names_in(tmp_path)


@LINUX
def test_a_claim_of_a_dead_process_or_of_its_number_used_again_is_taken_over(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from prosma.batch.claims import Claims\n"
        "claims = Claims(Path(sys.argv[1])).__enter__(); print(claims.take('a'), flush=True); time.sleep(1000)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], cwd=ROOT / "training", stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "True\n"
    with Claims(tmp_path) as ours:
        assert not ours.take("a")
        assert ours.holder("a")["pid"] == process.pid
        process.kill()
        process.communicate()
        assert ours.holder("a") == {}
        assert ours.take("a")
        assert names_in(tmp_path) == [".a.claim-0", ".a.claim-1"], "what is another's stays as long as it may matter"
    assert not names_in(tmp_path)
    other_owner(tmp_path, place=claims.place(), pid=os.getpid(), started=1)
    with Claims(tmp_path) as ours:
        assert ours.take("a")


def test_an_owner_on_another_computer_lives_as_long_as_its_claim_is_touched(tmp_path, monkeypatch):
    path = other_owner(tmp_path)
    clock = [1000.0]
    monkeypatch.setattr(claims.time, "monotonic", lambda: clock[0])
    with Claims(tmp_path) as ours:
        for _minute in range(10):
            assert ours.holder("a")["host"] == "elsewhere"
            clock[0] += 60
            os.utime(path, ns=(0, int(clock[0])))
        assert ours.holder("a"), "seen anew"
        clock[0] += claims.SILENCE_S - 1
        assert not ours.take("a")
        clock[0] += 2
        assert ours.take("a")
        assert path.exists()


def test_a_claim_that_is_just_being_written_belongs_to_somebody(tmp_path):
    (tmp_path / ".a.claim-0").write_bytes(b"")
    with Claims(tmp_path) as ours:
        assert not ours.take("a")
        assert ours.holder("a")


def test_an_owner_that_slept_notices_that_another_has_taken_over(tmp_path):
    with Claims(tmp_path) as ours:
        assert ours.take("a")
        (tmp_path / ".a.claim-1").write_text(json.dumps({"place": "another boot"}))
        assert not ours.is_mine("a")
        ours.release("a")
        assert names_in(tmp_path) == [".a.claim-0", ".a.claim-1"], "the new owner removes them"


def test_claims_show_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT_S", 0.01)
    with Claims(tmp_path) as ours:
        assert ours.take("a")
        path = tmp_path / ".a.claim-0"
        os.utime(path, ns=(0, 0))
        deadline = time.monotonic() + 60
        while path.stat().st_mtime_ns == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


# --- records ---------------------------------------------------------------------------------------------------------


def test_many_processes_add_lines_and_each_stays_whole(tmp_path):
    code = (
        "import sys; from prosma.batch.records import Records\n"
        "for n in range(200): Records(sys.argv[1]).append({'from': int(sys.argv[2]), 'n': n, 'fill': 'x' * (n * 37 % 5000)})"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path, str(number)], cwd=ROOT / "training")
        for number in range(4)
    ]
    assert [process.wait(120) for process in processes] == [0] * 4
    lines = [json.loads(line) for line in (tmp_path / RECORDS).read_text().splitlines()]
    assert Counter(line["from"] for line in lines) == dict.fromkeys(range(4), 200)
    assert all([line["n"] for line in lines if line["from"] == number] == list(range(200)) for number in range(4))


def test_records_read_only_what_is_new_and_notice_another_file(tmp_path):
    writer, reader = Records(tmp_path), Records(tmp_path)
    assert reader.lines() == []
    writer.append({"n": 0})
    assert reader.lines() == [{"n": 0}]
    with (tmp_path / RECORDS).open("a") as file:
        file.write('{"n": 1}\n{"n": 2')  # a part, as of a line that is being written
        file.flush()
        assert reader.lines() == [{"n": 0}, {"n": 1}]
        file.write("}\n")
    assert reader.lines() == [{"n": 0}, {"n": 1}, {"n": 2}]
    (tmp_path / RECORDS).write_text('{"n": 9}\n')
    assert reader.lines() == [{"n": 9}]
    (tmp_path / RECORDS).unlink()
    assert reader.lines() == []


@pytest.mark.parametrize(
    ("said", "workers", "threads"),
    [(None, 1, 8), (None, 3, 2), ("1", 1, 1), ("3", 2, 3), ("6", 2, 4), ("all", 2, 4), ("0", 8, 1)],
)
def test_processes_share_the_cores_and_use_no_more_threads_than_is_said(said, workers, threads, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert threads_each(8, workers) == threads
