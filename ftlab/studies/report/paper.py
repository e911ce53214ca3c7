"""The table of a paper: `results.md` and `results.tex`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ftlab.studies.intervals import CALLED
from ftlab.studies.report.digest import Digest
from ftlab.studies.report.escaping import latex, markdown
from ftlab.studies.report.findings import findings, interval, score, warnings
from ftlab.studies.report.numbers import NONE, count, probability, seconds, size
from ftlab.studies.statistics import Summary

_HEADS = ("Variant", "{metric}", "95 % interval", "Seeds", "Tuning trials", "CPU time of a run", "Memory", "Trainable", "Against the best")


def _rows(digest: Digest) -> list[tuple[str, ...]]:
    return [_row(digest, summary) for summary in digest.ranked]


def _row(digest: Digest, summary: Summary) -> tuple[str, ...]:
    return (
        summary.variant,
        score(digest, summary),
        interval(digest, summary, summary.interval),
        str(summary.n),
        str(summary.tuning_trials),
        seconds(summary.seed_cpu_seconds),
        size(summary.peak_memory),
        count(summary.trainable_params),
        verdict(digest, summary),
    )


def verdict(digest: Digest, summary: Summary) -> str:
    """How a variant stands to the best one."""
    if digest.is_best(summary):
        return "best"
    found = digest.against_best.get(summary.variant)
    if found is None:
        return NONE
    return found.verdict if found.p_holm is None else f"{found.verdict} (p = {probability(found.p_holm)})".replace("= <", "<")


def _heads(digest: Digest) -> list[str]:
    arrow = "↓" if digest.direction == "minimize" else "↑"
    return [f"{digest.metric} {arrow}" if head == "{metric}" else head for head in _HEADS]


def caption(digest: Digest) -> str:
    """What the figures of the table are."""
    better = "lower" if digest.direction == "minimize" else "higher"
    return (
        f"Study {digest.name}: mean ± standard deviation of {digest.metric} over seeds ({better} is better), 95 % interval of the mean "
        f"by {CALLED[digest.interval]}. Against the best: paired t test over common seeds, corrected by Holm for {digest.pairs}."
    )


def markdown_table(digest: Digest) -> str:
    """`results.md`: the table, what was found, what to beware of."""
    heads, rows = _heads(digest), _rows(digest)
    lines = [f"# {markdown(digest.name)}", "", _line(heads, markdown), "|---|" + "---:|" * (len(heads) - 2) + "---|"]
    lines += [_line(row, markdown) for row in rows]
    lines += ["", markdown(caption(digest)), "", *(f"- {markdown(text)}" for text in findings(digest))]
    lines += ["", *(f"- **Beware:** {markdown(text)}" for text in warnings(digest))] if warnings(digest) else []
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str], escape: Callable[[str], str]) -> str:
    return f"| {' | '.join(escape(cell) for cell in cells)} |"


def latex_table(digest: Digest) -> str:
    """`results.tex`: the table and what was found, to be read in by `input`; it needs the packages booktabs and graphicx."""
    heads, rows = _heads(digest), _rows(digest)
    body = [f"    {' & '.join(latex(cell) for cell in row)} \\\\" for row in rows]
    lines = [
        "% needs \\usepackage{booktabs,graphicx}",
        "\\begin{table}[t]",
        "  \\centering",
        f"  \\caption{{{latex(caption(digest))}}}",
        "  \\resizebox{\\linewidth}{!}{%",
        f"  \\begin{{tabular}}{{l{'r' * (len(heads) - 2)}l}}",
        "    \\toprule",
        f"    {' & '.join(latex(head) for head in heads)} \\\\",
        "    \\midrule",
        *body,
        "    \\bottomrule",
        "  \\end{tabular}}",
        *("  \\par\\smallskip{\\footnotesize\\raggedright " + latex(text) + "\\par}" for text in findings(digest)),
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"
