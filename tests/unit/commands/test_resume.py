"""What `--resume` makes of arguments, and which differences it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ftlab.commands.resume import apply, check_unchanged, complete, find_run
from ftlab.errors import CheckpointError, ConfigError
from ftlab.given import given
from ftlab.resumed import MayDiffer, Resumed

STORED: dict[str, Any] = {
    "seed_everything": 7,
    "model": {
        "tuning": {"class_path": "ftlab.strategies.lora.LoRA", "init_args": {"r": 4, "alpha": 8.0, "dropout": 0.0}},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.001, "betas": [0.9, 0.999]}},
    },
    "data": {"batch_size": 2, "num_workers": 0},
    "trainer": {"max_steps": 4, "precision": None, "log_every_n_steps": 10},
    "run": {"root": "runs", "name": "a", "id": None},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "a" / "b"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(STORED))
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ["--model.tuning", "LoRA", "--model.tuning.r", "4"],
        ["--model.tuning.init_args.r=4"],
        ["--model.tuning", "ftlab.strategies.lora.LoRA"],
        ["--model.optimizer", "AdamW", "--model.optimizer.lr", "1e-3"],
        ["--model.optimizer", "{class_path: AdamW, init_args: {lr: 0.001}}"],
        ["--trainer.max_steps", "8", "--data.num_workers", "2", "--trainer.log_every_n_steps", "1", "--save.keep", "5"],
        ["--trainer.precision", "null"],
    ],
)
def test_the_same_value_or_one_that_may_differ_passes(words: list[str]) -> None:
    check_unchanged(STORED, given(words), MayDiffer())


def test_what_a_later_value_replaces_is_not_compared(tmp_path: Path) -> None:
    base = {"seed_everything": 42, "model": {"tuning": {"class_path": "Full", "init_args": {"last_layers": 2}}, "optimizer": None}}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    words = ["--config", str(tmp_path / "base.yaml"), "--seed_everything", "7", "--model.tuning", "LoRA", "--model.optimizer", "AdamW"]
    check_unchanged(STORED, given(words), MayDiffer())
    with pytest.raises(CheckpointError, match="seed_everything is 42, the run has 7"):
        check_unchanged(STORED, given([*words[:2], *words[4:]]), MayDiffer())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--model.tuning.r", "8"], "model.tuning.r is 8, the run has 4"),
        (["--model.tuning", "Full"], "model.tuning is 'Full', the run has 'ftlab.strategies.lora.LoRA'"),
        (["--data.batch_size", "4"], "data.batch_size is 4, the run has 2"),
        (["--trainer.precision", "bf16-mixed"], "trainer.precision is 'bf16-mixed', the run has None"),
        (["--data.max_length", "9"], "data.max_length is 9, the run has None"),
        (["--run.id", "c"], "run.id is 'c', the run has None"),
    ],
)
def test_another_value_is_refused_unless_overridden(words: list[str], says: str) -> None:
    key = says.partition(" ")[0]
    with pytest.raises(CheckpointError) as caught:
        check_unchanged(STORED, given(words), MayDiffer())
    flag = "--allow-data-change" if key.startswith("data.") else f"--override-resume {key}"
    assert str(caught.value) == f"{says}; leave it out, start a new run, or add {flag}."
    assert caught.value.exit_code == 4
    check_unchanged(STORED, given(words), MayDiffer(keys=(key,)))
    assert MayDiffer(data=True).allows(key) == key.startswith("data.")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--model.optimizer.lr", "2e-3"], "model.optimizer.lr is '2e-3', the run has 0.001"),
        (["--model.optimizer", "{class_path: AdamW, init_args: {lr: 0.01}}"], "model.optimizer.lr is 0.01, the run has 0.001"),
        (["--model.optimizer", "SGD"], "model.optimizer is 'SGD', the run has 'torch.optim.AdamW'"),
    ],
)
def test_the_optimiser_cannot_be_another(words: list[str], says: str) -> None:
    key = says.partition(" ")[0]
    with pytest.raises(CheckpointError) as caught:
        check_unchanged(STORED, given(words), MayDiffer())
    assert str(caught.value) == f"{says}; leave it out, or start a new run."
    with pytest.raises(ConfigError, match=f"--override-resume {key} has no effect"):
        check_unchanged(STORED, given(words), MayDiffer(keys=(key,)))


def test_the_runs_own_configuration_comes_first(run: Path) -> None:
    words, found = apply(["--trainer.max_steps", "8", "--resume", str(run)])
    assert found == Resumed(folder=run, may_differ=MayDiffer())
    assert words == ["--config", str(run / "config.yaml"), "--trainer.max_steps", "8"]
    assert apply([f"--resume={run / 'config.yaml'}"])[1] == found


def test_without_resume_nothing_changes() -> None:
    assert apply(["--trainer.max_steps", "8"]) == (["--trainer.max_steps", "8"], None)


@pytest.mark.parametrize("words", [["--override-resume", "data.batch_size"], ["--allow-data-change"]])
def test_an_override_alone_is_refused(words: list[str]) -> None:
    with pytest.raises(ConfigError, match=f"{words[0]} goes with --resume RUN"):
        apply(words)


def test_what_may_differ_is_handed_on(run: Path) -> None:
    options = ["--allow-data-change", "--override-resume", "trainer.precision", "--data.batch_size", "3"]
    words, found = apply(["--resume", str(run), *options])
    assert found == Resumed(folder=run, may_differ=MayDiffer(data=True, keys=("trainer.precision",)))
    assert words == ["--config", str(run / "config.yaml"), "--data.batch_size", "3"]


def test_a_folder_without_a_configuration_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not the folder of a run"):
        find_run(str(tmp_path))


def test_automatic_finds_a_run_by_its_names_or_begins_one(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parents[2])
    names = ["--run.name", "a", "--run.id", "b"]
    assert apply(["--resume", "auto", *names])[1] == Resumed(folder=run, may_differ=MayDiffer())
    assert apply(["--resume", "auto", *names[:3], "c"]) == ([*names[:3], "c"], None)
    with pytest.raises(CheckpointError, match=r"data\.batch_size is 3"):
        apply(["--resume", "auto", *names, "--data.batch_size", "3"])


def test_automatic_needs_names() -> None:
    with pytest.raises(ConfigError, match=r"needs run\.name and run\.id"):
        apply(["--resume", "auto", "--run.name", "a"])


def test_a_run_is_complete_until_it_is_asked_to_go_further(run: Path) -> None:
    assert not complete(run, [])
    (run / "summary.json").write_text("{}")
    assert complete(run, [])
    assert complete(run, ["--config", str(run / "config.yaml")])
    assert not complete(run, ["--trainer.max_steps", "8"])
