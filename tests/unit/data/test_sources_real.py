"""The sources on real files, where they are at hand."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from ftlab.data.sources.csv_file import Csv
from ftlab.data.sources.json_lines import JsonLines
from ftlab.data.sources.labelled_files import LabelledFiles
from ftlab.data.sources.parquet import Parquet
from ftlab.data.sources.text_file import TextFile
from ftlab.errors import DataError

DATA = Path(os.environ.get("FTLAB_DATA", "../shared/data"))
STS_COLUMNS = ["genre", "file", "year", "id", "score", "sentence1", "sentence2"]

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}; set FTLAB_DATA to its folder")


def test_json_lines_and_parquet_hold_the_same_chats() -> None:
    lines = JsonLines(path=str(DATA / "guanaco-llama2-1k" / "guanaco-llama2-1k.jsonl"))
    table = Parquet(path=str(DATA / "guanaco-llama2-1k" / "guanaco-llama2-1k.parquet"))
    found = list(lines.rows("train"))
    assert len(found) == 1000
    assert found == list(table.rows("train"))


def test_sentence_polarity_has_as_many_lines_of_either_label() -> None:
    folder = DATA / "sentence-polarity"
    source = LabelledFiles(path={"neg": str(folder / "rt-polarity.neg"), "pos": str(folder / "rt-polarity.pos")})
    assert Counter(row["label"] for row in source.rows("train")) == {"neg": 5331, "pos": 5331}


def test_banking77_has_its_intents() -> None:
    source = Csv(path={split: str(DATA / "banking77" / f"{split}.csv") for split in ("train", "test")})
    counts = {split: len(list(source.rows(split))) for split in source.splits()}
    assert counts == {"train": 10003, "test": 3080}
    assert len({row["category"] for row in source.rows("test")}) == 77


def test_sts_needs_to_be_told_that_it_does_not_quote_and_has_extra_fields() -> None:
    paths = {split: str(DATA / "stsb" / f"sts-{split}.ccbysa.tsv") for split in ("train", "dev", "test")}
    source = Csv(path=paths, columns=STS_COLUMNS, quote=None, extra="drop")
    assert [len(list(source.rows(split))) for split in ("train", "dev", "test")] == [1000, 750, 629]
    assert all(0 <= float(str(row["score"])) <= 5 for row in source.rows("test"))
    with pytest.raises(DataError, match="the record from line 449 is not valid CSV"):
        list(Csv(path=paths, columns=STS_COLUMNS).rows("dev"))
    with pytest.raises(DataError, match=r"has 9 field\(s\) for 7 column"):
        list(Csv(path=paths, columns=STS_COLUMNS, quote=None).rows("test"))


def test_wikitext_and_the_sample_text_have_their_paragraphs() -> None:
    sample = TextFile(path=str(DATA / "bert-sample-text" / "sample_text.txt"), unit="paragraph")
    assert len(list(sample.rows("train"))) == 3
    wiki = TextFile(path=str(DATA / "wikitext-2" / "valid.txt"))
    titles = [row for row in wiki.rows("train") if str(row["text"]).startswith(" = ") and not str(row["text"]).startswith(" = =")]
    assert len(titles) == 60
