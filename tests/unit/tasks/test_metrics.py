"""Every default metric against scikit-learn or scipy on the same predictions, whatever the batches."""

from __future__ import annotations

import math
import warnings
from typing import Literal

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as sk
from torch import Tensor

from ftlab.batch import Batch
from ftlab.evaluation import Evaluation
from ftlab.tasks.base import Outputs
from ftlab.tasks.sequence_classification import SequenceClassification

Kind = Literal["single", "multi", "regression"]


def evaluated(kind: Kind, logits: Tensor, labels: Tensor, size: int) -> dict[str, float]:
    """The figures of one pass, in batches of `size`."""
    names = [f"l{i}" for i in range(logits.shape[1])]
    task = SequenceClassification(kind=kind, labels=names, label_column=names if kind == "regression" else "label")
    evaluation = Evaluation(task, torch.device("cpu"))
    for start in range(0, len(labels), size):
        part = slice(start, start + size)
        batch = Batch(inputs={}, labels={"label": labels[part]}, rows=torch.arange(len(labels))[part])
        evaluation.add(Outputs(sums={"label": torch.ones(())}, counts={"label": torch.ones(())}, logits=logits[part]), batch)
    return evaluation.result(lambda sums: sums)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [1, 7, 64])
@pytest.mark.parametrize("present", [(0, 1, 2, 3, 4), (1, 3), (2,)], ids=["all", "two classes", "one class"])
@pytest.mark.parametrize("never", [(), (0, 4)], ids=["any predicted", "some never predicted"])
def test_one_label(size: int, present: tuple[int, ...], never: tuple[int, ...]) -> None:
    logits = random(64, 5)
    logits[:, list(never)] = -1e3
    truth = torch.tensor(present)[torch.arange(64) % len(present)]
    guess = logits.argmax(1)
    macro = {"average": "macro", "zero_division": 0.0}
    expected = {
        "accuracy": sk.accuracy_score(truth, guess),
        "precision": sk.precision_score(truth, guess, **macro),
        "recall": sk.recall_score(truth, guess, **macro),
        "f1": sk.f1_score(truth, guess, **macro),
        "mcc": sk.matthews_corrcoef(truth, guess),
    }
    found = evaluated("single", logits, truth, size)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("size", [1, 7, 64])
