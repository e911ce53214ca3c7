"""Scores per row, from the predictions that runs kept."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean

from ftlab.errors import DataError, suggest
from ftlab.studies.records import TrialRecord


def read_items(path: Path, column: str, truth: str | Mapping[int, object] | None = None) -> dict[int, float]:
    """The score of each row of a predictions file; of a row with several predictions, their mean.

    Args:
        path: `predictions.jsonl` or `predictions.parquet` of a run.
        column: Where the score stands, or with `truth` the answer.
        truth: Row → right answer, or the column that holds it; the score is then 1 or 0.

    Raises:
        DataError: The file or a column cannot be read, or a row's truth is not given.
    """
    found: dict[int, list[float]] = {}
    for line in _lines(path):
        row = _field(path, line, "row")
        if not isinstance(row, int):
            raise DataError(f"{path} has row {row!r:.60}, not a number; predict again.")
        value = _field(path, line, column)
        score = _number(path, row, column, value) if truth is None else _right(path, row, value, truth, line)
        if score is not None:
            found.setdefault(row, []).append(score)
    return {row: fmean(values) for row, values in found.items()}


def read_variants(
    records: Iterable[TrialRecord], folder: Path, column: str, truth: str | Mapping[int, object] | None = None
) -> dict[str, dict[int, dict[int, float]]]:
    """Variant → seed → row → score, of the runs that kept predictions.

    Args:
        records: Of one study.
        folder: The study's.
        column: As `read_items` takes it.
        truth: As `read_items` takes it.
    """
    found: dict[str, dict[int, dict[int, float]]] = {}
    for record in records:
        if record.phase != "seeds" or record.state != "complete" or not record.folder:
            continue
        files = [folder / record.folder / f"predictions.{end}" for end in ("jsonl", "parquet")]
        path = next((file for file in files if file.is_file()), None)
        if path is not None:
            found.setdefault(record.variant, {}).setdefault(record.seed, read_items(path, column, truth))
    return found


def _lines(path: Path) -> list[dict[str, object]]:
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            found: list[dict[str, object]] = pq.read_table(path).to_pylist()
            return found
        found = [
            json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line
        ]  # a text may hold what splitlines takes for an end
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as predictions ({error}); predict again.") from error
    if not all(isinstance(line, dict) for line in found):
        raise DataError(f"{path} has a line that is no JSON object; predict again.")
    return found


def _field(path: Path, line: Mapping[str, object], column: str) -> object:
    if column not in line:
        raise DataError(f"{path} has no column '{column}'; {suggest(column, line)}")
    return line[column]


def _number(path: Path, row: int, column: str, value: object) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float):
        raise DataError(
            f"{path}, row {row}: column '{column}' holds {value!r:.60}, not a number; name the column of a score or give truth."
        )
    return float(value) if math.isfinite(value) else None


def _right(path: Path, row: int, value: object, truth: str | Mapping[int, object], line: Mapping[str, object]) -> float | None:
    if isinstance(truth, str):
        right = _field(path, line, truth)
    elif row in truth:
        right = truth[row]
    else:
        raise DataError(f"{path}: truth has no row {row}; give the right answers of the split that was predicted.")
    if right is None:
        return None
    if value is not None and type(value) is not type(right):
        raise DataError(
            f"{path}, row {row}: the answer is {value!r:.60} and the truth is {right!r:.60}, of another type; give it as it is predicted."
        )
    return float(value == right)
