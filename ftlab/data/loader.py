"""The loader: micro-batches in a fixed order, handed out in windows that know their own counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from ftlab.batch import Batch
from ftlab.data.order import Index, epoch_batches, rank_share
from ftlab.data.store import TokenStore
from ftlab.rows import Examples, Key, Stored

Collate = Callable[[Sequence[Stored]], Batch]
Draw = Callable[[Examples, int, Key], Stored]
"""(examples, number, key) → the example as an epoch shows it"""

_IN_A_ROW = 8
"""Batches made together where there are no workers: one between two steps takes three times as long, as its code has left the cache.
For a GPU they are made one by one, behind its work."""


def as_stored(examples: Examples, index: int, key: Key) -> Stored:
    """The example as it is, in every epoch."""
    return examples[index]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a split is cut into micro-batches.

    Args:
        batch_size: Rows per micro-batch on one rank.
        window: Micro-batches per optimiser step.
        seed: Seed of the order.
        shuffle: Another order and another draw each epoch; evaluation has those of epoch 0 always.
        group: Rows of like length into the same batch.
        rank: This rank.
        world: Number of ranks.
        workers: Worker processes.
        pin: Copy batches to page-locked memory.
        stop: Micro-batches after which the trainer ends an epoch early (`limit_train_batches`); a window ends there too.
    """

    batch_size: int
    window: int = 1
    seed: int = 0
    shuffle: bool = False
    group: bool = True
    rank: int = 0
    world: int = 1
    workers: int = 0
    pin: bool = False
    stop: int | None = None


class FinetuneLoader:
    """Iterates over the micro-batches of one epoch after another.

    Its state is (epoch, micro-batches handed out); what a worker fetched ahead does not count. An epoch that was broken off is
    over: the next iteration begins the next one, unless `load_state_dict` said where to go on.

    Args:
        store: The examples.
        collate: Examples → batch.
        plan: How they are cut.
        draw: What an epoch shows of an example.
    """

    def __init__(self, store: TokenStore, collate: Collate, plan: Plan, draw: Draw = as_stored) -> None:
        self.store = store
        self.plan = plan
        self._epoch = 0
        self._handed = 0
        self._resumed = False
        self._numbered = _Numbered(store, draw, plan.seed)
        self._filling = _Filling(collate)
        self._sampler = _Sampler()
        self._workers = self._start_workers() if plan.workers else None

    def _start_workers(self) -> DataLoader[Any]:
        return DataLoader(
            self._numbered,
            batch_sampler=self._sampler,
            collate_fn=self._filling,
            num_workers=self.plan.workers,
            persistent_workers=True,
            pin_memory=self.plan.pin,
            generator=torch.Generator(),  # else each iterator draws a number from the run's own, and a resumed run has one more
        )

    def __len__(self) -> int:
        return -(-len(self.store) // (self.plan.batch_size * self.plan.world))

    def __iter__(self) -> Iterator[Batch]:
        if not self._resumed and self._handed:
            self._next_epoch()
        self._resumed = False
        for window in _windows(self._fetched(self._batches()[self._handed :]), self.plan, self._handed):
            for batch in _stamped(window):
                self._handed += 1
                yield batch

    def _fetched(self, batches: list[Index]) -> Iterator[Batch]:
        """The batches of some rows, from the workers or made here: torch's loader takes longer than a small batch."""
        self._sampler.batches, self._sampler.epoch = batches, self._epoch
        if self._workers is not None:
            return iter(self._workers)
        return self._made(iter(self._sampler))

    def _made(self, batches: Iterator[list[_Place]]) -> Iterator[Batch]:
        while some := list(islice(batches, 1 if self.plan.pin else _IN_A_ROW)):
            made = [self._filling([self._numbered[row] for row in rows]) for rows in some]
            yield from (batch.pin_memory() for batch in made) if self.plan.pin else made

    def _batches(self) -> list[Index]:
        plan = self.plan
        whole = epoch_batches(
            self.store.lengths, plan.batch_size * plan.world, seed=plan.seed, epoch=self._epoch, shuffle=plan.shuffle, group=plan.group
        )
        return [rank_share(batch, plan.rank, plan.world) for batch in whole]

    def state_dict(self) -> dict[str, int]:
        """(epoch, micro-batches handed out in it)."""
        return {"epoch": self._epoch, "handed": self._handed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where `state` was taken; the end of an epoch is the start of the next."""
        self._epoch, self._handed = state["epoch"], state["handed"]
        last = len(self) if self.plan.stop is None else min(len(self), self.plan.stop)
        if self._handed >= last:
            self._next_epoch()
        self._resumed = True

    def _next_epoch(self) -> None:
        self._epoch, self._handed = self._epoch + self.plan.shuffle, 0


_FILLER = -1
_Place = tuple[int, int]
"""(epoch, row)"""


class _Sampler:
    """A batch sampler that outlives an epoch, so that workers do too."""

    def __init__(self) -> None:
        self.batches: list[Index] = []
        self.epoch = 0

    def __iter__(self) -> Iterator[list[_Place]]:
        # A rank without a row of its own runs the first row unscored: all ranks then take the same number of steps.
        return ([(self.epoch, row) for row in rows.tolist() or [_FILLER]] for rows in self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _Numbered(Dataset[tuple[int, Stored]]):
    def __init__(self, store: TokenStore, draw: Draw, seed: int) -> None:
        self.store, self.draw, self.seed = store, draw, seed

    def __getitem__(self, place: _Place) -> tuple[int, Stored]:
        epoch, row = place
        index = max(row, 0)
        return row, self.draw(self.store, index, (self.seed, epoch, index))


class _Filling:
    def __init__(self, collate: Collate) -> None:
        self.collate = collate

    def __call__(self, examples: Sequence[tuple[int, Stored]]) -> Batch:
        batch = self.collate([e for _, e in examples])
        if examples[0][0] == _FILLER:
            return batch.unscored()
        tokens = sum(len(e["input_ids"]) for _, e in examples)
        return replace(batch, tokens=tokens, index=tuple(i for i, _ in examples), known=batch.counts())


def _windows(batches: Iterator[Batch], plan: Plan, handed: int) -> Iterator[list[Batch]]:
    """Lists of `plan.window` batches, the last one shorter; `handed` batches of the epoch are already gone."""
    window: list[Batch] = []
    for done, batch in enumerate(batches, start=handed + 1):
        window.append(batch)
        if done % plan.window == 0 or done == plan.stop:
            yield window
            window = []
    if window:
        yield window


def _stamped(window: list[Batch]) -> list[Batch]:
    totals: dict[str, int] = {}
    for batch in window:
        for head, count in batch.counts().items():
            totals[head] = totals.get(head, 0) + count
    return [replace(window[0], window=totals), *window[1:]]
