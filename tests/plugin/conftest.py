"""The example package, installed as a stranger would install it, and `ftlab` in a fresh process that finds it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ftlab.testing.models import tiny_model_folder

PACKAGE = Path(__file__).parents[1] / "plugin_pkg"
BROKEN = {
    "cracked.py": "raise RuntimeError('built for another machine')\n",
    "cracked-0.3.dist-info/METADATA": "Metadata-Version: 2.1\nName: cracked\nVersion: 0.3\n",
    "cracked-0.3.dist-info/entry_points.txt": "[ftlab.plugins]\nstrategies.Cracked = cracked:Cracked\nfruit.Apple = cracked:Apple\n",
}
"""A package whose module does not import and whose metadata is wrong; it must not disturb who does not ask for it."""

Result = subprocess.CompletedProcess[str]
Run = Callable[..., Result]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages: the example, and a broken one beside it."""
    source = tmp_path_factory.mktemp("source") / "plugin_pkg"
    shutil.copytree(PACKAGE, source)  # building leaves files beside the source
    target = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True, capture_output=True)
    for name, text in BROKEN.items():
        (target / name).parent.mkdir(exist_ok=True)
        (target / name).write_text(text)
    return target


@pytest.fixture
def run(tmp_path: Path, site: Path) -> Run:
    """`ftlab` in a fresh process in a folder of its own; `-P` keeps that folder off the search path, as an installed script does."""

    def command(*arguments: str, code: int = 0) -> Result:
        environment = {**os.environ, "PYTHONPATH": str(site)}
        words = [sys.executable, "-P", "-m", "ftlab", *arguments]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == code, done.stderr
        return done

    return command


@pytest.fixture
def bert(tmp_path: Path) -> str:
    """The folder of a tiny BERT with random weights."""
    return str(tiny_model_folder("bert", tmp_path / "bert"))


def last(folder: Path, name: str) -> float:
    """The last value of a metric that a run wrote."""
    values = [record[name] for line in (folder / "metrics.jsonl").read_text().splitlines() if name in (record := json.loads(line))]
    return float(values[-1])
