"""The strategy under test on tiny models: building it, training it by hand, and asking it for logits."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from ftlab.backbone import Backbone
from ftlab.batch import Batch
from ftlab.errors import ConfigError
from ftlab.module import FinetuneModule
from ftlab.optim.build import OptimizerCallable, build_optimizer
from ftlab.strategies.base import NotMergeableError, Placement, TuningStrategy
from ftlab.tasks.base import Task
from ftlab.tasks.causal_lm import CausalLM
from ftlab.tasks.sequence_classification import SequenceClassification
from ftlab.testing.models import DECODERS, tiny_model_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LANGUAGE = CausalLM()
CLASSES = SequenceClassification(labels=["north", "south", "west"])
FIRST_CHOICES = ("llama", "gpt2", "bert")
"""Families that are tried in this order for the checks that need any one model."""
TEXTS = ("one two three", "a", "words of all kinds", "birds sing")
EVEN = ("the quick fox", "jumps over it", "many old dogs", "lazy and slow")
"""Texts of one length, so that a batch of them has no padding."""
RATE = 1e-2
"""High enough that a step is no rounding error, in bfloat16 too."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A strategy and where its tiny models lie.

    Args:
        strategy: What is checked.
        root: A folder for models and other files.
        chosen: The family of tiny models to check on; None takes the first that the strategy does not refuse.
        targets: Fields that name modules of the model; None takes those that can hold a list.
        fails: Name of a check → why it cannot pass, beside what the traits say.
    """

    strategy: TuningStrategy
    root: Path
    chosen: str | None = None
    targets: tuple[str, ...] | None = None
    fails: Mapping[str, str] = field(default_factory=dict)

    @property
    def declared(self) -> Mapping[str, str]:
        """Check → why it cannot pass, as the traits and the author of the test say."""
        return {**self.strategy.traits.fails, **self.fails}

    @property
    def merges(self) -> bool:
        """Whether a merged model must be the same one."""
        return self.can_merge and "merges" not in self.declared

    @cached_property
    def can_merge(self) -> bool:
        """What the traits say of merging, or `merge` itself where they leave it open."""
        if self.strategy.traits.mergeable is not None:
            return self.strategy.traits.mergeable
        try:
            self.strategy.merge(self.module().adapted)
        except NotMergeableError:
            return False
        return True

    def folder(self, family: str, settings: Mapping[str, object] | None = None) -> Path:
        """A tiny model, written once."""
        place = self.root / "-".join([family, *sorted(settings or {})])
        return place if (place / "config.json").is_file() else tiny_model_folder(family, place, settings)

    @cached_property
    def family(self) -> str:
        """The family that checks use where any will do."""
        if self.chosen is not None:
            return self.chosen
        for family in FIRST_CHOICES[:-1]:
            try:
                self.module(family)
                return family
            except ConfigError:
                continue
        return FIRST_CHOICES[-1]

    def unbuilt(self, family: str | None = None, task: Task | None = None, optimizer: OptimizerCallable | None = None,
                settings: Mapping[str, object] | None = None, **backbone: Any) -> FinetuneModule:  # fmt: skip
        """A module whose model is not loaded yet.

        Args:
            family: Of tiny models; None takes the subject's own.
            task: What is learnt; None takes language modelling for decoders, classification for encoders.
            optimizer: As `model.optimizer`.
            settings: Entries of the model's configuration.
            backbone: Further fields of `Backbone`.
        """
        family = family or self.family
        task = task or (LANGUAGE if family in DECODERS else CLASSES)
        return FinetuneModule(Backbone(name=str(self.folder(family, settings)), **backbone), task, self.strategy, optimizer)

    def module(self, family: str | None = None, task: Task | None = None, seed: int = 0, **options: Any) -> FinetuneModule:
        """A module with its model loaded and the strategy applied, under a seed; see `unbuilt`."""
        made = self.unbuilt(family, task, **options)
        seed_all(seed)
        made.configure_model()
        return made

    def trained(self, family: str | None = None, task: Task | None = None, steps: int = 3, **options: Any) -> FinetuneModule:
        """A module after some steps."""
        made = self.module(family, task, **options)
        train(made, [batch(made)] * steps)
        return made

    def base(self, module: FinetuneModule, as_stored: bool = False) -> nn.Module:
        """What `module` was before the strategy was applied, loaded as the strategy asks for, or as it is stored."""
        seed_all(0)
        options = {} if as_stored else self.load_options()
        model, _ = module.backbone.load_model(module.task.auto_class, module.task.model_options(), options)
        model.config.pad_token_id = module.tokenizer.pad_token_id
        return model

    @property
    def quantised(self) -> bool:
        """Whether the strategy asks for a quantised base."""
        return "quantization_config" in self.load_options()

    def load_options(self) -> dict[str, object]:
        """What the strategy asks for when weights are read, on the CPU in float32."""
        return self.strategy.load_options(Placement(device=torch.device("cpu"), precision="32-true"))

    def but(self, **fields: Any) -> Subject:
        """The same with other values in the strategy's fields."""
        return replace(self, strategy=replace(self.strategy, **fields))


