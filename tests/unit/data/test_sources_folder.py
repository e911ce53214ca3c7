"""Folders of text, Parquet files, and rows in the configuration."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from ftlab.data.sources.base import DataSource
from ftlab.data.sources.in_memory import Rows, Value
from ftlab.data.sources.parquet import Parquet
from ftlab.data.sources.text_folder import TextFolder
from ftlab.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, content: bytes) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(content)


def sentence(source: DataSource, split: str = "train") -> str:
    with pytest.raises(DataError) as caught:
        list(source.rows(split))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Folders.


def test_a_folder_without_splits_is_train_sorted_by_path() -> None:
    for name in ("b.txt", "a/z.txt", "a.txt", "c.md"):
        write(f"docs/{name}", f"text of {name}\n".encode())
    write("docs/blank.txt", b" \n")
    source = TextFolder(path="docs")
    assert source.splits() == ("train",)
    assert [row["file"] for row in source.rows("train")] == ["a.txt", "a/z.txt", "b.txt"]
    assert next(source.rows("train")) == {"text": "text of a.txt\n", "file": "a.txt"}
    assert [row["file"] for row in TextFolder(path="docs", pattern="*.md").rows("train")] == ["c.md"]


def test_sub_folders_called_like_splits_are_the_splits() -> None:
    write("docs/test/a.txt", b"a")
    write("docs/validation/a.txt", b"b")
    write("docs/beside.txt", b"c")
    source = TextFolder(path="docs")
    assert source.splits() == ("validation", "test")
    assert list(source.rows("test")) == [{"text": "a", "file": "a.txt"}]
    assert sentence(source) == "docs has no split 'train'; its splits are validation, test."


def test_a_folder_that_gives_nothing_is_named() -> None:
    os.mkdir("docs")
    assert sentence(TextFolder(path="docs")) == "docs with pattern '**/*.txt' has no rows; name data with at least one row."
    write("docs/a.txt", b"\n\n")
    assert sentence(TextFolder(path="docs")).startswith("docs with pattern '**/*.txt' has no rows")
    assert sentence(TextFolder(path="dcos")) == "dcos does not exist; name a folder of text files."
    assert sentence(TextFolder(path="docs/a.txt")) == "docs/a.txt is not a folder; name a folder of text files."


def test_a_file_of_a_folder_that_cannot_be_read_is_named() -> None:
    write("docs/a.txt", b"a\n\xff\n")
    assert sentence(TextFolder(path="docs")).startswith("docs/a.txt: line 2 is not utf-8: byte 0xff at offset 2 ")
    assert list(TextFolder(path="docs", encoding="latin-1").rows("train")) == [{"text": "a\nÿ\n", "file": "a.txt"}]
    os.remove("docs/a.txt")
    os.mkfifo("docs/b.txt")
    assert sentence(TextFolder(path="docs")).startswith("docs/b.txt is a pipe or device")


def test_a_loop_of_links_ends_and_a_folder_is_no_file() -> None:
    write("docs/a.txt", b"a")
    os.mkdir("docs/b.txt")
    os.symlink(".", "docs/loop")
    assert [row["file"] for row in TextFolder(path="docs").rows("train")] == ["a.txt"]


@pytest.mark.parametrize("pattern", ["", "/etc/*", "../*.txt"])
def test_a_pattern_stays_inside_its_folder(pattern: str) -> None:
    with pytest.raises(ConfigError, match="give a folder and a pattern inside it"):
        TextFolder(path="docs", pattern=pattern)
    with pytest.raises(ConfigError, match="no text encoding"):
        TextFolder(path="docs", encoding="hex")


def test_a_folders_fingerprint_follows_names_and_bytes() -> None:
    write("docs/a.txt", b"a")
    write("docs/c.md", b"c")
    source = TextFolder(path="docs")
    prints = [source.fingerprint("train"), TextFolder(path="docs", encoding="latin-1").fingerprint("train")]
    os.utime("docs/a.txt", (1, 1))
    write("docs/d.md", b"not in the pattern")
    os.rename("docs", "moved")
    assert TextFolder(path="moved").fingerprint("train") == prints[0]
    prints.append(TextFolder(path="moved", pattern="**/*.md").fingerprint("train"))
    write("moved/a.txt", b"b")
    prints.append(TextFolder(path="moved").fingerprint("train"))
    os.rename("moved/a.txt", "moved/b.txt")
    prints.append(TextFolder(path="moved").fingerprint("train"))
    assert len(set(prints)) == 5
    with pytest.raises(DataError, match="has no split"):
        TextFolder(path="moved").fingerprint("test")


# Parquet.


def test_parquet_gives_python_values_in_order() -> None:
    count = 3000
    table = pa.table({"n": list(range(count)), "text": [f"é{n}" for n in range(count)], "tags": [["a", None]] * count})
    parquet.write_table(table, "a.parquet", row_group_size=1300)
    found = list(Parquet(path="a.parquet").rows("train"))
    assert found == table.to_pylist()
    assert type(found[0]["n"]) is int


def test_parquet_is_read_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    parquet.write_table(pa.table({"n": list(range(3000))}), "a.parquet")
    sizes: list[int] = []
    original = parquet.ParquetFile.iter_batches

    def counted(self: parquet.ParquetFile, **options: int) -> object:
        for batch in original(self, **options):
            sizes.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", counted)
    rows = Parquet(path="a.parquet").rows("train")
    next(rows)
    assert len(sizes) == 1
    assert sizes[0] <= 1024


def test_bad_parquet_is_named() -> None:
    write("a.parquet", b'{"a": 1}\n' * 10)
    assert sentence(Parquet(path="a.parquet")).startswith("a.parquet is not a Parquet file (Parquet magic bytes not found in footer")
    assert sentence(Parquet(path="a.parquet")).endswith("); write it again, or use the source for its format.")
    write("a.parquet", b"")
    assert sentence(Parquet(path="a.parquet")).startswith("a.parquet is not a Parquet file (")
    assert sentence(Parquet(path="b.parquet")) == "b.parquet does not exist; did you mean a.parquet?"
    parquet.write_table(pa.table({"a": pa.array([], pa.string())}), "a.parquet")
    assert sentence(Parquet(path="a.parquet")) == "a.parquet has no rows; name data with at least one row."


def test_damage_inside_parquet_is_named_by_the_rows_before_it() -> None:
    table = pa.table({"n": list(range(4096))})
    parquet.write_table(table, "a.parquet", row_group_size=2048, compression="gzip", use_dictionary=False)
    second = parquet.ParquetFile("a.parquet").metadata.row_group(1).column(0)
    content = bytearray(Path("a.parquet").read_bytes())
    start = second.data_page_offset
    content[start : start + second.total_compressed_size] = b"\xff" * second.total_compressed_size
    write("a.parquet", bytes(content))
    assert sentence(Parquet(path="a.parquet")).startswith("a.parquet is damaged after row 2048 (")


def test_text_in_parquet_that_is_no_text_is_named_by_row() -> None:
    values = [b"a"] * 1030 + [b"\xff"]
    offsets = pa.array(values, pa.binary()).buffers()
    parquet.write_table(pa.table({"t": pa.StringArray.from_buffers(len(values), offsets[1], offsets[2])}), "a.parquet")
    assert sentence(Parquet(path="a.parquet")) == "a.parquet: row 1031 is not UTF-8 (invalid start byte); mend or remove the row."
    parquet.write_table(pa.table({"t": ["a", "b\0"]}), "a.parquet")
    assert sentence(Parquet(path="a.parquet")) == (
        "a.parquet: row 2: column 't' holds a NUL character, which is not text; mend or remove the row."
    )
    double = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["t", "t"])
    parquet.write_table(double, "a.parquet")
    assert sentence(Parquet(path="a.parquet")) == "a.parquet has column 't' twice; rename one of them."


# Rows.


def test_rows_are_given_as_they_are() -> None:
    items: list[dict[str, Value]] = [{"text": "a", "n": 1, "tags": ["x"]}, {"text": "b", "n": None, "tags": []}]
    assert Rows(items=items).splits() == ("train",)
    assert list(Rows(items=items).rows("train")) == items
    both = Rows(items={"train": [{"a": 1}], "test": [{"a": 2}]})
    assert both.splits() == ("train", "test")
    assert list(both.rows("test")) == [{"a": 2}]
    assert both.fingerprint("train") != both.fingerprint("test")
    assert both.fingerprint("test") == Rows(items=[{"a": 2}]).fingerprint("train")


def test_rows_that_are_none_or_no_text_are_named() -> None:
    assert sentence(Rows(items=[])) == "items, split 'train', has no rows; name data with at least one row."
    bad: list[dict[str, Value]] = [{"a": "x"}, {"a": ["\ud800"]}]
    assert sentence(Rows(items=bad)) == (
        "items, split 'train': row 2: column 'a' holds half of a surrogate pair, which is not text; mend or remove the row."
    )
    assert sentence(Rows(items={"train": []}), "tran") == "items has no split 'tran'; did you mean train? its splits are train."
