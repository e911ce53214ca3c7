from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from ftlab.batch import Batch
from ftlab.errors import ConfigError, DataError
from ftlab.rows import Example, Row, Stored
from ftlab.tasks.sequence_classification import SequenceClassification
from ftlab.testing.models import tiny_config
from ftlab.testing.tokenizer import byte_tokenizer
from tests.unit.training import texts

TOKENIZER = byte_tokenizer(pairs=True, segments=True)


def bound(task: SequenceClassification, rows: Sequence[Row]) -> SequenceClassification:
    return task.bind(lambda: list(enumerate(rows)))


def encode(task: SequenceClassification, rows: Sequence[Row], limit: int = 64, labelled: bool = True) -> list[Example]:
    return list(bound(task, rows).encode(list(enumerate(rows)), TOKENIZER, limit, labelled))


def collate(task: SequenceClassification, examples: Sequence[Example]) -> Batch:
    """Through 32-bit arrays that cannot be written to, as the token cache gives them."""
    stored: list[Stored] = []
    for example in examples:
        arrays = {n: np.atleast_1d(np.asarray(v)) for n, v in example.items()}
        arrays = {n: a.astype(np.float32 if a.dtype.kind == "f" else np.int32) for n, a in arrays.items()}
        for array in arrays.values():
            array.flags.writeable = False
        stored.append(arrays)
    return task.collate(stored, TOKENIZER)


def model(task: SequenceClassification, family: str = "bert") -> Any:
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(tiny_config(family, task.model_options())).eval()


