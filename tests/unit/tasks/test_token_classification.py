from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import normalizers
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy
from transformers import AutoModelForTokenClassification, AutoTokenizer, CanineTokenizer

import ftlab
from ftlab.batch import Batch
from ftlab.data.datamodule import FinetuneData
from ftlab.data.sources.in_memory import Rows
from ftlab.errors import ConfigError, DataError
from ftlab.rows import Example, Row
from ftlab.tasks.tags import complete
from ftlab.tasks.token_classification import TokenClassification
from ftlab.testing.models import tiny_config
from ftlab.testing.tokenizer import byte_tokenizer
from tests.unit.training import WORDS, tiny_module, trainer

BYTES = byte_tokenizer(pairs=True, segments=True)
TINY_BERT = Path(ftlab.__file__).parent / "assets" / "tiny-bert"
LABELS = complete(["loc", "per"], "bio")
ROW: Row = {"tokens": ["Ada", "met", "Bo", "Li"], "tags": ["B-per", "O", "B-per", "I-per"]}


def sentences(count: int) -> list[Row]:
    """Sentences of 1 to 20 words; every third word begins an entity, of two words at times."""
    made: list[Row] = []
    for i in range(count):
        words = [WORDS[(i * 7 + k) % len(WORDS)] for k in range(1 + i * 5 % 20)]
        tags = ["O"] * len(words)
        for k in range(i % 3, len(words), 3):
            tags[k] = f"B-{'loc' if k % 2 else 'per'}"
            if k + 1 < len(words) and i % 2:
                tags[k + 1] = tags[k].replace("B", "I")
        made.append({"tokens": words, "tags": tags})
    return made


def encode(task: TokenClassification, rows: Sequence[Row], limit: int = 64, tokenizer: Any = BYTES, labelled: bool = True) -> list[Any]:
    bound = task.bind(lambda: list(enumerate(rows)))
    return list(bound.encode(list(enumerate(rows)), tokenizer, limit, labelled))


def collate(task: TokenClassification, examples: Sequence[Example]) -> Batch:
    return task.collate([{n: np.atleast_1d(np.asarray(v, dtype=np.int32)) for n, v in e.items()} for e in examples], BYTES)


def model(task: TokenClassification) -> Any:
    torch.manual_seed(0)
    return AutoModelForTokenClassification.from_config(tiny_config("bert", task.model_options())).eval()


def refused(task: TokenClassification, *rows: Row) -> str:
    with pytest.raises(DataError) as caught:
        encode(task, rows)
    return str(caught.value)


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


def test_labels_come_from_the_training_rows() -> None:
    rows: list[tuple[int, Row]] = [(0, {"tags": ["O", "I-b"]}), (1, {"tags": ["B-a"]})]
    assert TokenClassification().bind(lambda: rows).labels == ["O", "B-a", "I-a", "B-b", "I-b"]
    assert TokenClassification(scheme="none").bind(lambda: rows).labels == ["B-a", "I-b", "O"]
    options = TokenClassification(labels=["O", "B-a", "I-a"]).model_options()
    assert (options["num_labels"], options["id2label"]) == (3, {0: "O", 1: "B-a", 2: "I-a"})


def test_ids_stand_for_labels_that_are_named() -> None:
    (example,) = encode(TokenClassification(labels=LABELS), [{**ROW, "tags": [LABELS.index(str(t)) for t in ROW["tags"]]}])  # type: ignore[attr-defined]
    assert example == encode(TokenClassification(labels=LABELS), [ROW])[0]


def test_a_broken_sequence(caplog: pytest.LogCaptureFixture) -> None:
    broken: Row = {**ROW, "tags": ["O", "O", "I-per", "I-per"]}
    assert refused(TokenClassification(labels=LABELS), ROW, broken).startswith(
        "row 1, word 2 has the tag 'I-per' where BIO would have 'B-per';"
    )
    with caplog.at_level(logging.WARNING):
        _, mended = encode(TokenClassification(labels=LABELS, repair=True), [ROW, broken])
    assert [LABELS[t] for t in mended["tag"] if t != -100] == ["O", "O", "B-per", "I-per"]
    assert "1 rows had broken sequences of tags" in caplog.text


