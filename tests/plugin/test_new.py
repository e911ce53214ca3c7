"""What `ftlab new` writes passes its own tests at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ftlab.main import main


def installed(folder: Path, site: Path) -> dict[str, str]:
    """Install a package in place, as a developer does, and the environment that finds it."""
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--target", str(site)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "-e", str(folder)], check=True, capture_output=True)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(folder), os.environ.get("PYTHONPATH", "")])}


def ran(words: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), [("task", "MyTask"), ("source", "MySource"), ("strategy", "MyMethod")])
def test_a_new_package_passes_its_own_tests(kind: str, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    assert main(["new", kind, name, "--to", str(folder)]) == 0
    environment = installed(folder, tmp_path / "site")
    told = ran(["-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"], folder, environment)
    assert "passed" in told
    listed = json.loads(ran(["-P", "-m", "ftlab", "list", "--format", "json"], folder, environment))
    assert [entry["state"] for entry in listed if entry["name"] == name] == ["ok"]
