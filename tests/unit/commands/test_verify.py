"""`ftlab verify`: it sees every difference, and passes for every kind of run."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ftlab.checkpoint_io import VerifiedCheckpointIO
from ftlab.commands.verify import compare_checkpoints, compare_figures, compare_traces, equal, read_trace
from tests.conftest import Command

LINES = [
    {"step": n // 2, "epoch": 0, "batch": n, "rows": [2 * n, 2 * n + 1], "lr": (0.1 * n).hex(), "loss": (1 / (n + 1)).hex()}
    for n in range(4)
]


def trace(folder: Path, lines: list[dict[str, Any]], rank: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / f"rank{rank}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def differing(tmp_path: Path, lines: list[dict[str, Any]]) -> list[str]:
    found = compare_traces(trace(tmp_path / "whole", LINES), trace(tmp_path / "broken", lines))
    return [line for line in found if "differ" in line.split()]


def changed(number: int, **values: Any) -> list[dict[str, Any]]:
    lines = copy.deepcopy(LINES)
    lines[number].update(values)
    return lines


def test_equal_traces_are_equal_even_where_a_micro_batch_ran_twice(tmp_path: Path) -> None:
    assert differing(tmp_path, [*LINES[:3], *LINES[2:]]) == []


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (changed(2, loss=(1 / 3 + 2**-54).hex()), "losses differ first at step 1"),
        (changed(3, lr=(0.3).hex()), "learning rates differ first at step 1"),
        (changed(1, rows=[3, 2]), "row ids differ first at step 0"),
        (LINES[:3], "micro-batches differ because 1 of 4 were not run"),
    ],
)
def test_a_trace_that_differs_is_said_to_differ(tmp_path: Path, lines: list[dict[str, Any]], says: str) -> None:
    assert differing(tmp_path, lines) == [says]


def test_the_wrong_one_of_two_runs_of_a_micro_batch_is_seen(tmp_path: Path) -> None:
    assert differing(tmp_path, [*LINES, changed(3, loss=(0.5).hex())[3]]) == ["losses differ first at step 1"]


def test_a_micro_batch_that_nobody_else_ran_is_seen(tmp_path: Path) -> None:
    further = {**LINES[3], "batch": 4}
    assert "row ids differ first at step 1" in differing(tmp_path, [*LINES, further])


def test_ranks_are_not_mixed_up(tmp_path: Path) -> None:
    other = changed(0, rows=[8, 9])
    whole, broken = trace(tmp_path / "whole", LINES), trace(tmp_path / "broken", other)
    trace(whole, other, rank=1), trace(broken, LINES, rank=1)
    assert "row ids differ first at step 0" in compare_traces(whole, broken)


def test_a_line_that_the_kill_cut_is_left_out(tmp_path: Path) -> None:
    folder = trace(tmp_path / "cut", LINES)
    with (folder / "rank0.jsonl").open("a") as file:
        file.write('{"step": 2, "epo')
    assert len(read_trace(folder)) == len(LINES)


def content() -> dict[str, Any]:
    return {
        "global_step": 4,
        "epoch": 0,
        "state_dict": {"a": torch.arange(3.0), "b": torch.ones(2, 2)},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.full((3,), 0.25)}}}],
        "lr_schedulers": [{"last_epoch": 4}],
        "ftlab": {"rng": [{"torch": torch.arange(8, dtype=torch.uint8)}]},
    }


def compared(tmp_path: Path, other: dict[str, Any]) -> list[str]:
    for name, value in (("whole", content()), ("broken", other)):
        VerifiedCheckpointIO().save_checkpoint(value, tmp_path / name / "step-00000004.ckpt")
    lines = compare_checkpoints(tmp_path / "whole" / "step-00000004.ckpt", tmp_path / "broken" / "step-00000004.ckpt")
    return [line for line in lines if "differ" in line.split()]


def _weights(value: dict[str, Any]) -> None:
    value["state_dict"]["a"][1] = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))


def _missing(value: dict[str, Any]) -> None:
    del value["state_dict"]["b"]


def _moment(value: dict[str, Any]) -> None:
    value["optimizer_states"][0]["state"][0]["exp_avg"][2] = 0.5


def _schedule(value: dict[str, Any]) -> None:
    value["lr_schedulers"][0]["last_epoch"] = 3


def _random(value: dict[str, Any]) -> None:
    value["ftlab"]["rng"][0]["torch"][0] = 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_weights, "weights differ"), (_missing, "weights differ"), (_moment, "optimiser differ"),
        (_schedule, "schedule differ"), (_random, "random state differ"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_differs_is_said_to_differ(tmp_path: Path, change: Callable[[dict[str, Any]], None], says: str) -> None:
    other = content()
    change(other)
    assert compared(tmp_path, other) == [says]


def test_equal_checkpoints_are_equal(tmp_path: Path) -> None:
    assert compared(tmp_path, content()) == []


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        ({"val_loss": 0.1, "seconds": 9.0}, ["validation figures are equal"]),
        ({"val_loss": 0.1 + 2**-54}, ["validation figures differ in val_loss"]),
        ({}, ["validation figures differ in val_loss"]),
    ],
)
def test_validation_figures(tmp_path: Path, values: dict[str, float], lines: list[str]) -> None:
    for name, figures in (("whole", {"val_loss": 0.1, "seconds": 1.0}), ("broken", values)):
        (tmp_path / name).write_text(json.dumps(figures), encoding="utf-8")
    assert compare_figures(tmp_path / "whole", tmp_path / "broken") == lines


def test_without_a_validation_nothing_is_said_of_its_figures(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({"seconds": 1.0}), encoding="utf-8")
    assert compare_figures(tmp_path / "summary.json", tmp_path / "summary.json") == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (torch.ones(2), torch.ones(2, dtype=torch.float64)), (torch.ones(2), torch.ones(2, 1)), (torch.ones(1), 1.0), ([1], [1, 2]),
        ({"a": 1}, {"b": 1}), (torch.tensor(0.0), torch.tensor(-0.0)),
    ],
)  # fmt: skip
def test_nearly_the_same_is_not_equal(first: object, second: object) -> None:
    assert not equal(first, second)


def test_a_number_that_is_not_a_number_is_equal_to_itself() -> None:
    assert equal(torch.tensor([float("nan")]), torch.tensor([float("nan")]))


TASKS = {
    "CausalLM": {"class_path": "CausalLM", "init_args": {"cross_documents": False}},
    "SequenceClassification": {"class_path": "SequenceClassification"},
}
WORDS = ("ship", "a longer row of words", "tea", "the fourth of all the rows here", "five", "six is more than five")


def configuration(task: str, tuning: str, workers: int, window: int, ranks: int) -> dict[str, Any]:
    rows = [{"text": f"{WORDS[n % 6]} {n}", "label": ("no", "yes")[n % 2]} for n in range(16)]
    options = {"r": 2, "dropout": 0.1, "target_modules": ["q_proj", "v_proj"]} if tuning == "LoRA" else {}
    trainer = {"accelerator": "cpu", "accumulate_grad_batches": window, "devices": ranks, "strategy": "auto" if ranks == 1 else "ddp"}
    return {
        "model": {
            "backbone": {"name": "ftlab/tiny-llama"},
            "task": TASKS[task],
            "tuning": {"class_path": tuning, "init_args": options},
        },
        "data": {
            "source": {"class_path": "Rows", "init_args": {"items": {"train": rows, "val": rows[:2]}}},
            "batch_size": 2,
            "num_workers": workers,
        },
        "trainer": {**trainer, "max_epochs": 10},
    }


def test_a_run_that_fails_hands_on_its_exit_code(ftlab: Command, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(json.dumps(configuration("CausalLM", "LoRA", 0, 1, 1)))
    result = ftlab("verify", "config.yaml", "--model.task.text_column", "txet")
    assert result.returncode == 3, result.stderr
    assert "the run to verify ended with exit code 3: split 'train' has no column 'txet'" in result.stderr


def test_the_words_that_fit_takes_do_not_stand_first(ftlab: Command) -> None:
    assert "--steps N" in ftlab("verify", "--help").stdout
    for words in ((), ("--steps", "2"), ("--model.tuning.r", "16")):
        assert ftlab("verify", *words).stderr.startswith("ftlab: error: ftlab verify needs a configuration or a run; write ")
    assert ftlab("verify", "config.yaml", "--steps", "0").stderr == "ftlab: error: --steps is 0; it must be 1 or more.\n"


OWN = """
from dataclasses import dataclass
from ftlab.strategies.full import Full


@dataclass(frozen=True, kw_only=True)
class Own(Full):
    \"\"\"A strategy of somebody's own.\"\"\"
"""


@pytest.mark.slow
def test_a_run_with_a_plugin_is_resumed_with_it(ftlab: Command, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "config.yaml").write_text(json.dumps(configuration("CausalLM", "Own", 0, 1, 1)))
    result = ftlab("verify", "config.yaml", "--plugin", "own.py", "--steps", "2")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tuning", "task", "workers", "window", "ranks"), list(itertools.product(("Full", "LoRA"), TASKS, (0, 2), (1, 3), (1, 2)))
)
def test_a_killed_and_resumed_run_is_verified(
    ftlab: Command, tmp_path: Path, tuning: str, task: str, workers: int, window: int, ranks: int
) -> None:
    (tmp_path / "config.yaml").write_text(json.dumps(configuration(task, tuning, workers, window, ranks)))
    result = ftlab("verify", "config.yaml", "--steps", "2")
    assert result.returncode == 0, result.stdout + result.stderr
    said = result.stdout.splitlines()
    assert said[-1] == "verified: the resumed run is the uninterrupted one"
    assert "weights are equal" in said
    assert "losses are equal in all" in result.stdout
