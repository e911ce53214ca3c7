"""A run that goes on with something else than it began with: refused, with what differs (K13, D1, D2, D6-D9, R13)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file

from ftlab import checkpoint_io
from ftlab.backbone import ASSETS
from tests.faults.conftest import Run
from tests.unit.test_checkpoint import vouched

LABELS = ["bad", "good", "so-so"]
FIT = ("fit", "--config", "cls.yaml")


def lines(texts: list[str], labels: list[str]) -> str:
    return "".join(json.dumps({"text": t, "label": label}) + "\n" for t, label in zip(texts, labels, strict=True))


def write(folder: Path, **tuning: Any) -> None:
    shutil.copytree(ASSETS / "tiny-llama", folder / "base")
    texts = [f"Returns the number {n} of things" for n in range(6)]
    (folder / "rows.jsonl").write_text(lines(texts, LABELS * 2))
    config = {
        "model": {
            "backbone": {"name": str(folder / "base")},
            "task": {"class_path": "SequenceClassification"},
            "tuning": {"class_path": "LoRA", "init_args": {"r": 2, "target_modules": ["q_proj"], **tuning}},
        },
        "data": {"source": {"class_path": "JsonLines", "init_args": {"path": str(folder / "rows.jsonl")}}, "val_split": None},
        "trainer": {"max_steps": 2, "max_epochs": None, "accelerator": "cpu"},
        "save": {"every_n_steps": 1},
        "run": {"root": str(folder / "runs"), "name": "x", "id": "y"},
    }
    (folder / "cls.yaml").write_text(yaml.safe_dump(config))


@pytest.fixture
def run(folder: Path, warm: Run) -> Path:
    """A run of two steps."""
    write(folder)
    result = warm(*FIT)
    assert result.code == 0, result.err
    return folder / "runs" / "x" / "y"


def resumed(warm: Run, run: Path, *more: str) -> str:
    """What a resume that must be refused says."""
    result = warm("fit", "--resume", str(run), "--trainer.max_steps", "4", *more)
    assert result.code == 4, result.err
    assert "Traceback" not in result.err
    sentence = result.err.splitlines()[-1]
    assert sentence.startswith("ftlab: error: ")
    return sentence.removeprefix("ftlab: error: ")


def test_nothing_changed_goes_on(run: Path, warm: Run) -> None:
    result = warm("fit", "--resume", str(run), "--trainer.max_steps", "4")
    assert result.code == 0, result.err


def test_other_weights_of_the_same_shape(run: Path, warm: Run, folder: Path) -> None:
    (file,) = (folder / "base").glob("*.safetensors")
    state = load_file(file)
    name = min(state)
    state[name].view(-1)[0] += 1e-3
    save_file(state, file, metadata={"format": "pt"})
    said = resumed(warm, run)
    assert said.startswith("the checkpoint rests on the base ")
    assert "give model.backbone the weights and the revision" in said


@pytest.mark.parametrize(("key", "value"), [("num_hidden_layers", 2), ("intermediate_size", 64), ("num_hidden_layers", 1)])
def test_a_base_of_another_shape(run: Path, warm: Run, folder: Path, key: str, value: int) -> None:
    config = json.loads((folder / "base" / "config.json").read_text())
    (folder / "base" / "config.json").write_text(json.dumps(config | {key: value}))
    result = warm("fit", "--resume", str(run), "--trainer.max_steps", "4")
    assert result.code in (2, 4), result.err
    assert "Traceback" not in result.err


def test_another_tokenizer(run: Path, warm: Run, folder: Path) -> None:
    path = folder / "base" / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    first, second = list(vocabulary)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    path.write_text(json.dumps(content))
    assert resumed(warm, run).startswith("the checkpoint rests on the tokenizer ")


def test_another_row(run: Path, warm: Run, folder: Path) -> None:
    path = folder / "rows.jsonl"
    path.write_text(path.read_text().replace("number 3", "number 33"))
    assert resumed(warm, run).startswith("the checkpoint rests on the data ")


def test_rows_in_another_order(run: Path, warm: Run, folder: Path) -> None:
    path = folder / "rows.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    assert resumed(warm, run).startswith("the checkpoint rests on the data ")


def test_the_rows_are_not_asked_for_when_nothing_is_trained(run: Path, warm: Run, folder: Path) -> None:
    path = folder / "rows.jsonl"
    path.write_text(path.read_text().replace("number 3", "number 33"))
    checkpoint = run / "checkpoints" / "last.ckpt"
    words = ("--config", str(run / "config.yaml"), "--ckpt_path", str(checkpoint), "--data.val_split", "train", "--run.id", "z")
    result = warm("validate", *words)
    assert result.code == 0, result.err


@pytest.mark.parametrize(("key", "value"), [("r", "4"), ("alpha", "64"), ("dropout", "0.5"), ("target_modules", "[q_proj, v_proj]")])
def test_another_strategy(run: Path, warm: Run, key: str, value: str) -> None:
    assert f"tuning.{key} " in resumed(warm, run, f"--model.tuning.{key}", value)
    # Even where the user lets it differ, the checkpoint does not.
    said = resumed(warm, run, f"--model.tuning.{key}", value, "--override-resume", "model.*")
    assert said.startswith(f"the checkpoint has model.tuning.{key} ")


@pytest.mark.parametrize("labels", [["good", "bad", "so-so"], ["bad", "good"], ["bad", "good", "so-so", "worse"]])
def test_another_label_map(run: Path, warm: Run, folder: Path, labels: list[str]) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["task"]["init_args"]["labels"] == LABELS
    config["model"]["task"]["init_args"]["labels"] = labels
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    if "so-so" not in labels:
        path = folder / "rows.jsonl"
        path.write_text(path.read_text().replace("so-so", "good"))
    said = resumed(warm, run)
    assert said.startswith("the checkpoint has model.task.labels ")
    assert str(labels) in said or str(tuple(labels)) in said


@pytest.mark.parametrize("version", [0, 99])
def test_another_format_names_both_versions(run: Path, warm: Run, version: int) -> None:
    path = next((run / "checkpoints").glob("step-*2.ckpt"))
    content = checkpoint_io.load(path)
    content["ftlab"] |= {"format": version, "version": "9.9"}
    vouched(path, content)
    said = resumed(warm, run)
    assert said.startswith(f"the checkpoint has format {version} of ftlab 9.9, this is format ")


def test_a_seed_that_makes_another_fresh_base(folder: Path, warm: Run) -> None:
    write(folder)
    fresh = ("--model.backbone.fresh", "true", "--run.id", "f")
    assert warm(*FIT, *fresh).code == 0
    run = folder / "runs" / "x" / "f"
    assert warm("fit", "--resume", str(run), "--trainer.max_steps", "3").code == 0
    said = resumed(warm, run, "--seed_everything", "7", "--override-resume", "seed_everything")
    assert said.startswith("the checkpoint rests on the base ")
