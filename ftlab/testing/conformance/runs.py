"""Short runs under Lightning's trainer."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from ftlab import checkpoint_io
from ftlab.callbacks.checkpoints import Checkpoints, SaveOptions
from ftlab.data.datamodule import FinetuneData
from ftlab.data.sources.in_memory import Rows, Value
from ftlab.errors import ConfigError
from ftlab.half import half_plugin
from ftlab.module import FinetuneModule
from ftlab.strategies.targets import layer_list
from ftlab.testing.conformance.check import require
from ftlab.testing.conformance.subject import EVEN, TEXTS, Build, Subject, adam, batch, descent
from ftlab.testing.conformance.taught import teach
from ftlab.testing.conformance.tensors import few, moved, snapshot, trainable

_STEPS = 4


class _Before(Callback):
    """Keeps what the model was before the first step."""

    tensors: dict[str, torch.Tensor]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, FinetuneModule)
        self.tensors = snapshot(pl_module.adapted)


class _Kill(Callback):
    """Ends the process as a power cut would, once the checkpoint of a step is there."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        if trainer.global_step == self.after:
            os.kill(os.getpid(), signal.SIGKILL)


def fit(
    subject: Subject,
    folder: Path,
    callbacks: Sequence[Callback] = (),
    settings: Mapping[str, Any] = MappingProxyType({}),
    resume: bool = False,
) -> FinetuneModule:
    """A run of a few steps on rows of a dozen bytes; `settings` are the trainer's."""
    seed_everything(0, verbose=False)
    module = subject.unbuilt(build=Build(optimizer=adam))
    texts = [f"{text} {i}" for i, text in enumerate((*TEXTS, *EVEN) * 4)]
    rows: list[dict[str, Value]] = [{"text": text, "label": ("north", "south", "west")[i % 3]} for i, text in enumerate(texts)]
    data = FinetuneData(Rows(items={"train": rows}), val_split=None, batch_size=2, max_length=32)
    half = half_plugin(settings.get("precision"))
    own = {"precision": None} if half else {}
    plugins = [checkpoint_io.VerifiedCheckpointIO(), *([half] if half else [])]
    trainer = Trainer(**{
        "accelerator": "cpu", "devices": 1, "max_steps": _STEPS, "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "use_distributed_sampler": False, "default_root_dir": folder,
        "callbacks": list(callbacks), "plugins": plugins, **settings, **own,
    })  # fmt: skip
    newest = checkpoint_io.newest(folder / "checkpoints") if resume else None
    trainer.fit(module, datamodule=data, ckpt_path=newest)
    return module


def precision(subject: Subject, material: dict[str, Any], folder: Path) -> None:
    """Everything trainable moves, and has the type that the precision promises."""
    kind, before = material["precision"], _Before()
    module = fit(subject, folder, [before], {"precision": kind})
    model = module.adapted
    names, types = trainable(model), {name: p.dtype for name, p in model.named_parameters()}
    allowed = {torch.float32, torch.bfloat16} if kind == "bf16-true" else {torch.float32}
    wrong = {name for name in names if types[name] not in allowed}
    require(not wrong, f"under {kind} {few(wrong)} is trained in {types[min(wrong)] if wrong else ''}")
    still = names - moved(before.tensors, model)
    require(not still, f"under {kind} {few(still)} does not move")
    with torch.no_grad():
        found = model(**batch(module).inputs).logits
    expected = torch.bfloat16 if kind == "bf16-true" else torch.float32
    require(found.dtype == expected, f"under {kind} logits are {found.dtype} instead of {expected}")
    require(bool(found.isfinite().all()), f"under {kind} logits are not finite")


def hooks(subject: Subject, material: dict[str, Any], folder: Path) -> None:
    """The hooks of a step, in a run whose windows have two micro-batches."""
    kind = type(subject.strategy)
    gradients, steps = kind.on_gradients, kind.on_step
    seen: dict[str, list[Any]] = {"gradients": [], "steps": [], "models": [], "without": []}

    def on_gradients(self: Any, model: nn.Module, step: int) -> None:
        seen["gradients"].append(step)
        seen["without"] += [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        gradients(self, model, step)

    def on_step(self: Any, model: nn.Module, step: int, total: int) -> None:
        seen["steps"].append((step, total))
        seen["models"].append(model)
        steps(self, model, step, total)

    with patch.object(kind, "on_gradients", on_gradients), patch.object(kind, "on_step", on_step):
        module = fit(subject, folder, settings={"accumulate_grad_batches": 2})
    require(seen["gradients"] == list(range(_STEPS)), f"on_gradients came at {seen['gradients']} in {_STEPS} steps")
    require(seen["steps"] == [(i + 1, _STEPS) for i in range(_STEPS)], f"on_step came with {seen['steps']} in {_STEPS} steps")
    require(all(m is module.adapted for m in seen["models"]), "on_step came with another model than the one that is trained")
    require(not seen["without"], f"before a step {few(set(seen['without']))} has no gradient")


def resumable(subject: Subject, material: dict[str, Any], folder: Path) -> None:
    """A run that saves at every step, goes on where there is a checkpoint, and may be killed."""
    callbacks: list[Callback] = [Checkpoints(folder / "checkpoints", SaveOptions(every_n_steps=1))]
    if material.get("kill_after") is not None:
        callbacks.append(_Kill(material["kill_after"]))
    resuming = (folder / "checkpoints" / checkpoint_io.MANIFEST).is_file()
    module = fit(subject, folder, callbacks, {"enable_checkpointing": True}, resuming)
    optimizer = module.trainer.optimizers[0]
    state = {f"{i}.{k}": torch.as_tensor(v) for i, s in optimizer.state_dict()["state"].items() for k, v in s.items()}
    torch.save({"weights": snapshot(module.adapted), "optimiser": state}, folder / "end.pt")


def two_ranks(subject: Subject, material: dict[str, Any], folder: Path) -> None:
    """A run under DDP, which refuses a parameter that the loss does not reach."""
    rank = int(os.environ["RANK"])
    module = fit(subject, folder, settings={"strategy": DDPStrategy(find_unused_parameters=False), "devices": 2, "max_steps": 3})
    torch.save(snapshot(module.adapted), folder / f"rank{rank}.pt")
    dist.destroy_process_group()


def sharded(subject: Subject, material: dict[str, Any], folder: Path) -> None:
    """Steps under torch's own `fully_shard` on the CPU; Lightning's ModelParallelStrategy is made for CUDA alone."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    rank = int(os.environ["RANK"])
    dist.init_process_group("gloo")
    module = subject.module()
    mesh = init_device_mesh("cpu", (2,))
    for part in _layers(module.adapted):
        fully_shard(part, mesh=mesh)
    fully_shard(module.adapted, mesh=mesh)
    teach(module, descent)
    whole = {name: t.full_tensor() if hasattr(t, "full_tensor") else t for name, t in module.adapted.state_dict().items()}
    if rank == 0:
        torch.save(whole, folder / "rank0.pt")
    dist.destroy_process_group()


def _layers(model: nn.Module) -> list[nn.Module]:
    try:
        return list(layer_list(model)[1])
    except ConfigError:
        return []  # the whole model is one unit
