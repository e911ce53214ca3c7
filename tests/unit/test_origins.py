"""The state of the repository that a run is started in."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ftlab import origins


def git(folder: Path, *words: str) -> str:
    names = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(["git", "-C", str(folder), *names, *words], check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_and_whether_anything_was_changed(tmp_path: Path) -> None:
    assert origins.git_state(tmp_path) is None
    git(tmp_path, "init")
    assert origins.git_state(tmp_path) is None  # no commit yet
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-m", "one")
    assert origins.git_state(tmp_path) == {"commit": git(tmp_path, "rev-parse", "HEAD"), "changed": False}
    (tmp_path / "a").write_text("2")
    assert origins.git_state(tmp_path) == {"commit": git(tmp_path, "rev-parse", "HEAD"), "changed": True}
