from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ftlab.data.sources.conll import Conll
from ftlab.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Relative paths make whole sentences comparable.
    monkeypatch.chdir(tmp_path)


def rows(content: str, **fields: Any) -> list[dict[str, object]]:
    Path("a.conll").write_bytes(content.encode())
    return [dict(row) for row in Conll(path="a.conll", **fields).rows("train")]


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\n\t\n  \n"])
@pytest.mark.parametrize("line", ["\n", "\r\n"])
def test_blank_lines_separate_sentences(end: str, line: str) -> None:
    content = ("\nAda B-per\nmet  O\n \t\n\nBo\t\tB-per" + end).replace("\n", line)
    assert rows(content) == [{"tokens": ["Ada", "met"], "tags": ["B-per", "O"]}, {"tokens": ["Bo"], "tags": ["B-per"]}]


def test_the_first_field_is_the_word_and_the_last_its_tag() -> None:
    assert rows("EU NNP I-NP B-ORG\nrejects VBZ O O\n") == [{"tokens": ["EU", "rejects"], "tags": ["B-ORG", "O"]}]


def test_a_line_that_marks_a_document_is_no_word() -> None:
    content = "-DOCSTART- -X- O\n\nEU B-ORG\n-DOCSTART-\nBo B-PER\n"
    assert rows(content) == [{"tokens": ["EU"], "tags": ["B-ORG"]}, {"tokens": ["Bo"], "tags": ["B-PER"]}]


def test_fields_that_are_named() -> None:
    found = rows("EU NNP B-ORG\nis VBZ O\n", columns=["tokens", "pos", "tags"])
    assert found == [{"tokens": ["EU", "is"], "pos": ["NNP", "VBZ"], "tags": ["B-ORG", "O"]}]
    assert rows("EU\nis\n\nso\n", columns=["tokens"]) == [{"tokens": ["EU", "is"]}, {"tokens": ["so"]}]


def test_a_separator_lets_words_hold_spaces() -> None:
    assert rows("New York\tB-loc\n", separator="\t") == [{"tokens": ["New York"], "tags": ["B-loc"]}]
    assert rows("10\u00a0000 O\n") == [{"tokens": ["10\u00a0000"], "tags": ["O"]}]
    assert rows("# O\n") == [{"tokens": ["#"], "tags": ["O"]}]


@pytest.mark.parametrize(
    ("content", "fields", "said"),
    [
        ("EU B-ORG\nrejects\n", {}, "a.conll: line 2 has 1 field(s) for 2 column(s) (tokens, tags); mend the line, or set separator"),
        (
            "EU NNP B-ORG\nis O\n",
            {"columns": ["tokens", "pos", "tags"]},
            "a.conll: line 2 has 2 field(s) for 3 column(s) (tokens, pos, tags)",
        ),
        ("a b O\n", {"columns": ["tokens", "tags"]}, "a.conll: line 1 has 3 field(s) for 2"),
        ("a O\n", {"separator": "\t"}, "a.conll: line 1 has 1 field(s) for 2"),
        ("a O\nb NN O\n", {}, "a.conll: line 2 has 3 field(s), the first word's has 2; mend the line."),
        ("\n-DOCSTART- O\n\n", {}, "a.conll has no rows"),
    ],
)
def test_files_that_cannot_be_used(content: str, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError) as caught:
        rows(content, **fields)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"columns": []}, "columns is []; name every field once"),
        ({"columns": ["tokens", "tokens"]}, "columns is ['tokens', 'tokens']; name every field once"),
        ({"separator": ""}, "separator is ''; give what stands between fields"),
        ({"encoding": "utf-9"}, "encoding is 'utf-9'"),
        ({"path": {}}, "path is {}"),
    ],
)
def test_fields_that_make_no_source(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Conll(**{"path": "a.conll", **fields})
    assert str(caught.value).startswith(said)


def test_how_a_file_is_read_is_in_its_fingerprint() -> None:
    rows("a O\n")
    one, other = (Conll(path="a.conll", columns=columns).fingerprint("train") for columns in (None, ["tokens", "tags"]))
    assert one != other


def test_wnut17_has_its_sentences_and_entities(data_folder: Path) -> None:
    files = {"train": "wnut17train.conll", "validation": "emerging.dev.conll", "test": "emerging.test.annotated"}
    source = Conll(path={split: str(data_folder / "wnut17" / name) for split, name in files.items()}, separator="\t")
    found = {split: list(source.rows(split)) for split in source.splits()}
    assert {split: len(part) for split, part in found.items()} == {"train": 3394, "validation": 1009, "test": 1287}
    tags = Counter(tag[2:] for row in found["test"] for tag in row["tags"] if str(tag).startswith("B-"))  # type: ignore[attr-defined]
    assert tags == {"person": 429, "group": 165, "location": 150, "creative-work": 142, "product": 127, "corporation": 66}
