from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel

from ftlab.backbone import Backbone
from ftlab.batch import Batch
from ftlab.data.datamodule import FinetuneData
from ftlab.data.sources.in_memory import Rows
from ftlab.errors import ConfigError, DataError
from ftlab.module import FinetuneModule
from ftlab.rows import Row, Stored
from ftlab.strategies.prefix_tuning import PrefixTuning
from ftlab.strategies.prompt_tuning import PromptTuning
from ftlab.tasks.sentence_embedding import SentenceEmbedding
from ftlab.tasks.sentence_embedding_loss import contrastive_sum, text_keys
from ftlab.testing.models import tiny_config
from ftlab.testing.tokenizer import byte_tokenizer
from tests.unit.training import model_folder, texts, tiny_module, trainer

TOKENIZER = byte_tokenizer(pairs=True, segments=True)
ROWS: list[Row] = [{"sentence1": a, "sentence2": b, "score": i / 6} for i, (a, b) in enumerate(zip(texts(7), texts(7)[::-1], strict=True))]


def stored(task: SentenceEmbedding, rows: Sequence[Row] = ROWS, limit: int = 64, labelled: bool = True) -> list[Stored]:
    """Through 32-bit arrays that cannot be written to, as the token cache gives them."""
    examples: list[Stored] = []
    for example in task.encode(list(enumerate(rows)), TOKENIZER, limit, labelled):
        arrays = {n: np.atleast_1d(np.asarray(v)) for n, v in example.items()}
        arrays = {n: a.astype(np.float32 if a.dtype.kind == "f" else np.int32) for n, a in arrays.items()}
        for array in arrays.values():
            array.flags.writeable = False
        examples.append(arrays)
    return examples


def collate(task: SentenceEmbedding, rows: Sequence[Row] = ROWS, labelled: bool = True) -> Batch:
    return task.collate(stored(task, rows, labelled=labelled), TOKENIZER)


def model(family: str = "bert") -> Any:
    torch.manual_seed(0)
    return AutoModel.from_config(tiny_config(family)).eval()


@torch.no_grad()
def alone(encoder: Any, text: str, pooling: str = "mean") -> Tensor:
    """The vector of one text without padding."""
    states = encoder(**TOKENIZER(text, return_tensors="pt")).last_hidden_state[0]
    found: Tensor = {"mean": states.mean(0), "cls": states[0], "last": states[-1]}[pooling]
    return found


def column(name: str, rows: Sequence[Row] = ROWS) -> list[str]:
    return [str(row[name]) for row in rows]


