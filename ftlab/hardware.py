"""Refusals that the machine decides, said before anything is loaded."""

from __future__ import annotations

from typing import Any

import torch

from ftlab.errors import ConfigError, EnvironmentFault


def check_hardware(trainer: Any) -> None:
    """Compare the trainer's settings with what there is.

    Args:
        trainer: The `trainer` section of a parsed configuration.

    Raises:
        EnvironmentFault: A GPU is asked for and there is none.
        ConfigError: A precision that the device does not have.
    """
    cuda = torch.cuda.is_available()
    if trainer.accelerator in ("gpu", "cuda") and not cuda and not torch.backends.mps.is_available():
        raise EnvironmentFault(f"trainer.accelerator is {trainer.accelerator}, but torch sees no GPU; use cpu, or check the driver.")
    precision = str(trainer.precision or "")
    if precision.startswith("64"):
        raise ConfigError(f"trainer.precision is {precision}, which no pretrained weights have and no task computes in; use 32-true.")
    if precision.startswith("16") and (trainer.accelerator == "cpu" or not cuda):
        raise ConfigError(f"trainer.precision is {precision}, ten times slower on a CPU than bf16-mixed; use bf16-mixed or 32-true.")
    if (
        precision.startswith("bf16")
        and cuda
        and trainer.accelerator != "cpu"
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        raise EnvironmentFault(f"trainer.precision is {precision}, which this GPU lacks; use 16-mixed or 32-true.")