@dataclass
class Gradients:
    """Which trainable tensors got a gradient in a training.

    Args:
        seen: Names of those that had one that was not zero, at any step.
        bad: Names of those that had one that was not finite.
    """

    seen: set[str] = field(default_factory=set)
    bad: set[str] = field(default_factory=set)

    def look(self, model: nn.Module) -> None:
        """Note the gradients of a step."""
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                self.seen |= {name} if bool(parameter.grad.ne(0).any()) else set()
                self.bad |= set() if bool(parameter.grad.isfinite().all()) else {name}


def seed_all(seed: int) -> None:
    """Seed every generator that a strategy may draw from."""
    random.seed(seed)
    np.random.seed(seed)  # the global generator is what others draw from
    torch.manual_seed(seed)


def batch(module: FinetuneModule, texts: Sequence[str] = TEXTS) -> Batch:
    """The texts as one batch of the module's task."""
    return collated(module.task, module.tokenizer, texts)


def collated(task: Task, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Batch:
    """The texts as one batch of a task, with an attention mask."""
    rows: list[Any] = [{**tokenizer(text), "row": [i], "label": [i % 3]} for i, text in enumerate(texts)]
    made = task.collate(rows, tokenizer)
    return replace(made, inputs={"attention_mask": torch.ones_like(made.inputs["input_ids"]), **made.inputs})


def loss_of(module: FinetuneModule, piece: Batch, window: Mapping[str, int] | None = None) -> Tensor:
    """A batch's share of its window's loss, with the strategy's own terms, as training has it."""
    outputs = module.task.forward(module.adapted, piece)
    whole = window or piece.counts()
    terms = list(module.tuning.extra_losses(module.adapted, outputs, piece).values())
    share = sum(piece.counts().values()) / sum(whole.values())
    return torch.stack([outputs.sums[h] / whole[h] for h in module.task.heads] + [t * share for t in terms]).sum()


def adam(groups: Iterable[Any]) -> Optimizer:
    """AdamW without decay, so that a tensor without a gradient stays where it is."""
    return AdamW(groups, lr=RATE, weight_decay=0.0)


def descent(groups: Iterable[Any]) -> Optimizer:
    """Plain gradient descent, whose steps are as exact as the gradient."""
    return SGD(groups, lr=RATE)


def train(
    module: FinetuneModule, windows: Sequence[Batch | Sequence[Batch]], optimizer: OptimizerCallable = adam, seed: int = 0
) -> Gradients:
    """Optimiser steps by hand, with every hook in its place; nothing but the hooks looks at what the strategy does.

    Args:
        module: With its model.
        windows: For each step its batch, or the micro-batches of its window.
        optimizer: Groups → optimiser.
        seed: For what is random in a step, such as dropout.
    """
    pieces = [[w] if isinstance(w, Batch) else list(w) for w in windows]
    model, tuning, found = module.adapted.train(), module.tuning, Gradients()
    tuning.prepare(model, iter([w[0] for w in pieces]))
    made = build_optimizer(optimizer, tuning, model)
    seed_all(seed)
    for step, window in enumerate(pieces, 1):
        whole = {head: sum(piece.counts()[head] for piece in window) for head in module.task.heads}
        for piece in window:
            loss_of(module, piece, whole).backward()
        found.look(model)
        tuning.on_gradients(model, step - 1)
        made.step()
        tuning.on_step(model, step, len(pieces))
        made.zero_grad()
    return found


@torch.no_grad()
def logits(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Logits in evaluation mode; of a language model only those at real tokens, (n, V)."""
    model.eval()
    found: Tensor = model(**inputs).logits
    return found[inputs["attention_mask"].bool()] if found.ndim == 3 else found


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every tensor of a model."""
    return {name: t.detach().clone() for name, t in model.state_dict().items()}


def moved(before: Mapping[str, Tensor], model: nn.Module) -> set[str]:
    """Names of the tensors that have other bits than before."""
    now = model.state_dict()
    return {name for name, t in before.items() if name in now and not _same_bits(t, now[name])}


def _same_bits(first: Tensor, second: Tensor) -> bool:
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return torch.equal(first.contiguous().view(-1).view(torch.uint8), second.detach().contiguous().view(-1).view(torch.uint8))


def trainable(model: nn.Module) -> set[str]:
    """Names of the trainable parameters."""
    return {name for name, p in model.named_parameters() if p.requires_grad}


def few(names: Iterable[str]) -> str:
    """Some names for a sentence."""
    listed = sorted(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
