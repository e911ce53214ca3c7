"""The strategy under test on tiny models: building it, training it by hand, and asking it for logits."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from ftlab.rows import Example, Row, Stored
from ftlab.strategies.base import NotMergeableError, Placement, TuningStrategy
from ftlab.tasks.base import Task
from ftlab.tasks.causal_lm import CausalLM
from ftlab.tasks.sequence_classification import SequenceClassification
from ftlab.testing.conformance.examined import Examined
from ftlab.testing.models import CONTEXT, DECODERS, tiny_model_folder

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
class Build:
    """How a module is built where it is not as usual.

    Args:
        settings: Entries of the model's configuration.
        backbone: Fields of `Backbone` beside its name.
        optimizer: As `model.optimizer`.
    """

    settings: Mapping[str, object] = field(default_factory=dict)
    backbone: Mapping[str, Any] = field(default_factory=dict)
    optimizer: OptimizerCallable | None = None


PLAIN = Build()
RECOMPUTING = Build(backbone={"activation_checkpointing": True})


def written(family: str, root: Path, settings: Mapping[str, object] | None = None) -> Path:
    """The folder of a tiny model, written once."""
    place = root / "-".join([family, *sorted(settings or {})])
    return place if (place / "config.json").is_file() else tiny_model_folder(family, place, settings)


def first_fitting(module: Callable[[str], object], families: Sequence[str]) -> str:
    """The first family of which `module` can be built; the last one where none can, so that its refusal is what a check shows."""
    for family in families[:-1]:
        try:
            module(family)
            return family
        except ConfigError:
            continue
    return families[-1]


@dataclass(frozen=True, kw_only=True)
class Subject(Examined):
    """A strategy and where its tiny models lie.

    Args:
        strategy: What is checked.
        chosen: The family of tiny models to check on; None takes the first that the strategy does not refuse.
        targets: Fields that name modules of the model; None takes those that can hold a list.
        rows: What batches are made of; none takes a few texts.
    """

    kind = "strategies"

    strategy: TuningStrategy
    chosen: str | None = None
    targets: tuple[str, ...] | None = None
    rows: Sequence[Row] = ()

    @property
    def plugin(self) -> TuningStrategy:
        """The strategy."""
        return self.strategy

    @property
    def admitted(self) -> Mapping[str, str]:
        """What the traits say."""
        return self.strategy.traits.fails

    def measured_on(self) -> str:
        """The family where any will do."""
        return self.family

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
        return written(family, self.root, settings)

    @cached_property
    def family(self) -> str:
        """The family that checks use where any will do."""
        return self.chosen or first_fitting(self.module, FIRST_CHOICES)

    def unbuilt(self, family: str | None = None, task: Task | None = None, build: Build = PLAIN) -> FinetuneModule:
        """A module whose model is not loaded yet.

        Args:
            family: Of tiny models; None takes the subject's own.
            task: What is learnt; None takes language modelling for decoders, classification for encoders.
            build: How it is built.
        """
        family = family or self.family
        task = task or (LANGUAGE if family in DECODERS else CLASSES)
        backbone = Backbone(name=str(self.folder(family, build.settings)), **build.backbone)
        return FinetuneModule(backbone, task, self.strategy, build.optimizer)

    def module(self, family: str | None = None, task: Task | None = None, seed: int = 0, build: Build = PLAIN) -> FinetuneModule:
        """A module with its model loaded and the strategy applied, under a seed; see `unbuilt`."""
        made = self.unbuilt(family, task, build)
        seed_all(seed)
        made.configure_model()
        return made

    def trained(self, family: str | None = None, task: Task | None = None, steps: int = 3, build: Build = PLAIN) -> FinetuneModule:
        """A module after some steps."""
        made = self.module(family, task, build=build)
        train(made, [self.batch(made)] * steps)
        return made

    def batch(self, module: FinetuneModule) -> Batch:
        """One batch of the module's task, of the subject's rows."""
        if not self.rows:
            return batch(module)
        limit = CONTEXT - self.strategy.virtual_tokens()
        examples = [as_stored(e) for e in module.task.encode(enumerate(self.rows), module.tokenizer, limit, labelled=True)]
        shown = [module.task.draw(examples, i, (0, 0, i), module.tokenizer) for i in range(len(examples))]
        return module.task.collate(shown, module.tokenizer)

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

    def but(self, fields: Mapping[str, Any]) -> Subject:
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


def as_stored(example: Example) -> Stored:
    """An example as the token cache gives it back."""
    arrays = {name: np.atleast_1d(np.asarray(value)) for name, value in example.items()}
    return {name: a.astype(np.int32 if a.dtype.kind in "ib" else np.float32) for name, a in arrays.items()}


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
