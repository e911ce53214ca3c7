"""Correlations and retrieval figures against SciPy, scikit-learn and torchmetrics on the same vectors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import ndcg_score
from torchmetrics.retrieval import RetrievalMRR, RetrievalNormalizedDCG, RetrievalRecall

from ftlab.tasks import retrieval as module
from ftlab.tasks.retrieval import pearson, retrieval, spearman

NAMES = {"recall_at_1", "recall_at_5", "recall_at_10", "mrr", "ndcg_at_10"}


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
def test_correlations_are_scipys(ties: bool, scale: float) -> None:
    random = np.random.default_rng(0)
    first = random.normal(size=200)
    second = (first + random.normal(size=200)).round(0 if ties else 9) * scale + 3
    assert pearson(first, second) == pytest.approx(stats.pearsonr(first, second).statistic, rel=1e-9)
    assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic, rel=1e-12)


@pytest.mark.parametrize("odd", [np.full(4, 0.1), np.array([0.1, np.nan, 0.2, 0.3]), np.array([0.1, np.inf, 0.2, 0.3])])
def test_a_correlation_that_is_undefined(odd: np.ndarray) -> None:
    other = np.arange(4.0)
    assert all(math.isnan(figure(*pair)) for figure in (pearson, spearman) for pair in ((odd, other), (other, odd)))


def vectors(queries: int, corpus: int) -> tuple[np.ndarray, np.ndarray, list[set[int]]]:
    random = np.random.default_rng(1)
    texts = random.normal(size=(corpus, 8)).astype(np.float32)
    relevant = [set(random.choice(corpus, size=1 + i % 13, replace=False).tolist()) for i in range(queries)]
    wanted = np.stack([texts[sorted(r)].mean(0) for r in relevant])
    return (wanted + random.normal(size=wanted.shape) * 0.5).astype(np.float32), texts, relevant


def test_figures_are_those_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, corpus, relevant = vectors(40, 60)
    found = retrieval(queries, corpus, relevant)
    scores, truth = queries @ corpus.T, np.zeros((40, 60), dtype=np.int64)
    for row, right in zip(truth, relevant, strict=True):
        row[list(right)] = 1
    indexes = torch.arange(40).repeat_interleave(60)
    given = torch.from_numpy(scores).flatten(), torch.from_numpy(truth).flatten()
    others = {
        **{f"recall_at_{k}": RetrievalRecall(top_k=k) for k in (1, 5, 10)},
        "mrr": RetrievalMRR(),
        "ndcg_at_10": RetrievalNormalizedDCG(top_k=10),
    }
    assert found == pytest.approx({name: float(m(*given, indexes=indexes)) for name, m in others.items()}, rel=1e-6)
    assert found["ndcg_at_10"] == pytest.approx(ndcg_score(truth, scores, k=10), rel=1e-6)
    monkeypatch.setattr(module, "_SCORES", 150)  # two queries at a time
    assert retrieval(queries, corpus, relevant) == found


def test_vectors_that_are_all_alike_find_nothing() -> None:
    found = retrieval(np.ones((5, 3)), np.ones((20, 3)), [{i} for i in range(5)])
    assert found == pytest.approx(dict.fromkeys(NAMES, 0.0) | {"mrr": 1 / 20})


def test_one_text_is_found() -> None:
    assert retrieval(np.ones((1, 3)), np.ones((1, 3)), [{0}]) == dict.fromkeys(NAMES, 1.0)


def test_vectors_that_are_not_finite() -> None:
    queries = np.ones((2, 3))
    queries[1, 1] = np.nan
    assert all(math.isnan(value) for value in retrieval(queries, np.ones((2, 3)), [{0}, {1}]).values())
    assert retrieval(queries, np.ones((2, 3)), [{0}, {1}]).keys() == NAMES
