"""The guard, losses that jump, the sums over frozen tensors, and the best checkpoint."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ftlab.callbacks.checkpoints import Checkpoints, SaveOptions
from ftlab.checkpoint_io import Entry, Manifest
from ftlab.errors import NumericsError
from ftlab.numerics import Guard, check_frozen, frozen_sums
from ftlab.spikes import Spikes


def sums(tensor: Tensor) -> dict[str, tuple[int, int]]:
    return frozen_sums([("t", nn.Parameter(tensor, requires_grad=False))])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.uint8])
@pytest.mark.parametrize("size", [1, 3, 8, 65])
def test_any_bit_and_any_exchange_changes_the_sums(dtype: torch.dtype, size: int) -> None:
    tensor = torch.arange(1, size + 1).to(dtype)
    before = sums(tensor)
    assert sums(tensor.clone()) == before
    raw = tensor.view(torch.uint8)
    for place in range(len(raw)):
        for bit in (0, 7):
            raw[place] ^= 1 << bit
            assert sums(tensor) != before
            raw[place] ^= 1 << bit
    if size > 1:
        assert sums(tensor.flip(0)) != before


def test_a_tensor_that_begins_inside_a_word_has_sums() -> None:
    part = torch.arange(9.0)[1:]
    assert sums(part) == sums(part.clone())


def test_a_frozen_tensor_that_was_unfrozen_counts_as_changed() -> None:
    parameter = nn.Parameter(torch.ones(3), requires_grad=False)
    before = frozen_sums([("t", parameter)])
    check_frozen(before, [("t", parameter)])
    parameter.requires_grad_(True)
    with pytest.raises(NumericsError, match="the frozen tensor 't' changed"):
        check_frozen(before, [("t", parameter)])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_guard_names_rows_but_no_fillers(value: float) -> None:
    guard = Guard(0, scaled=False)
    guard.begin()
    guard.rows += [torch.tensor([4, 7]), torch.tensor([2, -1])]
    with pytest.raises(NumericsError, match=rf"the gradient of step 6 is {value}, from rows 4, 7, 2;"):
        guard.judge(torch.tensor(value), 5)


def test_fp16_may_look_for_a_scale_ten_times_in_a_row() -> None:
    guard = Guard(0, scaled=True)
    for _ in range(2):
        for step in range(10):
            assert guard.judge(torch.tensor(math.inf), step)
        assert guard.judge(torch.tensor(1.0), 10)
    for step in range(10):
        guard.judge(torch.tensor(math.inf), step)
    with pytest.raises(NumericsError):
        guard.judge(torch.tensor(math.inf), 10)


@pytest.mark.parametrize(("values", "best"), [([math.nan, 2.0], 2), ([2.0, math.nan], 1), ([-math.inf, 3.0], 2), ([3.0, 2.0, 2.5], 2)])
def test_only_a_finite_loss_can_be_the_best(tmp_path: Path, values: list[float], best: int) -> None:
    callback: Any = Checkpoints(tmp_path, SaveOptions(keep=9))
    for step, value in enumerate(values, 1):
        manifest = Manifest.read(tmp_path)
        manifest.files[f"step-{step:08d}.ckpt"] = Entry(sha256="", bytes=0, step=step, epoch=0)
        manifest.write(tmp_path)
        callback._saved_step = step
        state = SimpleNamespace(fn="fit")
        stub = SimpleNamespace(
            sanity_checking=False, state=state, is_global_zero=True, global_step=step,
            callback_metrics={"val_loss": torch.tensor(value)}, strategy=SimpleNamespace(broadcast=lambda said: said),
        )  # fmt: skip
        callback.on_validation_end(stub, None)
    assert Manifest.read(tmp_path).best == f"step-{best:08d}.ckpt"


def warned(losses: list[float], caplog: pytest.LogCaptureFixture, every: int = 1, ranks: int = 1) -> list[str]:
    """What is said of a run with these losses, reported every few steps."""
    spikes = Spikes()
    caplog.clear()
    with caplog.at_level(logging.WARNING, "ftlab"):
        for step, loss in enumerate(losses):
            spikes.add(torch.tensor(loss / ranks), step)
            if (step + 1) % every == 0:
                spikes.report(lambda share: share * ranks)
    return [record.getMessage().partition(" the usual")[0] for record in caplog.records]


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_loss_is_measured_by_those_before_it(caplog: pytest.LogCaptureFixture, ranks: int) -> None:
    usual = [5.0, 5.0, 5.0]
    assert warned([*usual, 500.0, 5.0], caplog, ranks=ranks) == ["the loss of step 4 is 100 times"]
    assert warned([*usual, 49.0, 5.0], caplog, ranks=ranks) == []
    assert warned([*usual, 500.0, 500.0], caplog, ranks=ranks) == ["the loss of step 4 is 100 times", "the loss of step 5 is 100 times"]
    assert warned([*usual, 100.0, 500.0, 5.0], caplog, every=6, ranks=ranks) == ["the loss of step 5 is 100 times"]


def test_the_first_losses_say_what_is_usual(caplog: pytest.LogCaptureFixture) -> None:
    assert warned([0.1, 5.0, 1.0, 49.0], caplog) == []
    assert warned([0.1, 5.0, 1.0, 500.0], caplog) == ["the loss of step 4 is 100 times"]


def test_a_row_that_a_finished_run_gets_wrong_is_no_spike(caplog: pytest.LogCaptureFixture) -> None:
    falling = [0.7 * 0.8**step for step in range(60)]
    assert warned([*falling, 0.6], caplog) == []
    assert warned([*falling, 7.0], caplog) == ["the loss of step 61 is 100 times"]


def test_a_loss_that_is_not_finite_is_neither_a_spike_nor_usual(caplog: pytest.LogCaptureFixture) -> None:
    assert warned([math.nan, 5.0, math.inf, 5.0, 5.0, 500.0], caplog) == ["the loss of step 6 is 100 times"]
    assert warned([0.0, 0.0, 0.0], caplog) == []
