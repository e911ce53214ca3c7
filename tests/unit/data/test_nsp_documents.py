"""Documents with marked sentences: BERT's own format and WikiText's articles."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftlab.data.sources.documents import Documents
from ftlab.errors import DataError


def read(tmp_path: Path, text: str, **fields: str) -> list[list[str]]:
    file = tmp_path / "d.txt"
    file.write_text(text, encoding="utf-8", newline="")
    source = Documents(path=str(file), **fields)  # type: ignore[arg-type]
    return [str(row["text"]).split("\n") for row in source.rows("train")]


def test_a_sentence_a_line_and_a_blank_line_between_documents(tmp_path: Path) -> None:
    assert read(tmp_path, "One.\nTwo.\n\n \nThree.\r\nFour.") == [["One.", "Two."], ["Three.", "Four."]]


def test_articles_of_wikitext(tmp_path: Path) -> None:
    text = (
        " \n = First = \n \n It is one . It is 2 . 5 m ? Yes ! \n \n = = Section = = \n \n And more . \n = 1 + 1 = \n \n"
        " = Second title = \n \n The end . \n"
    )
    assert read(tmp_path, text, layout="wikitext") == [
        ["= First =", "It is one .", "It is 2 .", "5 m ?", "Yes !", "= = Section = =", "And more .", "= 1 + 1 ="],
        ["= Second title =", "The end ."],
    ]


def test_a_file_without_a_document(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no rows"):
        read(tmp_path, "\n \n", layout="wikitext")


def test_the_layout_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    file = tmp_path / "d.txt"
    file.write_text("One.\n\nTwo.\n")
    first, second = (Documents(path=str(file), layout=layout).fingerprint("train") for layout in ("sentences", "wikitext"))
    assert first != second


def test_the_shipped_texts(data_folder: Path) -> None:
    """Counted by hand: WikiText-2 has 60 titles between blank lines in either file, BERT's sample three documents."""
    wikitext = {name: str(data_folder / "wikitext-2" / f"{name}.txt") for name in ("valid", "test")}
    source = Documents(path=wikitext, layout="wikitext")
    assert [sum(1 for _ in source.rows(split)) for split in source.splits()] == [60, 60]
    sample = Documents(path=str(data_folder / "bert-sample-text" / "sample_text.txt"))
    assert [str(row["text"]).count("\n") + 1 for row in sample.rows("train")] == [3, 13, 15]
