"""`ftlab report`: tables, a page and figures of a study, once or for as long as it runs."""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from ftlab.commands.arguments import Arguments
from ftlab.errors import ConfigError

if TYPE_CHECKING:
    from ftlab.studies.report.digest import Digest

_EVERY = 10
"""Seconds between two looks at a study that runs."""


def run(name: str, arguments: list[str]) -> int:
    """Write a study's report into its folder."""
    chosen = _parser(name).parse_args(arguments)
    if chosen.study is None:
        raise ConfigError(f"`ftlab {name}` needs the folder of a study; write `ftlab {name} studies/NAME`.")
    from ftlab.studies.report import figures

    wanted = figures.formats(chosen.figures)
    if chosen.truth is not None and chosen.items is None:
        raise ConfigError("--truth stands without --items; name the column of the answers too, as in --items label --truth right.")
    if chosen.watch:
        _watch(chosen)
    _once(_opened(chosen), wanted)
    return 0


def _parser(name: str) -> Arguments:
    about = "Write results.csv, .parquet, .md, .tex and report.html into a study's folder."
    made = Arguments(prog=f"ftlab {name}", description=about, allow_abbrev=False)
    made.add_argument("study", nargs="?", metavar="STUDY_FOLDER", help="such as studies/first_study")
    made.add_argument("--storage", metavar="URL", help="the database of the study (default: the file in its folder)")
    made.add_argument("--figures", default="", metavar="FORMATS", help="static figures too: some of png,svg,pdf")
    made.add_argument(
        "--interval", choices=("t", "bootstrap"), help="of the means: Student's t or the bootstrap, for 8 seeds or more (default: t)"
    )
    made.add_argument("--items", metavar="COLUMN", help="compare over test items too: a score in the predictions that runs kept")
    made.add_argument("--truth", metavar="COLUMN", help="the column with the right answer; --items then names the predicted one")
    made.add_argument(
        "--watch",
        action="store_true",
        help="wait for the study to begin, then write the page again for as long as it runs; the open page follows",
    )
    return made


def _watch(chosen: Namespace) -> None:
    """Write the report whenever a trial has changed, until none waits or runs."""
    from ftlab.studies.report.writing import PAGE, opened, write

    before, folder = None, Path(chosen.study)
    _wait(folder)
    while (digest := opened(folder, chosen.storage, interval=chosen.interval)).running or not digest.records:  # they come after its file
        if digest.records != before:
            write(digest, refresh=_EVERY)
            if before is None:
                print(f"{folder / PAGE} follows the study; Ctrl-C ends that, the study goes on.", flush=True)
            before = digest.records
        time.sleep(_EVERY)


def _wait(folder: Path) -> None:
    """Return when a study has its file in a folder."""
    from ftlab.studies.report.repeat import STUDY

    if (folder / STUDY).is_file():
        return
    print(f"{folder} has no {STUDY} yet: waiting for the study to begin; Ctrl-C ends that.", flush=True)
    while not (folder / STUDY).is_file():
        time.sleep(_EVERY)


def _opened(chosen: Namespace) -> Digest:
    from ftlab.studies.report.testitems import Column
    from ftlab.studies.report.writing import opened

    column = None if chosen.items is None else Column(chosen.items, chosen.truth)
    return opened(Path(chosen.study), chosen.storage, column, chosen.interval)


def _once(digest: Digest, wanted: list[str]) -> None:
    from ftlab.studies.report.escaping import printable
    from ftlab.studies.report.findings import findings, warnings
    from ftlab.studies.report.writing import write

    paths = write(digest, wanted)
    for sentence in findings(digest):
        print(printable(sentence))
    for warning in warnings(digest):
        print(f"beware: {printable(warning)}")
    print("wrote", ", ".join(str(path) for path in paths))
