"""The two tables of the page: variants and trials."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from ftlab.studies.intervals import CALLED, Kind
from ftlab.studies.records import TrialRecord
from ftlab.studies.report.digest import Digest
from ftlab.studies.report.findings import interval, score
from ftlab.studies.report.markup import Attributes, Markup, block, tag
from ftlab.studies.report.numbers import count, number, seconds, size
from ftlab.studies.report.paper import verdict
from ftlab.studies.report.repeat import Commands, commands
from ftlab.studies.statistics import Summary

_VARIANT_HEADS = (
    ("draw", "Draw", ""),
    ("variant", "Variant", "name"),
    ("mean", "{metric}", "number"),
    ("low", "95 % interval", "number"),
    ("n", "Seeds", "number"),
    ("tuning", "Tuning trials", "number"),
    ("cpu", "CPU time", "number"),
    ("verdict", "Against the best (Holm)", ""),
    ("difference", "Difference", "number"),
    ("effect", "Effect size", "number"),
    ("other", "{other}", "number"),
    ("wall", "Wall time", "number"),
    ("memory", "Peak memory", "number"),
    ("params", "Trainable", "number"),
    ("all", "CPU time, all its trials", "number"),
)
"""Key for sorting, heading, class."""
_TRIAL_HEADS = (
    ("variant", "Variant", "name"),
    ("phase", "Phase", ""),
    ("seed", "Seed", "number"),
    ("state", "State", ""),
    ("value", "{metric}", "number"),
    ("cpu", "CPU time", "number"),
    ("memory", "Peak memory", "number"),
    ("more", "Settings", ""),
)
_UNSORTED = ("draw", "more")


def variants(digest: Digest) -> Markup:
    """One row per variant, the best first."""
    places = {summary.variant: place for place, summary in enumerate(digest.summaries)}
    rows = [_variant(digest, summary, places[summary.variant]) for summary in digest.ranked]
    other: Kind = "bootstrap" if digest.interval == "t" else "t"
    names = {"{metric}": digest.metric, "{other}": f"95 % interval by {CALLED[other]}"}
    return _table("variants", "Variants", _VARIANT_HEADS, rows, names)


def _variant(digest: Digest, s: Summary, place: int) -> Markup:
    against = digest.against_best.get(s.variant)
    other = s.bootstrap if s.shown == "t" else s.t
    levels = " · ".join(f"{factor}: {level}" for factor, level in s.levels.items())
    box = tag("input", {"type": "checkbox", "data-draw": place, "aria-label": f"draw {s.variant} in the charts"})
    cells = [
        _cell(box),
        tag("th", {"scope": "row", "class": "name"}, s.variant, tag("small", None, levels)),
        _cell(score(digest, s), s.mean),
        _cell(interval(digest, s, s.interval), s.interval.low if s.interval else None),
        _cell(f"{s.n} of {s.planned}" if s.n != s.planned else str(s.n), s.n),
        _cell(str(s.tuning_trials), s.tuning_trials),
        _cell(seconds(s.seed_cpu_seconds), s.seed_cpu_seconds),
        tag("td", None, verdict(digest, s)),
        _cell(number(against.difference), against.difference) if against else _cell("–", None),
        _cell(number(against.g_z), against.g_z) if against else _cell("–", None),
        _cell(interval(digest, s, other), other.low if other else None),
        _cell(seconds(s.wall_seconds), s.wall_seconds),
        _cell(size(s.peak_memory), s.peak_memory),
        _cell(count(s.trainable_params), s.trainable_params),
        _cell(seconds(s.total_cpu_seconds), s.total_cpu_seconds),
    ]
    return tag("tr", {"tabindex": -1, "data-variant": place, "class": "best" if digest.is_best(s) else None}, *cells)


def _cell(shown: str, value: float | str | None = "") -> Markup:
    """A cell with what it sorts by: nothing where there is no value."""
    text = value == ""
    return tag("td", {"class": None if text else "number", "data-v": None if text else "" if value is None else value}, shown)


def _table(name: str, label: str, heads: Sequence[tuple[str, str, str]], rows: Sequence[Markup], names: Mapping[str, str]) -> Markup:
    cells = [_heading(name, key, names.get(shown, shown), style) for key, shown, style in heads]
    body = (tag("thead", None, tag("tr", None, *cells)), tag("tbody", None, *rows))
    inner = tag("table", {"id": f"{name}-table", "aria-label": label}, *body)
    return tag("div", {"class": "scroll", "tabindex": 0, "role": "region", "aria-label": f"{label}, scrolls"}, inner)


def _heading(table: str, key: str, title: str, style: str) -> Markup:
    attributes: Attributes = {"scope": "col", "class": style or None}
    if key in _UNSORTED:
        return tag("th", attributes, title)
    button = tag("button", {"type": "button", "id": f"{table}-by-{key}"}, title)
    return tag("th", {**attributes, "data-key": key, "aria-sort": "none"}, button)


def trials(digest: Digest) -> Markup:
    """One row per trial."""
    again = commands(digest)
    rows = [_trial(record, again) for record in digest.records]
    return _table("trials", "All trials", _TRIAL_HEADS, rows, {"{metric}": digest.metric})


def _trial(r: TrialRecord, again: Commands) -> Markup:
    cells = [
        tag("th", {"scope": "row", "class": "name"}, r.variant),
        tag("td", None, r.phase),
        _cell(str(r.seed), r.seed),
        tag("td", {"class": f"state-{r.state}"}, r.state),
        _cell(number(r.value), r.value),
        _cell(seconds(r.cpu_seconds), r.cpu_seconds),
        _cell(size(r.peak_memory), r.peak_memory),
        tag("td", {"class": "wide"}, _more(r, again)),
    ]
    return tag("tr", {"tabindex": -1, "data-state": r.state, "data-phase": r.phase}, *cells)


def _more(r: TrialRecord, again: Commands) -> Markup:
    summary = ", ".join(f"{key.rpartition('.')[2]} {_short(value)}" for key, value in r.tuned.items()) or f"{len(r.settings)} settings"
    settings = "\n".join(f"{key}: {value if isinstance(value, str) else json.dumps(value)}" for key, value in r.settings.items())
    parts = [block(settings)] if settings else []
    parts += [block(again.trial(r.folder))] if r.folder and r.state != "waiting" else []
    parts += [tag("p", None, r.error)] if r.error else []
    return tag("details", None, tag("summary", None, summary), *parts)


def _short(value: object) -> str:
    return number(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
