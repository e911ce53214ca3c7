"""The command line in processes of their own, forked from one that has paid for the imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftlab import registry
from tests.faults.forking import __file__ as server

GOOD: dict[str, Any] = {
    "model": {
        "backbone": {"name": "ftlab/tiny-llama"},
        "task": {"class_path": "CausalLM", "init_args": {"block_size": 16}},
        "tuning": {"class_path": "LoRA", "init_args": {"r": 2}},
    },
    "data": {
        "source": {
            "class_path": "Rows",
            "init_args": {"items": [{"text": f"Returns the number of bytes that were written to {n}."} for n in range(4)]},
        },
        "val_split": None,
    },
    "trainer": {"max_steps": 1},
}
"""A configuration that runs, in seconds."""


def names(kind: str) -> str:
    """The plugins of a kind, as a message lists them; a stranger's may be installed too."""
    return ", ".join(p.name for p in registry.plugins(kind))


@dataclass(frozen=True)
class Result:
    """What a process left: exit code, both streams, and whether torch was imported."""

    code: int
    out: str
    err: str
    torch: bool

    @property
    def sentence(self) -> str:
        """The last line of stderr, without `ftlab: error: `; nothing on the way there may be a warning or a traceback."""
        lines = self.err.splitlines()
        assert 0 < len(lines) <= 8, self.err
        assert "Traceback" not in self.err, self.err
        assert "Warning" not in self.err, self.err
        assert lines[-1].startswith("ftlab: error: "), self.err
        return lines[-1].removeprefix("ftlab: error: ")


Run = Callable[..., Result]


@contextmanager
def _server(*modules: str) -> Iterator[Run]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, server, *modules],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def run(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> Result:
            assert process.stdin is not None
            assert process.stdout is not None
            request = {"folder": str(folder), "arguments": arguments, "env": {"FTLAB_CACHE": str(folder / "cache"), **(env or {})}}
            print(json.dumps(request), file=process.stdin, flush=True)
            answer = json.loads(process.stdout.readline())
            return Result(answer["code"], answer["out"], answer["err"], answer.get("torch", False))

        yield run
        process.stdin.close()


@pytest.fixture(scope="session")
def _cold() -> Iterator[Run]:
    with _server("ftlab.main") as run:
        yield run


@pytest.fixture(scope="session")
def _warm() -> Iterator[Run]:
    with _server("ftlab.main", "ftlab.cli") as run:
        yield run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder with `good.yaml`."""
    (tmp_path / "good.yaml").write_text(yaml.safe_dump(GOOD))
    return tmp_path


@pytest.fixture
def cold(_cold: Run, folder: Path) -> Run:
    """`ftlab` in `folder`; torch was not imported before."""
    return lambda *arguments, env=None: _cold(folder, *arguments, env=env)


@pytest.fixture
def warm(_warm: Run, folder: Path) -> Run:
    """The same with torch and Lightning imported before."""
    return lambda *arguments, env=None: _warm(folder, *arguments, env=env)
