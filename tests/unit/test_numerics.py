"""The guard, the sums over frozen tensors, windows without scored positions, and the best checkpoint (N6, N7)."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from ftlab import Backbone, FinetuneData, FinetuneModule, Schedule
from ftlab.batch import IGNORE, Batch
from ftlab.callbacks.checkpoints import Checkpoints, SaveOptions
from ftlab.checkpoint_io import Entry, Manifest
from ftlab.data.sources.in_memory import Rows
from ftlab.errors import NumericsError
from ftlab.numerics import Guard, check_frozen, frozen_sums
from ftlab.strategies.full import Full
from ftlab.tasks.causal_lm import CausalLM
from tests.unit.training import model_folder, texts, trainer


def sums(tensor: Tensor) -> dict[str, tuple[int, int]]:
    return frozen_sums([("t", nn.Parameter(tensor, requires_grad=False))])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.uint8])
@pytest.mark.parametrize("size", [1, 3, 8, 65])
def test_any_bit_and_any_exchange_changes_the_sums(dtype: torch.dtype, size: int) -> None:
    tensor = torch.arange(1, size + 1).to(dtype)
    before = sums(tensor)
    assert sums(tensor.clone()) == before
    raw = tensor.view(torch.uint8)
    for place in range(len(raw)):
        for bit in (0, 7):
            raw[place] ^= 1 << bit
            assert sums(tensor) != before
            raw[place] ^= 1 << bit
    if size > 1:
        assert sums(tensor.flip(0)) != before


def test_a_tensor_that_begins_inside_a_word_has_sums() -> None:
    part = torch.arange(9.0)[1:]
    assert sums(part) == sums(part.clone())


def test_a_frozen_tensor_that_was_unfrozen_counts_as_changed() -> None:
    parameter = nn.Parameter(torch.ones(3), requires_grad=False)
    before = frozen_sums([("t", parameter)])
    check_frozen(before, [("t", parameter)])
    parameter.requires_grad_(True)
    with pytest.raises(NumericsError, match="the frozen tensor 't' changed"):
        check_frozen(before, [("t", parameter)])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_guard_names_rows_but_no_fillers(value: float) -> None:
    guard = Guard(0, scaled=False)
    guard.begin()
    guard.rows += [torch.tensor([4, 7]), torch.tensor([2, -1])]
    with pytest.raises(NumericsError, match=rf"the gradient of step 6 is {value}, from rows 4, 7, 2;"):
        guard.judge(torch.tensor(value), 5)


def test_fp16_may_look_for_a_scale_ten_times_in_a_row() -> None:
    guard = Guard(0, scaled=True)
    for _ in range(2):
        for step in range(10):
            assert guard.judge(torch.tensor(math.inf), step)
        assert guard.judge(torch.tensor(1.0), 10)
    for step in range(10):
        guard.judge(torch.tensor(math.inf), step)
    with pytest.raises(NumericsError):
        guard.judge(torch.tensor(math.inf), 10)


@pytest.mark.parametrize(("values", "best"), [([math.nan, 2.0], 2), ([2.0, math.nan], 1), ([-math.inf, 3.0], 2), ([3.0, 2.0, 2.5], 2)])
def test_only_a_finite_loss_can_be_the_best(tmp_path: Path, values: list[float], best: int) -> None:
    callback: Any = Checkpoints(tmp_path, SaveOptions(keep=9))
    for step, value in enumerate(values, 1):
        manifest = Manifest.read(tmp_path)
        manifest.files[f"step-{step:08d}.ckpt"] = Entry(sha256="", bytes=0, step=step, epoch=0)
        manifest.write(tmp_path)
        callback._saved_step = step
        state = SimpleNamespace(fn="fit")
        stub = SimpleNamespace(
            sanity_checking=False, state=state, is_global_zero=True, global_step=step, callback_metrics={"val_loss": torch.tensor(value)}
        )
        callback.on_validation_end(stub, None)
    assert Manifest.read(tmp_path).best == f"step-{best:08d}.ckpt"


class Blank(Callback):
    """Takes every label out of one batch, and keeps what each step leaves."""

    def __init__(self, at: int, rank: int | None = None) -> None:
        self.at = at
        self.rank = rank
        self.states: list[dict[str, Any]] = []
        self.gradients: list[dict[str, Tensor]] = []
        self.batches: list[Batch] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        if batch_idx == self.at and self.rank in (None, trainer.global_rank):
            batch.labels["lm"].fill_(IGNORE)
            batch.window["lm"] = 0
        self.batches.append(batch)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self.gradients.append({n: p.grad.clone() for n, p in pl_module.named_parameters() if p.grad is not None})

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        moments = [{k: v.clone() for k, v in s.items()} for s in trainer.optimizers[0].state.values()]
        weights = {n: p.detach().clone() for n, p in pl_module.named_parameters()}
        self.states.append({"weights": weights, "moments": moments})


def blanked(folder: Path, backbone: Path, blank: Blank, ranks: int = 1) -> FinetuneModule:
    module = FinetuneModule(
        Backbone(name=str(backbone)), CausalLM(cross_documents=False), Full(),
        optimizer=lambda groups: AdamW(groups, lr=1e-2, weight_decay=0.5), schedule=Schedule(decay="constant", warmup=0),
    )  # fmt: skip
    data = FinetuneData(Rows(items=[{"text": t} for t in texts(12)]), val_split=None, batch_size=2, seed=0)
    settings = {"strategy": "ddp", "devices": ranks} if ranks > 1 else {}
    trainer(folder, [blank], limit_train_batches=3, **settings).fit(module, datamodule=data)
    return module


def same(first: Any, second: Any) -> bool:
    from ftlab.commands.verify import equal

    return equal(first, second)


def test_a_window_in_which_nothing_is_scored_changes_nothing(tmp_path: Path) -> None:
    blank = Blank(at=1)
    blanked(tmp_path, model_folder(tmp_path), blank)
    first, second, third = blank.states
    assert same(first, second)  # decay and moments too
    assert not same(second, third)


@pytest.mark.parametrize("rank", [0, None])
def test_a_rank_without_scored_positions_takes_the_others_step(tmp_path: Path, rank: int | None) -> None:
    backbone = model_folder(tmp_path)
    words = [str(tmp_path), str(backbone), "all" if rank is None else str(rank)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    ranks = [torch.load(tmp_path / f"{r}.pt") for r in (0, 1)]
    assert same(ranks[0]["states"], ranks[1]["states"])
    assert all(torch.isfinite(w).all() for w in ranks[0]["states"][-1]["weights"].values())
    first, second, third = ranks[0]["states"]
    assert same(first, second) == (rank is None)
    assert not same(second, third)
    if rank is not None:
        expected = reference(backbone, first["weights"], ranks[1]["batch"])
        for name, gradient in ranks[0]["gradient"].items():
            torch.testing.assert_close(gradient, expected[name.removeprefix("model.")], rtol=1e-5, atol=1e-6)


def reference(backbone: Path, weights: dict[str, Tensor], batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The gradient that transformers' own mean loss has over the rank that scored something."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(backbone)
    model.load_state_dict({n.removeprefix("model."): w for n, w in weights.items()}, strict=False)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORE)
    model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss.backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def main(folder: Path, backbone: Path, which: str) -> None:
    blank = Blank(at=1, rank=None if which == "all" else int(which))
    module = blanked(folder, backbone, blank, ranks=2)
    left = {"states": blank.states, "gradient": blank.gradients[1], "batch": blank.batches[1].inputs}
    torch.save(left, folder / f"{module.global_rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
