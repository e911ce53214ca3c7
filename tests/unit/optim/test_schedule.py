from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_scheduler

from ftlab.errors import ConfigError
from ftlab.optim.schedule import Schedule
from tests.conftest import Command
from tests.unit.training import texts

HF = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


def optimizer() -> SGD:
    return SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)


def theirs(decay: str, warmup: int, total: int) -> list[float]:
    """The learning rates of transformers, one per optimiser step."""
    made = optimizer()
    scheduler = get_scheduler(HF[decay], made, num_warmup_steps=warmup, num_training_steps=total)
    rates = []
    for _ in range(total):
        rates.append(made.param_groups[0]["lr"])
        made.step()
        scheduler.step()
    return rates


def ours(schedule: Schedule, total: int) -> list[float]:
    made = optimizer()
    scheduler = schedule.build(made, total)
    rates = []
    for _ in range(total):
        rates.append(made.param_groups[0]["lr"])
        made.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("decay", ["linear", "cosine", "constant"])
@pytest.mark.parametrize(("warmup", "steps"), [(0, 0), (0.1, 4), (0.03, 2), (7, 7), (1, 1)])
def test_the_decay_is_that_of_transformers(decay: str, warmup: float, steps: int) -> None:
    schedule = Schedule(decay=decay, warmup=warmup)  # type: ignore[arg-type]
    assert schedule.warmup_steps(40) == steps
    assert ours(schedule, 40)[steps:] == pytest.approx(theirs(decay, steps, 40)[steps:])


def test_the_warm_up_has_no_step_at_zero() -> None:
    found = ours(Schedule(warmup=4, decay="constant"), 8)
    assert found == pytest.approx([0.4, 0.8, 1.2, 1.6, 2, 2, 2, 2])
    assert theirs("constant", 4, 8) == pytest.approx([0, 0.5, 1, 1.5, 2, 2, 2, 2])


def resumed_curve(build: Callable[[SGD], LambdaLR]) -> list[list[float]]:
    """The rates of two groups over seven steps, with a scheduler made anew from its state after four."""
    made = SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (2.0, 0.5)])
    scheduler, rates = build(made), []
    for step in range(7):
        rates.append([group["lr"] for group in made.param_groups])
        made.step()
        scheduler.step()
        if step == 3:
            state, scheduler = scheduler.state_dict(), build(made)
            scheduler.load_state_dict(state)
    return [*rates, [float(rate) for rate in scheduler.get_last_lr()]]


def test_groups_and_state_are_those_of_torch() -> None:
    schedule = Schedule(warmup=3)
    theirs = resumed_curve(lambda made: LambdaLR(made, lambda step: schedule.factor(step, 7)))
    assert resumed_curve(lambda made: schedule.build(made, 7)) == theirs


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_the_floor(decay: str) -> None:
    schedule = Schedule(decay=decay, warmup=0, floor=0.25)  # type: ignore[arg-type]
    assert schedule.factor(0, 10) == 1.0
    assert schedule.factor(10, 10) == schedule.factor(99, 10) == 0.25
    assert schedule.factor(5, 10) == pytest.approx(0.625)


@pytest.mark.parametrize(("name", "value"), [*(("warmup", v) for v in (-0.1, 1.5, math.nan, math.inf)), ("floor", -0.1), ("floor", 1.1)])
def test_values_out_of_range(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"model\.schedule\.{name} is "):
        Schedule(**{name: value})  # type: ignore[arg-type]


def test_a_warm_up_as_long_as_the_run_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Schedule(warmup=10).build(optimizer(), 10)
    assert "lasts 10 of the run's 10 optimiser steps" in caplog.text


def test_one_tick_per_optimiser_step(ftlab: Command, tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("\n".join(texts(40)))
    done = ftlab(
        "fit", "--model.backbone.name", "ftlab/tiny-llama", "--model.tuning", "LoRA", "--model.task", "CausalLM",
        "--model.task.cross_documents", "false", "--model.optimizer", "torch.optim.AdamW", "--model.optimizer.lr", "2.0",
        "--model.schedule.warmup", "2", "--data.source", "TextFile", "--data.source.path", "rows.txt", "--data.val_split", "null",
        "--data.batch_size", "4", "--trainer.max_epochs", "2", "--trainer.accumulate_grad_batches", "3", "--trainer.log_every_n_steps", "1",
        "--run.name", "r", "--run.id", "i",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "runs" / "r" / "i" / "metrics.jsonl").read_text().splitlines()]
    rates = [line["lr"] for line in lines if "lr" in line]
    # 10 micro-batches an epoch: 3 windows of 3 and one of 1, twice.
    expected = theirs("linear", 2, 8)
    expected[:2] = [2 / 3, 4 / 3]
    assert rates == pytest.approx(expected)
