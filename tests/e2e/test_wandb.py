"""What W&B is told of a run of a study, read back from the files of an offline run, and the sweep of a study."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb.sdk.launch.sweeps import utils as sweeps

from tests.conftest import Command
from tests.wandb_file import read

QUICK = (
    "--trainer.max_steps", "2", "--trainer.limit_val_batches", "1", "--trainer.log_every_n_steps", "1", "--save.verify_merge", "false",
)  # fmt: skip
OFFLINE = {"WANDB_API_KEY": "", "WANDB_SILENT": "true"}
STUDY = {
    "name": "sizes", "base": "base.yaml", "seeds": [3],
    "factors": {"size": {"small": {"model.tuning.r": 2}, "large": {"model.tuning.r": 6}}},
    "tune": {"trials": 2, "space": {"model.optimizer.lr": {"log_uniform": [1e-4, 1e-2]}}},
}  # fmt: skip


def quickstart() -> Path:
    return Path(__file__).parents[2] / "experiments" / "quickstart.yaml"


def test_a_run_of_a_study_is_found_by_group_job_and_tags(fresh: Command, tmp_path: Path) -> None:
    done = fresh(
        "fit", "--config", str(quickstart()), *QUICK, "--trainer.logger", "WandbLogger", "--run.name", "LoRA-r4", "--run.id", "seed-0",
        "--run.study", "first", "--run.variant", "LoRA-r4", "--run.tags", '["a", "b"]', "--run.artifact", "true",
        env={**OFFLINE, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("W&B runs offline") == 1
    assert not (tmp_path / "wandb").exists()
    folder = tmp_path / "runs" / "LoRA-r4" / "seed-0"
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    found = read(file)
    run = found["run"]
    assert (run.run_group, run.job_type, run.display_name, list(run.tags)) == ("first", "LoRA-r4", "LoRA-r4/seed-0", ["a", "b"])
    assert run.run_id == "first-LoRA-r4-seed-0"
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    assert {key: found["config"][key] for key in ("model", "data", "run")} == {key: config[key] for key in ("model", "data", "run")}
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert {key: found["summary"][key] for key in summary} == pytest.approx(summary)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [line["train_loss"] for line in lines if "train_loss" in line]
    assert [line["train_loss"] for line in found["history"] if "train_loss" in line] == losses
    assert [line["val_loss"] for line in found["history"] if "val_loss" in line] == [
        line["val_loss"] for line in lines if "val_loss" in line
    ]
    assert found["artifacts"] == ["LoRA-r4-seed-0"]
    arguments = config["trainer"]["logger"]["init_args"]
    assert [arguments[key] for key in ("id", "name", "group", "save_dir")] == [None, None, None, "."]  # another run of it has its own


def test_an_artifact_needs_a_logger_that_takes_it(ftlab: Command) -> None:
    done = ftlab("fit", "--config", str(quickstart()), *QUICK, "--run.artifact", "true")
    assert done.returncode == 2
    assert "run.artifact is true, but trainer.logger has no WandbLogger" in done.stderr


def agents_words(sweep: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """The command line that the agent of a sweep makes, without `/usr/bin/env ftlab`."""
    filled = sweeps.create_sweep_command_args({"args": {key: {"value": value} for key, value in values.items()}})["args"]
    words = [word for part in sweeps.create_sweep_command(sweep["command"]) for word in (filled if part == "${args}" else [part])]
    assert words[:2] == ["${env}", "ftlab"]
    return words[2:]


@pytest.mark.slow
def test_values_that_a_sweep_sets_are_used(fresh: Command, tmp_path: Path) -> None:
    base = yaml.safe_load(quickstart().read_text(encoding="utf-8"))
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base), encoding="utf-8")
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY), encoding="utf-8")
    written = fresh("sweep", "study.yaml")
    assert written.returncode == 0, written.stderr
    sweep = yaml.safe_load((tmp_path / "studies/sizes/sweep/sweep.yaml").read_text(encoding="utf-8"))
    assert (sweep["method"], sweep["run_cap"], sweep["metric"]) == ("random", 4, {"name": "val_loss", "goal": "minimize"})
    parameters = sweep["parameters"]
    assert parameters["model.optimizer.lr"] == {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2}
    (large,) = [file for file in parameters["config"]["values"] if Path(file).stem == "large"]
    values = {"model.optimizer.lr": 0.00375, "config": large, "seed_everything": 7}
    done = fresh(*agents_words(sweep, values), *QUICK, env={**OFFLINE, "HOME": str(tmp_path), "WANDB_RUN_ID": "abc", "WANDB_SWEEP_ID": "s"})
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.glob("runs/large/*")
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    assert config["model"]["optimizer"]["init_args"]["lr"] == 0.00375
    assert config["model"]["tuning"]["init_args"]["r"] == 6
    assert config["seed_everything"] == 7
    found = read(next(folder.glob("wandb/offline-run-*/run-*.wandb")))
    assert (found["run"].run_id, found["run"].run_group, found["run"].job_type) == ("abc", "sizes", "large")
    assert found["config"]["model"]["optimizer"]["init_args"]["lr"] == 0.00375
