"""A micro-batch's share of its window, and a step that asks for no more than it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ftlab import Backbone, FinetuneData, FinetuneModule
from ftlab.data.sources.in_memory import Rows
from ftlab.lean import RunCallback
from ftlab.strategies.full import Full
from ftlab.tasks.base import Outputs
from ftlab.tasks.causal_lm import CausalLM
from ftlab.window import Later, Window
from tests.unit.training import model_folder, texts, trainer

CPU = torch.device("cpu")


def outputs(**heads: tuple[float, int]) -> Outputs:
    return Outputs(
        sums={h: torch.tensor(s) for h, (s, _) in heads.items()}, counts={h: torch.tensor(float(n)) for h, (_, n) in heads.items()}
    )


def test_shares_add_up_to_the_weighted_mean_of_each_head() -> None:
    window = Window({"a": 4, "b": 3}, CPU)
    parts = [outputs(a=(6.0, 3), b=(1.0, 1)), outputs(a=(2.0, 1), b=(5.0, 2))]
    total = sum(float(window.loss(part, {"a": 1.0, "b": 0.5})) for part in parts)
    assert total == pytest.approx((6 + 2) / 4 + 0.5 * (1 + 5) / 3)
    assert sum(float(window.part(part)) for part in parts) == pytest.approx(1)


def test_counts_of_other_ranks_divide_as_well() -> None:
    window = Window({"a": 1, "b": 0}, CPU, lambda local: local + torch.tensor([3.0, 0.0]))
    assert float(window.loss(outputs(a=(8.0, 1), b=(0.0, 0)), {"a": 1.0, "b": 1.0})) == 2
    assert window.scored


@pytest.mark.parametrize("others", [None, 0.0, 2.0])
def test_a_window_is_scored_where_any_rank_scores(others: float | None) -> None:
    window = Window({"a": 0}, CPU, None if others is None else lambda local: local + others)
    assert window.scored is bool(others)
    assert float(window.loss(outputs(a=(0.0, 0)), {"a": 1.0})) == 0  # and never NaN


def test_figures_are_sums_without_a_graph() -> None:
    window = Window({"a": 2}, CPU)
    for value in (1.5, 2.0):
        window.note("x", torch.tensor(value, requires_grad=True))
    assert float(window.figures["x"]) == 3.5
    assert not window.figures["x"].requires_grad


def test_a_number_on_its_way() -> None:
    assert float(Later(torch.tensor(2.5, requires_grad=True))) == 2.5
    assert not Later(torch.tensor(False))


class Asked(TorchDispatchMode):
    """Counts how often a tensor was turned into a number, outside the loader."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


class Counting(Callback):
    """Counts from the first micro-batch of a step to the end of the step."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.mode: Asked | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.mode = Asked()
        self.mode.__enter__()  # type: ignore[no-untyped-call]

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        assert self.mode is not None
        self.mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        self.asked.append(self.mode.count)


def test_a_step_asks_for_the_norm_of_its_gradient_alone(tmp_path: Path) -> None:
    """On a GPU each question makes the host wait for all that it was given.

    Ragged rows have positions to leave out. The first epoch also asks once whether the model's head is plain; `sdpa` asks whether
    anything is padded, which is not ours.
    """
    backbone = Backbone(name=str(model_folder(tmp_path)), attention="eager")
    module = FinetuneModule(backbone, CausalLM(cross_documents=False), Full())
    data = FinetuneData(Rows(items={"train": [{"text": t} for t in texts(12)]}), val_split=None, batch_size=4, group_by_length=False)
    counting = Counting()
    trainer(tmp_path, [counting], accumulate_grad_batches=3, max_epochs=2, gradient_clip_val=1.0).fit(module, datamodule=data)
    assert counting.asked[3:] == [0, 0, 1]


def test_callbacks_of_a_run_have_the_hooks_they_define() -> None:
    class One(RunCallback):
        def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
            raise NotImplementedError

    assert callable(One().on_after_backward)
    assert not callable(One().on_before_backward)
    assert callable(One().on_fit_start)


def test_one_loss_term_needs_no_stack() -> None:
    value: Tensor = Window({"a": 2}, CPU).loss(outputs(a=(3.0, 2)), {"a": 2.0})
    assert float(value) == 3
