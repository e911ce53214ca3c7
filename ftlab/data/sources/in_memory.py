"""Rows written in the configuration itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from ftlab.data.sources.base import DataSource, Sample
from ftlab.data.sources.files import no_rows, refuse_bad_text, unknown_split
from ftlab.rows import Row

Scalar: TypeAlias = str | bool | int | float | None
Value: TypeAlias = Scalar | list[str] | list[Scalar] | list[dict[str, Scalar]] | dict[str, Scalar | list[Scalar]]
"""A value of one column; lists are token tags or scores, lists of objects are the turns of a chat, an object of lists is the answers to a
question. One that lists nothing comes this far too, so that the task names the row that is wrong."""


@dataclass(frozen=True, kw_only=True)
class Rows(DataSource):
    """Rows that stand in the configuration or are passed from Python, for small examples and tests.

    Args:
        items: The rows, column → value, which become the split `train`, or the rows of every split.
    """

    sample = Sample(arguments={"items": {"train": [{"text": "one"}, {"text": "two"}, {"text": "three"}], "validation": [{"text": "four"}]}})

    items: list[dict[str, Value]] | dict[str, list[dict[str, Value]]]

    def splits(self) -> tuple[str, ...]:
        """The names under which `items` lists rows."""
        return tuple(self._splits())

    def rows(self, split: str) -> Iterator[Row]:
        """The rows of a split, as they were written."""
        if split not in self._splits():
            raise unknown_split("items", split, self._splits())
        if not self._splits()[split]:
            raise no_rows(f"items, split '{split}',")
        for number, row in enumerate(self._splits()[split], 1):
            refuse_bad_text(row, f"items, split '{split}': row {number}")
            yield row

    def _splits(self) -> dict[str, list[dict[str, Value]]]:
        return {"train": self.items} if isinstance(self.items, list) else self.items
