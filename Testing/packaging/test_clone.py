"""A fresh clone, as the Extensions Index makes one, stays small: its files and its history."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT = 97 * 10**6  # bytes; the index takes 100 MB
WHO = ["-c", "user.name=A", "-c", "user.email=a@example.com"]


def git(*words, **options) -> str:
    return subprocess.run(["git", *words], check=True, capture_output=True, text=True, **options).stdout


def cloned_bytes(root: Path, place: Path) -> int:
    """Clone what HEAD of `root` reaches, through git's own transport, and sum up the files.

    Links of the file system, which a clone of a neighbouring folder would be made of, bring along what nobody would get.
    """
    safe = ["-c", f"safe.directory={root}", "-c", f"safe.directory={root / '.git'}"]
    branch = git(*safe, "-C", str(root), "rev-parse", "--abbrev-ref", "HEAD").strip()
    chosen = [] if branch == "HEAD" else ["--branch", branch]
    git(*safe, "clone", "--quiet", "--no-local", "--single-branch", "--no-tags", *chosen, str(root), str(place))
    return sum(path.lstat().st_size for path in place.rglob("*") if path.is_symlink() or path.is_file())


def test_a_fresh_clone_has_less_than_97_mb(tmp_path):
    if not (ROOT / ".git").exists():
        pytest.skip("no history is here: these are the sources alone")
    if git("-c", f"safe.directory={ROOT}", "-C", str(ROOT), "rev-parse", "--is-shallow-repository").strip() == "true":
        pytest.skip("the history was cut off when this was cloned, so its size cannot be known")
    size = cloned_bytes(ROOT, tmp_path / "clone")
    assert size < LIMIT, f"a fresh clone has {size / 10**6:.1f} MB; what is in the history stays there for ever"


def test_what_was_deleted_counts_and_what_lies_on_another_branch_does_not(tmp_path):
    root = tmp_path / "root"
    git("init", "--quiet", str(root))

    def committed(message):
        git(*WHO, "-C", str(root), "add", "--all")
        git(*WHO, "-C", str(root), "commit", "--quiet", "-m", message)

    def noise(name, size):
        (root / name).write_bytes(os.urandom(size))

    noise("kept", 100_000)
    noise("deleted", 300_000)
    committed("first")
    (root / "deleted").unlink()
    committed("second")
    git("-C", str(root), "checkout", "--quiet", "-b", "other")
    noise("other", 900_000)
    committed("third")
    assert cloned_bytes(root, tmp_path / "all") > 2_300_000
    git("-C", str(root), "checkout", "--quiet", "-")
    # kept twice, deleted once; git's own files and hooks besides
    assert 500_000 < cloned_bytes(root, tmp_path / "fewer") < 700_000
