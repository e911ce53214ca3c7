"""Fixtures for tests of studies."""

from __future__ import annotations

import pytest

from ftlab.studies import runner


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process that forks trials, and no waiting."""
    monkeypatch.setattr(runner, "_POLL", 0.001)
    monkeypatch.setattr(runner, "_REFRESH", 0.01)
