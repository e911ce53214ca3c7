"""A refactor does not move the recorded loss curve."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.golden.curve import RECORDED, measure


# The text is what this Python carries, so the curve is that of one version.
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="recorded under CPython 3.11")
def test_quickstart(tmp_path: Path) -> None:
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    measured = measure(tmp_path)
    assert len(measured["train_loss"]) == 10
    for name, curve in recorded.items():
        assert measured[name] == pytest.approx(curve, rel=1e-4), name
