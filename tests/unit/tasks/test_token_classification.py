from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy
from transformers import AutoTokenizer

from ftlab.data.datamodule import FinetuneData
from ftlab.data.sources.in_memory import Rows
from ftlab.rows import Row
from ftlab.tasks.token_classification import TokenClassification
from tests.unit.tasks.tagging import BYTES, LABELS, ROW, TINY_BERT, collate, encode, model, sentences
from tests.unit.training import WORDS, tiny_module, trainer


@pytest.mark.parametrize("pieces", ["first", "all"])
def test_the_loss_is_the_models_own(pieces: Any) -> None:
    task = TokenClassification(labels=LABELS, pieces=pieces)
    same_length: list[Row] = [ROW, {"tokens": ["In", "Rome", "a", "b", "c"], "tags": ["O", "B-loc", *"OOO"]}]
    batch = collate(task, encode(task, same_length))
    assert "attention_mask" not in batch.inputs
    scored = batch.labels["tag"] != -100
    spaces = torch.isin(
        batch.inputs["input_ids"], torch.tensor([*BYTES(" ", add_special_tokens=False)["input_ids"], *BYTES.all_special_ids])
    )
    assert int(scored.sum()) == batch.counts()["tag"] == (9 if pieces == "first" else int((~spaces).sum()))
    tagger = model(task)
    outputs = task.forward(tagger, batch)
    theirs = tagger(**batch.inputs, labels=batch.labels["tag"]).loss
    assert (outputs.sums["tag"] / outputs.counts["tag"]).item() == pytest.approx(theirs.item(), rel=1e-6)


@pytest.mark.parametrize("pieces", ["first", "all"])
def test_pieces_have_the_tags_of_their_words(pieces: Any) -> None:
    """Beside what the tokenizer says itself of words that are given one by one; BERT's pieces do not depend on spaces."""
    tokenizer = AutoTokenizer.from_pretrained(TINY_BERT)
    task = TokenClassification(labels=LABELS, pieces=pieces)
    words = ["Un-believable", "naïve", "日本", "o'clock", "Nebuchadnezzar", "wo rld"]
    tags = ["B-per", "I-per", "O", "B-loc", "O", "B-loc"]
    (example,) = encode(task, [{"tokens": words, "tags": tags}], tokenizer=tokenizer)
    theirs = tokenizer(words, is_split_into_words=True)
    assert example["input_ids"] == theirs["input_ids"]
    before, expected = None, []
    for word in theirs.word_ids():
        expected.append(-100 if word is None or (pieces == "first" and word == before) else LABELS.index(tags[word]))
        before = word
    assert example["tag"] == expected


def test_words_keep_the_space_that_is_a_part_of_tokens() -> None:
    (example,) = encode(TokenClassification(labels=LABELS), [ROW])
    assert example["input_ids"] == BYTES("Ada met Bo Li")["input_ids"]


