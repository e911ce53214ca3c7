"""What the page's script draws from, as plain values; charts name a variant by its place in the list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftlab.studies.intervals import CALLED
from ftlab.studies.report.curves import Curve
from ftlab.studies.report.digest import COSTS, Digest, Tuning
from ftlab.studies.report.factors import factors, parts
from ftlab.studies.statistics import Summary

_DRAWN = 6
"""Variants that are drawn at first: as many as there are colours."""
_DIGITS = 6

Plain = dict[str, Any]


def payload(digest: Digest) -> Plain:
    """The JSON of a page."""
    places = {summary.variant: place for place, summary in enumerate(digest.summaries)}
    mains, pairs = factors(digest)
    first = [places[s.variant] for s in digest.ranked[:_DRAWN]]
    return {
        "study": {"metric": digest.metric, "direction": digest.direction, "interval": f"95 % interval by {CALLED[digest.interval]}"},
        "variants": [_variant(digest, s, places[s.variant]) for s in digest.summaries],
        "first": first,
        "costs": dict(COSTS),
        "fronts": {cost: [[places[v] for v in front] for front in digest.fronts(cost)] for cost in COSTS},
        "curves": {metric: {places[v]: _curve(c) for v, c in found.items()} for metric, found in digest.curves.items()},
        "tuning": {places[v]: _tuning(t) for v, t in digest.tuning.items()},
        "effects": mains,
        "interactions": pairs,
        "parts": parts(digest),
    }


def _variant(digest: Digest, s: Summary, place: int) -> Plain:
    return {
        "index": place,
        "name": s.variant,
        "mean": s.mean,
        "low": s.interval.low if s.interval else None,
        "high": s.interval.high if s.interval else None,
        "n": s.n,
        "values": [[seed, value] for seed, value in sorted(s.scores.items())],
        "best": digest.is_best(s),
        "costs": {cost: getattr(s, cost) for cost in COSTS},
    }


def _curve(curve: Curve) -> Plain:
    rows: Mapping[str, tuple[float, ...]] = {"steps": curve.steps, "mean": curve.mean, "low": curve.low, "high": curve.high}
    return {**{name: [float(f"{v:.{_DIGITS}g}") for v in row] for name, row in rows.items()}, "seeds": curve.seeds}


def _tuning(tuning: Tuning) -> Plain:
    keys = {key: [[_number(at), value] for at, value in points] for key, points in tuning.keys.items()}
    return {"best": list(tuning.best), "keys": keys}


def _number(value: object) -> float | int | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