@pytest.mark.parametrize("absent", [(), (1,), (0, 3)])
def test_several_labels(size: int, absent: tuple[int, ...]) -> None:
    logits, truth = random(64, 4), (random(64, 4, seed=1) > 0.4).float()
    truth[:, list(absent)] = 0
    guess = (logits > 0).long()
    macro = {"average": "macro", "zero_division": 0.0}
    expected = {
        "accuracy": sk.accuracy_score(truth.flatten(), guess.flatten()),
        "precision": sk.precision_score(truth, guess, **macro),
        "recall": sk.recall_score(truth, guess, **macro),
        "f1": sk.f1_score(truth, guess, **macro),
        "mcc": sk.matthews_corrcoef(truth.flatten(), guess.flatten()),
    }
    found = evaluated("multi", logits, truth, size)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def correlations(guess: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    return {
        "mse": sk.mean_squared_error(truth, guess),
        "pearson": stats.pearsonr(guess, truth).statistic,
        "spearman": stats.spearmanr(guess, truth).statistic,
    }


@pytest.mark.parametrize("size", [1, 7, 64])
@pytest.mark.parametrize("spread", [1.0, 1e-4], ids=["spread", "nearly constant"])
def test_one_number(size: int, spread: float) -> None:
    truth = random(64, 1, seed=1).round(decimals=1)  # with ties
    guess = 3 + spread * (random(64, 1) + truth)
    found = evaluated("regression", guess, truth, size)
    expected = correlations(guess[:, 0].double().numpy(), truth[:, 0].double().numpy())
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("size", [7, 64])
def test_several_numbers(size: int) -> None:
    truth = random(64, 3, seed=1)
    guess = truth + random(64, 3) * torch.tensor([0.1, 1.0, 10.0])
    found = evaluated("regression", guess, truth, size)
    each = [correlations(guess[:, i].double().numpy(), truth[:, i].double().numpy()) for i in range(3)]
    for name in ("mse", "pearson", "spearman"):
        assert [found[f"{name}_{i}"] for i in range(3)] == pytest.approx([e[name] for e in each], rel=1e-6)
        assert found[name] == pytest.approx(sum(e[name] for e in each) / 3, rel=1e-6)


ODD = random(8, 1)
NO_NUMBER = torch.tensor([torch.nan, 1, 2, 3, 4, 5, 6, 7])[:, None]


@pytest.mark.parametrize("size", [1, 4, 8])
@pytest.mark.parametrize(
    ("guess", "truth"),
    [(torch.ones(8, 1), ODD), (ODD, torch.ones(8, 1)), (torch.ones(8, 1), torch.ones(8, 1)), (ODD[:1], ODD[1:2]), (NO_NUMBER, ODD)],
    ids=["constant outputs", "constant rows", "both", "one row", "no number"],
)
def test_a_correlation_that_is_undefined_is_nan_and_no_warning(guess: Tensor, truth: Tensor, size: int) -> None:
    found = evaluated("regression", guess, truth, size)
    assert math.isnan(found["pearson"])
    assert math.isnan(found["spearman"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert math.isnan(stats.spearmanr(guess[:, 0].numpy(), truth[:, 0].numpy()).statistic)
    assert found["mse"] == pytest.approx(float(((guess - truth) ** 2).mean()), rel=1e-6, nan_ok=True)


def test_of_several_numbers_one_may_be_undefined() -> None:
    truth = random(9, 2, seed=1)
    guess = truth * torch.tensor([1.0, 0.0])
    found = evaluated("regression", guess, truth, 4)
    assert (found["pearson_0"], found["spearman_0"]) == pytest.approx((1, 1))
    assert all(math.isnan(found[name]) for name in ("pearson", "pearson_1", "spearman", "spearman_1"))


TABLES = [(a, b, c, d) for a in (0, 1, 3) for b in (0, 2) for c in (0, 5) for d in (0, 1, 4) if a + b + c + d]


@pytest.mark.parametrize("counts", TABLES, ids=str)
def test_matthews_correlation_of_two_classes_is_that_of_scikit_learn(counts: tuple[int, ...]) -> None:
    """Also where it is undefined, because one class alone is present or predicted."""
    cells = torch.repeat_interleave(torch.arange(4), torch.tensor(counts))
    truth, guess = cells // 2, cells % 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of one class
        expected = float(sk.matthews_corrcoef(truth, guess))
    found = evaluated("single", torch.eye(2)[guess], truth, 3)["mcc"]
    assert found == pytest.approx(expected, abs=1e-6)
    twice = evaluated("multi", guess[:, None].repeat(1, 2) - 0.5, truth[:, None].repeat(1, 2).float(), 3)
    assert twice["mcc"] == pytest.approx(expected, abs=1e-6)


def test_matthews_correlation_of_many_rows_does_not_cancel() -> None:
    """Where torchmetrics, in single precision, has 0.40803."""
    truth = torch.cat([torch.zeros(20000), torch.ones(3)]).long()
    guess = truth.clone()
    guess[:12] = 1
    found = evaluated("single", torch.eye(2)[guess], truth, 20003)["mcc"]
    assert found == pytest.approx(sk.matthews_corrcoef(truth, guess), rel=1e-7)


def test_rank_correlation_of_few_rows_has_nothing_added() -> None:
    """Where torchmetrics adds 1e-6 to the denominator."""
    truth, guess = torch.tensor([1.0, 2.0, 2.0]).double(), torch.tensor([3.0, 5.0, 4.0]).double()
    found = evaluated("regression", guess[:, None], truth[:, None], 2)["spearman"]
    assert found == pytest.approx(stats.spearmanr(guess, truth).statistic, rel=1e-12)


def test_rows_without_a_label_are_left_out() -> None:
    logits, truth = random(10, 3), torch.arange(10) % 3
    some = truth.clone()
    some[5:] = -100
    assert evaluated("single", logits, some, 5) == evaluated("single", logits[:5], truth[:5], 5)
    numbers = random(10, 1, seed=1)
    fewer = numbers.clone()
    fewer[5:] = torch.nan
    assert evaluated("regression", logits[:, :1], fewer, 5) == evaluated("regression", logits[:5, :1], numbers[:5], 5)
