"""Settings that each have the right type and together would train nothing or not what was meant."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from ftlab.errors import ConfigError, SecurityError


def check_settings(command: str, config: Any) -> None:
    """Refuse a parsed configuration whose run would end without what was asked for.

    Args:
        command: fit, validate, test or predict.
        config: The parsed configuration of that command.

    Raises:
        ConfigError: Names the key, its value and what is allowed.
        SecurityError: A checkpoint from elsewhere, or one that may run code.
    """
    if command == "fit":
        _check_length(config.trainer)
        _check_monitors(config)
    _check_checkpoint(config)
    if config.trainer.accumulate_grad_batches < 1:
        raise ConfigError(f"trainer.accumulate_grad_batches is {config.trainer.accumulate_grad_batches}; it must be at least 1.")
    clip = config.trainer.gradient_clip_val
    if clip is not None and not 0 < clip < math.inf:
        raise ConfigError(f"trainer.gradient_clip_val is {clip}; it must be a finite number above 0, or null for no clipping.")
    _check_learning_rate(config.model.optimizer)


def _check_checkpoint(config: Any) -> None:
    path = config.ckpt_path
    if config.get("weights_only") is False:
        raise SecurityError("weights_only is false, which lets a checkpoint run code while it is read; leave it out.")
    if path is None or Path(path).is_file():
        return
    if urlparse(str(path)).scheme:
        raise SecurityError(f"ckpt_path is {path}, a checkpoint from elsewhere; download it and name the local file.")
    raise ConfigError(f"ckpt_path is {path}, which is no file; name a checkpoint such as runs/NAME/ID/checkpoints/best.ckpt.")


def _check_length(trainer: Any) -> None:
    for key in ("max_steps", "max_epochs", "limit_train_batches"):
        if trainer[key] is not None and trainer[key] == 0:
            raise ConfigError(f"trainer.{key} is 0, which trains nothing; set it above 0, or use `ftlab validate` for the untuned model.")


def _check_monitors(config: Any) -> None:
    if config.data.val_split is not None:
        return
    for callback in _entries(config.trainer.callbacks):
        monitor = callback.get("init_args", {}).get("monitor")
        if isinstance(monitor, str) and monitor.startswith("val_"):
            name = callback.class_path.rpartition(".")[2]
            raise ConfigError(f"trainer.callbacks has {name} on {monitor}, but data.val_split is null; set it, or watch train_loss.")


def _check_learning_rate(optimizer: Any) -> None:
    for entry in _entries(optimizer):
        lr = entry.get("init_args", {}).get("lr")
        if isinstance(lr, int | float) and not 0 < lr < math.inf:
            raise ConfigError(f"model.optimizer.lr is {lr}; it must be a finite number above 0.")


def _entries(value: Any) -> Iterator[Any]:
    """The classes with arguments in a section: none, one or a list."""
    for entry in value if isinstance(value, list) else [value]:
        if hasattr(entry, "class_path"):
            yield entry
