"""What loggers are told of a run where the configuration says nothing itself, and how it is taken out again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonargparse import Namespace

from ftlab.errors import EnvironmentFault
from ftlab.loggers import check_loggers, forget_places, place_loggers
from ftlab.run_folder import RunOptions

RUN = RunOptions(study="first", variant="LoRA-r4", tags=["a"])
FOLDER = Path("runs", "LoRA-r4", "seed-0")
MLFLOW = {"run_name": None, "tags": None, "save_dir": "./mlruns"}
WANDB = {"name": None, "id": None, "group": None, "job_type": None, "tags": None, "save_dir": ".", "version": None, "offline": True}


def parsed(values: dict[str, Any]) -> Any:
    """As the parser gives them."""
    return Namespace(values)  # type: ignore[no-untyped-call]


def entry(kind: str, arguments: dict[str, Any]) -> Any:
    return parsed({"class_path": f"lightning.pytorch.loggers.{kind}", "init_args": parsed(arguments)})


def test_mlflow_knows_the_study_by_tags() -> None:
    logger = entry("MLFlowLogger", MLFLOW)
    place_loggers(parsed({"logger": [logger]}), FOLDER, RUN)
    assert logger.init_args.run_name == "LoRA-r4/seed-0"
    assert logger.init_args.tags == {"study": "first", "variant": "LoRA-r4", "a": "true"}


def test_what_the_configuration_or_the_environment_says_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "of-the-sweep")
    logger = entry("WandbLogger", {**WANDB, "group": "mine"})
    place_loggers(parsed({"logger": logger}), FOLDER, RUN)
    told = logger.init_args
    assert (told.id, told.group, told.job_type, told.tags) == (None, "mine", "LoRA-r4", ["a"])


def test_a_logger_without_its_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda package: package == "tensorboardX" or None)
    check_loggers(parsed({"logger": [entry("TensorBoardLogger", {}), entry("WandbLogger", {}), entry("CSVLogger", {})]}))
    with pytest.raises(EnvironmentFault) as caught:
        check_loggers(parsed({"logger": entry("MLFlowLogger", MLFLOW)}))
    assert str(caught.value) == "trainer.logger: MLFlowLogger needs mlflow, which is not installed; run `pip install mlflow`."
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(("kind", "arguments"), [("MLFlowLogger", MLFLOW), ("WandbLogger", WANDB)])
def test_a_written_configuration_has_nothing_of_the_run(kind: str, arguments: dict[str, Any]) -> None:
    logger = entry(kind, arguments)
    place_loggers(parsed({"logger": logger}), FOLDER, RUN)
    assert logger.init_args.as_dict() != arguments
    trainer: dict[str, Any] = {"logger": {"class_path": logger.class_path, "init_args": logger.init_args.as_dict()}}
    forget_places(trainer, FOLDER, RUN)
    assert trainer["logger"]["init_args"] == arguments
