"""The order of rows: a pure function of (seed, epoch), the same on every rank and in every worker."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]

_POOL = 200
"""Global batches that are sorted by length together: padding then stays below 4 % where rows are many, and a row's neighbours
are still drawn anew each epoch."""


def epoch_batches(lengths: Index, batch: int, *, seed: int, epoch: int, shuffle: bool, group: bool) -> list[Index]:
    """The global batches of an epoch, each an array of row indices; only the last one may be short.

    Args:
        lengths: Tokens per row (n,).
        batch: Rows per global batch: of one micro-step on all ranks together.
        seed: Seed of the run.
        epoch: Number of the epoch, counted from 0.
        shuffle: Random order; otherwise rows come in order, or in batches of like length where `group` is set.
        group: Put rows of like length into the same batch.
    """
    if not shuffle:
        return _fixed(lengths, batch, group)
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))
    if not group:
        return _cut(order, batch)
    size = _pool_rows(len(order), batch)
    parts = [_by_length(order[i : i + size], lengths, batch, random) for i in range(0, len(order), size)]
    return _mixed(_cut(np.concatenate([order[:0], *parts]), batch), batch, random)


def rank_share(batch: Index, rank: int, world: int) -> Index:
    """The rows of one rank: as even as can be, none twice; empty where there are fewer rows than ranks."""
    return batch[rank::world]


def _fixed(lengths: Index, batch: int, group: bool) -> list[Index]:
    """Evaluation: always the same batches, in an order that makes the first ones (`limit_val_batches`) a fair sample."""
    if not group:
        return _cut(np.arange(len(lengths)), batch)
    batches = _cut(np.argsort(-lengths, kind="stable"), batch)
    return _mixed(batches, batch, np.random.default_rng(0))


def _cut(order: Index, batch: int) -> list[Index]:
    return [order[i : i + batch] for i in range(0, len(order), batch)]


def _by_length(pool: Index, lengths: Index, batch: int, random: np.random.Generator) -> Index:
    """The longest rows first, each moved by up to a batch: where there is one pool, the same rows would else meet in every epoch."""
    ranked = pool[np.argsort(-lengths[pool], kind="stable")]
    return ranked[np.argsort(np.arange(len(ranked)) + batch * random.random(len(ranked)), kind="stable")]


def _pool_rows(count: int, batch: int) -> int:
    """Rows per pool: whole batches, and all pools about as large."""
    batches = max(1, -(-count // batch))
    pools = -(-batches // _POOL)
    return batch * -(-batches // pools)


def _mixed(batches: list[Index], batch: int, random: np.random.Generator) -> list[Index]:
    """Whole batches in random order; a short one stays last, so that a window misses rows only at the end of an epoch."""
    whole = len(batches) - any(len(b) < batch for b in batches[-1:])
    return [batches[i] for i in random.permutation(whole)] + batches[whole:]
