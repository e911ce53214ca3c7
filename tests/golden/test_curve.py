"""A refactor does not move the recorded loss curve."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.golden.curve import RECORDED, measure


def test_the_curve_is_the_recorded_one(tmp_path: Path) -> None:
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    measured = measure(tmp_path)
    assert len(measured["train_loss"]) == 10
    for name, curve in recorded.items():
        assert measured[name] == pytest.approx(curve, rel=1e-4), name
