"""The order of rows: a pure function of (seed, epoch), the same on every rank and in every worker."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]

_POOL = 50
"""Global batches that are sorted by length together: enough to fill batches evenly, few enough to stay random."""


def epoch_batches(lengths: Index, batch: int, *, seed: int, epoch: int, shuffle: bool, group: bool) -> list[Index]:
    """The global batches of an epoch, each an array of row indices; the last one may be short.

    Args:
        lengths: Tokens per row (n,).
        batch: Rows per global batch: of one micro-step on all ranks together.
        seed: Seed of the run.
        epoch: Number of the epoch, counted from 0.
        shuffle: Random order; otherwise rows come in order, or by falling length where `group` is set.
        group: Put rows of like length into the same batch.
    """
    count = len(lengths)
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(count) if shuffle else np.arange(count)
    if group and shuffle:
        pools = [order[i : i + _POOL * batch] for i in range(0, count, _POOL * batch)]
        order = np.concatenate([pool[np.argsort(-lengths[pool], kind="stable")] for pool in pools]) if pools else order
    elif group:
        order = np.argsort(-lengths, kind="stable")
    batches = [order[i : i + batch] for i in range(0, count, batch)]
    if group and shuffle and len(batches) > 1:
        # The short batch stays last: a window then misses rows only at the end of an epoch.
        whole = len(batches) - (count % batch != 0)
        batches = [batches[i] for i in random.permutation(whole)] + batches[whole:]
    return batches


def rank_share(batch: Index, rank: int, world: int) -> Index:
    """The rows of one rank: as even as can be, none twice; empty where there are fewer rows than ranks."""
    return batch[rank::world]
