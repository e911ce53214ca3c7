"""Rows that are too short or too long to use: named, or counted under an option."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Literal

from ftlab.errors import DataError

log = logging.getLogger(__name__)


@dataclass
class Tally:
    """Judges the lengths of a split's rows and counts those that options let pass.

    Args:
        empty: What to do with a row of no tokens.
        too_long: What to do with a row of too many.
        limit: The most tokens a text may have.
    """

    empty: Literal["error", "skip"]
    too_long: Literal["error", "truncate"]
    limit: int
    blank: set[int] = field(default_factory=set)
    cut: set[int] = field(default_factory=set)

    def refuse_blank(self, number: int, column: str) -> None:
        """Count a row of no tokens, or stop.

        Raises:
            DataError: Where such rows are not skipped.
        """
        if self.empty == "error":
            raise DataError(
                f"row {number}, column '{column}' has text of which the tokenizer makes no token; "
                "remove the row or set model.task.empty to skip."
            )
        self.blank.add(number)

    def refuse_long(self, number: int, length: int) -> None:
        """Count a row that has to be cut, or stop.

        Raises:
            DataError: Where such rows are not cut.
        """
        if self.too_long == "error":
            raise DataError(
                f"row {number} has {length} tokens, more than the {self.limit} the model and data.max_length allow; "
                "set model.task.too_long to truncate, or shorten the row."
            )
        self.cut.add(number)

    def report(self) -> None:
        """Log what was counted."""
        if self.blank:
            log.warning("%d rows whose text has no token were skipped (model.task.empty: skip)", len(self.blank))
        if self.cut:
            log.warning("%d rows were cut to %d tokens (model.task.too_long: truncate)", len(self.cut), self.limit)
