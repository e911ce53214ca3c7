"""`report.html`: one page that needs no network. What comes from runs is text in it, never markup or code.

The content policy of the page names its one script and its one style by their hashes: nothing else could run even if an escape failed.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Container
from importlib import resources
from string import Template

import ftlab
from ftlab.studies.intervals import CALLED
from ftlab.studies.report import listing, rankings, repeat, sections
from ftlab.studies.report.digest import COSTS, Digest
from ftlab.studies.report.findings import SHARED
from ftlab.studies.report.markup import Markup, embedded, joined, tag, text
from ftlab.studies.report.payload import Plain, payload

_SCRIPTS = ("charts.js", "plots.js", "page.js")
_LINKS = {"found": "Found", "results": "Results", "curves": "Curves", "costs": "Costs", "factors": "Factors", "knockout": "Knock-out",
          "tuning": "Tuning", "trials": "Trials", "failed": "Failures", "repeat": "Repeat"}  # fmt: skip


def page(digest: Digest, refresh: int = 0) -> str:
    """The whole page.

    Args:
        digest: The study.
        refresh: Seconds after which the page reads itself again; 0 for a page that nobody writes again.
    """
    assets = resources.files("ftlab") / "studies" / "report" / "assets"
    style = (assets / "page.css").read_text(encoding="utf-8")
    script = '"use strict";\n' + "\n".join((assets / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    content = payload(digest)
    charts = _charts(digest, content)
    states = dict.fromkeys(r.state for r in digest.records)
    return Template((assets / "page.html").read_text(encoding="utf-8")).substitute(
        refresh=refresh,
        reload=tag("noscript", None, tag("meta", {"http-equiv": "refresh", "content": refresh})) if refresh else "",
        style=style, script=script, style_hash=_hash(style), script_hash=_hash(script),
        title=text(f"{digest.name} · ftlab"), version=text(ftlab.__version__), written=time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        head=sections.head(digest, refresh),
        links=_links({*_THERE, *charts}),
        found=sections.found(digest), caption=_caption(digest), variants=listing.variants(digest), forest=_forest(),
        charts=joined(*charts.values()), states=joined(*(tag("option", None, state) for state in states)),
        trials=listing.trials(digest), failed=sections.failed(digest), repeat=repeat.section(digest), data=embedded(content),
    )  # fmt: skip


_THERE = ("found", "results", "trials", "failed", "repeat")


def _links(there: Container[str]) -> Markup:
    return joined(*(tag("li", None, tag("a", {"href": f"#{key}"}, name)) for key, name in _LINKS.items() if key in there))


def _hash(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"


def _caption(digest: Digest) -> Markup:
    return text(
        f"Mean ± standard deviation of {digest.metric} over seeds; 95 % intervals of the mean by {CALLED[digest.interval]}, those of "
        f"differences by Student's t. Against the best: paired t test over common seeds, p corrected by Holm for {digest.pairs}, "
        "since the best was chosen by the same scores. Effect size: Hedges' g of the paired differences. Costs are those of one seed, "
        "unless a heading says otherwise."
    )


def _forest() -> Markup:
    note = "Dots are means, lines 95 % intervals, rings single seeds, the dashed line the one best mean; rows are those of the table."
    return sections.chart("forest", note, "No variant that the table shows has a score.")


def _section(key: str, title: str, *content: str) -> Markup:
    heading = tag("h2", {"id": f"{key}-h"}, title)
    return tag("section", {"id": key, "tabindex": -1, "aria-labelledby": f"{key}-h"}, heading, *content)


_EMPTY = "Nothing to draw: choose variants by the boxes in the table of results."


def _charts(digest: Digest, content: Plain) -> dict[str, Markup]:
    """The sections of the charts for which there is anything."""
    found = {"curves": _curves(digest), "costs": _costs(digest)}
    if content["effects"]:
        found["factors"] = _factors(digest, content)
    if content["parts"]:
        found["knockout"] = _knockout(content)
    if digest.tuning:
        found["tuning"] = _tuning(digest)
    return found


def _curves(digest: Digest) -> Markup:
    choice = sections.choice("metric", "Figure", {name: name for name in digest.curves})
    note = "Lines are means over seeds, bands reach from the smallest to the largest seed; one seed has no band."
    figure = sections.chart("curves", note, f"No curve. {_EMPTY}", choice, legend=True)
    return _section("curves", "Learning curves", figure if digest.curves else tag("p", None, "No run has logged anything yet."))


def _costs(digest: Digest) -> Markup:
    each = "On each data set a dashed" if digest.data else "The dashed"
    note = f"{each} line joins the variants that no other beats in both, by their means alone. Chosen variants have their interval."
    choice = sections.choice("cost", "Cost", {str(cost): name for cost, name in COSTS.items()})
    figure = sections.chart("costs", note, "No variant has both a score and this cost.", choice, legend=True)
    return _section("costs", "Quality against cost", figure, *([tag("p", None, SHARED)] if digest.cached else []))


def _knockout(content: Plain) -> Markup:
    note = "Added: the whole against what is left without the part. Alone: the part by itself against the whole. Lines are 95 % intervals."
    figure = sections.chart("parts", note, "No part has a contribution yet.")
    return _section("knockout", "What each part contributes", _sentences(content["parts"]), figure)


def _sentences(entries: list[Plain]) -> Markup:
    return tag("ul", {"class": "findings"}, *(tag("li", None, str(entry["text"])) for entry in entries))


def _factors(digest: Digest, content: Plain) -> Markup:
    figure = sections.chart("effects", "Means over everything else with 95 % intervals.", "No level has a score yet.")
    parts = [_sentences(content["effects"]), figure]
    pairs = content["interactions"]
    if pairs:
        choice = sections.choice("pair", "Two factors", {str(i): f"{pair['first']} × {pair['second']}" for i, pair in enumerate(pairs)})
        note = "Lines that are not parallel tell of an interaction; whiskers are 95 % intervals."
        frame = sections.chart("interactions", note, "These two factors have no scores yet.", choice, True)
        parts += [tag("h3", None, "Interactions"), _sentences(pairs), frame]
    return _section("factors", "Main effects and interactions", *parts, rankings.section(digest))


def _tuning(digest: Digest) -> Markup:
    note = "The best value of the first trials. A line that still moves at its end may not be tuned enough."
    best = sections.chart("tuning", note, _EMPTY, legend=True)
    keys = dict.fromkeys(key for tuning in digest.tuning.values() for key in tuning.keys)
    choice = sections.choice("key", "Tuned key", {key: key for key in keys})
    space = sections.chart("space", "One mark per trial; values that are no numbers are not drawn.", f"No numbers. {_EMPTY}", choice, True)
    return _section("tuning", "Tuning", best, *([space] if keys else []))
