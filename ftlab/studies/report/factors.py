"""Main effects, interactions and knock-out contributions as plain values for charts."""

from __future__ import annotations

from typing import Any

from ftlab.studies.comparisons import Comparison, holm
from ftlab.studies.contributions import Contribution
from ftlab.studies.effects import FactorEffect, Interaction, LevelMean, interactions, main_effects
from ftlab.studies.intervals import ALPHA
from ftlab.studies.report.digest import Digest
from ftlab.studies.report.numbers import number, probability

Plain = dict[str, Any]


def factors(digest: Digest) -> tuple[list[Plain], list[Plain]]:
    """Main effects and interactions, one entry each, their p values corrected together; none compares scores of two data sets."""
    apart = set(digest.over_data)
    mains = [found for found in main_effects(digest.records, digest.interval) if found.factor not in apart]
    pairs = [found for found in interactions(digest.records, digest.interval) if apart.isdisjoint(found.factors)]
    every: list[FactorEffect | Interaction] = [*mains, *pairs]
    p_values = holm([found.anova.p if found.anova else None for found in every])
    sentences = [_sentence(digest, found, p) for found, p in zip(every, p_values, strict=True)]
    first = [_main(found, text) for found, text in zip(mains, sentences[: len(mains)], strict=True)]
    return first, [_pair(found, text) for found, text in zip(pairs, sentences[len(mains) :], strict=True)]


def _sentence(digest: Digest, found: FactorEffect | Interaction, p: float | None) -> str:
    if isinstance(found, Interaction):
        subject, effect = " × ".join(found.factors), "interaction"
    else:
        subject, effect = found.factor, f"effect on {digest.metric}"
    if found.anova is None or p is None:
        return " ".join([f"{subject}: {effect} not tested.", *found.notes])
    test = f"F({found.anova.between:g}, {found.anova.within:g}) = {number(found.anova.f)}, p = {probability(p)} by Holm over all effects"
    said = "no significant" if p > ALPHA else "a significant"
    return " ".join([f"{subject}: {said} {effect} ({test}, {len(found.seeds)} seeds).".replace("= <", "<"), *found.notes])


def _main(found: FactorEffect, text: str) -> Plain:
    return {"factor": found.factor, "text": text, "levels": [{"name": level.levels[0], **_mean(level)} for level in found.levels]}


def _pair(found: Interaction, text: str) -> Plain:
    columns, rows = ([*dict.fromkeys(cell.levels[place] for cell in found.cells)] for place in (0, 1))
    cells = [{"column": cell.levels[0], "row": cell.levels[1], **_mean(cell)} for cell in found.cells]
    return {"first": found.factors[0], "second": found.factors[1], "columns": columns, "rows": rows, "cells": cells, "text": text}


def _mean(level: LevelMean) -> Plain:
    interval = level.interval
    return {"mean": level.mean, "low": interval.low if interval else None, "high": interval.high if interval else None}


def parts(digest: Digest) -> list[Plain]:
    """One entry per part of a knock-out: what it adds to the others, and how it does alone."""
    return [_entry(digest, each) for each in digest.contributions]


def _entry(digest: Digest, found: Contribution) -> Plain:
    rows = [("added to the others", found.to_whole)]
    rows += [("alone, against the whole", found.by_itself)] if found.by_itself is not None else []
    sentences = [f"{found.part}, {how}: {comparison.text()}" for how, comparison in rows]
    return {"part": found.part, "rows": [_gain(digest, *row) for row in rows], "text": " ".join(sentences)}


def _gain(digest: Digest, how: str, found: Comparison) -> Plain:
    """A difference with the sign that makes more of it better."""
    sign = -1.0 if digest.direction == "minimize" else 1.0
    ends = sorted((sign * found.interval.low, sign * found.interval.high)) if found.interval else (None, None)
    mean = None if found.difference is None else sign * found.difference
    return {"name": how, "mean": mean, "low": ends[0], "high": ends[1], "note": found.verdict}
