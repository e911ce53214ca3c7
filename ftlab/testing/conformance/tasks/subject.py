"""The task under test on a tiny model: encoding its rows, drawing batches, asking it for losses and predictions."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from ftlab.backbone import Backbone
from ftlab.batch import IGNORE, Batch
from ftlab.data.loader import FinetuneLoader, Plan
from ftlab.data.store import TokenStore, write
from ftlab.errors import ConfigError
from ftlab.module import FinetuneModule
from ftlab.rows import Example, Row, Stored
from ftlab.strategies.full import Full
from ftlab.tasks.base import Outputs, Task
from ftlab.testing.conformance.check import require
from ftlab.testing.conformance.examined import Examined
from ftlab.testing.conformance.subject import first_fitting, seed_all, written
from ftlab.testing.models import CONTEXT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FIRST_CHOICES = ("bert", "llama", "gpt2")
"""Families that are tried in this order."""
_LEAST = 4
"""Rows without which two batches on two ranks would be empty."""


@dataclass(frozen=True, kw_only=True)
class TaskSubject(Examined):
    """A task, and a few rows of it.

    Args:
        task: What is checked.
        rows: Labelled rows.
        chosen: The family of tiny models to check on; None takes the first that the task does not refuse.
    """

    kind = "tasks"

    task: Task
    rows: Sequence[Row]
    chosen: str | None = None

    def __post_init__(self) -> None:
        if len(self.rows) < _LEAST:
            name = type(self.task).__name__
            raise ConfigError(
                f"{name} has {len(self.rows)} sample rows, and the checks need {_LEAST}; "
                f"write sample = Sample(rows=[…]) into the class {name}, or give --rows FILE.jsonl."
            )

    @property
    def plugin(self) -> Task:
        """The task."""
        return self.task

    @cached_property
    def admitted(self) -> Mapping[str, str]:
        """What it says with its model; what its sample says where there is none, for which a check has the reason."""
        try:
            task, model = self.bound, self.model
        except Exception:  # whatever a plugin raises: the check that needs the model says it
            return self.task.sample.fails
        return task.fails(model)

    def measured_on(self) -> str:
        """The first family that the task does not refuse."""
        return self.family

    def sent(self) -> Self:
        """The same without the models that were made."""
        return replace(self, chosen=self.family)

    @cached_property
    def family(self) -> str:
        """The family of the tiny model."""
        return self.chosen or first_fitting(self.module, FIRST_CHOICES)

    @cached_property
    def bound(self) -> Task:
        """The task with what its rows tell filled in."""
        return self.task.bind(lambda: enumerate(self.rows))

    def unbuilt(self, family: str | None = None, backbone: Mapping[str, object] | None = None) -> FinetuneModule:
        """A module whose model is not loaded yet; all of it is trained."""
        folder = written(family or self.family, self.root)
        return FinetuneModule(Backbone(name=str(folder), **(backbone or {})), self.bound, Full())  # type: ignore[arg-type]  # a check's own fields

    def module(self, family: str | None = None, backbone: Mapping[str, object] | None = None, seed: int = 0) -> FinetuneModule:
        """A module with its model, whose fresh heads follow the seed, in evaluation mode."""
        made = self.unbuilt(family, backbone)
        seed_all(seed)
        made.configure_model()
        made.eval()
        return made

    @cached_property
    def model(self) -> nn.Module:
        """A model that nothing trains."""
        return self.module().adapted

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tiny model's."""
        return self.unbuilt().tokenizer

    def encoded(self, rows: Sequence[Row], labelled: bool = True) -> list[Example]:
        """What the task makes of some rows; of labelled ones, also what it binds to."""
        task = self.task.bind(lambda: enumerate(rows)) if labelled else self.bound
        return list(task.encode(enumerate(rows), self.tokenizer, CONTEXT, labelled))

    def stored(self, examples: Sequence[Example]) -> TokenStore:
        """Examples in a token cache."""
        folder = Path(tempfile.mkdtemp(prefix="tokens-", dir=self.root)) / "store"
        write(folder, examples, {"rows": len(self.rows)})
        return TokenStore(folder)

    @cached_property
    def store(self) -> TokenStore:
        """The rows' examples."""
        return self.stored(self.encoded(self.rows))

    def loader(self, plan: Plan, store: TokenStore | None = None) -> FinetuneLoader:
        """The micro-batches of a run."""
        collate = partial(self.bound.collate, tokenizer=self.tokenizer)
        return FinetuneLoader(store or self.store, collate, plan, partial(self.bound.draw, tokenizer=self.tokenizer))

    def shown(self, index: int, epoch: int = 0, seed: int = 0) -> Stored:
        """An example as an epoch shows it."""
        return self.bound.draw(self.store, index, (seed, epoch, index), self.tokenizer)

    def batch(self, indices: Sequence[int]) -> Batch:
        """Examples of the first epoch as one batch."""
        made = self.bound.collate([self.shown(i) for i in indices], self.tokenizer)
        return replace(made, index=tuple(indices))

    def whole(self) -> Batch:
        """All examples as one batch."""
        return self.batch(range(len(self.store)))

    @torch.no_grad()
    def sums(self, batch: Batch) -> dict[str, float]:
        """Head → sum of its loss."""
        return {head: float(total) for head, total in self.bound.forward(self.model, batch).sums.items()}


def outputs_of(task: Task, model: nn.Module, batch: Batch) -> Outputs:
    """A forward pass that must have every head.

    Raises:
        BrokenError: One is missing.
    """
    found = task.forward(model, batch)
    for part in (found.sums, found.counts):
        require(set(part) == set(task.heads), f"the outputs have the heads {sorted(part)}, the task has {sorted(task.heads)}")
    return found


def widened(batch: Batch, columns: int, filler: int) -> Batch:
    """The same with columns of padding on the right of every tensor that is as wide as `input_ids`."""
    shape = batch.inputs["input_ids"].shape
    inputs = {"attention_mask": torch.ones_like(batch.inputs["input_ids"]), **batch.inputs}
    inputs = {name: _wide(t, columns, filler if name == "input_ids" else 0) if t.shape == shape else t for name, t in inputs.items()}
    labels = {
        head: _wide(t, columns, torch.nan if t.is_floating_point() else IGNORE) if t.shape == shape else t
        for head, t in batch.labels.items()
    }
    return replace(batch, inputs=inputs, labels=labels)


def _wide(tensor: Tensor, columns: int, filler: float) -> Tensor:
    return nn.functional.pad(tensor, (0, columns), value=filler)


def tensors(batch: Batch) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a batch, by a name for sentences."""
    yield from ((f"inputs['{name}']", t) for name, t in batch.inputs.items())
    yield from ((f"labels['{head}']", t) for head, t in batch.labels.items())
    yield "rows", batch.rows


def changed(first: Batch, second: Batch) -> str:
    """The first tensor in which two batches differ; empty where none does."""
    left, right = dict(tensors(first)), dict(tensors(second))
    if left.keys() != right.keys():
        return ", ".join(sorted(left.keys() ^ right.keys()))
    return next((name for name, t in left.items() if not same_bits(t, right[name])), "")


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors are equal, NaN included."""
    return first.shape == second.shape and first.dtype == second.dtype and torch.equal(first.nan_to_num(-1e9), second.nan_to_num(-1e9))


def same_example(first: Stored, second: Stored) -> bool:
    """Whether two examples have the same fields and values."""
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype and first[name].tobytes() == second[name].tobytes() for name in first
    )
