"""Masked tokens and the next sentence together: fresh heads, single sentences, refusals, and the same bits however they are loaded."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ftlab.backbone import Backbone
from ftlab.batch import IGNORE, Batch
from ftlab.data.datamodule import FinetuneData
from ftlab.data.loader import FinetuneLoader, Plan
from ftlab.data.sources.in_memory import Rows
from ftlab.data.store import TokenStore, write
from ftlab.errors import ConfigError, DataError
from ftlab.module import FinetuneModule
from ftlab.rows import Stored
from ftlab.samples import sample
from ftlab.strategies.base import TuningStrategy
from ftlab.strategies.full import Full
from ftlab.strategies.lora import LoRA
from ftlab.strategies.prefix_tuning import PrefixTuning
from ftlab.strategies.prompt_tuning import PromptTuning
from ftlab.tasks.base import Task
from ftlab.tasks.bert_pretraining import BertPretraining
from ftlab.tasks.masked_lm import MaskedLM
from ftlab.tasks.next_sentence import NextSentencePrediction
from ftlab.tasks.segments_frame import frame_of
from ftlab.testing.models import tiny_model_folder
from ftlab.testing.tokenizer import byte_tokenizer
from tests.unit.backbones import configured, gradients, widened
from tests.unit.training import tiny_module, trainer

KNOWN = byte_tokenizer(pairs=True, segments=True)
DOCUMENTS = [
    ["one two", "three four", "five", "six seven eight"],
    ["red green", "blue", "black and white", "grey"],
    ["north", "south by east", "west", "maps", "the sea"],
]


def stored(task: Task, documents: Sequence[Sequence[str]] = DOCUMENTS, limit: int = 40) -> list[Stored]:
    rows = [(i, {"text": "\n".join(sentences)}) for i, sentences in enumerate(documents)]
    return [{k: np.atleast_1d(np.array(v)) for k, v in e.items()} for e in task.encode(rows, KNOWN, limit, labelled=True)]


def batch_of(task: Task, examples: list[Stored] | None = None, epoch: int = 0) -> Batch:
    found = examples or stored(task)
    return task.collate([task.draw(found, i, (0, epoch, i), KNOWN) for i in range(len(found))], KNOWN)


@pytest.mark.parametrize("tuning", [Full(), LoRA(r=2), PromptTuning(length=2)], ids=["Full", "LoRA", "PromptTuning"])
def test_a_model_without_a_next_sentence_head_gets_a_fresh_one_that_is_trained_and_owned(tuning: TuningStrategy, tmp_path: Path) -> None:
    folder = tiny_model_folder("bert", tmp_path)  # BertForMaskedLM, with neither a pooler nor seq_relationship
    module = configured(Backbone(name=str(folder)), BertPretraining(), tuning)
    fresh = {n for n, _ in module.adapted.named_parameters() if n.startswith(("cls.seq_relationship.", "bert.pooler."))}
    assert len(fresh) == 4
    assert fresh <= tuning.owned(module.adapted)
    found = gradients(module, batch_of(module.task))
    for name in fresh:
        gradient = found[name]
        assert gradient is not None
        assert gradient.any()


@pytest.mark.parametrize("family", ["roberta", "electra", "distilbert", "deberta-v2"])
def test_a_model_whose_pretraining_has_no_next_sentence_is_refused(family: str, tmp_path: Path) -> None:
    backbone = Backbone(name=str(tiny_model_folder(family, tmp_path)))
    with pytest.raises(ConfigError, match=r"has no output for the next sentence; name a BERT or an ALBERT, or choose MaskedLM"):
        configured(backbone, BertPretraining(), Full())
    with pytest.raises(ConfigError, match=r"AutoModelForNextSentencePrediction does not offer; choose another task"):
        configured(backbone, NextSentencePrediction(), Full())


def test_albert_has_its_sentence_order(tmp_path: Path) -> None:
    from transformers import AlbertConfig, AlbertForPreTraining

    config = AlbertConfig(
        vocab_size=261, hidden_size=32, embedding_size=16, num_attention_heads=4, intermediate_size=48, max_position_embeddings=64,
        num_hidden_layers=2, pad_token_id=1, bos_token_id=0, eos_token_id=2, classifier_dropout_prob=0.0,
    )  # fmt: skip
    AlbertForPreTraining(config).save_pretrained(tmp_path)
    KNOWN.save_pretrained(tmp_path)
    task = BertPretraining(negatives="order")
    module = configured(Backbone(name=str(tmp_path)), task, Full())
    module.adapted.eval()
    batch = batch_of(task)
    with torch.no_grad():
        ours = task.forward(module.adapted, batch)
        theirs = module.adapted(**batch.inputs, labels=batch.labels["mlm"], sentence_order_label=batch.labels["nsp"]).loss
    assert sum((ours.sums[h] / ours.counts[h]).item() for h in task.heads) == pytest.approx(theirs.item(), rel=1e-5)


def test_a_document_of_one_sentence_is_masked_and_no_pair_is_scored_in_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    task = BertPretraining()
    with caplog.at_level(logging.WARNING):
        examples = stored(task, [*DOCUMENTS, ["alone in a line"]])
    assert "1 documents have a single sentence, of which no pair can be made: they are used without a pair" in caplog.text
    batch = batch_of(task, examples)
    alone = batch.rows.tolist().index(3)
    assert batch.labels["nsp"][alone] == IGNORE
    assert (batch.labels["mlm"][alone] != IGNORE).any()
    assert batch.inputs["token_type_ids"][alone].max() == 0
    assert batch.counts()["nsp"] == len(examples) - 1
    module = configured(Backbone(name=str(tiny_model_folder("bert", tmp_path))), task, Full())
    with torch.no_grad():
        record = task.predict(module.adapted, batch)[alone]
    assert (record["next"], record["score"], record["truth"]) == (None, None, None)
    assert record["loss"] is not None


def test_documents_of_one_sentence_alone_have_no_pair_to_score(tmp_path: Path) -> None:
    alone = [["one two three"], ["red green"]]
    for labelled in (True, False):
        rows = [(i, {"text": sentences[0]}) for i, sentences in enumerate(alone)]
        task = BertPretraining()
        if labelled:
            with pytest.raises(DataError, match=r"no document has more than one sentence.*give the split longer documents, or set model"):
                list(task.encode(rows, KNOWN, 40, labelled))
        else:
            assert len(list(task.encode(rows, KNOWN, 40, labelled))) == 2
    assert not list(BertPretraining(empty="skip").encode([(0, {"text": " "})], KNOWN, 40, labelled=True))  # which the data module tells
    module = tiny_module(tmp_path, BertPretraining(nsp_weight=0.0, mask_share=0.5), "bert")
    (figures,) = trainer(tmp_path).validate(module, datamodule=data_of(alone), verbose=False)
    assert figures["val_loss"] == figures["val_loss_mlm"] > 0
    assert math.isnan(figures["val_loss_nsp"])
    assert math.isnan(figures["val_nsp_accuracy"])
    assert 0 <= figures["val_mlm_accuracy"] <= 1


def test_a_single_document_needs_the_sentence_order() -> None:
    with pytest.raises(DataError, match="single document"):
        stored(BertPretraining(), DOCUMENTS[:1])
    assert stored(BertPretraining(negatives="order"), DOCUMENTS[:1])


@pytest.mark.parametrize("tuning", [Full(), LoRA(r=2), PromptTuning(length=3), PrefixTuning(length=3)], ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("task", [BertPretraining(), NextSentencePrediction()], ids=lambda t: type(t).__name__)
def test_a_row_gets_what_it_gets_alone(task: Task, tuning: TuningStrategy, tmp_path: Path) -> None:
    module = configured(Backbone(name=str(tiny_model_folder("bert", tmp_path))), task, tuning)
    module.adapted.eval()
    examples = stored(task)
    drawn = [task.draw(examples, i, (0, 0, i), KNOWN) for i in range(len(examples))]
    whole = task.collate(drawn, KNOWN)
    with torch.no_grad():
        together = task.predict(module.adapted, widened(whole, 3, int(KNOWN.pad_token_id)))
        singly = [task.predict(module.adapted, task.collate([e], KNOWN))[0] for e in drawn]
        total = task.forward(module.adapted, whole)
        parts = [task.forward(module.adapted, task.collate([e], KNOWN)) for e in drawn]
    for one, other in zip(together, singly, strict=True):
        assert {k: v for k, v in one.items() if not isinstance(v, float)} == {k: v for k, v in other.items() if not isinstance(v, float)}
        assert one["score"] == pytest.approx(other["score"], rel=1e-4)
    for head in task.heads:
        assert total.sums[head].item() == pytest.approx(sum(p.sums[head].item() for p in parts), rel=1e-4)
        assert total.counts[head].item() == sum(p.counts[head].item() for p in parts) == whole.counts()[head]


def test_nothing_scored_is_a_loss_of_zero_that_depends_on_the_model(tmp_path: Path) -> None:
    for task in (BertPretraining(), NextSentencePrediction()):
        module = configured(Backbone(name=str(tiny_model_folder("bert", tmp_path))), task, Full())
        batch = batch_of(task).unscored()
        outputs = task.forward(module.adapted, batch)
        assert [outputs.sums[h].item() for h in task.heads] == [0.0] * len(task.heads)
        assert all(g is not None and not g.any() for g in gradients(module, batch).values())


def test_weights_are_those_of_the_heads() -> None:
    assert BertPretraining(mlm_weight=0.5, nsp_weight=2.0).weights() == {"mlm": 0.5, "nsp": 2.0}
    bad = ({"mlm_weight": -1.0}, {"mlm_weight": 0.0, "nsp_weight": 0.0}, {"nsp_weight": math.nan}, {"mlm_weight": math.nan})
    for fields in (*bad, {"nsp_weight": math.inf}):
        with pytest.raises(ConfigError, match=r"mlm_weight is .* and nsp_weight .*; neither may be below 0"):
            BertPretraining(**fields)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="mask_share is 0"):
        BertPretraining(mask_share=0.0)
    with pytest.raises(ConfigError, match="next_share is 1"):
        BertPretraining(next_share=1.0)


def test_masks_do_not_move_the_pairs() -> None:
    """So an ablation of the masks, or of masking at all, has the same pairs."""
    few, many = BertPretraining(mask_share=0.1, mask_token_share=0.0, random_share=0.0), BertPretraining(mask_share=0.8)
    one, other, plain = (batch_of(task) for task in (few, many, NextSentencePrediction()))
    assert torch.equal(one.inputs["input_ids"], plain.inputs["input_ids"])
    assert not torch.equal(one.inputs["input_ids"], other.inputs["input_ids"])
    for batch in (one, other):
        assert torch.equal(batch.inputs["token_type_ids"], plain.inputs["token_type_ids"])
        assert torch.equal(batch.labels["nsp"], plain.labels["nsp"])


def test_a_word_does_not_go_on_behind_a_special_token() -> None:
    """A segment that was cut at its front may begin inside a word."""
    frame = frame_of(KNOWN, 2)
    first, second = np.array([9, 8]), np.array([7, 6])
    assert frame.ids(first, second).tolist() == [0, 9, 8, 2, 7, 6, 2]
    assert frame.starts(np.array([1, 0]), np.array([0, 1])).tolist() == [1, 1, 0, 1, 0, 1, 1]
    types = frame.type_ids(first, second)
    assert types is not None
    assert types.tolist() == [0, 0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("unit", ["word", "span"])
def test_words_of_both_segments_are_masked_whole(unit: str) -> None:
    task = BertPretraining(unit=unit, mask_share=0.4, mask_token_share=1.0, random_share=0.0)  # type: ignore[arg-type]
    examples, words, whole = stored(task), "|".join({w for document in DOCUMENTS for line in document for w in line.split()}), 0
    for epoch in range(20):
        for index in range(len(examples)):
            shown = task.draw(examples, index, (0, epoch, index), KNOWN)
            masked = shown["mlm"] != IGNORE
            assert not masked[np.isin(shown["input_ids"], [0, 2])].any()
            true = str(KNOWN.decode(np.where(masked, shown["mlm"], shown["input_ids"]))).replace("<s>", "^").replace("</s>", "$")
            for word in re.finditer(words, true):
                assert len(set(masked[word.start() : word.end()].tolist())) == 1
                whole += 1
    assert whole > 100


def loader(folder: Path, task: Task, **plan: int) -> FinetuneLoader:
    if not folder.is_dir():
        rows = [(i, {"text": "\n".join(sentences)}) for i, sentences in enumerate(DOCUMENTS * 3)]
        write(folder, task.encode(rows, KNOWN, 30, labelled=True), {})
    settings: dict[str, Any] = {"batch_size": 4, "seed": 5, "shuffle": True, **plan}
    return FinetuneLoader(TokenStore(folder), partial(task.collate, tokenizer=KNOWN), Plan(**settings), partial(task.draw, tokenizer=KNOWN))


def bits(batches: Sequence[Batch]) -> dict[tuple[int, int], list[list[int]]]:
    """(place among the batches, example) → everything that an epoch shows of it, without padding."""
    found = {}
    for place, batch in enumerate(batches):
        for i, index in enumerate(batch.index):
            ids = batch.inputs["input_ids"][i].tolist()
            parts = [t[i].tolist() if t.ndim > 1 else [int(t[i])] for t in batch.labels.values()]
            length = max(j for j, token in enumerate(ids) if token == 2) + 1
            found[place, index] = [ids[:length], *(p[:length] for p in parts)]
    return found


TASKS = [MaskedLM(block_size=16), MaskedLM(block_size=16, unit="span"), NextSentencePrediction(), BertPretraining(unit="word")]


@pytest.mark.parametrize("task", TASKS, ids=["MaskedLM", "spans", "NextSentencePrediction", "BertPretraining"])
def test_the_same_bits_with_workers_ranks_and_on_resuming(task: Task, tmp_path: Path) -> None:
    whole = loader(tmp_path / "s", task)
    epochs = [bits(list(whole)) for _ in range(2)]
    assert epochs[0] != epochs[1]
    assert len(epochs[0]) > 4
    again = loader(tmp_path / "s", task, workers=2)
    assert [bits(list(again)) for _ in range(2)] == epochs
    resumed = loader(tmp_path / "s", task)
    resumed.load_state_dict({"epoch": 1, "handed": 1})
    rest = bits(list(resumed))
    assert {(place + 1, i): found for (place, i), found in rest.items()} == {k: v for k, v in epochs[1].items() if k[0] >= 1}
    ranks = [loader(tmp_path / "s", task, batch_size=2, rank=rank, world=2) for rank in range(2)]
    shares = [bits(list(islice(rank, len(rank)))) for rank in ranks]
    assert not set(shares[0]) & set(shares[1])
    assert shares[0] | shares[1] == epochs[0]


def data_of(documents: Sequence[Sequence[str]]) -> FinetuneData:
    items: dict[str, Any] = {split: [{"text": "\n".join(s)} for s in documents] for split in ("train", "val")}
    return FinetuneData(Rows(items=items), val_split="val", predict_split="val", batch_size=3, seed=1)


def test_a_short_fit_learns_and_reports_every_figure(tmp_path: Path) -> None:
    folder = tiny_model_folder("bert", tmp_path / "m")
    module = FinetuneModule(Backbone(name=str(folder)), BertPretraining(nsp_weight=0.5), Full())
    runner = trainer(tmp_path, max_epochs=2)
    runner.fit(module, datamodule=data_of(DOCUMENTS))
    figures = {k: float(v) for k, v in runner.callback_metrics.items()}
    assert figures["val_loss"] == pytest.approx(figures["val_loss_mlm"] + 0.5 * figures["val_loss_nsp"], rel=1e-5)
    assert {"val_mlm_accuracy", "val_nsp_accuracy", "val_pseudo_perplexity"} <= set(figures)


def test_models_are_compared_on_pairs_as_evaluation_shows_them(tmp_path: Path) -> None:
    """A merged model is compared with the adapted one on a few rows; stored spans alone are no input of a model."""
    module = configured(Backbone(name=str(tiny_model_folder("bert", tmp_path))), BertPretraining(), LoRA(r=2))
    (inputs,) = sample(module, data_of(DOCUMENTS))
    assert inputs["token_type_ids"].any()
    assert (inputs["input_ids"] == KNOWN.mask_token_id).any()
