"""The axes of the static figures; the plain values are those that the page draws from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ftlab.studies.report.escaping import printable
from ftlab.studies.report.numbers import count, seconds, size
from ftlab.studies.report.payload import Plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#0072b2", "#d55e00", "#008f68", "#b5568d", "#a67700", "#4d4d4d")
"""Those of the page, see its style."""
_MARKERS = "osD^vP"
_WIDTH = 6.5
"""Inches, the text of most papers."""
_ROW = 0.24
"""Inches of a line in a forest plot."""
_UNITS: dict[str, Callable[[float], str]] = {
    "trainable_params": count, "seed_cpu_seconds": seconds, "wall_seconds": seconds, "peak_memory": size,
}  # fmt: skip


def plot(draw: Callable[[Axes], None]) -> Figure:
    """A figure as wide as a column of text.

    Args:
        draw: Fills its axes.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, 3.6), layout="constrained")
    draw(figure.add_subplot())
    return figure


def forest(rows: Sequence[Plain], label: str, zero: bool = False) -> Figure:
    """A row with mean and interval for each entry.

    Args:
        rows: Entries with name, mean, low and high, and `values` of single seeds where there are any.
        label: What the axis shows.
        zero: Whether 0 is marked.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, 0.8 + _ROW * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        axes.plot([v for _, v in row.get("values", [])], [place] * len(row.get("values", [])), "o", mfc="none", mec="0.6", ms=3)
        if row["low"] is not None:
            axes.plot([row["low"], row["high"]], [place, place], color=_COLOURS[0], marker="|")
        axes.plot(row["mean"], place, "o", color=_COLOURS[0], ms=5)
    if zero:
        axes.axvline(0, color="0.5", linestyle="--", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [printable(row["name"]) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(f"{printable(label)} (mean, 95 % interval)")
    return figure


def _style_of(place: int) -> Plain:
    return {"color": _COLOURS[place % len(_COLOURS)], "marker": _MARKERS[place % len(_MARKERS)], "markersize": 4.5}


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[1]:
        axes.get_figure(root=True).legend(loc="outside right upper")  # type: ignore[union-attr]  # the axes are on one


def curves(axes: Axes, metric: str, found: dict[int, Plain], first: Sequence[Plain]) -> None:
    """Learning curves with bands."""
    for place, row in enumerate(first):
        curve = found.get(row["index"])
        if curve is None:
            continue
        style = _style_of(place)
        if curve["seeds"] > 1:
            axes.fill_between(curve["steps"], curve["low"], curve["high"], color=style["color"], alpha=0.15, linewidth=0)
        axes.plot(curve["steps"], curve["mean"], label=printable(row["name"]), markevery=[-1], **style)
    axes.set(xlabel="optimiser step", ylabel=printable(metric))
    _legend(axes)


def costs(axes: Axes, content: Plain, cost: str, name: str, metric: str) -> None:
    """Quality against a cost, with the front."""
    rows = [row for row in content["variants"] if row["mean"] is not None and row["costs"][cost] is not None]
    for places in content["fronts"][cost]:
        front = [content["variants"][place] for place in places]
        axes.plot([row["costs"][cost] for row in front], [row["mean"] for row in front], "--", color="0.5", linewidth=1)
    for row in rows:
        place = content["first"].index(row["index"]) if row["index"] in content["first"] else None
        style = {"color": "0.5", "marker": "o", "markersize": 4.5} if place is None else _style_of(place)
        label = None if place is None else printable(row["name"])
        ends = None if row["low"] is None else [[row["mean"] - row["low"]], [row["high"] - row["mean"]]]
        axes.errorbar([row["costs"][cost]], [row["mean"]], yerr=ends, linestyle="none", label=label, **style)
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    values = [row["costs"][cost] for row in rows]
    if min(values) > 0 and max(values) / min(values) > 20:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _UNITS[cost](value)))
    axes.set(xlabel=name, ylabel=printable(metric))
    _legend(axes)


def interaction(axes: Axes, pair: Plain, metric: str) -> None:
    """A line for each level of the second factor."""
    for place, row in enumerate(pair["rows"]):
        cells = [cell for cell in pair["cells"] if cell["row"] == row]
        at = [pair["columns"].index(cell["column"]) + 0.04 * (place - (len(pair["rows"]) - 1) / 2) for cell in cells]
        ends = [[cell["mean"] - (cell["mean"] if cell["low"] is None else cell["low"]) for cell in cells],
                [(cell["mean"] if cell["high"] is None else cell["high"]) - cell["mean"] for cell in cells]]  # fmt: skip
        axes.errorbar(at, [cell["mean"] for cell in cells], yerr=ends, label=printable(row), **_style_of(place))
    axes.set_xticks(range(len(pair["columns"])), [printable(name) for name in pair["columns"]])
    axes.set(xlabel=printable(pair["first"]), ylabel=printable(metric))
    _legend(axes)


def tuning(axes: Axes, content: Plain, first: Sequence[Plain], metric: str) -> None:
    """The best value after each tuning trial."""
    for place, row in enumerate(first):
        best = content["tuning"].get(row["index"], {"best": []})["best"]
        points = [(trial, value) for trial, value in enumerate(best, start=1) if value is not None]
        axes.step([t for t, _ in points], [v for _, v in points], where="post", label=printable(row["name"]), **_style_of(place))
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="tuning trials", ylabel=f"best {printable(metric)} so far")
    _legend(axes)
