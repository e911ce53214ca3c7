from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ftlab.data.sources.squad import Squad
from ftlab.errors import DataError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Relative paths make whole sentences comparable.
    monkeypatch.chdir(tmp_path)


def rows(document: Any) -> list[dict[str, object]]:
    Path("a.json").write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return [dict(row) for row in Squad(path="a.json").rows("train")]


def document(*questions: Any, **paragraph: Any) -> dict[str, object]:
    first = {"context": "Zoë met Bo.", "qas": [{"id": "a", "question": "Who met Bo?", "answers": [{"text": "Zoë", "answer_start": 0}]}]}
    return {"version": "v2.0", "data": [{"title": "T", "paragraphs": [first, {"context": "It rains.", "qas": [*questions], **paragraph}]}]}


FIRST = {"id": "a", "title": "T", "question": "Who met Bo?", "context": "Zoë met Bo.", "answers": {"text": ["Zoë"], "answer_start": [0]}}


def test_every_question_is_a_row() -> None:
    answers = [{"text": "rains", "answer_start": 3}, {"text": "It rains", "answer_start": 0}]
    found = rows(document({"id": "b", "question": "What?", "answers": answers, "is_impossible": False}))
    second = {"id": "b", "title": "T", "question": "What?", "context": "It rains."}
    assert found == [FIRST, {**second, "answers": {"text": ["rains", "It rains"], "answer_start": [3, 0]}}]


def test_questions_without_answers() -> None:
    """Those that have none, whose plausible ones are no answers, and those whose answers are kept back."""
    impossible = {
        "id": "b",
        "question": "Why?",
        "answers": [],
        "is_impossible": True,
        "plausible_answers": [{"text": "It", "answer_start": 0}],
    }
    _, without, kept_back = rows(document(impossible, {"id": "c", "question": "Why?"}))
    assert without["answers"] == {"text": [], "answer_start": []}
    assert "answers" not in kept_back


GOOD = {"id": "b", "question": "What?", "answers": []}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "a.json is not JSON (Expecting property name"),
        ("[]", "a.json is not one object; name a file in SQuAD's format, with a list under 'data'"),
        ({"rows": []}, "a.json has no list of objects under 'data'; SQuAD's format is data, paragraphs, qas"),
        ({"data": ["x"]}, "a.json has no list of objects under 'data'"),
        ({"data": [{"title": "T"}]}, "a.json: article 'T' has no list of objects under 'paragraphs'"),
        ({"data": [{"title": "T", "paragraphs": [{}]}]}, "a.json: a paragraph of article 'T' has no list of objects under 'qas'"),
        (document({**GOOD, "id": 3}), "a.json: row 1 has 3 for 'id', not text"),
        (document({**GOOD, "question": None}), "a.json: row 1 has None for 'question', not text"),
        (document(GOOD, context=None), "a.json: row 1 has None for 'context', not text"),
        (document({**GOOD, "answers": "It"}), "a.json: row 1 has no list of objects under 'answers'"),
        (document({**GOOD, "answers": [{"text": 4, "answer_start": 0}]}), "a.json: row 1 has an answer with 4 for 'text', not text"),
        (document({**GOOD, "answers": [{"text": "It"}]}), "a.json: row 1 has an answer with None for 'answer_start', not a whole number"),
        (
            document({**GOOD, "answers": [{"text": "t", "answer_start": True}]}),
            "a.json: row 1 has an answer with True for 'answer_start', not a whole number",
        ),
        (document({**GOOD, "question": "\ud800"}), "a.json: row 1: column 'question' holds half of a surrogate pair"),
        ({"data": []}, "a.json has no rows"),
    ],
)
def test_files_that_cannot_be_used(content: Any, said: str) -> None:
    with pytest.raises(DataError) as caught:
        rows(content)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(DataError, match=r"b\.json does not exist"):
        list(Squad(path="b.json").rows("train"))


def test_the_answers_of_xquad_stand_where_they_say(data_folder: Path) -> None:
    found: list[Any] = list(Squad(path=str(data_folder / "xquad-en" / "xquad.en.json")).rows("train"))
    assert (len(found), len({row["id"] for row in found}), len({row["context"] for row in found})) == (1190, 1190, 240)
    for row in found:
        (text,), (start,) = row["answers"]["text"], row["answers"]["answer_start"]
        assert row["context"][start : start + len(text)] == text
