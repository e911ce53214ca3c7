"""Data that cannot be used: exit code 3, and the row, line or column in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults.conftest import Run

CLASSIFY = ["--model.backbone.name", "ftlab/tiny-bert", "--model.task", "SequenceClassification", "--data.val_split", "null"]


def lines(folder: Path, *rows: dict[str, object]) -> list[str]:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["--data.source", "JsonLines", "--data.source.path", "rows.jsonl"]


def test_a_missing_column(warm: Run, folder: Path) -> None:
    result = warm("fit", "--config", "good.yaml", *lines(folder, {"txt": "a"}, {"txt": "b"}))
    assert (result.code, result.sentence) == (3, "split 'train' has no column 'text', only txt; did you mean txt?")


@pytest.mark.parametrize(
    ("name", "source", "content"), [("a.jsonl", "JsonLines", ""), ("a.csv", "Csv", "text\n"), ("a.txt", "TextFile", "\n \n")]
)
def test_a_file_without_rows(warm: Run, folder: Path, name: str, source: str, content: str) -> None:
    (folder / name).write_text(content)
    result = warm("fit", "--config", "good.yaml", "--data.source", source, "--data.source.path", name)
    assert (result.code, result.sentence) == (3, f"{name} has no rows; name data with at least one row.")


def test_a_file_that_is_not_there(warm: Run) -> None:
    result = warm("fit", "--config", "good.yaml", "--data.source", "JsonLines", "--data.source.path", "goood.yaml")
    assert (result.code, result.sentence) == (3, "goood.yaml does not exist; did you mean good.yaml?")


def test_a_row_that_is_not_utf_8(warm: Run, folder: Path) -> None:
    (folder / "a.txt").write_bytes(b"first\nsecond\ncaf\xe9\n")
    result = warm("fit", "--config", "good.yaml", "--data.source", "TextFile", "--data.source.path", "a.txt")
    expected = "a.txt: line 3 is not utf-8: byte 0xe9 at offset 16 of the file; mend the line, or set the file's encoding."
    assert (result.code, result.sentence) == (3, expected)


def test_a_label_outside_the_set(warm: Run, folder: Path) -> None:
    rows = lines(folder, {"text": "a", "label": "pos"}, {"text": "b", "label": "neg"}, {"text": "c", "label": "psi"})
    result = warm("fit", "--config", "good.yaml", *CLASSIFY, "--model.task.labels", '["neg", "pos"]', *rows)
    assert (result.code, result.sentence) == (
        3,
        "split 'train': row 2 has the label 'psi', which is not in the set of 2; did you mean pos?",
    )


def test_a_text_of_no_tokens(warm: Run, folder: Path) -> None:
    result = warm("fit", "--config", "good.yaml", *lines(folder, {"text": "a text"}, {"text": "  "}))
    expected = "split 'train': row 1, column 'text' has no text and so no tokens; remove the row or set model.task.empty to skip."
    assert (result.code, result.sentence) == (3, expected)


def test_a_row_longer_than_the_context(warm: Run, folder: Path) -> None:
    rows = lines(folder, {"text": "short", "label": "a"}, {"text": "word " * 600, "label": "b"})
    result = warm("fit", "--config", "good.yaml", *CLASSIFY, *rows)
    assert result.code == 3
    row, _, advice = result.sentence.partition(" tokens, more than the ")
    assert row.startswith("split 'train': row 1 has ")
    assert advice.endswith(" the model and data.max_length allow; set model.task.too_long to truncate, or shorten the row.")


def test_a_split_that_is_not_there(warm: Run, folder: Path) -> None:
    result = warm("fit", "--config", "good.yaml", *lines(folder, {"text": "a"}), "--data.train_split", "trian")
    assert result.code == 2
    assert result.sentence.startswith("data.train_split is 'trian', but the source has train; ")
    assert result.sentence.endswith("did you mean train?")
