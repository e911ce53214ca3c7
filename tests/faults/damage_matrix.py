"""Damage checkpoints and adapters in every way, and count what is accepted, which must be nothing, and what a run recovers from.

`python -m tests.faults.damage_matrix [--sample N] [--folder DIR]`. A damaged checkpoint is given to `ftlab fit --resume` in a process
of its own; a damaged adapter to `ftlab.load`.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import ftlab
from ftlab import checkpoint_io
from ftlab.commands.verify import equal
from ftlab.errors import FtlabError
from ftlab.folders import file_hash
from ftlab.quiet import quiet
from tests.faults import damage as do
from tests.faults.damage import BEFORE, CHANGES, CONFIG, NEWEST, RECORD, WEIGHTS, Damage, Whole, killed, whole
from tests.faults.forking import Run, served

ACCEPTED, RECOVERED, REFUSED = "accepted", "recovered", "refused"


@dataclass(frozen=True)
class Case:
    """One damage.

    Args:
        subject: What is damaged.
        kind: How.
        damage: Does it, to the folder of a run or an adapter.
        expected: What must come of it.
        without: Functions that are left out, for a negative control.
    """

    subject: str
    kind: str
    damage: Damage
    expected: str
    without: tuple[str, ...] = ()


def cases() -> list[Case]:
    """All of them, in an order of which every beginning is a fair sample."""
    found: list[Case] = []

    def add(count: int, subject: str, kind: str, damage: Damage, expected: str = REFUSED) -> None:
        found.extend([Case(subject, kind, damage, expected)] * count)

    add(16, "newest checkpoint", "cut", do.newest(do.cut), RECOVERED)
    add(16, "newest checkpoint", "bit flipped", do.newest(do.flip), RECOVERED)
    for kind, change in CHANGES.items():
        add(6, "newest checkpoint", kind, do.newest(do.in_checkpoint(change)), RECOVERED)
    add(6, "newest checkpoint", "other base", do.of_another_base(False), RECOVERED)
    add(6, "newest checkpoint", "files mixed", do.older_under_the_newest_name, RECOVERED)
    add(8, "every checkpoint", "cut", do.every(do.cut))
    add(8, "every checkpoint", "bit flipped", do.every(do.flip))
    add(4, "every checkpoint", "files mixed", do.manifest_of_another)
    add(8, "vouched checkpoint", "cut", do.newest(do.cut, vouched=True))
    for kind, change in CHANGES.items():
        add(8, "vouched checkpoint", kind, do.newest(do.in_checkpoint(change), vouched=True))
    add(6, "vouched checkpoint", "optimiser NaN", do.newest(do.optimiser_nan, vouched=True))
    add(2, "vouched checkpoint", "other base", do.of_another_base(True))
    add(4, "vouched checkpoint", "files mixed", do.all_of_another)
    add(15, "exported adapter", "cut", do.in_any_file(do.cut))
    add(30, "exported adapter", "bit flipped", do.in_any_file(do.flip))
    for kind, change in CHANGES.items():
        add(10, "exported adapter", kind, do.in_weights(do.in_adapter(change)))
    add(2, "exported adapter", "other base", do.base_of_another)
    add(10, "exported adapter", "files mixed", do.files_of_another([WEIGHTS, CONFIG, "README.md"]))
    add(15, "foreign adapter", "cut", do.in_weights(do.cut))
    for kind, change in CHANGES.items():
        add(12, "foreign adapter", kind, do.in_weights(do.in_adapter(change)))
    add(2, "foreign adapter", "other base", do.longer_base)
    add(4, "foreign adapter", "files mixed", do.files_of_another([WEIGHTS, CONFIG]))
    random.Random(0).shuffle(found)
    return found


def outcome(case: Case, number: int, folder: Path, whole: Whole, run: Run) -> str:
    """What comes of a case: accepted, recovered, refused, or whatever else, which is wrong."""
    draw = random.Random(f"{case.subject}/{case.kind}/{number}")
    if case.subject.endswith("adapter"):
        shutil.copytree(whole.run / "export", folder)
        if case.subject == "foreign adapter":
            (folder / RECORD).unlink()
        case.damage(folder, whole, draw)
        return _opened(case, folder, whole)
    killed(whole.run, folder)
    case.damage(folder, whole, draw)
    return _resumed(case, folder, whole, run)


def _opened(case: Case, folder: Path, whole: Whole) -> str:
    with ExitStack() as left_out:
        for target in case.without:
            left_out.enter_context(mock.patch(target.replace(":", ".")))
        left_out.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # all that PEFT does about some
        try:
            ftlab.load(folder, base=whole.base if case.subject == "foreign adapter" else None)
        except FtlabError as error:
            return REFUSED if error.exit_code in (4, 7) else f"ended with {error.exit_code}: {error}"
    return ACCEPTED


def _resumed(case: Case, folder: Path, whole: Whole, run: Run) -> str:
    before = _hashes(folder)
    result = run(folder.parent, "fit", "--resume", str(folder), without=case.without)
    if result.code in (4, 7):
        return REFUSED if _hashes(folder) == before else "refused, but the checkpoints are not as they were"
    if result.code:
        return f"ended with {result.code}: {result.err[-300:]}"
    if f"going back to {BEFORE}" not in result.err:
        return ACCEPTED
    last, expected = (checkpoint_io.load(place / "checkpoints" / NEWEST) for place in (folder, whole.run))
    same = all(equal(last[part], expected[part]) for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"))
    return RECOVERED if same else "recovered, but to another model"


def _hashes(run: Path) -> dict[str, str]:
    return {p.name: file_hash(p) for p in (run / "checkpoints").iterdir()}


CONTROLS = (
    ("newest checkpoint", "bit flipped", 16, ("ftlab.checkpoint_io:problem",)),
    ("newest checkpoint", "other base", 1, ("ftlab.checkpoint_io:problem", "ftlab.module:check")),
    ("vouched checkpoint", "tensor NaN", 1, ("ftlab.checkpoint:verify",)),
    ("vouched checkpoint", "optimiser NaN", 1, ("ftlab.checkpoint:verify",)),
    ("exported adapter", "bit flipped", 30, ("ftlab.folders:_check_file",)),
    ("exported adapter", "other base", 1, ("ftlab.opening:_check_base",)),
    ("foreign adapter", "tensor extra", 1, ("ftlab.adapter_check:_compare",)),
    ("foreign adapter", "tensor missing", 1, ("ftlab.adapter_check:_compare",)),
    ("foreign adapter", "tensor NaN", 1, ("ftlab.adapter_check:_check_finite",)),
)
"""Subject, kind, number of tries, and what is left out: one of the tries must then be accepted."""


class Tally:
    """What came of the cases."""

    def __init__(self) -> None:
        self.seen: Counter[tuple[str, str]] = Counter()
        self.came: Counter[tuple[str, str, str]] = Counter()
        self.wrong: list[str] = []

    def add(self, case: Case, came: str) -> None:
        self.seen[case.subject, case.kind] += 1
        self.came[case.subject, case.kind, came] += 1
        if came != case.expected:
            self.wrong.append(f"{case.subject}, {case.kind}: {came}, not {case.expected}")

    def lines(self) -> Iterator[str]:
        """The table."""
        row = "{:<20} {:<15} {:>8} {:>9} {:>8} {:>10}".format
        yield row("", "", "damaged", ACCEPTED, REFUSED, RECOVERED)
        for subject, kind in sorted(self.seen):
            yield row(subject, kind, self.seen[subject, kind], *(self.came[subject, kind, c] for c in (ACCEPTED, REFUSED, RECOVERED)))
        sums = [sum(n for (_, _, came), n in self.came.items() if came == c) for c in (ACCEPTED, REFUSED, RECOVERED)]
        yield row("all", "", self.seen.total(), *sums)
        yield from self.wrong


def matrix(folder: Path, run: Run, source: Whole, sample: int | None = None) -> Tally:
    """Do the cases to copies below `folder`."""
    tally = Tally()
    for number, case in enumerate(cases()[:sample]):
        place = folder / "cases" / str(number)
        tally.add(case, outcome(case, number, place, source, run))
        shutil.rmtree(place)
    return tally


def controls(folder: Path, run: Run, source: Whole) -> list[str]:
    """Every check left out in turn; those whose absence nothing showed."""
    unseen = []
    for subject, kind, tries, without in CONTROLS:
        case = next(c for c in cases() if (c.subject, c.kind) == (subject, kind))
        accepted = any(
            outcome(replace(case, without=without), number, folder / "controls" / f"{subject}-{kind}-{number}", source, run) == ACCEPTED
            for number in range(tries)
        )
        unseen += [] if accepted else [f"{subject}, {kind}: refused without {', '.join(without)} too"]
    return unseen


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, help="number of cases; without it all of them")
    parser.add_argument("--folder", type=Path, help="where they are kept; a temporary folder without it")
    options = parser.parse_args(arguments)
    quiet()
    with tempfile.TemporaryDirectory(prefix="ftlab-damage-") as temporary, served("ftlab.main", "ftlab.cli", "peft") as run:
        folder = options.folder or Path(temporary)
        os.environ.setdefault("FTLAB_CACHE", str(folder / "cache"))
        folder.mkdir(exist_ok=True)
        source = whole(folder, run)
        tally, unseen = matrix(folder, run, source, options.sample), controls(folder, run, source)
    print("\n".join([*tally.lines(), *unseen, f"{len(CONTROLS) - len(unseen)} of {len(CONTROLS)} controls: a check left out is seen"]))
    return 1 if tally.wrong or unseen else 0


if __name__ == "__main__":
    sys.exit(main())
