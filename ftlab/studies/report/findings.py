"""What was found, in sentences; also what was not."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from ftlab.studies.intervals import Interval
from ftlab.studies.report.digest import FAILED, Digest
from ftlab.studies.report.factors import parts
from ftlab.studies.report.fingerprints import changes
from ftlab.studies.report.numbers import decimals, fixed, probability, seconds
from ftlab.studies.report.rankings import told
from ftlab.studies.statistics import Summary

SHARED = "cache_features: the first run of a kind computes the hidden states for all, so its time and memory are more than the others'."
_APART = "scores on two data sets are not compared; give the data a factor of its own, and zip it with what goes with it."
_NAMED = 6
"""How many variants a sentence names before it counts them."""


def score(digest: Digest, summary: Summary) -> str:
    """Mean ± standard deviation; one seed has no deviation."""
    if summary.mean is None:
        return "–"
    places = _places(digest, summary)
    told = fixed(summary.mean, places)
    return told if summary.sd is None else f"{told} ± {fixed(summary.sd, places)}"


def interval(digest: Digest, summary: Summary, found: Interval | None) -> str:
    """An interval in brackets."""
    places = _places(digest, summary)
    return f"[{fixed(found.low, places)}, {fixed(found.high, places)}]" if found else "none"


def _places(digest: Digest, summary: Summary) -> int:
    """Decimal places for all variants alike: two digits of the middle deviation, or four of a score where none has a deviation."""
    spreads = [s.sd for s in digest.summaries if s.sd]
    return decimals(median(spreads) if spreads else None, summary.mean or 0.0)


def findings(digest: Digest) -> list[str]:
    """The sentences at the head of a report."""
    if all(summary.mean is None for summary in digest.summaries):
        return ["No variant has a score yet." if digest.running else "No variant has a score: no trial ended well."]
    found = [text for name, best in digest.best.items() for text in (_best(digest, name, best), *_compared(digest, best))]
    found += [f"{f'On {name}, no' if name else 'No'} variant is named best: variants differ in their data." for name in digest.mixed]
    ranks = [f"Ranks over {', '.join(digest.data)}. {told(digest)}"] if digest.data else []
    return [*found, *ranks, *digest.over_items, *(entry["text"] for entry in parts(digest)), *_budget(digest)]


def _best(digest: Digest, name: str, best: Summary) -> str:
    many = f"{best.n} seed{'s' * (best.n != 1)}"
    ends = f"95 % interval {interval(digest, best, best.interval)}" if best.interval else "no interval"
    tuned = f"{best.tuning_trials} tuning trials" if best.tuning_trials else "no tuning"
    where, most = f"On {name}, " if name else "", "lowest" if digest.direction == "minimize" else "highest"
    return (
        f"{where}{best.variant} has the {most} mean {digest.metric}: {score(digest, best)} "
        f"({ends}, {many}, {tuned}, {seconds(best.seed_cpu_seconds)} of CPU time a run)."
    )


def _compared(digest: Digest, best: Summary) -> Iterator[str]:
    by_verdict: dict[str, list[str]] = {}
    for variant in (s.variant for s in digest.ranked if s.variant in digest.against_best):
        found = digest.against_best[variant]
        if found.other != best.variant:
            continue
        p = f" (p = {probability(found.p_holm)})".replace("= <", "<") if found.p_holm is not None else ""
        by_verdict.setdefault(found.verdict, []).append(f"{variant}{p}")
    if "not significant" in by_verdict:
        yield f"Not significant: {best.variant} cannot be told from {_names(by_verdict['not significant'])}."
    if "worse" in by_verdict:
        yield f"Significantly worse than {best.variant}: {_names(by_verdict['worse'])}."
    if "not tested" in by_verdict:
        yield f"Not tested against {best.variant}, for want of common seeds or of any noise: {_names(by_verdict['not tested'])}."


def _budget(digest: Digest) -> Iterator[str]:
    trials = {s.tuning_trials for s in digest.summaries}
    if trials == {0}:
        yield "Nothing was tuned: each variant ran with the settings of its configuration, which may suit some better than others."
    elif len(trials) == 1:
        yield f"Every variant had the same tuning budget, {trials.pop()} trials."
    cost = f"All trials took {seconds(digest.cpu_seconds)} of CPU time."
    yield cost if digest.cpu_seconds else "No trial wrote down what it cost."


def warnings(digest: Digest) -> list[str]:
    """What a reader must know before believing a figure."""
    found = []
    if digest.running:
        waiting = sum(r.state in ("waiting", "running") for r in digest.records)
        found.append(f"The study is not finished: {waiting} of {len(digest.records)} trials wait or run. Every figure may still change.")
    notes: dict[str, list[str]] = {}
    for summary in digest.summaries:
        for note in summary.notes:
            notes.setdefault(note, []).append(summary.variant)
    every = len(digest.summaries)
    found += [f"{'All variants' if every > 1 and len(those) == every else _names(those)}: {note}" for note, those in notes.items()]
    for name, keys in digest.mixed.items():
        where = f"On {name}, variants" if name else "Variants"
        found.append(f"{where} differ in {', '.join(keys)}, which no factor sets alone, and {_APART}")
    found += changes([run for run in zip(digest.records, digest.versions, strict=True) if run[0].state not in FAILED])
    if digest.cached:
        found.append(SHARED)
    if digest.failures:
        found.append(f"{len(digest.failures)} of {len(digest.records)} trials did not end well; the reasons stand below.")
    elsewhere = sum(r.state == "complete" and not (digest.folder / r.folder).is_dir() for r in digest.records)
    if elsewhere:
        found.append(f"{elsewhere} run folders are not here but where the runs were made: curves and versions are those of the others.")
    return found


def _names(variants: list[str]) -> str:
    rest = len(variants) - _NAMED
    return ", ".join(variants[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
