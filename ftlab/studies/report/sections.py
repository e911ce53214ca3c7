"""The parts of the page that stand there without a script: head, findings, failures, and the frames of the charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ftlab.studies.outcome import said
from ftlab.studies.records import TrialRecord
from ftlab.studies.report.digest import Digest
from ftlab.studies.report.findings import findings, score, warnings
from ftlab.studies.report.markup import Attributes, Markup, block, joined, tag
from ftlab.studies.report.numbers import NONE, seconds


def head(digest: Digest, refresh: int) -> Markup:
    """Title, the study in numbers, and the switch that stops updates."""
    ended = sum(r.state in ("complete", "pruned") for r in digest.records)
    way = "lower is better" if digest.direction == "minimize" else "higher is better"
    figures = {
        **_best(digest),
        "Variants": str(len(digest.summaries)),
        "Trials that ended well": f"{ended} of {len(digest.records)}",
        "CPU time, all trials": seconds(digest.cpu_seconds or None),
    }
    boxes = [tag("div", None, tag("dt", None, name), tag("dd", None, value)) for name, value in figures.items()]
    parts = [tag("h1", None, digest.name), tag("p", {"class": "soft"}, f"Compared by {digest.metric}: {way}.")]
    if refresh:
        box = tag("input", {"type": "checkbox", "id": "pause"})
        note = tag("span", None, f"The study runs; this page looks for news every {refresh} s.")
        parts.append(tag("div", {"class": "live notice"}, note, tag("label", {"class": "line"}, box, " pause")))
    return joined(*parts, tag("dl", {"class": "figures"}, *boxes))


def _best(digest: Digest) -> dict[str, str]:
    if digest.data:
        return {f"Best on {name}": f"{best.variant}: {score(digest, best)}" for name, best in digest.best.items()}
    best = next(iter(digest.best.values()), None)
    return {f"Best {digest.metric}": score(digest, best) if best else NONE, "Best variant": best.variant if best else NONE}


def found(digest: Digest) -> Markup:
    """The findings and the warnings."""
    told = tag("ul", {"class": "findings"}, *(tag("li", None, sentence) for sentence in findings(digest)))
    beware = [tag("li", None, warning) for warning in warnings(digest)]
    return joined(told, tag("div", {"class": "notice"}, tag("strong", None, "Beware"), tag("ul", None, *beware)) if beware else "")


def failed(digest: Digest) -> Markup:
    """Reasons, the most frequent first, with the trials that ended so."""
    if not digest.failures:
        return tag("p", None, "Nothing: every trial that was started ended well, was pruned, or still runs.")
    reasons: dict[tuple[str, str], list[TrialRecord]] = {}
    for record in digest.failures:
        reasons.setdefault((record.state, record.error or "no reason was written down"), []).append(record)
    parts = [_reason(digest, *reason, ended) for reason, ended in sorted(reasons.items(), key=lambda pair: -len(pair[1]))]
    return joined(*parts)


def _reason(digest: Digest, state: str, why: str, ended: Sequence[TrialRecord]) -> Markup:
    """One reason, the trials that ended so, and what the first of them said at last."""
    title = tag("h3", None, tag("span", {"class": f"state-{state}"}, f"{len(ended)} × {state}"))
    places = "\n".join(f"{r.variant}, seed {r.seed}{', tuning' * (r.phase == 'tune')}: {r.folder}" for r in ended)
    parts = [title, tag("p", None, why), tag("details", None, tag("summary", None, "Trials and their folders"), block(places))]
    log = f"{ended[0].folder}.log"
    _, tail = said(digest.folder / log, 0)
    if ended[0].folder and tail:
        parts.append(tag("details", None, tag("summary", None, f"The end of {log}"), block("\n".join(tail))))
    return joined(*parts)


def chart(name: str, note: str, empty: str, choice: Markup | None = None, legend: bool = False) -> Markup:
    """The frame of a chart, which the script fills when it comes into view."""
    alternative = tag(
        "details", {"class": "alternative", "hidden": True}, tag("summary", None, "The same as a table"), tag("div", {"class": "scroll"})
    )  # fmt: skip
    parts = [tag("div", {"class": "controls"}, choice)] if choice else []
    parts += [tag("div", {"class": "canvas"}, tag("p", None, "This chart is drawn by a script."))]
    parts += [tag("ul", {"class": "legend"})] if legend else []
    return tag("figure", {"data-chart": name, "data-empty": empty}, *parts, tag("figcaption", None, note), alternative)


def choice(state: str, label: str, options: Mapping[str, str]) -> Markup:
    """A list to choose from; the script reads `data-state`."""
    inner = [tag("option", {"value": value}, shown) for value, shown in options.items()]
    attributes: Attributes = {"data-state": state, "id": f"choose-{state}"}
    return tag("label", None, label, tag("select", attributes, *inner))
