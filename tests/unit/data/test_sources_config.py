"""Every built-in source can be built from a configuration, and has help for every field."""

from __future__ import annotations

import dataclasses

import pytest
from jsonargparse import ArgumentError, ArgumentParser

from ftlab.data.sources.base import DataSource
from ftlab.data.sources.csv_file import Csv
from ftlab.data.sources.hub_dataset import HubDataset
from ftlab.data.sources.in_memory import Rows
from ftlab.data.sources.json_lines import JsonLines
from ftlab.data.sources.labelled_files import LabelledFiles
from ftlab.data.sources.parquet import Parquet
from ftlab.data.sources.text_file import TextFile
from ftlab.data.sources.text_folder import TextFolder

SOURCES: list[type[DataSource]] = [Csv, HubDataset, JsonLines, LabelledFiles, Parquet, Rows, TextFile, TextFolder]
ITEMS = [
    {"text": "1", "n": 1, "x": 1.0, "yes": True, "none": None, "tags": ["a", "1"], "scores": [1, 2.5], "odd": "null", "list": "[1]"},
    {"chat": [{"role": "user", "content": "1"}, {"role": "assistant", "content": "true"}]},
    {"answers": {"text": ["Ada", "1"], "answer_start": [0, 7]}},
    {"answers": {"text": [], "answer_start": []}, "texts": {"text": ["Ada", "1"]}},
    {"answers": {"text": "1", "answer_start": 0}},
]


def build(kind: str, /, **fields: object) -> DataSource:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(DataSource, "source")
    parsed = parser.parse_object({"source": {"class_path": kind, "init_args": fields}})
    source = parser.instantiate(parsed).source
    assert isinstance(source, DataSource)
    return source


@pytest.mark.parametrize(
    "expected",
    [
        Csv(path={"train": "a.csv", "test": "b.tsv"}, delimiter="\t", columns=["a", "b"], quote=None, extra="drop", encoding="latin-1"),
        Csv(path="a.csv"),
        HubDataset(path="owner/name", name="one", revision="main"),
        JsonLines(path="a.jsonl"),
        JsonLines(path={"train": "a.jsonl"}, encoding="utf-16"),
        LabelledFiles(path={"neg": "a.txt", "pos": "b.txt"}, unit="paragraph"),
        Parquet(path={"train": "a.parquet", "validation": "b.parquet"}),
        TextFile(path="a.txt", unit="file"),
        TextFolder(path="docs", pattern="*.md"),
    ],
)
def test_a_source_comes_out_of_a_configuration_as_it_went_in(expected: DataSource) -> None:
    fields = {field.name: getattr(expected, field.name) for field in dataclasses.fields(expected)}
    assert build(type(expected).__name__, **fields) == expected


@pytest.mark.parametrize("items", [ITEMS, {"train": ITEMS, "test": ITEMS[:1]}])
def test_rows_keep_the_types_that_yaml_gave_them(items: object) -> None:
    source = build("Rows", items=items)
    # repr, because 1 == 1.0 == True.
    assert isinstance(source, Rows)
    assert repr(source.items) == repr(items)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("TextFile", {"path": "a.txt", "unit": "word"}),
        ("Csv", {"path": "a.csv", "extra": "keep"}),
        ("JsonLines", {"path": ["a.jsonl"]}),
        ("Parquet", {"path": "a.parquet", "encoding": "utf-8"}),
        ("LabelledFiles", {"path": "a.txt"}),
        ("Rows", {"items": [["a"]]}),
    ],
)
def test_what_a_field_does_not_take_is_refused(name: str, fields: dict[str, object]) -> None:
    with pytest.raises(ArgumentError):
        build(name, **fields)


@pytest.mark.parametrize("kind", SOURCES)
def test_every_field_has_a_line_of_help(kind: type[DataSource], capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser()
    parser.add_class_arguments(kind, "source")
    documented = {action.dest: action.help for action in parser._actions}
    for field in dataclasses.fields(kind):
        assert documented[f"source.{field.name}"]
    assert len((kind.__doc__ or "").partition("\n")[0]) > 20
