"""Text files, what all file sources refuse, and fingerprints."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ftlab.data.sources.base import DataSource
from ftlab.data.sources.csv_file import Csv
from ftlab.data.sources.file_source import FileSource
from ftlab.data.sources.json_lines import JsonLines
from ftlab.data.sources.labelled_files import LabelledFiles
from ftlab.data.sources.parquet import Parquet
from ftlab.data.sources.text_file import TextFile
from ftlab.errors import ConfigError, DataError
from ftlab.rows import Row
from tests.unit.data.reading import rows, sentence, write

pytestmark = pytest.mark.usefixtures("inside")


def texts(source: DataSource) -> list[object]:
    return [row["text"] for row in source.rows("train")]


# Any file.


def test_a_string_is_the_split_train_and_a_mapping_names_its_splits() -> None:
    a, b = write("a.txt", "one\n"), write("b.txt", "two\n")
    assert TextFile(path=a).splits() == ("train",)
    both = TextFile(path={"test": b, "train": a})
    assert both.splits() == ("test", "train")
    assert rows(both, "train") == [{"text": "one"}]
    assert rows(both, "test") == [{"text": "two"}]


@pytest.mark.parametrize("path", ["", {}, {"train": ""}, {"": "a.txt"}])
@pytest.mark.parametrize("kind", [TextFile, JsonLines, Csv, Parquet])
def test_a_path_without_a_file_is_a_config_error(kind: type[TextFile | JsonLines | Csv | Parquet], path: str | dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="give a file, or a file for every split"):
        kind(path=path)


def test_an_unknown_split_names_the_nearest_and_all() -> None:
    source = TextFile(path={"train": "a.txt", "validation": "b.txt"})
    assert sentence(source, "validaton") == (
        "path {'train': 'a.txt', 'validation': 'b.txt'} has no split 'validaton'; "
        "did you mean validation? its splits are train, validation."
    )
    assert sentence(source, "xyz").endswith("has no split 'xyz'; its splits are train, validation.")
    with pytest.raises(DataError, match="its splits are train, validation"):
        source.fingerprint("dev")


def test_a_missing_file_names_its_neighbours() -> None:
    write("train.txt", "a\n")
    assert sentence(TextFile(path="trian.txt")) == "trian.txt does not exist; did you mean train.txt?"
    assert sentence(TextFile(path="no/such.txt")) == "no/such.txt does not exist; check the path and the folder you are in."


def test_what_is_no_regular_file_is_refused_without_waiting() -> None:
    os.mkdir("a.txt")
    os.mkfifo("pipe")
    os.symlink("loop", "loop")
    assert sentence(TextFile(path="a.txt")) == "a.txt is a folder; name one file in it."
    assert sentence(TextFile(path="pipe")) == (
        "pipe is a pipe or device; save its contents to a regular file, which can be read twice, and name that."
    )
    assert sentence(TextFile(path="loop")) == (
        "loop cannot be read (Too many levels of symbolic links); check the path and its permissions."
    )
    with pytest.raises(DataError, match="is a pipe or device"):
        TextFile(path="pipe").fingerprint("train")


@pytest.mark.parametrize(
    "source",
    [
        TextFile(path="x.csv"),
        TextFile(path="x.csv", unit="paragraph"),
        TextFile(path="x.csv", unit="file"),
        JsonLines(path="x.csv"),
        Csv(path="x.csv"),
        Csv(path="x.csv", columns=["a"]),
    ],
)
@pytest.mark.parametrize("content", ["", "\n\r\n \n\t\n", "\ufeff"])
def test_an_empty_or_blank_file_has_no_rows(source: DataSource, content: str) -> None:
    write("x.csv", content)
    assert sentence(source) == "x.csv has no rows; name data with at least one row."


# Decoding.


@pytest.mark.parametrize(
    ("before", "line"), [(b"", 1), (b"a\nb\r\n", 3), (b"a\rb\n\xc3\xa9 ", 3), (b"\xef\xbb\xbfa\n", 2), (b"ab\n" * 700_000, 700_001)]
)
def test_bytes_that_are_not_utf8_are_named_by_line_and_offset(before: bytes, line: int) -> None:
    write("a.txt", before + b"\xff rest\nmore\n")
    assert sentence(TextFile(path="a.txt")) == (
        f"a.txt: line {line} is not utf-8: byte 0xff at offset {len(before)} of the file; mend the line, or set the file's encoding."
    )


def test_a_character_cut_by_a_block_is_whole_or_named_by_its_first_byte() -> None:
    start = b"x" * ((1 << 20) - 2) + b"\n"
    write("a.txt", start + "é".encode() + b"\n")
    assert texts(TextFile(path="a.txt"))[1] == "é"
    write("a.txt", start + b"\xc3\nmore\n")
    assert f"line 2 is not utf-8: byte 0xc3 at offset {len(start)} " in sentence(TextFile(path="a.txt"))
    write("a.txt", start + b"\xc3")
    assert f"line 2 is not utf-8: byte 0xc3 at offset {len(start)} " in sentence(TextFile(path="a.txt"))


def test_lines_before_a_bad_one_come_first() -> None:
    write("a.txt", b"one\ntwo\n\xff\n")
    found = TextFile(path="a.txt").rows("train")
    assert [next(found), next(found)] == [{"text": "one"}, {"text": "two"}]
    with pytest.raises(DataError, match="line 3"):
        next(found)


def test_encodings_are_read_and_bad_ones_refused() -> None:
    write("a.txt", "é“\nb\n".encode("cp1252"))
    assert texts(TextFile(path="a.txt", encoding="cp1252")) == ["é“", "b"]
    write("a.txt", "é\nb\n".encode("utf-16"))
    assert texts(TextFile(path="a.txt", encoding="utf-16")) == ["é", "b"]
    write("a.txt", "ab\n".encode("utf-16-le"))
    assert sentence(TextFile(path="a.txt", encoding="utf-16")).startswith("a.txt: line 1 is not utf-16: byte 0x61 at offset 0 ")
    # A decoder that is halfway between two alphabets when it fails.
    write("a.txt", b'abc\n\x1b$B$"\x80\n')
    assert sentence(TextFile(path="a.txt", encoding="iso2022_jp")).startswith("a.txt: line 2 is not iso2022_jp: byte 0x80 at offset 9 ")
    for name in ("utf-9", "hex", ""):
        for kind in (TextFile, JsonLines, Csv):
            with pytest.raises(ConfigError) as caught:
                kind(path="a.csv", encoding=name)
            assert str(caught.value) == f"encoding is {name!r}, which is no text encoding; use utf-8, utf-16, cp1252 or latin-1."


def test_a_byte_order_mark_is_dropped_once_and_only_at_the_start() -> None:
    write("a.txt", "\ufeffone\n\ufefftwo\n")
    assert texts(TextFile(path="a.txt")) == ["one", "\ufefftwo"]
    write("a.txt", b"x" * ((1 << 20) - 1) + b"\n" + "\ufefftwo".encode())
    assert texts(TextFile(path="a.txt"))[1] == "\ufefftwo"
    assert rows(JsonLines(path=write("a.jsonl", '\ufeff{"a": 1}\n'))) == [{"a": 1}]
    assert rows(Csv(path=write("a.csv", "\ufeffa\n1\n"))) == [{"a": "1"}]


@pytest.mark.parametrize("kind", [TextFile, JsonLines, Csv])
def test_a_nul_is_named_by_line(kind: type[TextFile | JsonLines | Csv]) -> None:
    write("x.csv", '{"a": 1}\n{"a": "\0"}\n')
    assert sentence(kind(path="x.csv")) == (
        "x.csv: line 2 holds a NUL character, which is not text; mend the line, or set the file's encoding."
    )


# Plain text.


def test_lines_keep_what_stands_in_them() -> None:
    write("a.txt", "  one \r\n\n \t\ntwo\u2028still\x85two\rthree\n\nfour")
    assert texts(TextFile(path="a.txt")) == ["  one ", "two\u2028still\x85two", "three", "four"]


def test_a_line_end_cut_by_a_block_is_one_end() -> None:
    write("a.txt", b"x" * ((1 << 20) - 1) + b"\r\n\r\nlast")
    assert [len(str(text)) for text in texts(TextFile(path="a.txt"))] == [(1 << 20) - 1, 4]
    assert texts(TextFile(path="a.txt", unit="file")) == ["x" * ((1 << 20) - 1) + "\n\nlast"]


def test_paragraphs_are_what_blank_lines_separate() -> None:
    write("a.txt", "\n\none\r\ntwo\n \n\nthree\n\n")
    assert texts(TextFile(path="a.txt", unit="paragraph")) == ["one\ntwo", "three"]


def test_a_file_is_one_row_with_its_line_ends_as_newlines() -> None:
    write("a.txt", "one\r\n\r two\n\n")
    assert texts(TextFile(path="a.txt", unit="file")) == ["one\n\n two\n\n"]
    write("a.txt", "one\ntwo")
    assert texts(TextFile(path="a.txt", unit="file")) == ["one\ntwo"]


def test_a_row_of_ten_million_characters_is_one_row() -> None:
    write("a.txt", "a" * 10_000_000 + "\nb\n")
    assert [len(str(text)) for text in texts(TextFile(path="a.txt"))] == [10_000_000, 1]


def test_labelled_files_come_label_by_label() -> None:
    source = LabelledFiles(path={"pos": write("p.txt", "good\n\nfine\n"), "neg": write("n.txt", "bad\n")})
    assert source.splits() == ("train",)
    expected = [{"text": "good", "label": "pos"}, {"text": "fine", "label": "pos"}, {"text": "bad", "label": "neg"}]
    assert rows(source) == expected
    assert rows(LabelledFiles(path={"pos": "p.txt"}, unit="paragraph")) == expected[:2]
    write("n.txt", "\n")
    assert sentence(source) == "n.txt, the file of label 'neg', has no rows; name data with at least one row."
    assert sentence(source, "tain").endswith("has no split 'tain'; did you mean train? its splits are train.")
    with pytest.raises(DataError, match="has no split"):
        source.fingerprint("test")
    for path in ({}, {"pos": ""}, {"": "p.txt"}):
        with pytest.raises(ConfigError, match="give a text file for every label"):
            LabelledFiles(path=path)
    with pytest.raises(ConfigError, match="no text encoding"):
        LabelledFiles(path={"pos": "p.txt"}, encoding="hex")


# Fingerprints.


@pytest.mark.parametrize(
    "changed",
    [
        Csv(path="a.csv", delimiter=";"),
        Csv(path="a.csv", columns=["a", "b"]),
        Csv(path="a.csv", quote=None),
        Csv(path="a.csv", extra="drop"),
        Csv(path="a.csv", encoding="latin-1"),
        TextFile(path="a.csv"),
        TextFile(path="a.csv", unit="file"),
        JsonLines(path="a.csv"),
        LabelledFiles(path={"x": "a.csv"}),
        LabelledFiles(path={"y": "a.csv"}),
        LabelledFiles(path={"x": "a.csv"}, unit="file"),
    ],
)
def test_fingerprints_differ_between_ways_of_reading(changed: DataSource) -> None:
    write("a.csv", "a,b\n1,2\n")
    others: list[DataSource] = [
        Csv(path="a.csv"),
        TextFile(path="a.csv", unit="paragraph"),
        LabelledFiles(path={"z": "a.csv"}),
        LabelledFiles(path={"x": "a.csv"}, unit="paragraph"),
    ]
    prints = [source.fingerprint("train") for source in (changed, *others)]
    assert len(set(prints)) == len(prints)
    assert all(len(value) == 64 for value in prints)


@dataclass(frozen=True, kw_only=True)
class Upper(FileSource):
    """A source of somebody else's, with the fields of JsonLines."""

    encoding: str = "utf-8"

    def read(self, path: str) -> Iterator[Row]:
        yield {"text": Path(path).read_text(self.encoding).upper()}


