"""What a storage knows of a study, as the records that statistics and reports are made from."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from ftlab.errors import ConfigError
from ftlab.studies import attempts
from ftlab.studies.attempts import Attempt, Outcome
from ftlab.studies.records import State, TrialRecord
from ftlab.studies.storage import DATABASE, Store, connect
from ftlab.studies.words import RUNS

_STATES: dict[Outcome, State] = {
    "waiting": "waiting", "running": "running", "complete": "complete", "failed": "failed", "timeout": "timeout",
    "invalid": "invalid", "pruned": "pruned", "stopped": "waiting", "lost": "waiting",
}  # fmt: skip
"""What was stopped or lost will be tried again."""


def read_records(storage: str | None, name: str, folder: Path) -> list[TrialRecord]:
    """Read every trial of a study.

    Args:
        storage: The storage's URL; None for the file in the study's folder.
        name: The study's.
        folder: The study's.

    Raises:
        ConfigError: There is no such study.
        StorageError: The storage cannot be reached.
    """
    if storage is None and not (folder / DATABASE).is_file():
        raise ConfigError(f"{folder} has no {DATABASE}; give --storage where the study was run with it, or run the study first.")
    with closing(connect(storage, folder)) as store:
        found = records_in(store, name)
    if not found:
        raise ConfigError(f"the storage has no study {name}; run `ftlab ablate` first, or give the --storage it was run with.")
    return found


def records_in(store: Store, name: str) -> list[TrialRecord]:
    """Every trial of a study, once however often it was tried, in the order in which they were added.

    Args:
        store: An open storage.
        name: The study's.
    """
    found: list[Attempt] = []
    for each in store.names(name):
        study = store.patiently(store.rdb.get_study_id_from_name, each)
        found += [attempts.attempt(each, trial) for trial in store.patiently(partial(store.rdb.get_all_trials, study, deepcopy=False))]
    return [record(tries) for tries in attempts.by_key(found).values()]


def record(tries: Sequence[Attempt]) -> TrialRecord:
    """A trial from its attempts; what they cost is added up."""
    last = attempts.standing(tries)
    assert last is not None
    planned, result = last.planned, last.result
    return TrialRecord(
        key=planned.key, variant=planned.variant, levels=planned.levels, phase=planned.phase, seed=planned.seed,
        state=_STATES[last.outcome], value=last.value, settings=planned.settings, tuned=planned.tuned, metrics=result.get("metrics", {}),
        cpu_seconds=_sum(tries, "cpu_seconds"), wall_seconds=_sum(tries, "wall_seconds"), peak_memory=result.get("peak_memory"),
        trainable_params=result.get("trainable_params"), tokens=result.get("tokens"),
        folder=f"{RUNS}/{planned.variant}/{planned.id}", error=result.get("error", "") if last.outcome != "complete" else "",
    )  # fmt: skip


def _sum(tries: Sequence[Attempt], figure: str) -> float | None:
    known = [value for each in tries if isinstance(value := each.result.get(figure), int | float)]
    return sum(known) if known else None
