"""What a run writes down about itself: configuration, table of parameters, summary."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from rich.console import Console
from rich.table import Table
from torch import nn

from ftlab import origins
from ftlab.callbacks.throughput import Throughput, peak_memory
from ftlab.lean import RunCallback, module_of
from ftlab.redact import redacted
from ftlab.run_folder import write_json, write_text

log = logging.getLogger(__name__)


class _Plain(yaml.SafeDumper):
    """Writes every value out; configurations are read without aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class Record(RunCallback):
    """Writes `config.yaml` when the data is known and `summary.json` when the fit is over.

    Args:
        folder: The run's folder.
        config: The complete configuration, called when the data has been read.
        throughput: Where tokens and seconds come from.
    """

    def __init__(self, folder: Path, config: Callable[[], dict[str, Any]], throughput: Throughput) -> None:
        self.folder = folder
        self.config = config
        self.throughput = throughput
        self._written = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._written or not trainer.is_global_zero:
            return
        self._written = True
        config = redacted(self.config())
        write_text(self.folder / "config.yaml", yaml.dump(config, Dumper=_Plain, sort_keys=False, allow_unicode=True))
        write_json(self.folder / origins.FILE, origins.record(config))
        for logger in trainer.loggers:
            logger.log_hyperparams(config)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            origins.note(self.folder, "fingerprints", module_of(pl_module).fingerprints())
            Console(stderr=True).print(parameter_table(pl_module))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._write_left_out(trainer, pl_module)

    def _write_left_out(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The rows of every step that was not taken, of which a message shows the first ones."""
        found = module_of(pl_module).guard.found
        if found and trainer.is_global_zero:
            write_json(self.folder / "nonfinite.json", {"steps": found})

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write_left_out(trainer, pl_module)
        if not trainer.is_global_zero:
            return
        summary = self.summary(trainer, pl_module)
        write_json(self.folder / "summary.json", summary)
        for logger in trainer.loggers:
            _summarise(logger, summary)

    def summary(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The figures of a finished fit."""
        module = module_of(pl_module)
        figures = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith(("val_", "train_", "tuning/"))}
        counts = parameter_counts(module.adapted)
        return {
            "base_val_loss": module.base_figures.get("loss"),
            "val_loss": figures.pop("val_loss", None),
            **figures,
            "steps": trainer.global_step,
            "tokens": self.throughput.tokens,
            "tokens_per_second": self.throughput.rate(),
            "trainable_params": counts[0],
            "total_params": counts[1],
            "peak_memory_bytes": peak_memory(module.device),
            "seconds": self.throughput.seconds(),
        }


def _summarise(logger: object, summary: dict[str, Any]) -> None:
    if isinstance(logger, WandbLogger):
        logger.experiment.summary.update(summary)


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """(trainable, all) parameters; a quantised one counts as the weights it stands for."""
    sizes = [(p, _size(p)) for p in model.parameters()]
    return sum(n for p, n in sizes if p.requires_grad), sum(n for _, n in sizes)


def _size(parameter: nn.Parameter) -> int:
    state = getattr(parameter, "quant_state", None)
    return int(state.shape.numel()) if state is not None else parameter.numel()


def parameter_table(pl_module: LightningModule) -> Table:
    """Modules, their parameters, the trainable share, and what a checkpoint will hold."""
    module = module_of(pl_module)
    model = module.adapted
    trainable, total = parameter_counts(model)
    owned = module.tuning.owned(model)
    table = Table(title=f"{module.backbone.name} · {type(module.task).__name__} · {type(module.tuning).__name__}", title_justify="left")
    for column in ("module", "parameters", "trainable", "share"):
        table.add_column(column, justify="left" if column == "module" else "right")
    for name, child in _parts(model):
        some, whole = parameter_counts(child)
        table.add_row(name, f"{whole:,}", f"{some:,}", f"{some / max(whole, 1):.2%}")
    table.add_section()
    table.add_row("all", f"{total:,}", f"{trainable:,}", f"{trainable / max(total, 1):.2%}")
    state = model.state_dict()
    size = sum(state[name].numel() * state[name].element_size() for name in owned)
    table.caption = f"a checkpoint holds {len(owned)} tensors of {type(module.tuning).__name__}, {size / 2**20:.2f} MiB"
    return table


def _parts(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The children of the model, the body opened once."""
    body = getattr(model, "base_model", None)
    parts = []
    for name, child in model.named_children():
        if child is body:
            parts += [(f"{name}.{inner}", m) for inner, m in child.named_children() if any(True for _ in m.parameters())]
        else:
            parts.append((name, child))
    return parts
