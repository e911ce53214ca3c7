"""Fixtures for tests of studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ftlab.main import main
from ftlab.studies import runner
from tests.unit.studies.files import Dry, Said, study


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process that forks trials, and no waiting."""
    monkeypatch.setattr(runner, "_POLL", 0.001)
    monkeypatch.setattr(runner, "_REFRESH", 0.01)


@pytest.fixture
def dry(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Dry:
    """`ftlab ablate --dry-run` of a study in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def command(*options: str, **keys: Any) -> Said:
        code = main(["ablate", "--config", str(study(tmp_path, **keys)), "--dry-run", *options])
        return Said(code, *capsys.readouterr())

    return command
