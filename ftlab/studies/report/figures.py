"""Static figures for papers: what the page draws, as PNG, SVG or PDF."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from ftlab.errors import ConfigError, StorageError, suggest
from ftlab.studies.report.digest import COSTS, Digest
from ftlab.studies.report.drawing import costs, curves, forest, interaction, plot, tuning
from ftlab.studies.report.payload import Plain, payload

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
FOLDER = "figures"
_SETTINGS = {
    "text.parse_math": False,  # a $ in a name is no formula
    "svg.hashsalt": "ftlab",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "savefig.dpi": 200,
}


def formats(text: str) -> list[str]:
    """The formats in a list such as `png,pdf`.

    Args:
        text: Names with commas between them; may be empty.

    Raises:
        ConfigError: One is not known.
    """
    wanted = [part.strip().lower() for part in text.split(",") if part.strip()]
    for name in wanted:
        if name not in FORMATS:
            raise ConfigError(f"--figures names '{name}'; {suggest(name, FORMATS)}")
    return [name for name in FORMATS if name in wanted]  # always in one order: each drawing settles the layout for the next


def write(digest: Digest, wanted: Sequence[str]) -> list[Path]:
    """Draw everything that there is data for into the study's `figures` folder.

    Args:
        digest: The study.
        wanted: Some of `FORMATS`.

    Returns:
        The files.

    Raises:
        StorageError: They cannot be written.
    """
    if not wanted:
        return []
    folder = digest.folder / FOLDER
    try:
        folder.mkdir(exist_ok=True)
        with _style():
            return [path for name, figure in _figures(digest) for path in _saved(figure, folder / name, wanted)]
    except OSError as error:
        raise StorageError(f"{folder} cannot be written ({error.strerror or error}); free space or choose another folder.") from error


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib as mpl

    with mpl.rc_context(cast(Any, _SETTINGS)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)  # drawn as a box, which is seen
        yield


def _saved(figure: Figure, stem: Path, wanted: Sequence[str]) -> Iterator[Path]:
    dates: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
    for kind in wanted:
        path = stem.with_name(f"{stem.name}.{kind}")
        figure.savefig(path, format=kind, metadata=dates[kind])
        yield path


def _figures(digest: Digest) -> Iterator[tuple[str, Figure]]:
    content = payload(digest)
    ranked = [content["variants"][place] for place in _ranked(digest, content)]
    first = [content["variants"][place] for place in content["first"]]
    scored = [row for row in ranked if row["mean"] is not None]
    if scored:
        yield "forest", forest(scored, digest.metric)
    for metric, found in content["curves"].items():
        yield f"curves-{_file(metric)}", plot(partial(curves, metric=metric, found=found, first=first))
    for cost, name in COSTS.items():
        if any(row["costs"][cost] is not None for row in scored):
            yield f"cost-{cost}", plot(partial(costs, content=content, cost=cost, name=name, metric=digest.metric))
    if rows := [row for effect in content["effects"] for row in _headed(effect["factor"], effect["levels"])]:
        yield "effects", forest(rows, digest.metric)
    for pair in content["interactions"]:
        if pair["cells"]:
            yield f"interaction-{_file(pair['first'])}-{_file(pair['second'])}", plot(partial(interaction, pair=pair, metric=digest.metric))
    if content["tuning"]:
        yield "tuning", plot(partial(tuning, content=content, first=first, metric=digest.metric))
    if rows := [row for part in content["parts"] for row in _headed(part["part"], part["rows"])]:
        yield "knockout", forest(rows, f"gain in {digest.metric}", zero=True)


def _ranked(digest: Digest, content: Plain) -> list[int]:
    places = {row["name"]: row["index"] for row in content["variants"]}
    return [places[s.variant] for s in digest.ranked]


def _file(name: str) -> str:
    """Part of a file's name; every name has its own."""
    return quote(name, safe="")


def _headed(heading: str, rows: Sequence[Plain]) -> list[Plain]:
    return [{**row, "name": f"{heading}: {row['name']}"} for row in rows if row["mean"] is not None]
