"""What a run that goes on was told: its folder, and what the user lets differ."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from pathlib import Path

DATA_FLAG = "--allow-data-change"
"""Lets the rows and everything under `data` differ."""
HELD = ("model.optimizer", "model.schedule")
"""Keys whose values live on in the state that a checkpoint holds: no flag can let them differ."""
_DATA = "data.*"


@dataclass(frozen=True, kw_only=True)
class MayDiffer:
    """What the user lets differ from the run as it was.

    Args:
        data: The rows and everything under `data`, by `--allow-data-change`.
        keys: Patterns of keys, by `--override-resume`.
    """

    data: bool = False
    keys: tuple[str, ...] = ()

    def allows(self, key: str) -> bool:
        """Whether a key may have another value."""
        patterns = (*self.keys, _DATA) if self.data else self.keys
        return any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """A run that goes on.

    Args:
        folder: Where it is kept.
        may_differ: What may be another than before.
    """

    folder: Path
    may_differ: MayDiffer


def advice(key: str) -> str:
    """The end of an error message: what to do about a key that differs."""
    if key.startswith(HELD):
        return "leave it out, or start a new run."
    flag = DATA_FLAG if key.startswith("data.") else f"--override-resume {key}"
    return f"leave it out, start a new run, or add {flag}."
