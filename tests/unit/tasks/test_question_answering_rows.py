"""Rows of question answering that cannot be used, and those that can after all."""

import logging
import math
from typing import Any

import pytest
from tokenizers import normalizers
from transformers import CanineTokenizer

from ftlab.errors import ConfigError, DataError
from ftlab.rows import Row
from ftlab.tasks.answers import trimmed
from ftlab.tasks.question_answering import QuestionAnswering
from ftlab.testing.tokenizer import byte_tokenizer
from tests.unit.tasks.asking import LONG, collate, encode, model, question, refused

GOOD = question("Ada met Bo.", "Bo", number=9)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"answers": {"text": ["Bo"], "answer_start": [7]}},
            "row 1 has the answer 'Bo' at character 7 of column 'context', where it does not",
        ),
        ({"answers": {"text": ["Ada", "Li"], "answer_start": [0, 8]}}, "row 1 has the answer 'Li' at character 8"),
        ({"answers": {"text": ["o."], "answer_start": [-2]}}, "row 1 has the answer 'o.' at character -2"),
        ({"answers": {"text": [""], "answer_start": [3]}}, "row 1 has the answer '' at character 3"),
        ({"answers": {"text": [], "answer_start": []}}, "row 1, column 'answers' has no answer; set model.task.unanswerable to true"),
        (
            {"answers": {"text": ["Bo"], "answer_start": []}},
            "row 1, column 'answers' holds {'text': ['Bo'], 'answer_start': []}; give {text:",
        ),
        (
            {"answers": {"text": ["d"], "answer_start": [True]}},
            "row 1, column 'answers' holds {'text': ['d'], 'answer_start': [True]}; give",
        ),
        ({"answers": ["Bo"]}, "row 1, column 'answers' holds ['Bo']; give {text:"),
        ({"answers": {"text": "Bo", "answer_start": 8}}, "row 1, column 'answers' holds"),
        ({"question": " "}, "row 1, column 'question' has no text"),
        ({"context": ""}, "row 1, column 'context' has no text"),
        ({"id": ""}, "row 1, column 'id' is empty; give every question an id"),
        ({"id": 2.5}, "row 1, column 'id' holds float 2.5"),
        ({"id": True}, "row 1, column 'id' holds bool True"),
        ({"question": "why " * 20}, "row 1 has a question of 82 tokens with the special ones, which leaves none of the 64"),
    ],
)
def test_rows_that_cannot_be_used(changes: Row, said: str) -> None:
    assert said in refused(QuestionAnswering(), GOOD, {**GOOD, **changes})


def test_a_row_without_the_column_of_answers() -> None:
    row = {k: v for k, v in GOOD.items() if k != "answers"} | {"answer": 1}
    assert refused(QuestionAnswering(), GOOD, row) == "row 1 has no column 'answers'; did you mean answer?"


def test_two_questions_of_one_id_cannot_be_predicted() -> None:
    assert "rows 0 and 1 both have the id 'q9'" in refused(QuestionAnswering(), GOOD, GOOD, labelled=False)
    assert len(encode(QuestionAnswering(), [GOOD, GOOD])) == 2


def test_answers_that_are_elsewhere_can_be_skipped(caplog: pytest.LogCaptureFixture) -> None:
    task = QuestionAnswering(misplaced="skip")
    with caplog.at_level(logging.WARNING):
        found = encode(task, [{**GOOD, "answers": {"text": ["Bo"], "answer_start": [7]}}, GOOD])
    assert [e["row"] for e in found] == [1]
    assert "1 rows whose answer is not where it should be were skipped" in caplog.text
    figures = task.score([(1, {"text": "bo"})], [(0, GOOD), (1, GOOD)])
    assert figures == {"exact_match": 100.0, "f1": 100.0}


def test_answers_may_be_a_list_of_objects() -> None:
    listed = {**GOOD, "answers": [{"text": "Bo", "answer_start": 8}], "id": 9}
    ours, theirs = encode(QuestionAnswering(), [listed, {**GOOD, "id": "9"}])
    assert {**ours, "row": 1} == theirs


def test_a_context_or_an_answer_without_a_token(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = byte_tokenizer(pairs=True)
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("~", "")
    rows = [question("~~", "~"), question("a ~ b", "a")]
    with pytest.raises(DataError, match="row 0, column 'context' has text of which the tokenizer makes no token"):
        encode(QuestionAnswering(), rows, tokenizer=tokenizer)
    with caplog.at_level(logging.WARNING):
        assert [e["row"] for e in encode(QuestionAnswering(empty="skip"), rows, tokenizer=tokenizer)] == [1]
    assert "1 rows whose context has no token were skipped" in caplog.text
    with pytest.raises(DataError, match="row 0 has the answer '~', of which the tokenizer makes no token"):
        encode(QuestionAnswering(), [question("a ~ b", "~")], tokenizer=tokenizer)


def test_white_space_is_no_part_of_a_span() -> None:
    """Tokens of a space stand before words, and no span begins or ends with one."""
    task = QuestionAnswering(n_best=1000)
    (example,) = encode(task, [question("  Ada  met ", "Ada")])
    merged: Any = task.merge(task.predict(model(), collate(task, [example])))
    assert {s["text"] for s in merged["n_best"]} == {"Ada  met"[i:j] for i in range(8) for j in range(i + 1, 9)} - {
        t for i in range(8) for j in range(i + 1, 9) if (t := "Ada  met"[i:j]) != t.strip()
    }


def test_offsets_without_white_space() -> None:
    assert trimmed([(0, 3), (3, 6), (6, 8), (8, 8)], " ab c d  ") == [(1, 3), (4, 5), (6, 7), (8, 8)]


def test_a_tokenizer_without_offsets() -> None:
    with pytest.raises(ConfigError, match="does not say where in a text its tokens stand; QuestionAnswering needs"):
        encode(QuestionAnswering(), [GOOD], tokenizer=CanineTokenizer())


def test_windows_that_do_not_get_on() -> None:
    with pytest.raises(ConfigError, match=r"model\.task\.stride is 40, but a window has room for 33 pieces"):
        encode(QuestionAnswering(stride=40), [question(LONG, "fox")], limit=40)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"n_best": 0}, "n_best is 0; it must be at least 1"),
        ({"max_answer_tokens": 0}, "max_answer_tokens is 0"),
        ({"stride": -1}, "stride is -1; it must be at least 0"),
        ({"null_threshold": 2.0}, "null_threshold is 2 while unanswerable is false"),
        ({"null_threshold": math.nan, "unanswerable": True}, "null_threshold is nan; it must be a finite number"),
        ({"null_threshold": -math.inf, "unanswerable": True}, "null_threshold is -inf; it must be a finite number"),
    ],
)
def test_fields_that_contradict_each_other(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        QuestionAnswering(**fields)
    assert said in str(caught.value)