def test_fingerprints_differ_between_classes_with_the_same_fields() -> None:
    write("a.csv", "{}")
    assert rows(Upper(path="a.csv")) == [{"text": "{}"}]
    assert Upper(path="a.csv").fingerprint("train") != JsonLines(path="a.csv").fingerprint("train")


def test_fingerprints_follow_bytes_and_not_times_or_places() -> None:
    for path in ("a.csv", "sub/b.csv", "a.tsv"):
        write(path, "a,b\n1,2\n")
    one, two = Csv(path="a.csv"), LabelledFiles(path={"x": "a.csv", "y": "sub/b.csv"})
    before = one.fingerprint("train"), two.fingerprint("train")
    assert Csv(path={"dev": "sub/b.csv"}).fingerprint("dev") == before[0]
    # The ending chooses the delimiter.
    assert Csv(path="a.tsv").fingerprint("train") != before[0]
    os.utime("a.csv", (1, 1))
    assert (one.fingerprint("train"), two.fingerprint("train")) == before
    write("a.csv", "a,b\n1,3\n")
    assert one.fingerprint("train") != before[0]
    assert two.fingerprint("train") != before[1]
    assert LabelledFiles(path={"y": "sub/b.csv", "x": "a.csv"}).fingerprint("train") != two.fingerprint("train")
