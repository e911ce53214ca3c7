"""A study's folder → its report, written beside what it is made from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast, get_args

from ftlab import strict_yaml
from ftlab.errors import ConfigError, suggest
from ftlab.run_folder import write_text
from ftlab.studies.intervals import Kind, check_seeds
from ftlab.studies.parsing import seeds_of
from ftlab.studies.reading import read_records
from ftlab.studies.report import figures
from ftlab.studies.report.digest import Digest
from ftlab.studies.report.page import page
from ftlab.studies.report.paper import latex_table, markdown_table
from ftlab.studies.report.repeat import STUDY
from ftlab.studies.report.tables import csv_text, write_parquet
from ftlab.studies.report.testitems import Column
from ftlab.studies.spec import StudySpec
from ftlab.studies.statistics import Direction
from ftlab.studies.words import RESULTS

PAGE = "report.html"


def opened(folder: Path, storage: str | None, column: Column | None = None, interval: Kind | None = None) -> Digest:
    """Read a study.

    The study file is not parsed as a study: a report needs neither its plugins nor its base to be there still.

    Args:
        folder: The study's.
        storage: URL of its storage; None for the file in its folder.
        column: What is compared over test items.
        interval: Which interval of a mean is shown first; None is t, also where there is one seed and so no interval.

    Raises:
        ConfigError: The folder or the storage holds no study, or the study has fewer seeds than the interval needs.
        StorageError: The storage cannot be reached.
    """
    if not (folder / STUDY).is_file():
        raise ConfigError(f"{folder} has no {STUDY}, so it is no study's folder; name one below `studies`, as `ftlab ablate` leaves it.")
    document = strict_yaml.read(folder / STUDY)
    name = _text(folder, document, "name", "")
    metric = _text(folder, document, "metric", StudySpec.metric)
    direction = _text(folder, document, "direction", StudySpec.direction)
    if direction not in get_args(Direction):
        raise ConfigError(f"direction in {folder / STUDY} is '{direction}'; {suggest(direction, get_args(Direction))}")
    if interval is not None:
        check_seeds(interval, len(seeds_of(document)))
    records = tuple(read_records(storage, name, folder))
    cached = document.get("cache_features") is True
    return Digest(name, metric, cast(Direction, direction), folder, records, column, interval or "t", cached)


def _text(folder: Path, document: dict[str, object], key: str, default: str) -> str:
    value = document.get(key, default)
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{key} in {folder / STUDY} is {value!r}; it must be a text, as `ftlab ablate` wrote it.")
    return value


def write(digest: Digest, wanted: Sequence[str] = (), refresh: int = 0) -> list[Path]:
    """Write tables, page and figures.

    Args:
        digest: The study.
        wanted: Formats of static figures.
        refresh: Seconds after which the page reads itself again.

    Returns:
        The files.

    Raises:
        StorageError: The folder cannot be written.
    """
    texts = {
        RESULTS: csv_text(digest.records),
        "results.md": markdown_table(digest),
        "results.tex": latex_table(digest),
        PAGE: page(digest, refresh),
    }
    for name, content in texts.items():
        write_text(digest.folder / name, content)
    write_parquet(digest.records, digest.folder / "results.parquet")
    return [*(digest.folder / name for name in texts), digest.folder / "results.parquet", *figures.write(digest, wanted)]
