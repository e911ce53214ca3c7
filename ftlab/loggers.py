"""Loggers write into the run folder, and W&B works without a key or a network."""

from __future__ import annotations

import logging
import netrc
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

log = logging.getLogger(__name__)

_PROBE_SECONDS = 5.0


def place_loggers(trainer: Any, folder: Path) -> None:
    """Set the folder of every configured logger, and W&B's mode where it cannot be online.

    Args:
        trainer: The `trainer` section of a parsed configuration, changed in place.
        folder: The run's folder.
    """
    for entry in _entries(trainer.logger):
        arguments = entry.init_args
        if "save_dir" in arguments and arguments.save_dir in (None, "."):
            arguments.save_dir = str(folder)
        if not entry.class_path.endswith("WandbLogger"):
            continue
        reason = None if arguments.get("offline") else why_offline()
        if reason:
            arguments.offline = True
            log.warning("W&B runs offline: %s; `wandb sync` uploads the run later", reason)
        name, identity = _names(folder)
        if arguments.get("name") is None:
            arguments.name = name
        if arguments.get("id") is None and arguments.get("version") is None:
            arguments.id = identity  # so that a run that goes on is the same one there


def forget_places(trainer: dict[str, Any], folder: Path) -> None:
    """Take out what `place_loggers` set, which is this run's own: another run of the same configuration has its own.

    Args:
        trainer: The `trainer` section as plain types, changed in place.
        folder: The run's folder.
    """
    logger = trainer.get("logger")
    name, identity = _names(folder)
    own = {"save_dir": (str(folder), "."), "name": (name, None), "id": (identity, None)}
    for entry in logger if isinstance(logger, list) else [logger]:
        arguments = entry.get("init_args") if isinstance(entry, dict) else None
        for key, (mine, default) in own.items():
            if isinstance(arguments, dict) and arguments.get(key) == mine:
                arguments[key] = default


def _names(folder: Path) -> tuple[str, str]:
    """The name and the id of a run for W&B, which takes ids of 128 characters."""
    return f"{folder.parent.name}/{folder.name}", f"{folder.parent.name}-{folder.name}"[:128]


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
