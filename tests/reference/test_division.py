"""The gradient of an accumulated, ragged batch is that of one big batch, on one rank and on two."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from tests.reference.division import TEXTS, big_batch_gradient, tiny_llama
from tests.reference.division_run import gradients

Gradient = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def expected() -> Gradient:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama())
    ids = [tokenizer(text)["input_ids"] for text in TEXTS]
    return big_batch_gradient([row if row[-1] == tokenizer.eos_token_id else [*row, tokenizer.eos_token_id] for row in ids], tiny_llama())[
        1
    ]


def distance(found: Gradient, expected: Gradient) -> float:
    assert found.keys() == expected.keys()
    off = torch.stack([(found[n] - expected[n]).norm() for n in expected]).norm()
    return float(off / torch.stack([g.norm() for g in expected.values()]).norm())


@pytest.mark.parametrize(("batch", "accumulate"), [(8, 1), (2, 4), (1, 8), (3, 3)])
def test_one_window(tmp_path: Path, expected: Gradient, batch: int, accumulate: int) -> None:
    (found,) = gradients(tmp_path, batch, accumulate)
    assert distance(found, expected) < 2e-6


def test_the_plain_mean_of_means_would_fail(tmp_path: Path, expected: Gradient) -> None:
    """The rows are ragged enough for the usual mistake to show."""
    (found,) = gradients(tmp_path, 8, 1)
    biased = {name: g * 1.001 for name, g in found.items()}
    assert distance(biased, expected) > 2e-4


def test_short_last_window(tmp_path: Path, expected: Gradient) -> None:
    """Windows of 6 and 2 rows: each is the mean of its own tokens, so their weighted sum is the whole."""
    first, second = gradients(tmp_path, 2, 3)
    tokens = scored_tokens()
    share = tokens_of_windows(tmp_path, tokens)
    whole = {name: first[name] * share[0] + second[name] * share[1] for name in expected}
    assert distance(whole, expected) < 2e-6


def scored_tokens() -> list[int]:
    """Predicted tokens per row: all but the first, with the end token."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama())
    ids = [tokenizer(text)["input_ids"] for text in TEXTS]
    return [len(row) - (row[-1] == tokenizer.eos_token_id) for row in ids]


def tokens_of_windows(folder: Path, tokens: list[int]) -> list[float]:
    """Share of each window in all tokens, for batches of 2 in windows of 3, in the loader's order."""
    import numpy as np

    from ftlab.data.order import epoch_batches

    order = epoch_batches(np.array([n + 1 for n in tokens]), 2, seed=0, epoch=0, shuffle=True, group=True)
    counts = [sum(tokens[i] for i in batch) for batch in order]
    return [sum(counts[:3]) / sum(tokens), sum(counts[3:]) / sum(tokens)]


def test_clipping_acts_on_the_whole_gradient(tmp_path: Path, expected: Gradient) -> None:
    norm = torch.stack([g.norm() for g in expected.values()]).norm()
    (found,) = gradients(tmp_path, 2, 4, clip=float(norm) / 2)
    # the callback sees the gradient before it is clipped, so clipping must not have changed the window's division
    assert distance(found, expected) < 2e-6


@pytest.mark.parametrize(("batch", "accumulate"), [(2, 2), pytest.param(3, 2, marks=pytest.mark.slow)])
def test_two_ranks(tmp_path: Path, expected: Gradient, batch: int, accumulate: int) -> None:
    words = [sys.executable, "-m", "tests.reference.division_run", str(tmp_path), str(batch), str(accumulate), "2"]
    done = subprocess.run(
        words, cwd=Path(__file__).parents[2], env={**os.environ}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    for rank in range(2):
        (found,) = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert distance(found, expected) < 2e-6
