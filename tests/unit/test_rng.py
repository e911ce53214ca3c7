"""Random generators go on where they were."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ftlab import rng


def draws() -> list[Any]:
    return [
        torch.rand(3).tolist(), torch.randn(1).item(), random.random(), random.gauss(0, 1),
        np.random.rand(2).tolist(), np.random.standard_normal(), torch.bernoulli(torch.full((8,), 0.5)).tolist(),
    ]  # fmt: skip


def disturb() -> None:
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(99)
    draws()


def test_every_generator_goes_on_where_it_was() -> None:
    random.gauss(0, 1), np.random.standard_normal()  # each holds a second number back, which is part of its state
    saved = rng.states()
    expected = draws()
    disturb()
    assert draws() != expected
    rng.restore(saved, 0)
    assert draws() == expected


def test_each_generator_alone_is_noticed() -> None:
    saved = rng.states()
    expected = draws()
    rng.restore(saved, 0)
    random.random()
    assert draws() != expected


def test_a_state_is_plain_enough_for_a_safe_file(tmp_path: Path) -> None:
    saved = rng.states()
    expected = draws()
    torch.save(saved, tmp_path / "rng.pt")
    disturb()
    rng.restore(torch.load(tmp_path / "rng.pt", weights_only=True), 0)
    assert draws() == expected


def test_taking_a_state_draws_nothing() -> None:
    first = rng.states()
    second = rng.states()
    assert torch.equal(first[0]["torch"], second[0]["torch"])
    assert first[0]["python"] == second[0]["python"]
    assert torch.equal(first[0]["numpy"][1], second[0]["numpy"][1])


def test_each_rank_takes_its_own() -> None:
    torch.manual_seed(1)
    first, expected_first = rng.states(), draws()
    torch.manual_seed(2)
    second, expected_second = rng.states(), draws()
    saved = first + second
    rng.restore(saved, 1)
    assert draws() == expected_second
    rng.restore(saved, 0)
    assert draws() == expected_first


def test_a_rank_that_was_not_there_keeps_its_own() -> None:
    saved = rng.states()
    disturb()
    before = torch.get_rng_state()
    rng.restore(saved, 1)
    assert torch.equal(torch.get_rng_state(), before)
