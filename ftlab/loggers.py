"""Loggers write into the run folder, and W&B works without a key or a network."""

from __future__ import annotations

import importlib.util
import logging
import netrc
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from ftlab.errors import EnvironmentFault
from ftlab.run_folder import RunOptions

log = logging.getLogger(__name__)

_PROBE_SECONDS = 5.0
_LONGEST_ID = 128
"""Characters that W&B takes in a run's id."""


_OUTSIDE = {"id": "WANDB_RUN_ID", "name": "WANDB_NAME", "group": "WANDB_RUN_GROUP", "job_type": "WANDB_JOB_TYPE", "tags": "WANDB_TAGS"}
"""Variables by which the user or the agent of a sweep decides the same."""


_PACKAGES = {"MLFlowLogger": ("mlflow",), "TensorBoardLogger": ("tensorboard", "tensorboardX"), "CometLogger": ("comet_ml",)}
"""Logger → the packages of which it needs one; ftlab itself requires W&B's alone."""


def check_loggers(trainer: Any) -> None:
    """Refuse a logger whose package is not there.

    Args:
        trainer: The `trainer` section of a parsed configuration.

    Raises:
        EnvironmentFault: Names the package.
    """
    for entry in _entries(trainer.logger):
        kind = entry.class_path.rpartition(".")[2]
        needed = _PACKAGES.get(kind, ())
        if needed and not any(importlib.util.find_spec(package) for package in needed):
            raise EnvironmentFault(f"trainer.logger: {kind} needs {needed[0]}, which is not installed; run `pip install {needed[0]}`.")


def place_loggers(trainer: Any, folder: Path, run: RunOptions) -> None:
    """Set the folder of every configured logger, what W&B and MLflow call the run, and W&B's mode where it cannot be online.

    Args:
        trainer: The `trainer` section of a parsed configuration, changed in place.
        folder: The run's folder.
        run: Its study, variant and tags.
    """
    for entry in _entries(trainer.logger):
        arguments = entry.init_args
        if "save_dir" in arguments and arguments.save_dir in (None, "."):
            arguments.save_dir = str(folder)
        kind = entry.class_path.rpartition(".")[2]
        if kind == "WandbLogger":
            _choose_mode(arguments)
        for key, value in _called(kind, folder, run).items():
            if arguments.get(key) is None and not (key == "id" and arguments.get("version")) and _OUTSIDE.get(key, "") not in os.environ:
                arguments[key] = value


def _choose_mode(arguments: Any) -> None:
    reason = None if arguments.get("offline") else why_offline()
    if reason:
        arguments.offline = True
        log.warning("W&B runs offline: %s; `wandb sync` uploads the run later", reason)


def _called(kind: str, folder: Path, run: RunOptions) -> dict[str, Any]:
    """What a logger is told of a run where the configuration says nothing itself."""
    name = f"{folder.parent.name}/{folder.name}"
    if kind == "WandbLogger":
        identity = "-".join(filter(None, (run.study, folder.parent.name, folder.name)))[-_LONGEST_ID:].lstrip("-")
        return {"name": name, "id": identity, "group": run.study, "job_type": run.variant, "tags": run.tags or None}
    if kind == "MLFlowLogger":
        named = {"study": run.study, "variant": run.variant, **dict.fromkeys(run.tags, "true")}
        return {"run_name": name, "tags": {key: value for key, value in named.items() if value} or None}
    return {}


def forget_places(trainer: dict[str, Any], folder: Path, run: RunOptions) -> None:
    """Take out what `place_loggers` set, which is this run's own: another run of the same configuration has its own.

    Args:
        trainer: The `trainer` section as plain types, changed in place.
        folder: The run's folder.
        run: Its study, variant and tags.
    """
    logger = trainer.get("logger")
    for entry in logger if isinstance(logger, list) else [logger]:
        arguments = entry.get("init_args") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or not isinstance(arguments, dict):
            continue
        if arguments.get("save_dir") == str(folder):
            arguments["save_dir"] = "."
        for key, mine in _called(str(entry["class_path"]).rpartition(".")[2], folder, run).items():
            if arguments.get(key) == mine:
                arguments[key] = None


def _entries(logger: Any) -> Iterator[Any]:
    for entry in logger if isinstance(logger, list) else [logger]:
        if hasattr(entry, "class_path"):
            yield entry


def why_offline() -> str | None:
    """Why W&B cannot be online, or None where it can; asks the network once, for a few seconds at most."""
    if os.environ.get("WANDB_MODE"):
        return None  # the user has decided
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or "api.wandb.ai"
    if not os.environ.get("WANDB_API_KEY") and not _in_netrc(host):
        return "there is no API key (WANDB_API_KEY or `wandb login`)"
    try:
        with socket.create_connection((host, 443), timeout=_PROBE_SECONDS):
            return None
    except OSError as error:
        return f"{host} cannot be reached ({error})"


def _in_netrc(host: str) -> bool:
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