@pytest.mark.parametrize("family", ["bert", "llama", "modernbert"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("normalize", [True, False])
def test_a_vector_is_what_the_text_gets_alone(family: str, pooling: Any, normalize: bool) -> None:
    task = SentenceEmbedding(pooling=pooling, normalize=normalize, predicts="vectors")
    encoder = model(family)
    records = task.predict(encoder, collate(task, labelled=False))
    for row, record in zip(ROWS, records, strict=True):
        for field, text in (("first", row["sentence1"]), ("second", row["sentence2"])):
            expected = alone(encoder, str(text), pooling)
            expected = expected / expected.norm() if normalize else expected
            assert record[field] == pytest.approx(expected.tolist(), abs=1e-5)


def test_the_length_of_an_example_is_that_of_both_texts() -> None:
    for row, example in zip(ROWS, stored(SentenceEmbedding()), strict=True):
        first, second = (TOKENIZER(str(row[c]))["input_ids"] for c in ("sentence1", "sentence2"))
        assert example["input_ids"].tolist() == [*first, *second]
        assert example["split"].tolist() == [len(first)]


def test_the_cosine_loss_is_the_squared_error() -> None:
    rows: list[Row] = [{**row, "score": str(i * 5 / 6)} for i, row in enumerate(ROWS)]
    task, encoder = SentenceEmbedding(score_scale=5), model()
    batch = collate(task, rows)
    outputs = task.forward(encoder, batch)
    cosines = [
        F.cosine_similarity(alone(encoder, a), alone(encoder, b), dim=0)
        for a, b in zip(column("sentence1"), column("sentence2"), strict=True)
    ]
    expected = sum((float(c) - i / 6) ** 2 for i, c in enumerate(cosines))
    assert float(outputs.sums["similarity"].detach()) == pytest.approx(expected, rel=1e-5)
    assert int(outputs.counts["similarity"]) == batch.counts()["similarity"] == 7
    assert [r["similarity"] for r in task.predict(encoder, batch)] == pytest.approx([float(c) for c in cosines], abs=1e-6)


def ranking_loss(first: Tensor, second: Tensor, scale: float) -> Tensor:
    """Sum of the multiple negatives ranking loss (Henderson et al. 2017, section 4.4): every other second text is wrong."""
    scores = F.cosine_similarity(first[:, None], second[None], dim=-1) * scale
    return -scores.log_softmax(1).diagonal().sum()


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_contrastive_loss_is_the_ranking_loss(symmetric: bool) -> None:
    task, encoder = SentenceEmbedding(loss="contrastive", temperature=0.1, symmetric=symmetric), model()
    first, second = (torch.stack([alone(encoder, text) for text in column(name)]) for name in ("sentence1", "sentence2"))
    expected = ranking_loss(first, second, 10)
    if symmetric:
        expected = (expected + ranking_loss(second, first, 10)) / 2
    outputs = task.forward(encoder, collate(task))
    assert float(outputs.sums["similarity"].detach()) == pytest.approx(float(expected), rel=1e-5)
    assert int(outputs.counts["similarity"]) == 7


@pytest.mark.parametrize("name", ["sentence1", "sentence2"])
def test_a_pair_that_shares_a_text_is_no_wrong_answer(name: str) -> None:
    rows = [dict(row) for row in ROWS]
    rows[5][name] = rows[2][name]
    task, encoder = SentenceEmbedding(loss="contrastive", temperature=0.1), model()
    first, second = (torch.stack([alone(encoder, text) for text in column(c, rows)]) for c in ("sentence1", "sentence2"))
    scores = F.cosine_similarity(first[:, None], second[None], dim=-1) / 0.1
    scores[2, 5] = scores[5, 2] = -math.inf
    found = task.forward(encoder, collate(task, rows)).sums["similarity"].detach()
    assert float(found) == pytest.approx(float(-scores.log_softmax(1).diagonal().sum()), rel=1e-5)


def test_the_contrastive_loss_is_in_float32_under_autocast() -> None:
    pairs = F.normalize(torch.randn(6, 2, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    keys = torch.arange(12).view(6, 2)
    expected = contrastive_sum(pairs, keys, 0.01, True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(contrastive_sum(pairs, keys, 0.01, True), expected)


def test_texts_are_told_apart_by_their_tokens_alone() -> None:
    ids = torch.tensor([[5, 6, 0], [5, 6, 1], [6, 5, 0], [0, 5, 6], [5, 6, 0], [0, 0, 0]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1], [1, 0, 0]])
    keys = text_keys(ids, mask)
    assert keys[0] == keys[1]
    assert len(set(keys.tolist())) == 5
    assert torch.equal(text_keys(F.pad(ids, (0, 4), value=3), F.pad(mask, (0, 4))), keys)


@pytest.mark.parametrize("loss", ["cosine", "contrastive"])
def test_a_filler_adds_nothing_and_still_has_a_gradient(loss: Any) -> None:
    task, encoder = SentenceEmbedding(loss=loss, symmetric=loss == "contrastive"), model()
    outputs = task.forward(encoder, collate(task).unscored())
    assert (float(outputs.sums["similarity"].detach()), float(outputs.counts["similarity"])) == (0.0, 0.0)
    outputs.sums["similarity"].backward()
    gradients = [p.grad for p in encoder.parameters()]
    assert all(g is not None and not g.any() for g in gradients)  # the pooler, which nothing uses, among them


@pytest.mark.parametrize("tuning", [PromptTuning(length=3), PrefixTuning(length=3)], ids=["prompt", "prefix"])
def test_virtual_tokens_are_not_pooled(tmp_path: Path, tuning: Any) -> None:
    task = SentenceEmbedding(normalize=False, predicts="vectors")
    module = FinetuneModule(Backbone(name=str(model_folder(tmp_path, "bert"))), task, tuning)
    module.configure_model()
    encoder = module.adapted.eval()
    for row, record in zip(ROWS, task.predict(encoder, collate(task)), strict=True):
        ids = TOKENIZER(str(row["sentence1"]), return_tensors="pt")
        with torch.no_grad():
            states = encoder(**ids).last_hidden_state
        assert states.shape[1] == ids["input_ids"].shape[1]
        assert record["first"] == pytest.approx(states[0].mean(0).tolist(), abs=1e-5)


def validated(folder: Path, task: SentenceEmbedding, items: list[Any], size: int) -> dict[str, float]:
    data = FinetuneData(Rows(items={"val": items}), val_split="val", batch_size=1, eval_batch_size=size)
    torch.manual_seed(0)  # for the fresh pooler
    (figures,) = trainer(folder).validate(tiny_module(folder, task, "bert"), datamodule=data, verbose=False)
    return dict(figures)


@pytest.mark.parametrize("size", [3, 40])
def test_correlations_are_scipys_whatever_the_batches(tmp_path: Path, size: int) -> None:
    items = [
        {"sentence1": a, "sentence2": (a[3:] + b)[:60], "score": i % 5 / 4}
        for i, (a, b) in enumerate(zip(texts(23), texts(23)[::-1], strict=True))
    ]
    found = validated(tmp_path, SentenceEmbedding(), items, size)
    encoder = AutoModel.from_pretrained(model_folder(tmp_path, "bert")).eval()
    cosines = [float(F.cosine_similarity(alone(encoder, str(i["sentence1"])), alone(encoder, str(i["sentence2"])), dim=0)) for i in items]
    scores = [float(str(i["score"])) for i in items]
    assert found["val_pearson"] == pytest.approx(stats.pearsonr(cosines, scores).statistic, abs=1e-4)
    assert found["val_spearman"] == pytest.approx(stats.spearmanr(cosines, scores).statistic, abs=1e-4)


@pytest.mark.parametrize("size", [4, 40])
def test_retrieval_is_over_the_whole_split(tmp_path: Path, size: int) -> None:
    """Every text is a query or an answer once, however often it stands in the rows."""
    items = [{"sentence1": texts(30)[i % 20], "sentence2": texts(60)[30 + i % 13]} for i in range(26)]
    found = validated(tmp_path, SentenceEmbedding(loss="contrastive"), items, size)
    encoder = AutoModel.from_pretrained(model_folder(tmp_path, "bert")).eval()
    queries, answers = (sorted({str(i[c]) for i in items}) for c in ("sentence1", "sentence2"))
    reciprocal, first = [], []
    for query in queries:
        right = {str(i["sentence2"]) for i in items if i["sentence1"] == query}
        ranked = sorted(answers, key=lambda a: -float(F.cosine_similarity(alone(encoder, query), alone(encoder, a), dim=0)))
        reciprocal.append(1 / (1 + next(place for place, a in enumerate(ranked) if a in right)))
        first.append(len(right & {ranked[0]}) / len(right))
    assert found["val_mrr"] == pytest.approx(np.mean(reciprocal), rel=1e-5)
    assert found["val_recall_at_1"] == pytest.approx(np.mean(first), rel=1e-5)


@pytest.mark.parametrize(
    ("fields", "row", "said"),
    [
        ({}, {"score": 1.5}, "row 1, column 'score' holds 1.5; scores are from 0 to 1"),
        ({}, {"score": -0.1}, "row 1, column 'score' holds -0.1"),
        ({}, {"score": "good"}, "row 1, column 'score' holds 'good', not a finite number"),
        ({}, {"score": None}, "row 1, column 'score' is empty"),
        ({}, {"sentence2": " "}, "row 1, column 'sentence2' has no text"),
        ({}, {"sentence1": 3}, "row 1, column 'sentence1' holds int 3, not text"),
        ({"loss": "contrastive"}, {"sentence2": "long " * 30}, "row 1 has 152 tokens, more than the 64"),
    ],
)
def test_rows_that_cannot_be_used(fields: dict[str, Any], row: Row, said: str) -> None:
    with pytest.raises(DataError) as caught:
        stored(SentenceEmbedding(**fields), [ROWS[0], {**ROWS[1], **row}])
    assert said in str(caught.value)


def test_rows_that_are_cut_or_left_out(caplog: pytest.LogCaptureFixture) -> None:
    rows: list[Row] = [ROWS[0], {**ROWS[1], "sentence1": "long " * 30, "sentence2": "long " * 40}, {**ROWS[2], "sentence2": ""}]
    with caplog.at_level(logging.WARNING):
        found = stored(SentenceEmbedding(too_long="truncate", empty="skip"), rows)
    assert [int(e["row"][0]) for e in found] == [0, 1]
    assert (len(found[1]["input_ids"]), int(found[1]["split"][0])) == (128, 64)
    assert "1 rows were cut to 64 tokens" in caplog.text
    assert "1 rows without text were skipped" in caplog.text


def test_scores_are_asked_for_only_where_they_are_used() -> None:
    assert SentenceEmbedding().columns(labelled=True) == ("sentence1", "sentence2", "score")
    assert SentenceEmbedding().columns(labelled=False) == ("sentence1", "sentence2")
    assert SentenceEmbedding(loss="contrastive").columns(labelled=True) == ("sentence1", "sentence2")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"temperature": 0.0}, "model.task.temperature is 0.0"),
        ({"score_scale": math.inf}, "model.task.score_scale is inf"),
        ({"symmetric": True}, "symmetric is true while loss is cosine"),
        ({"temperature": 0.1}, "temperature is 0.1 while loss is cosine; it is for loss contrastive"),
        ({"score_scale": 5.0, "loss": "contrastive"}, "score_scale is 5.0 while loss is contrastive; it is for loss cosine"),
        ({"score_column": "rating", "loss": "contrastive"}, "score_column is rating while loss is contrastive"),
    ],
)
def test_fields_that_mean_nothing(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SentenceEmbedding(**fields)
    assert said in str(caught.value)


def test_the_first_token_of_a_decoder_is_no_vector() -> None:
    SentenceEmbedding(pooling="cls").check(model("bert"))
    SentenceEmbedding(pooling="last").check(model("llama"))
    with pytest.raises(ConfigError, match="the first token of a LlamaModel sees no other"):
        SentenceEmbedding(pooling="cls").check(model("llama"))


def test_an_encoder_with_a_decoder_is_refused() -> None:
    from transformers import T5Config, T5Model

    config = T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    with pytest.raises(ConfigError, match="T5Model is an encoder with a decoder"):
        SentenceEmbedding().check(T5Model(config))
