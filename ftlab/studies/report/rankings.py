"""Methods ranked over data sets, where factors of the study hold data sets."""

from __future__ import annotations

from ftlab.studies.report.digest import Digest
from ftlab.studies.report.markup import Markup, joined, tag
from ftlab.studies.report.numbers import number


def told(digest: Digest) -> str:
    """The sentences; empty where no factor holds data sets.

    Args:
        digest: The study.
    """
    found = digest.ranking
    if found is None or isinstance(found, str):
        return found or ""
    return " ".join([found.text(), f"Nemenyi's critical difference is {number(found.critical_difference)}.", *found.notes])


def section(digest: Digest) -> Markup:
    """Sentences and mean ranks; empty where no factor holds data sets."""
    found = digest.ranking
    if found is None:
        return joined()
    parts = [tag("h3", None, f"Ranks over {', '.join(digest.data)}"), tag("p", None, told(digest))]
    if isinstance(found, str):
        return joined(*parts)
    rows = [
        tag("tr", None, tag("th", {"scope": "row"}, name), tag("td", {"class": "number"}, number(r)))
        for name, r in found.mean_ranks.items()
    ]
    heads = tag("tr", None, tag("th", {"scope": "col"}, "Method"), tag("th", {"scope": "col", "class": "number"}, "Mean rank (1 is best)"))
    return joined(*parts, tag("table", {"class": "small"}, tag("thead", None, heads), tag("tbody", None, *rows)))
