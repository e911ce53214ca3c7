"""JSON lines and CSV: rows, and the sentence for every way in which a line can be wrong."""

from __future__ import annotations

import pytest

from ftlab.data.sources.csv_file import Csv
from ftlab.data.sources.json_lines import JsonLines
from ftlab.errors import ConfigError, DataError
from tests.unit.data.reading import rows, sentence, write

pytestmark = pytest.mark.usefixtures("inside")

# JSON lines.


def test_json_lines_keep_values_and_order() -> None:
    write("a.jsonl", '{"b": 1, "a": [1, {"c": null}]}\r\n\n  \n{"a": "\u2028é\\n"}')
    assert rows(JsonLines(path="a.jsonl")) == [{"b": 1, "a": [1, {"c": None}]}, {"a": "\u2028é\n"}]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"a": 1', "line 3, column 8 is not JSON (Expecting ',' delimiter); write one whole object on each line."),
        ("[", "line 3, column 2 is not JSON (Expecting value); write one whole object on each line."),
        ('{"a": 1} {}', "line 3, column 10 is not JSON (Extra data); write one whole object on each line."),
        ("[1]", 'line 3 is an array, not an object; write each row as {"column": value}.'),
        ('"a"', 'line 3 is a string, not an object; write each row as {"column": value}.'),
        ("1.5", 'line 3 is a number, not an object; write each row as {"column": value}.'),
        ("true", 'line 3 is true or false, not an object; write each row as {"column": value}.'),
        ("null", 'line 3 is null, not an object; write each row as {"column": value}.'),
        (r'{"a": [{"b": "\ud800"}]}', "line 3: column 'a' holds half of a surrogate pair, which is not text; mend or remove the row."),
        (r'{"a": {"\udfff": 1}}', "line 3: column 'a' holds half of a surrogate pair, which is not text; mend or remove the row."),
        (r'{"a": "\u0000"}', "line 3: column 'a' holds a NUL character, which is not text; mend or remove the row."),
    ],
)
def test_a_bad_json_line_is_named(line: str, expected: str) -> None:
    write("a.jsonl", '{"a": 1}\n\n' + line + "\n{}\n")
    assert sentence(JsonLines(path="a.jsonl")) == f"a.jsonl: {expected}"


def test_json_that_python_cannot_hold_is_named() -> None:
    write("a.jsonl", "[" * 200_000 + "\n")
    assert sentence(JsonLines(path="a.jsonl")).startswith("a.jsonl: line 1 is not JSON that can be read (")
    write("a.jsonl", '{"a": ' + "1" * 5000 + "}\n")
    assert sentence(JsonLines(path="a.jsonl")).startswith("a.jsonl: line 1 is not JSON that can be read (Exceeds the limit")


def test_whole_surrogate_pairs_and_escaped_backslashes_are_text() -> None:
    assert rows(JsonLines(path=write("a.jsonl", r'{"a": "\ud83d\ude00 \\u0000"}'))) == [{"a": "😀 \\u0000"}]


# CSV.


def test_csv_and_tsv_are_told_apart_by_their_ending() -> None:
    write("a.csv", 'a,b\r\n"x,\r\n""y""",1\r\n\r\n \nz,\t\r\n')
    assert rows(Csv(path="a.csv")) == [{"a": 'x,\r\n"y"', "b": "1"}, {"a": "z", "b": "\t"}]
    for name in ("a.tsv", "a.TAB"):
        assert rows(Csv(path=write(name, "a\tb\nx,y\t1\n"))) == [{"a": "x,y", "b": "1"}]
    assert rows(Csv(path=write("a.txt", "a;b\n1;2\n"), delimiter=";")) == [{"a": "1", "b": "2"}]
    with pytest.raises(ConfigError) as caught:
        Csv(path="a.txt")
    assert str(caught.value) == "delimiter is null and a.txt ends in none of .csv, .tsv, .tab; set delimiter."


def test_columns_name_a_file_without_a_header() -> None:
    assert rows(Csv(path=write("a.csv", "1,2\n"), columns=["x", "y"])) == [{"x": "1", "y": "2"}]
    for columns in ([], ["x", "x"]):
        with pytest.raises(ConfigError, match="name every column once"):
            Csv(path="a.csv", columns=columns)


@pytest.mark.parametrize("character", ["", "ab", "\n"])
def test_a_delimiter_is_one_character(character: str) -> None:
    with pytest.raises(ConfigError, match=r"delimiter is .* give one character"):
        Csv(path="a.csv", delimiter=character)
    with pytest.raises(ConfigError, match=r"quote is .* give one character"):
        Csv(path="a.csv", quote=character)
    with pytest.raises(ConfigError, match="two different characters"):
        Csv(path="a.csv", delimiter="|", quote="|")


@pytest.mark.parametrize(("line", "count"), [("1", 1), ("1,2,3", 3)])
def test_a_row_with_another_number_of_fields_is_named(line: str, count: int) -> None:
    write("a.csv", f'a,b\n"x\ny",1\n{line}\n')
    assert sentence(Csv(path="a.csv")) == (
        f"a.csv: line 4 has {count} field(s) for 2 column(s) (a, b); mend the line, or quote fields that hold the delimiter."
    )


def test_extra_fields_can_be_dropped_but_missing_ones_cannot() -> None:
    write("a.csv", "1,2,3\n1,2\n1\n")
    source = Csv(path="a.csv", columns=["a", "b"], extra="drop")
    found = source.rows("train")
    assert [next(found), next(found)] == [{"a": "1", "b": "2"}] * 2
    assert sentence(source).startswith("a.csv: line 3 has 1 field(s) for 2 column(s)")


def test_a_header_alone_has_no_rows_and_a_doubled_column_is_refused() -> None:
    assert sentence(Csv(path=write("a.csv", "a,b\n\n"))) == "a.csv has no rows; name data with at least one row."
    assert sentence(Csv(path=write("a.csv", "\na,b,a\n1,2,3\n"))) == "a.csv: line 2 names column 'a' twice; rename one of them."


def test_broken_quotes_are_named_by_the_line_where_the_record_begins() -> None:
    advice = "double the quotes inside it, or set quote to null if the file does not quote."
    write("a.csv", 'a,b\n"x",1\n"y,2\nz,3\n')
    assert sentence(Csv(path="a.csv")) == f"a.csv: the record from line 3 is not valid CSV (unexpected end of data); {advice}"
    write("a.csv", 'a,b\n"x" y,1\n')
    assert sentence(Csv(path="a.csv")) == f"a.csv: the record from line 2 is not valid CSV (',' expected after '\"'); {advice}"
    assert rows(Csv(path="a.csv", quote=None)) == [{"a": '"x" y', "b": "1"}]
    write("a.csv", "a,b\n'x,y',1\n")
    assert rows(Csv(path="a.csv", quote="'")) == [{"a": "x,y", "b": "1"}]


def test_a_long_field_is_no_error() -> None:
    write("a.csv", "a\n" + "x" * 200_000 + "\n")
    assert [len(str(row["a"])) for row in Csv(path="a.csv").rows("train")] == [200_000]


def test_rows_stream() -> None:
    write("a.jsonl", '{"a": 1}\n{"a": 2}\nbroken\n')
    found = JsonLines(path="a.jsonl").rows("train")
    assert [next(found), next(found)] == [{"a": 1}, {"a": 2}]
    with pytest.raises(DataError):
        next(found)
