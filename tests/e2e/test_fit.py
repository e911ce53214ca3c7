"""The main road through the command line: fit, what it leaves behind, and what can be done with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.conftest import Command
from tests.faults.forking import Run

QUICKSTART = str(Path(__file__).parents[2] / "experiments" / "quickstart.yaml")
SHORT = [
    "--trainer.max_steps",
    "12",
    "--trainer.limit_val_batches",
    "4",
    "--trainer.log_every_n_steps",
    "4",
    "--trainer.accumulate_grad_batches",
    "2",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, _warm: Run) -> Path:
    """The folder of one short quickstart run."""
    where = tmp_path_factory.mktemp("fit")
    done = _warm(where, "fit", "--config", QUICKSTART, *SHORT)
    assert done.code == 0, done.err
    (folder,) = (where / "runs" / "quickstart").iterdir()
    (folder / "printed.txt").write_text(done.err, encoding="utf-8")
    return folder


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_summary(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    wanted = {"base_val_loss", "val_loss", "tokens_per_second", "trainable_params", "total_params", "peak_memory_bytes", "seconds"}
    assert wanted <= summary.keys()
    assert summary["val_loss"] < summary["base_val_loss"]
    assert summary["steps"] == 12
    assert summary["tokens"] == 12 * 2 * 8 * 128
    assert 0 < summary["trainable_params"] < summary["total_params"] / 10


def test_what_it_stands_on_is_written_down(run: Path) -> None:
    found = json.loads((run / "versions.json").read_text(encoding="utf-8"))
    assert found.keys() == {"packages", "plugins", "git", "fingerprints"}
    assert found["git"] is None  # a folder of no repository
    assert found["fingerprints"].keys() == {"base", "tokenizer", "data"}
    assert all(found["fingerprints"].values())


def test_what_is_printed(run: Path) -> None:
    printed = (run / "printed.txt").read_text(encoding="utf-8")
    assert "fell below the untuned base's" in printed
    assert str(run) in printed
    assert "a checkpoint holds" in printed
    assert "Warning" not in printed


def test_schedule_ticks_once_per_optimiser_step(run: Path) -> None:
    """12 optimiser steps of 2 micro-batches, warm-up of one: the third logged rate is 1/11 of the way from the end."""
    rates = {record["step"]: record["lr"] for record in lines(run) if "lr" in record}
    assert rates[12] == pytest.approx(3e-3 * (12 - 11) / 11)
    assert rates[4] == pytest.approx(3e-3 * (12 - 3) / 11)


def test_config_is_complete_and_runs_again(run: Path, ftlab: Command, tmp_path: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert config["seed_everything"] == 42
    assert config["model"]["tuning"]["init_args"]["alpha"] == 16.0
    done = ftlab("fit", "--config", str(run / "config.yaml"), "--run.root", "again")
    assert done.returncode == 0, done.stderr
    (summary,) = tmp_path.glob("again/quickstart/*/summary.json")
    again, first = (json.loads(path.read_text(encoding="utf-8")) for path in (summary, run / "summary.json"))
    assert again["val_loss"] == first["val_loss"]


def test_checkpoint_holds_the_adapter_alone(run: Path) -> None:
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["state_dict"]
    assert all(".lora_A." in name or ".lora_B." in name for name in checkpoint["state_dict"])
    assert checkpoint["ftlab"]["spec"]["model.tuning"]["init_args"]["r"] == 8


def test_validate_gives_the_loss_of_the_run(run: Path, ftlab: Command) -> None:
    done = ftlab("validate", "--config", str(run / "config.yaml"), "--ckpt_path", str(run / "checkpoints" / "last.ckpt"))
    assert done.returncode == 0, done.stderr
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert f"{summary['val_loss']:.4f}" in done.stdout


def test_predict_writes_every_row(run: Path, ftlab: Command, tmp_path: Path) -> None:
    done = ftlab(
        "predict", "--config", str(run / "config.yaml"), "--ckpt_path", str(run / "checkpoints" / "last.ckpt"),
        "--trainer.limit_predict_batches", "2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("runs/quickstart/*/predictions.jsonl")
    records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert len(records) == 16
    assert all(record["tokens"] == 127 and record["loss"] > 0 for record in records)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["--model.tuning.r", "4"], "the checkpoint has model.tuning.r 8, the configuration 4"),
        (
            ["--model.tuning", "Full"],
            "the checkpoint has model.tuning 'ftlab.strategies.lora.LoRA', the configuration 'ftlab.strategies.full.Full'",
        ),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(run: Path, ftlab: Command, change: list[str], sentence: str) -> None:
    done = ftlab("validate", "--config", str(run / "config.yaml"), "--ckpt_path", str(run / "checkpoints" / "last.ckpt"), *change)
    assert done.returncode == 4
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow  # tests/reference/test_division.py and tests/unit/test_predictions.py have two ranks as well
def test_two_ranks_give_the_validation_loss_of_one(ftlab: Command, fresh: Command, tmp_path: Path) -> None:
    done = fresh(
        "fit", "--config", QUICKSTART, "--trainer.max_steps", "2", "--trainer.limit_val_batches", "null",
        "--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu", "--data.batch_size", "4",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (summary,) = tmp_path.glob("runs/quickstart/*/summary.json")
    two = json.loads(summary.read_text(encoding="utf-8"))
    assert len(list(tmp_path.glob("runs/quickstart/*"))) == 1
    done = ftlab("fit", "--config", QUICKSTART, "--trainer.max_steps", "2", "--data.batch_size", "8", "--run.name", "one")
    (summary,) = tmp_path.glob("runs/one/*/summary.json")
    one = json.loads(summary.read_text(encoding="utf-8"))
    assert two["base_val_loss"] == pytest.approx(one["base_val_loss"], rel=1e-6)
    assert two["val_loss"] == pytest.approx(one["val_loss"], rel=1e-6)
    assert two["tokens"] == one["tokens"]
