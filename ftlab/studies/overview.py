"""What a study would run: its variants, what is left out, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from ftlab.studies import planned
from ftlab.studies.changes import Change, listed
from ftlab.studies.identity import check, check_folder
from ftlab.studies.reading import records_in
from ftlab.studies.records import TrialRecord
from ftlab.studies.space import space_of
from ftlab.studies.spec import Dimension, StudySpec
from ftlab.studies.storage import DATABASE, connect, is_unmade
from ftlab.studies.variants import Plan, Variant


def stored(spec: StudySpec, folder: Path, storage: str | None) -> tuple[list[Change], list[TrialRecord]]:
    """What the storage knows of a study, which is only read: what has changed since, and the trials; nothing where it has not begun.

    Args:
        spec: The study.
        folder: Its folder, which may not be there.
        storage: The storage's URL; None for the file in the folder.

    Raises:
        ConfigError: The folder or the storage holds another study.
        StorageError: The storage cannot be reached.
    """
    check_folder(spec, folder)
    if not (folder / DATABASE).is_file() if storage is None else is_unmade(storage):
        return [], []
    with closing(connect(storage, folder)) as store:
        return check(store, spec, extend=True), records_in(store, spec.name)


def overview(
    spec: StudySpec,
    found: Plan,
    configs: Mapping[str, Any],
    workers: int,
    changed: Sequence[Change] = (),
    records: Sequence[TrialRecord] = (),
) -> str:
    """What `--dry-run` prints.

    Args:
        spec: The study.
        found: Its variants and what is left out.
        configs: Variant → its parsed configuration.
        workers: Processes that would run trials.
        changed: What has changed since it was run.
        records: Its trials.
    """
    tuning = {v.name: len(planned.tuning(spec, v)) for v in found.variants}  # a small space has fewer points than trials
    total = sum(tuning.values()) + len(spec.seeds) * len(found.variants)
    counted = f"{_count(len(found.variants), 'variant')}, {_count(total, 'run')}"
    lines = [f"study {spec.name}: {counted}; {spec.direction} {spec.metric}", *_table(_runs(spec, found.variants, tuning))]
    lines += _spaces(spec, found.variants)
    lines += _section("skipped", ([left.name, left.why] for left in found.skipped))
    lines += _section("the same as another", ([left.name, f"is {left.why}"] for left in found.aliases))
    work = _work({name: _length(config) for name, config in configs.items()}, tuning, len(spec.seeds))
    return "\n".join([*lines, "", *work, _cost(records, total, workers), *_changed(changed)])


def _runs(spec: StudySpec, found: Sequence[Variant], tuning: Mapping[str, int]) -> list[list[str]]:
    factors = [f.name for f in spec.factors]
    rows = [["variant", *factors, "seeds", "tuning", "runs"]]
    for v in found:
        counts = len(spec.seeds), tuning[v.name], len(spec.seeds) + tuning[v.name]
        rows.append([v.name, *(v.levels[f] for f in factors), *map(str, counts)])
    return rows


def _spaces(spec: StudySpec, found: Sequence[Variant]) -> list[str]:
    """A line for every space that is searched, with the variants' names where there are several."""
    owners: dict[str, list[str]] = {}
    for v in found:
        owners.setdefault("; ".join(f"{key} {_range(d)}" for key, d in space_of(spec, v).items()), []).append(v.name)
    return [f"tuned{'' if len(owners) == 1 else ' in ' + ', '.join(names)}: {space}" for space, names in owners.items() if space]


def _range(of: Dimension) -> str:
    return f"{of.kind} {json.dumps(of.choices, default=str) if of.kind == 'choice' else f'{of.low:g} to {of.high:g}'}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _section(title: str, rows: Iterable[list[str]]) -> list[str]:
    found = list(rows)
    return [title, *_table(found)] if found else []


def _length(config: Any) -> tuple[int, int, int] | None:
    """Optimiser steps and rows of a run, or else its epochs; None where the configuration limits neither."""
    steps, epochs = config.trainer.max_steps, config.trainer.max_epochs
    if steps and steps > 0:
        return steps, steps * config.data.batch_size * config.trainer.accumulate_grad_batches, 0
    return (0, 0, epochs) if epochs and epochs > 0 else None


def _work(found: Mapping[str, tuple[int, int, int] | None], tuning: Mapping[str, int], seeds: int) -> list[str]:
    runs = [(each, tuning[name] + seeds) for name, each in found.items() if each is not None]
    if len(runs) < len(found):
        return []
    steps, rows, epochs = (sum(each[place] * count for each, count in runs) for place in range(3))
    parts = [f"{steps:,} steps on {rows:,} rows on each device"] if steps else []
    parts += [f"{_count(epochs, 'epoch')} of the training rows"] if epochs else []
    return [f"work: at most {' and '.join(parts)}"]


def _changed(found: Sequence[Change]) -> list[str]:
    return [f"changed: {listed(found)}{'; needs --extend' if any(c.extends for c in found) else ''}"] if found else []


def _cost(records: Sequence[TrialRecord], total: int, workers: int) -> str:
    """Time for what is left, from the runs of the study that are complete."""
    complete = [r for r in records if r.state == "complete"]
    over = len(complete) + sum(r.state == "pruned" for r in records)
    finished = [(r.wall_seconds, r.cpu_seconds) for r in complete if r.wall_seconds is not None and r.cpu_seconds is not None]
    if not finished:
        return "cost: not known until runs of the study are complete"
    left, (wall, cpu) = max(total - over, 0), (sum(column) / len(finished) for column in zip(*finished, strict=True))
    means = f"from {_duration(wall)} and {_duration(cpu)} for each of the {len(finished)} that are complete"
    return (
        f"cost: about {_duration(left * wall / workers)}, and {_duration(left * cpu)} of processor time, for {_count(left, 'run')}; {means}"
    )


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
