"""The contrastive gradient over ranks is that of one big batch: the pairs of the other ranks are wrong answers too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ftlab.data.order import epoch_batches
from tests.reference.contrastive import PAIRS, gradient_of, still_bert
from tests.reference.contrastive_run import gradients
from tests.reference.test_division import Gradient

SPARE = {"pooler.dense.weight", "pooler.dense.bias"}
"""Nothing uses the pooler, and DDP waits for its gradient all the same."""


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    return still_bert(tmp_path_factory.mktemp("bert"))


def batches(backbone: str, size: int) -> list[list[int]]:
    """The pairs of every global micro-batch, in the loader's order."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(backbone)
    lengths = np.array([sum(len(tokenizer(text)["input_ids"]) for text in pair) for pair in PAIRS])
    return [batch.tolist() for batch in epoch_batches(lengths, size, seed=0, epoch=0, shuffle=True, group=True)]


def check(found: Gradient, expected: Gradient) -> None:
    assert found.keys() - SPARE == expected.keys()
    assert not any(found[name].any() for name in SPARE)
    off = torch.stack([(found[n] - expected[n]).norm() for n in expected]).norm()
    assert float(off / torch.stack([g.norm() for g in expected.values()]).norm()) < 5e-6


@pytest.mark.parametrize(("batch", "accumulate"), [(7, 1), (4, 2)])
def test_one_rank(tmp_path: Path, backbone: str, batch: int, accumulate: int) -> None:
    (found,) = gradients(tmp_path, backbone, batch, accumulate)
    check(found, gradient_of(backbone, batches(backbone, batch)))


@pytest.mark.slow
def test_two_ranks(tmp_path: Path, backbone: str) -> None:
    """Three pairs each, then one on a rank and none on the other."""
    words = [sys.executable, "-m", "tests.reference.contrastive_run", str(tmp_path), backbone, "3", "2", "2"]
    done = subprocess.run(
        words, cwd=Path(__file__).parents[2], env={**os.environ}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    expected = gradient_of(backbone, batches(backbone, 6))
    saved = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for rank in saved:
        (found,) = rank["seen"]
        check(found, expected)
    assert saved[0]["figures"] == saved[1]["figures"]
    assert 0 < saved[0]["figures"]["val_mrr"] <= 1