@pytest.mark.parametrize("limit", [12, 20, 63])
@pytest.mark.parametrize("stride", [None, 0, 7])
def test_every_word_is_scored_once_in_the_window_that_shows_most_around_it(limit: int, stride: int | None) -> None:
    row = {"tokens": [f"w{i}" for i in range(40)], "tags": [LABELS[1 + i % 4] if i % 3 else "O" for i in range(40)]}
    task = TokenClassification(labels=LABELS, stride=stride, repair=True)
    examples = encode(task, [row], limit=limit)
    whole, *_ = encode(task, [row], limit=1000)
    assert len(examples) > 2
    text, scored = whole["input_ids"][1:-1], []
    shares = [len(set(places(a, text)) & set(places(b, text))) for a, b in pairwise(examples)]
    assert min(shares) == (stride if stride is not None else (limit - 2) // 3)
    for example in examples:
        at = places(example, text)
        assert len(example["input_ids"]) == limit
        for i, tag in enumerate(example["tag"]):
            if tag != -100:
                scored.append((at[i - 1], tag))
                others = [places(e, text) for e in examples]
                margins = [min(at[i - 1] - o[0], o[-1] - at[i - 1]) for o in others if at[i - 1] in o]
                assert min(at[i - 1] - at[0], at[-1] - at[i - 1]) >= max(margins) - 1
    assert scored == [(i - 1, tag) for i, tag in enumerate(whole["tag"]) if tag != -100]
    assert len(scored) == 40


def places(example: Any, text: list[int]) -> list[int]:
    """Where in the whole text the tokens of a window stand; no two windows have the same ones."""
    inside = example["input_ids"][1:-1]
    (start,) = [i for i in range(len(text) - len(inside) + 1) if text[i : i + len(inside)] == inside]
    return list(range(start, start + len(inside)))


def test_a_word_longer_than_a_window_is_scored_by_its_first_piece() -> None:
    rows: list[Row] = [{"tokens": ["a", "b" * 50, "c"], "tags": ["O", "B-per", "B-loc"]}]
    task = TokenClassification(labels=LABELS)
    examples = encode(task, rows, limit=16)
    assert [t for e in examples for t in e["tag"] if t != -100] == [0, LABELS.index("B-per"), LABELS.index("B-loc")]
    merged: Any = task.merge(task.predict(model(task), collate(task, examples)))
    assert len(merged["tags"]) == 3


def test_predictions_are_those_of_the_model_for_each_word() -> None:
    task = TokenClassification(labels=LABELS)
    tagger = model(task)
    for row in sentences(3):
        (example,) = encode(task, [{"tokens": row["tokens"]}], labelled=False)
        found = task.merge(task.predict(tagger, collate(task, [example])))
        words = row["tokens"]
        assert isinstance(words, list)
        with torch.no_grad():
            logits = tagger(**BYTES(" ".join(words), return_tensors="pt")).logits[0]
        firsts = [1 + len(" ".join([*words[:i], ""])) for i in range(len(words))]
        assert found["tags"] == [LABELS[int(logits[i].argmax())] for i in firsts]


class Contextless(nn.Module):
    """Logits that follow from each token alone."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(300, outputs)

    def forward(self, input_ids: Tensor, **others: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.table(input_ids))


@pytest.mark.parametrize("limit", [9, 17, 40])
def test_windows_give_what_the_whole_sentence_gives_where_context_does_not_matter(limit: int) -> None:
    task = TokenClassification(labels=LABELS)
    row: Row = {"tokens": [*WORDS, *"abcdefgh", "x" * 30, *WORDS]}
    whole, parts = (encode(task, [row], limit=n, labelled=False) for n in (1000, limit))
    assert len(whole) < len(parts)
    expected, found = (task.merge(task.predict(Contextless(5), collate(task, examples))) for examples in (whole, parts))
    assert found == expected
    assert len(found["tags"]) == len(row["tokens"])  # type: ignore[arg-type]


def test_entities_have_their_words() -> None:
    task = TokenClassification(labels=LABELS)
    records: list[dict[str, object]] = [
        {"words": ["Ada", "met"], "tags": ["B-per", "O"]},
        {"words": ["Bo", "Li"], "tags": ["I-per", "I-per"]},
    ]
    assert task.merge(records) == {
        "tags": ["B-per", "O", "I-per", "I-per"],
        "entities": [{"type": "per", "start": 0, "end": 1, "text": "Ada"}, {"type": "per", "start": 2, "end": 4, "text": "Bo Li"}],
    }
    assert TokenClassification(labels=["a", "b"], scheme="none").merge([{"words": ["x"], "tags": ["a"]}]) == {"tags": ["a"]}


@pytest.mark.parametrize("size", [2, 7])
def test_figures_do_not_depend_on_the_batch_size(tmp_path: Path, size: int) -> None:
    def validated(size: int) -> dict[str, float]:
        data = FinetuneData(Rows(items={"val": sentences(23)}), val_split="val", eval_batch_size=size, max_length=24)  # type: ignore[dict-item]
        torch.manual_seed(0)  # for a fresh head
        (figures,) = trainer(tmp_path).validate(
            tiny_module(tmp_path, TokenClassification(labels=LABELS), "bert"), datamodule=data, verbose=False
        )
        return dict(figures)

    one = validated(1)
    assert validated(size) == pytest.approx(one, rel=1e-5, nan_ok=True)
    assert {"val_f1", "val_precision_loc", "val_recall_per", "val_accuracy"} <= one.keys()


def test_metrics_that_a_configuration_names_see_every_word(tmp_path: Path) -> None:
    data = FinetuneData(Rows(items={"val": sentences(9)}), val_split="val", eval_batch_size=4, max_length=24)  # type: ignore[dict-item]
    module = tiny_module(tmp_path, TokenClassification(labels=LABELS), "bert")
    module.metrics = [partial(MulticlassAccuracy, num_classes=len(LABELS), average="micro")]
    (figures,) = trainer(tmp_path).validate(module, datamodule=data, verbose=False)
    assert figures["val_multiclass_accuracy"] == pytest.approx(figures["val_accuracy"])


def test_sentences_of_which_not_all_windows_were_run_are_not_scored() -> None:
    task = TokenClassification(labels=LABELS)
    part: list[tuple[int, dict[str, object]]] = [(0, {"tags": ["B-per", "O"]}), (1, {"tags": ["B-loc"]})]
    figures = task.score(part, [(0, ROW), (1, {"tokens": ["Rome"], "tags": ["B-loc"]})])
    assert (figures["accuracy"], figures["recall"]) == (1.0, 1.0)
    none = task.score(part[:1], [(0, ROW)])
    assert none.keys() == figures.keys()
    assert all(map(math.isnan, none.values()))  # an F1 of 0 would be that of a model that finds nothing