def test_a_repaired_row_is_scored_by_its_repaired_tags() -> None:
    task = TokenClassification(labels=LABELS, repair=True)
    figures = task.score([(0, {"tags": ["B-per", "I-per"]})], [(0, {"tags": ["I-per", "I-per"]})])
    assert (figures["accuracy"], figures["f1"]) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("task", "row", "said"),
    [
        (TokenClassification(labels=LABELS), {**ROW, "tags": ["B-org"] * 4}, "row 1 has the label 'B-org', which is not in the set of 5"),
        (
            TokenClassification(labels=LABELS),
            {**ROW, "tags": ["O"] * 3},
            "row 1 has 4 words in column 'tokens' and 3 tags in column 'tags'",
        ),
        (TokenClassification(labels=LABELS), {**ROW, "tokens": "Ada met"}, "row 1, column 'tokens' holds 'Ada met', not a list"),
        (
            TokenClassification(labels=LABELS),
            {**ROW, "tokens": ["Ada", None, "b", "c"]},
            "row 1, column 'tokens[1]' holds None, not a word",
        ),
        (TokenClassification(labels=LABELS), {**ROW, "tokens": ["Ada", 3, "b", "c"]}, "row 1, column 'tokens[1]' holds int 3, not text"),
        (TokenClassification(labels=LABELS), {"tokens": ["a"]}, "row 1 has no column 'tags'"),
        (TokenClassification(labels=LABELS), {"tokens": [], "tags": []}, "row 1, column 'tokens' has no word; remove the row or set"),
        (
            TokenClassification(),
            {**ROW, "tags": ["per"] * 4},
            "row 1 has the tag 'per', but with scheme bio a tag is O and B-type, I-type;",
        ),
        (TokenClassification(), {**ROW, "tags": [0] * 4}, "row 1 has the tag 0, but with scheme bio"),
        (TokenClassification(scheme="none"), {**ROW, "tags": [0] * 4}, "row 0 has the label 'B-per' while others are whole numbers"),
    ],
)
def test_rows_that_cannot_be_used(task: TokenClassification, row: Row, said: str) -> None:
    assert said in refused(task, ROW, row)


def test_training_rows_without_an_entity() -> None:
    assert "nothing to learn" in refused(TokenClassification(), {"tokens": ["a"], "tags": ["O"]})


def test_rows_without_words_can_be_skipped(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = encode(TokenClassification(labels=LABELS, empty="skip"), [{"tokens": [], "tags": []}, ROW])
    assert [e["row"] for e in found] == [1]
    assert "1 rows without a word were skipped" in caplog.text


def test_a_word_without_a_piece_is_shown_as_unknown(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = byte_tokenizer(pairs=True)
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("~", "")
    row: Row = {"tokens": ["a", "~", "", "b"], "tags": ["O", "B-per", "B-loc", "O"]}
    with caplog.at_level(logging.WARNING):
        (example,) = encode(TokenClassification(labels=LABELS), [row], tokenizer=tokenizer)
    assert example["input_ids"] == tokenizer("a <unk> <unk> b")["input_ids"]
    assert [LABELS[t] for t in example["tag"] if t != -100] == row["tags"]
    assert "2 words of which the tokenizer makes no piece" in caplog.text
    tokenizer.unk_token = None
    with pytest.raises(DataError, match="row 0, word 1 is '~', of which the tokenizer makes no piece; remove the word"):
        encode(TokenClassification(labels=LABELS), [row], tokenizer=tokenizer)


def test_a_tokenizer_without_offsets() -> None:
    with pytest.raises(ConfigError, match="does not say where in a text its tokens stand; TokenClassification needs"):
        encode(TokenClassification(labels=LABELS), [ROW], tokenizer=CanineTokenizer())


@pytest.mark.parametrize(
    ("limit", "stride", "said"),
    [
        (12, 10, r"model\.task\.stride is 10, but a window has room for 10 pieces"),
        (2, None, r"data\.max_length is 2, and special tokens alone"),
    ],
)
def test_windows_that_do_not_get_on(limit: int, stride: int | None, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        encode(TokenClassification(labels=LABELS, stride=stride), [ROW], limit=limit)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"labels": ["O"]}, "name at least two tags"),
        ({"labels": ["O", "B-a", "B-a"]}, "name at least two tags, each once"),
        ({"labels": ["O", "L-a"]}, "labels has 'L-a', but with scheme bio it is made of O and B-type, I-type"),
        ({"labels": ["B-a", "I-a"]}, "labels lacks O"),
        ({"repair": True, "scheme": "none"}, "repair is true while scheme is none"),
        ({"stride": -1}, "stride is -1; it must be at least 0"),
    ],
)
def test_fields_that_contradict_each_other(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TokenClassification(**fields)
    assert said in str(caught.value)
