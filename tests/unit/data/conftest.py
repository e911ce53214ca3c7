"""What tests of data share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder: relative paths make whole sentences comparable."""
    monkeypatch.chdir(tmp_path)
