"""Files with one JSON object per line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from ftlab.data.sources.base import Sample
from ftlab.data.sources.file_source import FileSource
from ftlab.data.sources.files import refuse_bad_text
from ftlab.data.sources.lines import check_encoding, lines
from ftlab.errors import DataError
from ftlab.rows import Row

_KINDS = {list: "an array", str: "a string", int: "a number", float: "a number", bool: "true or false", type(None): "null"}


@dataclass(frozen=True, kw_only=True)
class JsonLines(FileSource):
    """Rows from JSON lines: each line of the file is one object, column → value.

    Args:
        path: The file, which becomes the split `train`, or a file for every split.
        encoding: Text encoding of the files.
    """

    sample = Sample(
        files={"train.jsonl": '{"text": "one"}\n{"text": "two"}\n{"text": "three"}\n', "held.jsonl": '{"text": "four"}\n'},
        arguments={"path": {"train": "train.jsonl", "validation": "held.jsonl"}},
    )

    path: str | dict[str, str]
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_encoding(self.encoding)

    def read(self, path: str) -> Iterator[Row]:
        """The objects of one file; blank lines are not rows."""
        for number, line in enumerate(lines(path, self.encoding), 1):
            if not line.isspace():
                yield _row(line, f"{path}: line {number}")


def _row(line: str, where: str) -> Row:
    try:
        # Without its end, because the place of an unfinished object would be the column after that.
        value = json.loads(line.rstrip("\r\n"))
    except json.JSONDecodeError as error:
        raise DataError(f"{where}, column {error.colno} is not JSON ({error.msg}); write one whole object on each line.") from error
    # Python limits the digits of a number and the depth of lists.
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON that can be read ({error}); write one whole object on each line.") from error
    if not isinstance(value, dict):
        raise DataError(f'{where} is {_KINDS[type(value)]}, not an object; write each row as {{"column": value}}.')
    # Decoded text can hold these only where it was escaped.
    if "\\u" in line:
        refuse_bad_text(value, where)
    return value
