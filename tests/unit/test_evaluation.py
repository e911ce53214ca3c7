from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from ftlab.batch import Batch
from ftlab.data.datamodule import FinetuneData
from ftlab.data.sources.in_memory import Rows
from ftlab.errors import DataError
from ftlab.evaluation import Evaluation
from ftlab.tasks.base import Outputs, Task
from ftlab.tasks.causal_lm import CausalLM
from ftlab.tasks.sequence_classification import SequenceClassification
from tests.unit.training import texts, tiny_module, trainer

BATCH = Batch(inputs={}, labels={}, rows=torch.zeros(1))


class TwoHeads(CausalLM):
    heads: ClassVar[tuple[str, ...]] = ("words", "order")  # type: ignore[assignment]  # the parent's is inferred as one name

    def weights(self) -> dict[str, float]:
        return {"words": 1.0, "order": 0.5}

    def derived(self, losses: Any) -> dict[str, float]:
        return {"both": losses["words"] * losses["order"]}


def outputs(**pairs: tuple[float, float]) -> Outputs:
    return Outputs(sums={h: torch.tensor(s) for h, (s, _) in pairs.items()}, counts={h: torch.tensor(c) for h, (_, c) in pairs.items()})


def test_several_heads_are_means_of_their_own_positions() -> None:
    evaluation = Evaluation(TwoHeads(), torch.device("cpu"))
    evaluation.add(outputs(words=(6.0, 2.0), order=(1.0, 1.0)), BATCH)
    evaluation.add(outputs(words=(2.0, 6.0), order=(0.0, 0.0)), BATCH)
    assert evaluation.result(lambda sums: sums) == {"loss": 1.5, "loss_words": 1.0, "loss_order": 1.0, "both": 1.0}


def test_ranks_are_added_before_the_division() -> None:
    evaluation = Evaluation(CausalLM(), torch.device("cpu"))
    evaluation.add(outputs(lm=(6.0, 2.0)), BATCH)
    assert evaluation.result(lambda sums: sums + torch.tensor([[2.0], [6.0]], dtype=sums.dtype))["loss"] == 1.0


def test_long_sums_keep_their_last_digits() -> None:
    evaluation = Evaluation(CausalLM(), torch.device("cpu"))
    for _ in range(1000):
        evaluation.add(outputs(lm=(2.0**24 + 2, 2.0**24)), BATCH)  # in float32 the sum would lose the 2
    assert evaluation.result(lambda sums: sums)["loss"] == (2**24 + 2) / 2**24


def test_a_head_without_a_scored_position_is_an_error() -> None:
    evaluation = Evaluation(TwoHeads(), torch.device("cpu"))
    evaluation.add(outputs(words=(6.0, 2.0), order=(0.0, 0.0)), BATCH)
    with pytest.raises(DataError, match="no position of the evaluated rows is scored for 'order'"):
        evaluation.result(lambda sums: sums)


class WeightlessOrder(TwoHeads):
    def weights(self) -> dict[str, float]:
        return {"words": 1.0, "order": 0.0}


def test_a_head_without_a_weight_may_have_no_scored_position() -> None:
    evaluation = Evaluation(WeightlessOrder(), torch.device("cpu"))
    evaluation.add(outputs(words=(6.0, 2.0), order=(0.0, 0.0)), BATCH)
    figures = evaluation.result(lambda sums: sums)
    assert (figures["loss"], figures["loss_words"]) == (3.0, 3.0)
    assert math.isnan(figures["loss_order"])


def validated(folder: Path, task: Task, items: list[Any], family: str, size: int) -> dict[str, float]:
    data = FinetuneData(Rows(items={"val": items}), val_split="val", batch_size=1, eval_batch_size=size)
    torch.manual_seed(0)  # for a fresh head
    (figures,) = trainer(folder).validate(tiny_module(folder, task, family), datamodule=data, verbose=False)
    return dict(figures)


@pytest.mark.parametrize("size", [2, 5, 40])
def test_the_validation_loss_does_not_depend_on_the_batch_size(tmp_path: Path, size: int) -> None:
    items = [{"text": t} for t in texts(23)]
    one = validated(tmp_path, CausalLM(cross_documents=False), items, "llama", 1)
    many = validated(tmp_path, CausalLM(cross_documents=False), items, "llama", size)
    assert many == pytest.approx(one, rel=1e-6)
    assert one["val_perplexity"] == pytest.approx(math.exp(one["val_loss"]), rel=1e-5)


@pytest.mark.parametrize(
    ("task", "label"),
    [
        (SequenceClassification(labels=["a", "b", "c"]), lambda i: "abc"[i % 3]),
        (SequenceClassification(labels=["a", "b"], kind="multi"), lambda i: ["a", "b"][: i % 3]),
        (SequenceClassification(labels=["label"], kind="regression"), lambda i: i / 7),
    ],
    ids=["single", "multi", "regression"],
)
def test_no_figure_of_a_classification_depends_on_the_batch_size(tmp_path: Path, task: Task, label: Any) -> None:
    items = [{"text": t, "label": label(i)} for i, t in enumerate(texts(23))]
    one = validated(tmp_path, task, items, "bert", 1)
    assert validated(tmp_path, task, items, "bert", 6) == pytest.approx(one, rel=1e-5)
    assert len(one) > 3
