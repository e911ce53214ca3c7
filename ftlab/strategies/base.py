"""The contract of a tuning strategy: the life cycle of one way of adapting a backbone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from torch import Tensor, nn

from ftlab.batch import Batch
from ftlab.errors import FtlabError
from ftlab.native import save_native
from ftlab.saving import is_plain, save_whole

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class NotMergeableError(FtlabError):
    """The strategy leaves nothing that could be folded into the base weights."""

    exit_code = 2


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What a strategy declares about itself; `ftlab check` measures it.

    Args:
        mergeable: `merge` gives a plain HF model; None where that depends on the arguments.
        learning_rate: What AdamW starts from where the configuration names no optimiser.
        paper: Authors, year and title.
        starts_at_base: Before the first step the adapted model computes what the base does.
        fails: Name of a check of `ftlab check` that cannot pass → why not; one that passes all the same is an error.
        example: Arguments to check the class with, where it has fields without a default; as YAML would hold them.
        space: What a study searches where it says `space: declared`, as its file would hold it; empty is `learning_rate` times 0.1 to 10.
    """

    mergeable: bool | None = False
    learning_rate: float = 1e-3
    paper: str = ""
    starts_at_base: bool = True
    fails: Mapping[str, str] = field(default_factory=dict)
    example: Mapping[str, object] = field(default_factory=dict)
    space: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where this rank's weights will live.

    Args:
        device: This rank's device.
        precision: Lightning's precision string, such as `bf16-mixed`.
    """

    device: torch.device
    precision: str


@dataclass(frozen=True, kw_only=True)
class TuningStrategy(ABC):
    """One way of adapting a pretrained model; only `apply` is required.

    A subclass is a frozen, keyword-only dataclass: its typed fields are its YAML, its `--help` and what a checkpoint stores.
    Instances hold no state; state lives in the module that `apply` returns.
    """

    traits: ClassVar[Traits] = Traits()

    def load_options(self, placement: Placement) -> dict[str, object]:
        """Extra keyword arguments for `from_pretrained`, such as a quantisation configuration."""
        return {}

    def bind(self, tokenizer: PreTrainedTokenizerBase) -> Self:
        """This strategy with everything that only the tokenizer can tell filled in; `apply` is called on what this returns."""
        return self

    def virtual_tokens(self) -> int:
        """Positions of the model's context that the strategy takes for itself; rows may be that much shorter."""
        return 0

    @abstractmethod
    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        """Freeze, inject and unfreeze; return the module to train.

        Called before any checkpoint is read, so it must build the same parameters every time; before that once on the shapes alone, on the
        meta device, where a `ConfigError` ends the run and any other error, as torch raises where it is asked for a value, is ignored.

        Args:
            model: The loaded backbone with its task head, in train mode.
            heads: Name → fresh module; each must end up trainable and owned.

        Returns:
            The module to train. Its logits line up with `input_ids`, and what a row gets depends on that row alone.
        """

    def prepare(self, model: nn.Module, batches: Iterable[Batch]) -> None:
        """Initialise from data, once, before the optimiser exists; not called when a run is resumed."""

    def param_groups(self, model: nn.Module, lr: float, weight_decay: float) -> list[dict[str, object]]:
        """Optimiser groups over the trainable parameters: matrices decay, vectors and scalars do not."""
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        groups: list[dict[str, object]] = []
        for decay, members in (
            (weight_decay, [pair for pair in named if pair[1].ndim >= 2]),
            (0.0, [pair for pair in named if pair[1].ndim < 2]),
        ):
            if members:
                groups.append({"params": members, "lr": lr, "weight_decay": decay})
        return groups

    def extra_losses(self, model: nn.Module, outputs: object, batch: Batch) -> dict[str, Tensor]:
        """Named scalar terms to add to the loss, logged as `train_<name>`.

        A micro-batch's term counts by its share of the window's scored positions, so a term that does not depend on the batch
        counts exactly once per optimiser step.
        """
        return {}

    def on_gradients(self, model: nn.Module, step: int) -> None:
        """Called once per optimiser step, before it, with gradients complete and unscaled."""

    def on_step(self, model: nn.Module, step: int, total: int) -> None:
        """Called once per optimiser step, after it.

        Args:
            model: What `apply` returned.
            step: Optimiser steps done, counted from 1.
            total: Optimiser steps of the whole run.
        """

    def owned(self, model: nn.Module) -> frozenset[str]:
        """The state-dict names that a checkpoint holds: the trainable parameters and the buffers beside them."""
        names: set[str] = set()
        saved = set(model.state_dict().keys())
        for prefix, module in model.named_modules(remove_duplicate=True):
            own = dict(module.named_parameters(recurse=False))
            if any(p.requires_grad for p in own.values()):
                dot = f"{prefix}." if prefix else ""
                names.update(dot + name for name, p in own.items() if p.requires_grad)
                names.update(dot + name for name, _ in module.named_buffers(recurse=False))
        return frozenset(names & saved)

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write the result; `model` stays as it is.

        Where others have a format for the method, that is what to write, so that the folder opens without ftlab: with `transformers`,
        or with `peft` on the untouched base. The default is the whole model as Hugging Face has it where the model is a plain one,
        else ftlab's own adapter folder, which `ftlab.load` opens.
        """
        if is_plain(model):
            save_whole(model, folder)
        else:
            save_native(self, model, folder)

    def merge(self, model: nn.Module) -> nn.Module:
        """The plain HF model with the adaptation folded in; `model` itself may be changed into it.

        Raises:
            NotMergeableError: The method has no merged form.
        """
        raise NotMergeableError(f"{type(self).__name__} has no merged form; export the adapter instead.")

    def metrics(self, model: nn.Module) -> dict[str, float]:
        """What is logged at each validation beside the task's own metrics."""
        return {}
