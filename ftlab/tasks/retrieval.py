"""Figures over sentence vectors: correlations with scores, and how well second texts are found by first ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.floating]

CUTS = (1, 5, 10)
"""The k of recall@k; the last one is that of nDCG."""
_SCORES = 2**24
"""Similarities held at once."""


def pearson(first: Vector, second: Vector) -> float:
    """Pearson's correlation (n,) (n,) → r; NaN where either is constant or not finite."""
    if any(not np.isfinite(v).all() or np.ptp(v) == 0 for v in (first, second)):
        return math.nan
    one, other = (v / np.linalg.norm(v) for v in (v.astype(np.float64) - v.mean(dtype=np.float64) for v in (first, second)))
    return float(one @ other)


def spearman(first: Vector, second: Vector) -> float:
    """Spearman's correlation: Pearson's of the ranks, equal values sharing the mean of theirs."""
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return math.nan
    return pearson(_ranks(first), _ranks(second))


def _ranks(values: Vector) -> Vector:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def retrieval(queries: Vector, corpus: Vector, relevant: Sequence[set[int]]) -> dict[str, float]:
    """recall@1, @5 and @10, the mean reciprocal rank, and nDCG@10 with gains of 0 and 1 (Järvelin and Kekäläinen 2002).

    Among equal similarities what is not relevant comes first, so that vectors that are all alike find nothing.

    Args:
        queries: (Q, D).
        corpus: (N, D); the similarity of two vectors is their product.
        relevant: For each query, the places in `corpus` that are right; at least one.

    Returns:
        Figure by name; all NaN where a vector is not finite.
    """
    names = [*(f"recall_at_{k}" for k in CUTS), "mrr", f"ndcg_at_{CUTS[-1]}"]
    if not (np.isfinite(queries).all() and np.isfinite(corpus).all()):
        return dict.fromkeys(names, math.nan)
    found = [_figures(np.sort(ranks)) for ranks in _all_ranks(queries, corpus, relevant)]
    return dict(zip(names, np.mean(found, axis=0).tolist(), strict=True))


def _all_ranks(queries: Vector, corpus: Vector, relevant: Sequence[set[int]]) -> Iterator[NDArray[np.int64]]:
    """For each query, the ranks of its relevant texts, counted from 1."""
    size = max(1, _SCORES // len(corpus))
    for start in range(0, len(queries), size):
        scores = queries[start : start + size] @ corpus.T
        for row, right in zip(scores, relevant[start : start + size], strict=True):
            chosen = sorted(right)
            wrong = np.delete(row, chosen)
            ours = np.sort(row[chosen])[::-1]
            yield np.array([(wrong >= score).sum() + place for place, score in enumerate(ours, 1)])


def _figures(ranks: NDArray[np.int64]) -> list[float]:
    """Of one query, from the sorted ranks of its relevant texts."""
    last = CUTS[-1]
    gain = (1 / np.log2(1 + ranks[ranks <= last])).sum()
    ideal = (1 / np.log2(1 + np.arange(1, min(len(ranks), last) + 1))).sum()
    return [*((ranks <= k).mean() for k in CUTS), 1 / ranks[0], gain / ideal]
