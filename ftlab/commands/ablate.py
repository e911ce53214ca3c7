"""`ftlab ablate`: run a study, or with `--dry-run` say what it would run."""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

from ftlab import registry
from ftlab.commands import report
from ftlab.commands.arguments import Arguments
from ftlab.errors import ConfigError, FtlabError
from ftlab.studies.checking import check_names, check_values
from ftlab.studies.overview import overview, stored
from ftlab.studies.spec import StudySpec, parse
from ftlab.studies.taking import at_least
from ftlab.studies.variants import plan


def run(name: str, arguments: list[str]) -> int:
    """Check a study, then run it or print what it would run."""
    chosen = _parser(name).parse_args(arguments)
    if not chosen.config:
        raise ConfigError(f"`ftlab {name}` needs a study; write `ftlab {name} --config study.yaml`.")
    at_least(chosen.workers, 1, "--workers")
    for target in chosen.plugin:
        registry.use(target)
    spec = parse(Path(chosen.config), tuple(chosen.plugin))
    found = plan(spec)
    folder = Path(chosen.root).expanduser() / spec.name
    check_names(spec, found.variants)
    configs = check_values(spec, found.variants) if chosen.dry_run or not _begun(spec, folder) else {}
    if len(spec.seeds) == 1:
        print("ftlab: warning: one seed: the report will have no interval and no comparison; list at least two seeds.", file=sys.stderr)
    if chosen.dry_run:
        print(overview(spec, found, configs, chosen.workers, *stored(spec, folder, chosen.storage)))
        return 0
    from ftlab.studies.engine import run_study
    from ftlab.studies.runner import HaltError

    reported = partial(report.run, "report", [str(folder), *(["--storage", chosen.storage] if chosen.storage else [])])
    try:
        code = run_study(spec, folder, workers=chosen.workers, extend=chosen.extend, storage=chosen.storage)
    except HaltError:
        try:
            reported()
        except Exception as error:  # the halt is what has to be said last
            print(f"ftlab: warning: the report could not be written: {error}", file=sys.stderr)
        raise
    reported()
    return code


def _begun(spec: StudySpec, folder: Path) -> bool:
    """Whether this very study was checked when it was begun here; another check would only import torch."""
    with suppress(FtlabError):  # the runner says what is wrong with the folder
        return parse(folder / "study.yaml", spec.plugins).digest() == spec.digest()
    return False


def _parser(name: str) -> Arguments:
    made = Arguments(
        prog=f"ftlab {name}", description="Run every variant of a study with every seed; the same command goes on where it stopped.",
        allow_abbrev=False,
    )  # fmt: skip
    made.add_argument("--config", metavar="STUDY.yaml", help="the study; docs/howto/study.md says what it holds")
    made.add_argument("--dry-run", action="store_true", help="check everything, print the table of runs, and run nothing")
    made.add_argument("--workers", type=int, default=1, metavar="N", help="processes that run trials (default: 1)")
    made.add_argument("--storage", metavar="URL", help="a database that several machines share (default: a file in the study's folder)")
    made.add_argument("--extend", action="store_true", help="the study has new variants, seeds or trials of tuning")
    made.add_argument("--root", default="studies", metavar="FOLDER", help="the folder of all studies (default: studies)")
    made.add_argument("--plugin", action="append", default=[], metavar="FILE.py|MODULE", help="import this first")
    return made
