"""A stranger's package: installed with pip, named by short names, stored and checked like the built-ins."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.plugin.conftest import Run, last

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
ALL = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense", "intermediate.dense", "output.dense")
PAIRS = [(WORDS[i % 10], WORDS[i * 3 % 10], (i % 5) / 4) for i in range(40)]


def vectors(*parts: str) -> set[str]:
    """What VeRA trains of these parts of both layers."""
    return {f"model.encoder.layer.{i}.{part}.{name}" for i in range(2) for part in parts for name in ("b", "d")}


@pytest.fixture
def config(tmp_path: Path, bert: str) -> str:
    with closing(sqlite3.connect(tmp_path / "pairs.db")) as database:
        database.execute('CREATE TABLE "all pairs" (sentence1 TEXT, sentence2 TEXT, score REAL)')
        database.executemany('INSERT INTO "all pairs" VALUES (?, ?, ?)', PAIRS)
        database.commit()
    values = {
        "model": {
            "backbone": {"name": bert},
            "task": {"class_path": "SentenceSimilarity"},
            "tuning": {"class_path": "VeRA", "init_args": {"r": 8}},
        },
        "data": {"source": {"class_path": "SqliteTable", "init_args": {"path": "pairs.db", "tables": {"train": "all pairs"}}}},
        "trainer": {"max_epochs": 2, "accelerator": "cpu"},
        "run": {"name": "pairs"},
    }
    (tmp_path / "pairs.yaml").write_text(yaml.safe_dump(values))
    return "pairs.yaml"


def test_fit_and_validate(run: Run, config: str, bert: str, tmp_path: Path) -> None:
    run("fit", "--config", config, "--run.id", "fitted")
    folder = tmp_path / "runs" / "pairs" / "fitted"
    stored = yaml.safe_load((folder / "config.yaml").read_text())
    assert stored["model"]["tuning"] == {
        "class_path": "ftlab_example_plugin.vera.VeRA",
        "init_args": {"r": 8, "start": 0.1, "seed": 0, "target_modules": "all-linear"},
    }
    assert stored["model"]["task"]["class_path"] == "ftlab_example_plugin.similarity.SentenceSimilarity"
    assert stored["data"]["source"]["class_path"] == "ftlab_example_plugin.sqlite_table.SqliteTable"

    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    # The file was made for masked language modelling, so the pooler is a fresh head.
    assert set(checkpoint) == vectors(*ALL) | {"model.pooler.dense.weight", "model.pooler.dense.bias"}
    assert all(bool(tensor.any()) for name, tensor in checkpoint.items() if name.endswith(".b"))  # it began at zero
    exported = load_file(folder / "export" / "ftlab_adapter.safetensors")
    assert {f"model.{name}" for name in exported} == set(checkpoint)

    last_one = str(folder / "checkpoints" / "last.ckpt")
    run("validate", "--config", str(folder / "config.yaml"), "--ckpt_path", last_one, "--run.name", "again")
    (again,) = (tmp_path / "runs" / "again").iterdir()
    assert last(again, "val_loss") == pytest.approx(last(folder, "val_loss"), rel=1e-6)


@pytest.mark.slow
def test_fields_on_the_command_line(run: Run, config: str, tmp_path: Path) -> None:
    targets = "[query, intermediate.dense]"
    run("fit", "--config", config, "--run.id", "some", "--model.tuning.target_modules", targets, "--trainer.max_epochs", "1")
    checkpoint = torch.load(tmp_path / "runs" / "pairs" / "some" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert set(checkpoint) - {"model.pooler.dense.weight", "model.pooler.dense.bias"} == vectors(
        "attention.self.query", "intermediate.dense"
    )


def test_list_names_it_and_its_package_whatever_stands_beside_it(run: Run) -> None:
    listed = json.loads(run("list", "strategies", "--format", "json").stdout)
    found = {entry["name"]: entry for entry in listed}
    assert {"VeRA", "Cracked", "Full", "LoRA"} <= set(found)
    assert (found["VeRA"]["package"], found["VeRA"]["state"]) == ("ftlab-example-plugin", "ok")
    assert found["Cracked"]["state"] != "ok"


def test_describe_tells_fields_paper_and_package(run: Run) -> None:
    text = run("describe", "VeRA").stdout
    for part in ("target_modules", "Rank of the shared matrices", "Kopiczko", "ftlab-example-plugin", "1.2.0"):
        assert part in text


def test_a_broken_package_breaks_only_the_run_that_names_it(run: Run, config: str) -> None:
    error = run("fit", "--config", config, "--model.tuning", "Cracked", code=2).stderr
    assert "cracked.py:1: raise RuntimeError('built for another machine')" in error
    assert "plugin module cracked of cracked 0.3 does not import (RuntimeError: built for another machine); mend it" in error


@pytest.mark.parametrize(
    ("key", "value", "code", "sentence"),
    [
        ("model.tuning.target_modules", "[query, valu]", 2, "has 'valu', which matches no linear module; did you mean value?"),
        ("data.source.tables", "{train: pears}", 3, "pairs.db has no table 'pears'; allowed: all pairs."),
    ],
)
@pytest.mark.slow
def test_its_own_errors_are_sentences_too(run: Run, config: str, key: str, value: str, code: int, sentence: str) -> None:
    assert sentence in run("fit", "--config", config, f"--{key}", value, code=code).stderr
