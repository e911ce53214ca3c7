"""A sample of the kill matrix; `tox -e kill` runs all of it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.faults.kill_matrix import cases, matrix
from tests.faults.small_run import STEPS, same


@pytest.mark.slow
def test_killed_runs_become_the_run_that_was_left_alone(tmp_path: Path) -> None:
    tally = matrix(tmp_path, sample=3)
    assert tally.wrong == []  # the negative controls are among them
    assert tally.killed.total() >= 2  # a kill from outside may come too late on a slow machine


def test_the_whole_matrix_has_two_hundred_kills() -> None:
    assert len(cases()) + STEPS >= 200


@pytest.mark.parametrize("part", ["state_dict", "step", "rows"])
def test_the_comparison_sees_one_bit(part: str) -> None:
    value: dict[str, Any] = {"state_dict": {"a": torch.zeros(3)}, "step": 4, "rows": [1, 2]}
    other = copy.deepcopy(value)
    assert same(value, other)
    other[part] = {"state_dict": {"a": torch.tensor([0.0, -0.0, 0.0])}, "step": 4.0, "rows": (1, 2)}[part]
    assert not same(value, other)