SINGLE: list[Row] = [{"text": t, "label": ["low", "mid", "high"][i % 3]} for i, t in enumerate(texts(7))]
LISTS: list[Row] = [{"text": t, "label": [["a", "c"], ["b"], []][i % 3]} for i, t in enumerate(texts(7))]
COLUMNS: list[Row] = [{"text": t, "a": i % 2, "b": str(i % 3 // 2), "c": i % 5 == 0} for i, t in enumerate(texts(7))]
NUMBER: list[Row] = [{"text": t, "label": str(i / 3)} for i, t in enumerate(texts(7))]
NUMBERS: list[Row] = [{"text": t, "x": i / 3, "y": -i} for i, t in enumerate(texts(7))]

KINDS: list[tuple[SequenceClassification, list[Row], list[Any]]] = [
    (SequenceClassification(), SINGLE, [[1, 2, 0][i % 3] for i in range(7)]),
    (SequenceClassification(labels=["low", "mid", "high"]), SINGLE, [i % 3 for i in range(7)]),
    (SequenceClassification(kind="multi"), LISTS, [[[1, 0, 1], [0, 1, 0], [0, 0, 0]][i % 3] for i in range(7)]),
    (SequenceClassification(kind="multi", label_column=["a", "b", "c"]), COLUMNS, [[i % 2, i % 3 // 2, i % 5 == 0] for i in range(7)]),
    (SequenceClassification(kind="regression"), NUMBER, [[i / 3] for i in range(7)]),
    (SequenceClassification(kind="regression", label_column=["x", "y"]), NUMBERS, [[i / 3, -i] for i in range(7)]),
]
IDS = ["single", "given labels", "label lists", "label columns", "one number", "several numbers"]


@pytest.mark.parametrize(("task", "rows", "labels"), KINDS, ids=IDS)
def test_loss_is_the_models_own(task: SequenceClassification, rows: list[Row], labels: list[Any]) -> None:
    whole = bound(task, rows)
    batch = collate(whole, encode(task, rows))
    expected = torch.tensor(labels, dtype=torch.long if task.kind == "single" else torch.float)
    assert torch.equal(batch.labels["label"], expected)
    classifier = model(whole)
    theirs = classifier(**batch.inputs, labels=expected).loss.detach()
    outputs = whole.forward(classifier, batch)
    assert float(outputs.sums["label"].detach() / outputs.counts["label"]) == pytest.approx(float(theirs), rel=1e-6)
    assert int(outputs.counts["label"]) == batch.counts()["label"] == expected.numel()


@pytest.mark.parametrize(("task", "rows", "labels"), KINDS, ids=IDS)
def test_a_filler_adds_nothing_and_still_has_a_gradient(task: SequenceClassification, rows: list[Row], labels: list[Any]) -> None:
    whole = bound(task, rows)
    classifier = model(whole)
    outputs = whole.forward(classifier, collate(whole, encode(task, rows)).unscored())
    assert (float(outputs.sums["label"].detach()), float(outputs.counts["label"])) == (0.0, 0.0)
    outputs.sums["label"].backward()
    assert all(float(p.grad.abs().sum()) == 0 for p in classifier.parameters() if p.grad is not None)
    assert classifier.classifier.weight.grad is not None


@pytest.mark.parametrize(("task", "rows", "labels"), KINDS, ids=IDS)
def test_predictions_are_those_of_the_model(task: SequenceClassification, rows: list[Row], labels: list[Any]) -> None:
    whole = bound(task, rows)
    names = whole.labels or []
    unlabelled = encode(whole, [{"text": row["text"]} for row in rows], labelled=False)
    classifier = model(whole)
    records = whole.predict(classifier, collate(whole, unlabelled))
    for row, record in zip(rows, records, strict=True):
        with torch.no_grad():
            logits = classifier(**TOKENIZER(row["text"], return_tensors="pt")).logits[0]
        scores = {"single": logits.softmax(0), "multi": logits.sigmoid(), "regression": logits}[whole.kind]
        assert record["scores"] == pytest.approx(dict(zip(names, scores.tolist(), strict=True)), abs=1e-5)
        if whole.kind == "single":
            assert record["label"] == names[int(logits.argmax())]
        if whole.kind == "multi":
            assert record["labels"] == [n for n, p in zip(names, scores, strict=True) if p > 0.5]


def test_labels_go_into_the_configuration() -> None:
    options = bound(SequenceClassification(), SINGLE).model_options()
    assert options["id2label"] == {0: "high", 1: "low", 2: "mid"}
    assert options["label2id"] == {"high": 0, "low": 1, "mid": 2}
    assert (options["num_labels"], options["problem_type"]) == (3, "single_label_classification")


def test_a_pair_is_what_the_tokenizer_makes_of_two() -> None:
    rows: list[Row] = [{"text": "one", "second": "two", "label": 0}, {"text": "a", "second": "b c", "label": 1}]
    task = bound(SequenceClassification(pair_column="second"), rows)
    batch = collate(task, encode(task, rows))
    theirs = TOKENIZER(["one", "a"], ["two", "b c"], padding=True, return_tensors="pt")
    assert all(torch.equal(batch.inputs[name], theirs[name]) for name in batch.inputs)
    assert batch.inputs["token_type_ids"].max() == 1


@pytest.mark.parametrize("pair", [None, "second"])
def test_a_row_that_is_too_long(pair: str | None, caplog: pytest.LogCaptureFixture) -> None:
    rows: list[Row] = [{"text": "short", "second": "s", "label": 0}, {"text": "long " * 9, "second": "l " * 9, "label": 1}]
    length = len(TOKENIZER(*[str(rows[1][c]) for c in ("text", pair) if c])["input_ids"])
    with pytest.raises(DataError, match=f"row 1 has {length} tokens, more than the 20 the model"):
        encode(SequenceClassification(pair_column=pair), rows, limit=20)
    with caplog.at_level(logging.WARNING):
        found = encode(SequenceClassification(pair_column=pair, too_long="truncate"), rows, limit=20)
    assert "1 rows were cut to 20 tokens" in caplog.text
    for row, example in zip(rows, found, strict=True):
        theirs = TOKENIZER(*[str(row[c]) for c in ("text", pair) if c], truncation=True, max_length=20)
        assert (example["input_ids"], example["token_type_ids"]) == (theirs["input_ids"], theirs["token_type_ids"])


@pytest.mark.parametrize("column", ["text", "second"])
def test_a_row_without_text(column: str, caplog: pytest.LogCaptureFixture) -> None:
    rows: list[Row] = [{"text": "a", "second": "b", "label": 0}, {"text": "a", "second": "b", "label": 1, column: " "}]
    with pytest.raises(DataError, match=f"row 1, column '{column}' has no text"):
        encode(SequenceClassification(pair_column="second"), rows)
    with caplog.at_level(logging.WARNING):
        kept = encode(SequenceClassification(pair_column="second", empty="skip"), rows)
    assert [e["row"] for e in kept] == [0]
    assert "1 rows without text were skipped" in caplog.text


def test_a_text_of_no_tokens(caplog: pytest.LogCaptureFixture) -> None:
    from tokenizers import normalizers

    tokenizer = byte_tokenizer(pairs=True)
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("~", "")
    rows = [(0, {"text": "one", "label": 0}), (1, {"text": "~", "label": 1})]
    with pytest.raises(DataError, match="row 1, column 'text' has text of which the tokenizer makes no token"):
        list(SequenceClassification(labels=["a", "b"]).encode(rows, tokenizer, 64, True))
    with caplog.at_level(logging.WARNING):
        assert len(list(SequenceClassification(labels=["a", "b"], empty="skip").encode(rows, tokenizer, 64, True))) == 1
    assert "1 rows whose text has no token were skipped" in caplog.text


@pytest.mark.parametrize(
    ("task", "row", "said"),
    [
        (
            SequenceClassification(labels=["low", "mid", "high"]),
            {"text": "a", "label": "hihg"},
            "row 1 has the label 'hihg', which is not in the set of 3; did you",
        ),
        (
            SequenceClassification(labels=["low", "mid", "high"]),
            {"text": "a", "label": 3},
            "row 1 has the label '3', which is not in the set of 3",
        ),
        (SequenceClassification(labels=["low", "mid", "high"]), {"text": "a", "label": None}, "row 1, column 'label' is empty"),
        (SequenceClassification(labels=["low", "mid", "high"]), {"text": "a"}, "row 1 has no column 'label'"),
        (SequenceClassification(), {"text": "a", "label": 3}, "row 1 has the label 3 while others, from row 0, are names"),
        (SequenceClassification(), {"text": "a", "label": True}, "row 1 has the label True while others, from row 0, are names; use"),
        (
            SequenceClassification(labels=["low", "mid", "high"]),
            {"text": "a", "label": 2},
            "row 1 has the label 2 while others, from row 0, are names; use one kind of label.",
        ),
        (SequenceClassification(kind="multi"), {"text": "a", "label": "low"}, "row 0, column 'label' holds 'low'; kind multi takes a list"),
        (SequenceClassification(kind="regression"), {"text": "a", "label": "x"}, "row 0, column 'label' holds 'low', not a finite number"),
    ],
)
def test_labels_that_cannot_be_used(task: SequenceClassification, row: Row, said: str) -> None:
    with pytest.raises(DataError) as caught:
        encode(task, [SINGLE[0], row])
    assert said in str(caught.value)


def test_a_label_column_that_is_no_flag() -> None:
    with pytest.raises(DataError, match="row 1, column 'b' holds 2; with a list of label columns each is 0 or 1"):
        encode(
            SequenceClassification(kind="multi", label_column=["a", "b"]), [{"text": "x", "a": 0, "b": 1}, {"text": "x", "a": 0, "b": 2}]
        )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"label_column": ["a", "b"]}, "label_column is a list while kind is single"),
        ({"label_column": [], "kind": "multi"}, "name each label column once"),
        ({"label_column": ["a", "a"], "kind": "regression"}, "name each label column once"),
        ({"label_column": ["a"], "kind": "multi"}, "name at least two"),
        ({"labels": ["a"]}, "name at least two labels"),
        ({"labels": ["a", "b", "a"]}, "name each label once"),
        ({"labels": ["a"], "kind": "multi"}, "name at least two labels"),
        ({"labels": ["a", "b"], "kind": "regression"}, "labels has 2 names for 1 label columns"),
        ({"labels": ["a", "b", "c"], "kind": "multi", "label_column": ["x", "y"]}, "labels has 3 names for 2 label columns"),
    ],
)
def test_fields_that_contradict_each_other(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SequenceClassification(**fields)
    assert said in str(caught.value)


def test_columns_that_are_asked_for() -> None:
    task = SequenceClassification(pair_column="b", label_column=["x", "y"], kind="regression")
    assert task.columns(labelled=True) == ("text", "b", "x", "y")
    assert task.columns(labelled=False) == ("text", "b")


def test_given_labels_need_no_rows() -> None:
    task = SequenceClassification(labels=["a", "b"])

    def rows() -> list[tuple[int, Row]]:
        raise AssertionError

    assert task.bind(rows) is task
