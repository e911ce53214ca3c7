"""Pairs of WikiText-2's articles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.stats import binom, ks_2samp

from ftlab.tasks.next_sentence import NextSentencePrediction
from tests.reference.nsp_pairs import corpus, false_labels, pairs, repeats


def test_share_labels_lengths_and_repeats(data_folder: Path) -> None:
    task = NextSentencePrediction()
    articles = corpus(data_folder, task)
    one, other = pairs(articles, task, 0), pairs(articles, task, 1)
    assert len(one) == len(other) > 2000
    both = one + other
    low, high = binom.interval(0.9999, len(both), 0.5)
    assert low <= sum(p.label == 0 for p in both) <= high
    assert false_labels(articles, both) == (0, 0)
    wrong, true = repeats(one, other)
    assert wrong == 0
    assert true < 0.02 * len(one)
    true_lengths, wrong_lengths = ([len(p.second) for p in both if p.label == label] for label in (0, 1))
    assert ks_2samp(true_lengths, wrong_lengths).pvalue > 1e-4
    totals = [[len(p.first) + len(p.second) for p in both if p.label == label] for label in (0, 1)]
    assert ks_2samp(*totals).pvalue > 1e-4
    assert max(map(max, totals)) == 125
    stop = articles.stored[0]["input_ids"][-1]
    ends = [np.mean([p.second[-1] == stop for p in both if p.label == label]) for label in (0, 1)]
    assert abs(ends[0] - ends[1]) < 0.06
