"""Files in the format of the Stanford question answering dataset, SQuAD 1.1 or 2.0."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from ftlab.data.sources.base import Sample
from ftlab.data.sources.file_source import FileSource
from ftlab.data.sources.files import refuse_bad_text
from ftlab.data.sources.lines import texts
from ftlab.errors import DataError
from ftlab.rows import Row

_QUESTIONS = [
    {"id": "1", "question": "Who sings?", "answers": [{"text": "Ann", "answer_start": 0}]},
    {"id": "2", "question": "Where?", "answers": [{"text": "Rome", "answer_start": 13}]},
    {"id": "3", "question": "Why?", "is_impossible": True, "answers": []},
]
_ARTICLES = {"version": "2.0", "data": [{"title": "Ann", "paragraphs": [{"context": "Ann sings in Rome.", "qas": _QUESTIONS}]}]}
"""What the class is checked on."""


@dataclass(frozen=True, kw_only=True)
class Squad(FileSource):
    """Questions from SQuAD's JSON, one row each: `id`, `title`, `question`, `context` and `answers` {text: [...], answer_start: [...]}.

    A question without an answer has empty lists; one of a file that keeps its answers back has no column `answers`.

    Args:
        path: The file, which becomes the split `train`, or a file for every split.
    """

    sample = Sample(files={"train.json": json.dumps(_ARTICLES)}, arguments={"path": "train.json"})

    path: str | dict[str, str]

    def read(self, path: str) -> Iterator[Row]:
        """The questions of one file, paragraph by paragraph."""
        numbers = count()
        for article in _items(_document(path), "data", path):
            title = article.get("title", "")
            for paragraph in _items(article, "paragraphs", f"{path}: article {title!r:.60}"):
                for question in _items(paragraph, "qas", f"{path}: a paragraph of article {title!r:.60}"):
                    where = f"{path}: row {next(numbers)}"
                    row = _row(str(title), paragraph, question, where)
                    refuse_bad_text(row, where)
                    yield row


def _document(path: str) -> dict[str, object]:
    text = next(texts(path, "utf-8", "file"), "")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}); name a file in SQuAD's format.") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} is not one object; name a file in SQuAD's format, with a list under 'data'.")
    return value


def _items(holder: dict[str, object], key: str, where: str) -> list[dict[str, object]]:
    items = holder.get(key)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise DataError(
            f"{where} has no list of objects under '{key}'; SQuAD's format is data, paragraphs, qas, so name a file that has it."
        )
    return items


def _row(title: str, paragraph: dict[str, object], question: dict[str, object], where: str) -> Row:
    row: dict[str, object] = {"id": question.get("id"), "title": title}
    row |= {"question": question.get("question"), "context": paragraph.get("context")}
    for name in ("id", "question", "context"):
        if not isinstance(row[name], str):
            raise DataError(f"{where} has {row[name]!r:.60} for '{name}', not text; mend the file.")
    if question.get("is_impossible") is True:
        return row | {"answers": {"text": [], "answer_start": []}}
    if "answers" not in question:
        return row
    answers = _items(question, "answers", where)
    for name, kind, what in (("text", str, "text"), ("answer_start", int, "a whole number")):
        values = [answer.get(name) for answer in answers]
        odd = next((value for value in values if isinstance(value, bool) or not isinstance(value, kind)), row)  # Python's bools are ints
        if odd is not row:
            raise DataError(f"{where} has an answer with {odd!r:.60} for '{name}', not {what}; mend the file.")
    return row | {"answers": {name: [answer[name] for answer in answers] for name in ("text", "answer_start")}}
