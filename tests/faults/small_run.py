"""A small run with everything that makes a resume hard, what it comes to, and the comparison of two of them to the last bit."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from tests.faults.processes import Forker, Hook

STEPS, EPOCHS, BATCHES, WINDOW, INTERVAL = 24, 8, 5, 2, 2
"""Eight epochs of five micro-batches in windows of two: three steps each, the third from one micro-batch alone."""

THREES = ("--trainer.accumulate_grad_batches", "3")
WORKERS = ("--data.num_workers", "2")
"""Options beside the configuration."""

TEXTS = (
    "one short row", "another row that is rather longer than the first", "three", "the fourth of them all", "five is more than four",
    "six", "x = 7 and y = 8", "def f(x): return x", "nine lives, said the cat, are not enough", "ten",
)  # fmt: skip

CONFIG: dict[str, Any] = {
    "seed_everything": 7,
    "model": {
        "backbone": {"name": "ftlab/tiny-llama"},
        "task": {"class_path": "CausalLM", "init_args": {"cross_documents": False}},
        "tuning": {"class_path": "LoRA", "init_args": {"r": 2, "dropout": 0.1, "target_modules": ["q_proj", "v_proj"]}},
        "schedule": {"warmup": 0.2},
    },
    "data": {
        "source": {
            "class_path": "Rows",
            "init_args": {"items": {"train": [{"text": t} for t in TEXTS], "val": [{"text": "a row for validation"}, {"text": "b"}]}},
        },
        "batch_size": 2,
    },
    "save": {"every_n_steps": INTERVAL},
    "trainer": {"max_epochs": EPOCHS, "log_every_n_steps": 1, "accumulate_grad_batches": WINDOW, "enable_progress_bar": False},
}
"""Dropout, ragged rows, warm-up, a short last window, a validation after each epoch."""


class Place:
    """A folder for one run that is killed and continued.

    Args:
        folder: Where; made.
        extra: Options beside the configuration.
    """

    def __init__(self, folder: Path, extra: Sequence[str] = ()) -> None:
        self.folder = folder
        self.extra = extra
        (folder / "trace").mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
        self.run = folder / "runs" / "k" / "r"

    @property
    def first(self) -> list[str]:
        return ["fit", "--config", "config.yaml", "--run.name", "k", "--run.id", "r", *self.extra]

    @property
    def again(self) -> list[str]:
        return [*self.first, "--resume", "auto"]

    @property
    def env(self) -> dict[str, str]:
        return {"FTLAB_TRACE": str(self.folder / "trace")}

    def trace(self) -> list[dict[str, Any]]:
        """Every whole line that any process of the run wrote."""
        path = self.folder / "trace" / "rank0.jsonl"
        return _json_lines(path.read_text(encoding="utf-8") if path.exists() else "")

    def metrics(self) -> list[dict[str, Any]]:
        lines = (self.run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [{k: v for k, v in json.loads(line).items() if k != "time"} for line in lines]

    def result(self) -> dict[str, Any]:
        """What the run must come to, however often it died."""
        folder = self.run / "checkpoints"
        last = torch.load(folder / "last.ckpt", weights_only=True)
        summary = json.loads((self.run / "summary.json").read_text())
        # A run that goes on from the end of an epoch has one validation more in `total` (advance of Lightning's
        # training_epoch_loop.py adds the one that it takes for missed) until the next epoch sets `total` to 0. When a checkpoint
        # is loaded, Lightning asks of `total` only whether its four counts are one, which tells a validation that was broken off.
        total = last["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"].pop("total")
        assert len(set(total.values())) == 1, total
        kept = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch", "ftlab", "loops")
        return {
            **{key: last[key] for key in kept},
            "metrics": self.metrics(),
            "summary": {k: summary[k] for k in ("base_val_loss", "val_loss", "steps")},
            "files": sorted(p.name for p in folder.iterdir()),
            "run": sorted(p.name for p in self.run.iterdir()),
            "best": os.readlink(folder / "best.ckpt"),
        }


def _json_lines(text: str) -> list[dict[str, Any]]:
    found = []
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:  # the line that the kill cut
            continue
    return found


def place_of(record: dict[str, Any]) -> tuple[int, int]:
    """(epoch, micro-batch) of a line of a trace."""
    return record["epoch"], record["batch"]


def steps_before(record: dict[str, Any]) -> int:
    """Optimiser steps that were done when a micro-batch began, counted by hand."""
    return int(record["epoch"]) * -(-BATCHES // WINDOW) + int(record["batch"]) // WINDOW


@dataclass(frozen=True)
class Reference:
    """The run that was left alone."""

    trace: dict[tuple[int, int], dict[str, Any]]
    result: dict[str, Any]


def reference(fork: Forker, folder: Path, extra: Sequence[str] = (), steps: int = STEPS) -> Reference:
    """Run once without a kill."""
    place = Place(folder, extra)
    code, said = fork.run(place.folder, place.first, place.env)
    assert code == 0, said
    trace = {place_of(r): r for r in place.trace()}
    assert len(trace) == len(place.trace()) == EPOCHS * BATCHES
    assert place.trace()[-1]["step"] == steps
    return Reference(trace, place.result())


def killed(fork: Forker, folder: Path, hook: Hook, *extra: str) -> Place:
    """A run that a hook has killed."""
    place = Place(folder / "run", extra)
    code, said = fork.run(place.folder, place.first, place.env, [hook])
    assert code == -9, said
    return place


def again(place: Place, folder: Path) -> Place:
    """The same stopped run once more, for its negative control."""
    shutil.copytree(place.folder, folder, symlinks=True)
    other = copy.copy(place)
    other.folder, other.run = folder, folder / "runs" / "k" / "r"
    return other


def resumed(fork: Forker, place: Place, *more: str, without: str = "") -> tuple[int, str]:
    """Exit code and what was said; `without` is left out, for a negative control."""
    hooks = [Hook(without, signal=0)] if without else []
    return fork.run(place.folder, ["fit", "--resume", str(place.run), *more], place.env, hooks)


def differences(place: Place, whole: Reference) -> list[str]:
    """What is not the same to the last bit."""
    trace = place.trace()
    found = [f"micro-batch {place_of(r)}: {r} is not {whole.trace[place_of(r)]}" for r in trace if r != whole.trace[place_of(r)]]
    missing = whole.trace.keys() - {place_of(r) for r in trace}
    found += [f"micro-batches {sorted(missing)} were not run"] if missing else []
    if not (place.run / "summary.json").exists():
        return [*found, "the run did not end"]
    result = place.result()
    return found + [f"{key} differs" for key, value in whole.result.items() if not same(value, result[key])]


def same(first: Any, second: Any) -> bool:
    """Equal in type, shape and every bit."""
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and first.dtype == second.dtype and first.shape == second.shape and _bits(first, second)
    if isinstance(first, dict):
        return isinstance(second, dict) and first.keys() == second.keys() and all(same(v, second[k]) for k, v in first.items())
    if isinstance(first, list | tuple):
        return type(first) is type(second) and len(first) == len(second) and all(map(same, first, second))
    return type(first) is type(second) and bool(first == second or (first != first and second != second))


def _bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    return first.contiguous().numpy().tobytes() == second.contiguous().numpy().tobytes()
