"""What runs wrote down of themselves, and whether those that should rest on the same rows and weights do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ftlab.studies.records import TrialRecord

Versions = Mapping[str, Any]

_VERSIONS = "versions.json"
_SHOWN = 12
"""Characters of a fingerprint within a sentence."""
_ROWS = ("data.source", "data.train_split", "data.val_split", "data.test_split", "data.split_seed")
_SETTINGS = {"data": _ROWS, "base": ("model.backbone", "model.task", "model.tuning", "trainer.precision", *_ROWS)}
"""Fingerprint → keys that it may depend on: a strategy may quantise the base, and the rows say how many labels a head has."""
_CHANGED = {
    "data": "Training rows changed between runs whose settings name the same data",
    "base": "The base model changed between runs whose settings name the same one",
}


def versions(folder: Path) -> Versions:
    """What a run wrote down; nothing where it failed before that.

    Args:
        folder: The run's.
    """
    try:
        found = json.loads((folder / _VERSIONS).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a trial that failed early has none; the page says how many runs each fact is from
        return {}
    return found if isinstance(found, dict) else {}


def fingerprint(found: Versions, name: str) -> str:
    """One of a run's fingerprints; empty where it has none.

    Args:
        found: What the run wrote down.
        name: Of what it is, such as `data`.
    """
    every = found.get("fingerprints")
    return str(every[name]) if isinstance(every, dict) and every.get(name) else ""


def changes(runs: Sequence[tuple[TrialRecord, Versions]]) -> Iterator[str]:
    """Sentences on runs that have other fingerprints than others with the same settings.

    Args:
        runs: Trials whose scores count, and what they wrote down.
    """
    for name, keys in _SETTINGS.items():
        alike: dict[str, dict[str, list[TrialRecord]]] = {}
        for record, found in runs:
            if shown := fingerprint(found, name):
                alike.setdefault(_named(record, keys), {}).setdefault(shown, []).append(record)
        for those in alike.values():
            if len(those) > 1:
                yield f"{_CHANGED[name]}: {'; '.join(_told(*each) for each in those.items())}. Their scores should not be compared."


def _named(record: TrialRecord, keys: Sequence[str]) -> str:
    """The settings below some keys, in one spelling."""
    chosen = {key: value for key, value in record.settings.items() if any(key == k or key.startswith(f"{k}.") for k in keys)}
    return json.dumps(chosen, sort_keys=True, default=str)


def _told(shown: str, records: Sequence[TrialRecord]) -> str:
    many = f"{len(records)} runs have" if len(records) > 1 else "1 run has"
    return f"{many} the fingerprint {shown[:_SHOWN]} (first {records[0].folder})"
