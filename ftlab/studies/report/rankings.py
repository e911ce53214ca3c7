"""Methods ranked over data sets, where a factor of the study holds data sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ftlab.errors import ConfigError
from ftlab.studies.ranks import Ranking, rank, scores_by
from ftlab.studies.records import TrialRecord
from ftlab.studies.report.digest import Digest
from ftlab.studies.report.markup import Markup, joined, tag
from ftlab.studies.report.numbers import number

_SOURCE = "data.source"


def rankings(digest: Digest) -> list[tuple[str, Ranking | str]]:
    """Factor → ranking, or the sentence that says why there is none.

    Args:
        digest: The study.
    """
    return [(factor, _ranked(digest, factor)) for factor in _of_data(digest)]


def _ranked(digest: Digest, factor: str) -> Ranking | str:
    try:
        return rank(scores_by(digest.records, factor), digest.direction)
    except ConfigError as few:
        return f"No ranking: {few}"


def _of_data(digest: Digest) -> Iterator[str]:
    """The factors that set nothing but the data source, whatever they are called."""
    first: dict[str, TrialRecord] = {}
    for record in digest.records:
        first.setdefault(record.variant, record)
    for factor in dict.fromkeys(f for record in first.values() for f in record.levels):
        differing = set(_differing(list(first.values()), factor))
        if differing and all(key == _SOURCE or key.startswith(f"{_SOURCE}.") for key in differing):
            yield factor


def _differing(records: list[TrialRecord], factor: str) -> Iterator[str]:
    """Keys in which variants differ that differ in this factor only."""
    groups: dict[tuple[tuple[str, str], ...], Mapping[str, object]] = {}
    for record in records:
        if factor not in record.levels:
            continue
        rest = tuple(sorted((f, level) for f, level in record.levels.items() if f != factor))
        mine = {key: value for key, value in record.settings.items() if key not in record.tuned}
        other = groups.setdefault(rest, mine)
        yield from (key for key in {*mine, *other} if mine.get(key) != other.get(key))


def section(digest: Digest) -> Markup:
    """Sentences and mean ranks; empty where no factor holds data sets."""
    return joined(*(_one(factor, found) for factor, found in rankings(digest)))


def _one(factor: str, found: Ranking | str) -> Markup:
    title = tag("h3", None, f"Ranks over {factor}")
    if isinstance(found, str):
        return joined(title, tag("p", None, found))
    told = f"{found.text()} Nemenyi's critical difference is {number(found.critical_difference)}."
    rows = [
        tag("tr", None, tag("th", {"scope": "row"}, name), tag("td", {"class": "number"}, number(r)))
        for name, r in found.mean_ranks.items()
    ]
    heads = tag("tr", None, tag("th", {"scope": "col"}, "Method"), tag("th", {"scope": "col", "class": "number"}, "Mean rank (1 is best)"))
    table = tag("table", {"class": "small"}, tag("thead", None, heads), tag("tbody", None, *rows))
    return joined(title, *(tag("p", None, sentence) for sentence in (told, *found.notes)), table)
