"""The container file: it copies what is there, installs what is offered, and is run by a user that is not root."""

import fnmatch
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()


def instructions(word: str) -> list[str]:
    return [line.removeprefix(word).strip() for line in LINES if line.startswith(f"{word} ")]


def let_through() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert lines[0] == "*"
    return [line[1:] for line in lines if line.startswith("!")]


def test_every_copied_path_is_there_and_is_let_through():
    copied = [line.split()[0] for line in instructions("COPY") if not line.startswith("--from=")]
    assert sorted(copied) == sorted(let_through())
    assert all((ROOT / path).exists() for path in copied)
    kept_out = [line for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("**/")]
    assert any(fnmatch.fnmatch("training/prosma.egg-info", line.replace("**/", "*/")) for line in kept_out)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="reads TOML")
def test_what_it_installs_is_offered_by_the_package():
    import tomllib

    project = tomllib.loads((ROOT / "training/pyproject.toml").read_text(encoding="utf-8"))["project"]
    (extras,) = (line.removeprefix("EXTRAS=") for line in instructions("ARG") if line.startswith("EXTRAS="))
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    assert instructions("ENTRYPOINT") == ['["prosma"]'] and "prosma" in project["scripts"]


def test_the_last_stage_runs_as_a_user_that_it_makes():
    last = "\n".join(LINES).rpartition("\nFROM ")[2]
    (user,) = re.findall(r"^USER (\S+)$", last, re.MULTILINE)
    assert user != "root" and re.search(rf"useradd [^&\n]*\b{user}\b", last)


def test_the_page_tells_of_each_build_argument():
    page = (ROOT / "docs/container.md").read_text(encoding="utf-8")
    for line in instructions("ARG"):
        assert f"`{line.partition('=')[0]}`" in page
