"""Labels and rows of token classification, and the fields that decide which can be used."""

import logging
from typing import Any

import pytest
from tokenizers import normalizers
from transformers import CanineTokenizer

from ftlab.errors import ConfigError, DataError
from ftlab.rows import Row
from ftlab.tasks.token_classification import TokenClassification
from ftlab.testing.tokenizer import byte_tokenizer
from tests.unit.tasks.tagging import LABELS, ROW, TAGS, encode, refused


def test_labels_come_from_the_training_rows() -> None:
    rows: list[tuple[int, Row]] = [(0, {"tags": ["O", "I-b"]}), (1, {"tags": ["B-a"]})]
    assert TokenClassification().bind(lambda: rows).labels == ["O", "B-a", "I-a", "B-b", "I-b"]
    assert TokenClassification(scheme="none").bind(lambda: rows).labels == ["B-a", "I-b", "O"]
    options = TokenClassification(labels=["O", "B-a", "I-a"]).model_options()
    assert (options["num_labels"], options["id2label"]) == (3, {0: "O", 1: "B-a", 2: "I-a"})


def test_tags_of_two_kinds() -> None:
    with pytest.raises(DataError, match="row 0 has the label 1 while others, from row 0, are names"):
        encode(TokenClassification(labels=LABELS), [{**ROW, "tags": ["O", 1, "O", "O"]}])


def test_ids_stand_for_labels_that_are_named() -> None:
    (example,) = encode(TokenClassification(labels=LABELS), [{**ROW, "tags": [LABELS.index(tag) for tag in TAGS]}])
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
        (TokenClassification(scheme="none"), {**ROW, "tags": [0] * 4}, "row 1 has the label 0 while others, from row 0, are names"),
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
