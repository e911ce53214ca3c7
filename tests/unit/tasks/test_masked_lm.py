"""Masked language modelling: blocks, the loss of the scored positions alone, metrics and predictions."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForMaskedLM, PreTrainedTokenizerBase

from ftlab.backbone import Backbone
from ftlab.batch import Batch
from ftlab.data.datamodule import FinetuneData
from ftlab.data.sources.in_memory import Rows
from ftlab.errors import DataError
from ftlab.module import FinetuneModule
from ftlab.rows import Example, Stored
from ftlab.strategies.base import TuningStrategy
from ftlab.strategies.bottleneck import BottleneckAdapter
from ftlab.strategies.full import Full
from ftlab.strategies.lora import LoRA
from ftlab.strategies.prefix_tuning import PrefixTuning
from ftlab.strategies.prompt_tuning import PromptTuning
from ftlab.tasks import cross_entropy, masked_lm_head
from ftlab.tasks.masked_lm import MaskedLM
from ftlab.tasks.masked_lm_head import Way
from ftlab.testing.models import tiny_model_folder
from ftlab.testing.tokenizer import byte_tokenizer
from tests.unit.backbones import configured, gradients, widened
from tests.unit.training import texts, tiny_module, trainer

CLS, PAD, SEP = 0, 1, 2
TUNINGS: list[TuningStrategy] = [Full(), LoRA(r=2), PromptTuning(length=3), PrefixTuning(length=3), BottleneckAdapter()]


def encode(task: MaskedLM, rows: Sequence[str], tokenizer: PreTrainedTokenizerBase | None = None, limit: int = 64) -> list[Example]:
    numbered = [(10 + i, {"text": text}) for i, text in enumerate(rows)]
    return list(task.encode(numbered, tokenizer or byte_tokenizer(pairs=True), limit, labelled=True))


def shown(task: MaskedLM, rows: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[Stored]:
    """What the first epoch shows of some rows."""
    stored = [{k: np.atleast_1d(np.array(v)) for k, v in e.items()} for e in encode(task, rows, tokenizer)]
    return [task.draw(stored, i, (0, 0, i), tokenizer) for i in range(len(stored))]


def batch_of(module: FinetuneModule, rows: Sequence[str]) -> Batch:
    assert isinstance(module.task, MaskedLM)
    return module.task.collate(shown(replace(module.task, cross_documents=False), rows, module.tokenizer), module.tokenizer)


def ids(example: Example) -> list[int]:
    found = example["input_ids"]
    assert isinstance(found, list)
    return [int(i) for i in found]


def test_blocks_hold_every_token_once_in_order_with_a_separator_between_rows() -> None:
    rows = ["abc", "d" * 30, "e", "fghij"]
    blocks = [ids(e) for e in encode(MaskedLM(block_size=12), rows)]
    assert all(b[0] == CLS and b[-1] == SEP for b in blocks)
    assert [len(b) for b in blocks] == [12] * (len(blocks) - 1) + [len(blocks[-1])]
    inner = [i for b in blocks for i in b[1:-1]]
    known = byte_tokenizer(pairs=True)
    assert known.decode([i for i in inner if i != SEP]) == "".join(rows)
    # A separator at the very start of a block is left out: [SEP] of the block before says the same.
    assert inner.count(SEP) in (2, 3)
    assert [e["row"] for e in encode(MaskedLM(block_size=12), rows)][:2] == [10, 11]


def test_blocks_within_rows_and_long_rows(caplog: pytest.LogCaptureFixture) -> None:
    rows = ["abc", "d" * 30]
    split = encode(MaskedLM(block_size=12, cross_documents=False), rows)
    assert [(e["row"], len(ids(e))) for e in split] == [(10, 5), (11, 12), (11, 12), (11, 12)]
    with pytest.raises(DataError, match=r"row 11 has 30 tokens, more than the 10 .*too_long to split or truncate"):
        encode(MaskedLM(block_size=12, cross_documents=False, too_long="error"), rows)
    with caplog.at_level(logging.WARNING):
        cut = encode(MaskedLM(block_size=12, cross_documents=False, too_long="truncate"), rows)
    assert [(e["row"], len(ids(e))) for e in cut] == [(10, 5), (11, 12)]
    assert "1 rows were cut to 10 tokens" in caplog.text


@pytest.mark.parametrize("cross", [True, False])
@pytest.mark.parametrize("text", ["<mask>", "</s><unk>"])
def test_a_row_in_which_nothing_can_be_masked(text: str, cross: bool, caplog: pytest.LogCaptureFixture) -> None:
    rows = ["one", text, "two", ""]
    with pytest.raises(DataError, match=r"row 11, column 'text' has only special and unknown tokens, so there is nothing to mask.*skip"):
        encode(MaskedLM(cross_documents=cross), rows[:3])
    with caplog.at_level(logging.WARNING):
        kept = encode(MaskedLM(cross_documents=cross, empty="skip"), rows)
    assert len(kept) == (1 if cross else 2)
    assert "1 rows with nothing to mask were skipped" in caplog.text
    assert "1 rows without text were skipped" in caplog.text


def test_a_block_in_which_nothing_can_be_masked_is_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        kept = encode(MaskedLM(block_size=6, cross_documents=False), ["ab" + "<unk>" * 10 + "cd"])
    assert [ids(e)[1:-1].count(3) for e in kept] == [2, 0]
    assert "2 blocks hold only special and unknown tokens and were left out" in caplog.text


# ModernBERT and DeBERTa look at padding through a mask of their own; each must give a row what it gets alone.
FAMILIES = ("bert", "deberta-v2", "distilbert", "electra", "modernbert", "roberta")
SAME_LENGTH = ("twelve bytes, say", "TWELVE BYTES, SAY", "a dozen more even")


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_transformers(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "chunk_rows", lambda vocabulary: 3)
    module = configured(Backbone(name=str(tiny_model_folder(family, tmp_path))), MaskedLM(mask_share=0.4), Full())
    module.adapted.eval()
    batch = batch_of(module, SAME_LENGTH)
    assert batch.inputs.keys() == {"input_ids"}
    outputs = module.task.forward(module.adapted, batch)
    ours = gradients(module, batch)
    assert masked_lm_head._ways[module.adapted] == "features"
    module.adapted.zero_grad()
    theirs = module.adapted(**batch.inputs, labels=batch.labels["mlm"]).loss
    theirs.backward()
    count = float(outputs.counts["mlm"])
    assert count == batch.counts()["mlm"] > 12
    assert outputs.sums["mlm"].item() / count == pytest.approx(theirs.item(), rel=1e-5)
    for name, parameter in module.adapted.named_parameters():
        if parameter.grad is not None:
            found = ours[name]
            assert found is not None
            torch.testing.assert_close(found / count, parameter.grad, rtol=1e-3, atol=1e-5)


CASES = [("bert", tuning) for tuning in TUNINGS] + [("modernbert", tuning) for tuning in TUNINGS[:3]]


@pytest.mark.parametrize(("family", "tuning"), CASES, ids=[f"{family}-{type(t).__name__}" for family, t in CASES])
def test_a_row_gets_what_it_gets_alone_under_every_kind_of_strategy(family: str, tuning: TuningStrategy, tmp_path: Path) -> None:
    module = configured(Backbone(name=str(tiny_model_folder(family, tmp_path))), MaskedLM(mask_share=0.3), tuning)
    module.adapted.eval()
    rows = ("one two three", "a word", "words of several kinds")
    examples = shown(MaskedLM(mask_share=0.3, cross_documents=False), rows, module.tokenizer)
    whole = module.task.collate(examples, module.tokenizer)
    alone = [module.task.collate([e], module.tokenizer) for e in examples]
    with torch.no_grad():
        together = module.task.predict(module.adapted, widened(whole, 4, PAD))
        singly = [record for batch in alone for record in module.task.predict(module.adapted, batch)]
        total = module.task.forward(module.adapted, whole).sums["mlm"]
        parts = [module.task.forward(module.adapted, batch).sums["mlm"] for batch in alone]
    for one, other in zip(together, singly, strict=True):
        assert one["masked"] == other["masked"]
        assert one["accuracy"] == other["accuracy"]
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
    assert total.item() == pytest.approx(sum(float(p) for p in parts), rel=1e-5)
    trained = {n for n, p in module.adapted.named_parameters() if p.requires_grad}
    found = gradients(module, whole)
    assert {n for n in trained if found[n] is not None} == trained


class Watched(nn.Module):
    """A vocabulary map that keeps the shapes of what it is given."""

    def __init__(self, inner: nn.Module, seen: list[int]) -> None:
        super().__init__()
        self.inner, self.seen = inner, seen

    def forward(self, hidden: Tensor) -> Tensor:
        self.seen.append(hidden.shape[:-1].numel())
        result: Tensor = self.inner(hidden)
        return result


def test_the_head_never_sees_more_than_a_chunk_of_the_scored_positions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "chunk_rows", lambda vocabulary: 4)
    monkeypatch.setattr(masked_lm_head, "chunk_rows", lambda vocabulary: 4)
    module = configured(Backbone(name=str(tiny_model_folder("bert", tmp_path))), MaskedLM(), Full())
    batch = batch_of(module, SAME_LENGTH)
    seen: list[int] = []
    head: Any = module.adapted.cls.predictions  # type: ignore[union-attr]
    dense: list[int] = []
    head.transform.dense = Watched(head.transform.dense, dense)
    head.decoder = Watched(head.decoder, seen)
    module.task.forward(module.adapted, batch)
    with torch.no_grad():
        module.task.forward(module.adapted, batch)
    after_probe = [n for n in seen if n not in (1, 2)]
    assert max(after_probe) <= 4
    assert dense[-2:] == [batch.counts()["mlm"]] * 2


def _changed(change: Callable[[Tensor], Tensor], _module: nn.Module, _args: object, logits: Tensor) -> Tensor:
    return change(logits)


def test_heads_that_cannot_be_run_apart_are_run_as_they_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    changes: dict[Way, Callable[[Tensor], Tensor]] = {"picked": lambda x: 2 * x, "whole": lambda x: x + x.mean(1, keepdim=True)}
    for way, change in changes.items():
        module = configured(Backbone(name=str(tiny_model_folder("bert", tmp_path / way))), MaskedLM(), Full())
        module.adapted.cls.register_forward_hook(partial(_changed, change))  # type: ignore[union-attr]
        module.adapted.eval()
        batch = batch_of(module, SAME_LENGTH)
        with caplog.at_level(logging.INFO, logger="ftlab"), torch.no_grad():
            ours = module.task.forward(module.adapted, batch)
            logits = module.adapted(**batch.inputs).logits
        assert masked_lm_head._ways[module.adapted] == way
        expected = F.cross_entropy(logits.flatten(0, 1), batch.labels["mlm"].flatten(), reduction="sum")
        assert ours.sums["mlm"].item() == pytest.approx(expected.item(), rel=1e-5)
        assert gradients(module, batch)["bert.encoder.layer.0.output.dense.weight"] is not None
        assert "chunked loss" in caplog.text


def test_nothing_scored_is_a_loss_of_zero_that_depends_on_the_model(tmp_path: Path) -> None:
    module = configured(Backbone(name=str(tiny_model_folder("bert", tmp_path))), MaskedLM(), Full())
    batch = batch_of(module, SAME_LENGTH).unscored()
    outputs = module.task.forward(module.adapted, batch)
    assert (outputs.sums["mlm"].item(), outputs.counts["mlm"].item()) == (0.0, 0.0)
    found = gradients(module, batch)
    assert all(g is not None and not g.any() for g in found.values())
    with torch.no_grad():
        assert module.task.forward(module.adapted, batch).sums["mlm"].item() == 0.0
        assert module.task.predict(module.adapted, batch)[0] == {"masked": 0, "loss": None, "accuracy": None}


def test_figures_and_predictions_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    rows = texts(14)
    task = MaskedLM(block_size=24, unit="word", mask_share=0.3)
    data = FinetuneData(Rows(items={"val": [{"text": t} for t in rows]}), val_split="val", predict_split="val", eval_batch_size=3)
    module = tiny_module(tmp_path, task, "bert")
    (figures,) = trainer(tmp_path).validate(module, datamodule=data, verbose=False)
    again = trainer(tmp_path).validate(module, datamodule=data, verbose=False)
    assert again == [figures]  # the masks of evaluation are always the same
    records = [r for batch in trainer(tmp_path).predict(module, datamodule=data) or [] for r in batch]

    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "bert").eval()
    losses, hits, masked = [], [], []
    for example in shown(task, rows, module.tokenizer):
        labels = torch.from_numpy(np.asarray(example["mlm"]))
        with torch.no_grad():
            logits = model(input_ids=torch.from_numpy(np.asarray(example["input_ids"]))[None]).logits[0].double()
        keep = labels != -100
        losses.append(F.cross_entropy(logits[keep], labels[keep], reduction="none"))
        hits += (logits[keep].argmax(-1) == labels[keep]).tolist()
        masked.append(int(keep.sum()))
    mean = float(torch.cat(losses).mean())
    assert figures["val_loss"] == pytest.approx(mean, rel=1e-5)
    assert figures["val_pseudo_perplexity"] == pytest.approx(math.exp(mean), rel=1e-5)
    assert figures["val_accuracy"] == pytest.approx(np.mean(hits))
    found = sorted((r["masked"], round(float(r["loss"]), 3)) for r in records)
    assert found == sorted((n, round(float(part.mean()), 3)) for n, part in zip(masked, losses, strict=True))
