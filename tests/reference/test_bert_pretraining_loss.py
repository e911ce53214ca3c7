"""Masked tokens and the next sentence, beside the losses that transformers computes itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertForPreTraining

from ftlab.backbone import Backbone
from ftlab.strategies.full import Full
from ftlab.tasks import cross_entropy
from ftlab.tasks.bert_pretraining import BertPretraining
from ftlab.tasks.next_sentence import NextSentencePrediction
from ftlab.testing.models import tiny_config
from ftlab.testing.tokenizer import byte_tokenizer
from tests.unit.backbones import configured, gradients

# All sentences have the same length, so that no pair is padded.
DOCUMENTS = ["abcd\nefgh\nijkl\nmnop", "ABCD\nEFGH\nIJKL\nMNOP", "0123\n4567\n8901\n2345"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny BertForPreTraining with all its weights."""
    torch.manual_seed(0)
    BertForPreTraining(tiny_config("bert")).save_pretrained(tmp_path)  # type: ignore[arg-type]
    byte_tokenizer(pairs=True, segments=True).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("rows", [128, 2])
def test_loss_and_gradients_are_those_of_bert_for_pretraining(folder: Path, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "chunk_rows", lambda vocabulary: rows)
    task = BertPretraining(negatives="order", short_share=0.0, mask_share=0.3)
    module = configured(Backbone(name=str(folder)), task, Full())
    module.adapted.eval()
    numbered = [(i, {"text": text}) for i, text in enumerate(DOCUMENTS)]
    stored = [{k: np.atleast_1d(np.array(v)) for k, v in e.items()} for e in task.encode(numbered, module.tokenizer, 19, labelled=True)]
    batch = task.collate([task.draw(stored, i, (3, e, i), module.tokenizer) for e in range(4) for i in range(3)], module.tokenizer)
    assert batch.inputs.keys() == {"input_ids", "token_type_ids"}  # nothing is padded
    assert set(batch.labels["nsp"].tolist()) == {0, 1}
    outputs = task.forward(module.adapted, batch)
    ours = {h: outputs.sums[h] / outputs.counts[h] for h in task.heads}
    mine = gradients(module, batch)
    module.adapted.zero_grad()
    theirs = module.adapted(**batch.inputs, labels=batch.labels["mlm"], next_sentence_label=batch.labels["nsp"])
    assert sum(v.item() for v in ours.values()) == pytest.approx(theirs.loss.item(), rel=1e-6)
    # Their mean over each head has its own divisor; the gradients of the sums are compared.
    logits, pairs = theirs.prediction_logits.flatten(0, 1), theirs.seq_relationship_logits
    total = torch.nn.functional.cross_entropy(logits, batch.labels["mlm"].flatten(), reduction="sum")
    (total + torch.nn.functional.cross_entropy(pairs, batch.labels["nsp"], reduction="sum")).backward()
    for name, parameter in module.adapted.named_parameters():
        assert parameter.grad is not None
        found = mine[name]
        assert found is not None
        torch.testing.assert_close(found, parameter.grad, rtol=1e-4, atol=1e-5)


def test_the_next_sentence_alone_is_that_of_bert_for_next_sentence_prediction(folder: Path) -> None:
    task = NextSentencePrediction(negatives="order", short_share=0.0)
    module = configured(Backbone(name=str(folder)), task, Full())
    module.adapted.eval()
    numbered = [(i, {"text": text}) for i, text in enumerate(DOCUMENTS)]
    stored = [{k: np.atleast_1d(np.array(v)) for k, v in e.items()} for e in task.encode(numbered, module.tokenizer, 19, labelled=True)]
    batch = task.collate([task.draw(stored, i, (3, 0, i), module.tokenizer) for i in range(3)], module.tokenizer)
    with torch.no_grad():
        outputs = task.forward(module.adapted, batch)
        theirs = module.adapted(**batch.inputs, labels=batch.labels["nsp"]).loss
        records = task.predict(module.adapted, batch)
    assert outputs.sums["nsp"].item() / 3 == pytest.approx(theirs.item(), rel=1e-6)
    likely = [r["score"] if r["truth"] else 1 - float(str(r["score"])) for r in records]
    assert -np.mean(np.log(np.array(likely, dtype=float))) == pytest.approx(theirs.item(), rel=1e-5)
