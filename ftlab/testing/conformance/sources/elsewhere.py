"""What fresh processes do with a data source."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ftlab.data.loader import Plan
from ftlab.testing.conformance.check import require
from ftlab.testing.conformance.sources.subject import SourceSubject, batches, seen


def resume(subject: SourceSubject, material: dict[str, Any], folder: Path) -> None:
    """Go on from a loader's state."""
    loader = batches(subject.store(material["split"]), Plan(batch_size=2, seed=1, shuffle=True))
    loader.load_state_dict(material["state"])
    found = [*material["begun"], *seen(loader), *seen(loader)]  # one epoch more where the first was over already
    require(
        found[: len(material["expected"])] == material["expected"],
        f"in a fresh process the split '{material['split']}' has other rows or another order",
    )


def share(subject: SourceSubject, material: dict[str, Any], folder: Path) -> None:
    """Read as one of two ranks; what the loader then gives both is every row once."""
    split, rank = material["split"], int(os.environ["RANK"])
    found = subject.hashes(split)
    wanted = material["rows"]
    require(found == wanted, f"rank {rank} of two reads {len(found)} rows of the split '{split}', or others, where there are {len(wanted)}")
    store = subject.store(split)
    dealt = [n for r in range(2) for numbers in seen(batches(store, Plan(batch_size=2, rank=r, world=2))) for n in numbers]
    require(sorted(dealt) == sorted(wanted), f"two ranks see {len(dealt)} rows of the split '{split}' instead of {len(wanted)}")


def same_fingerprint(subject: SourceSubject, material: dict[str, Any], folder: Path) -> None:
    """Ask for a fingerprint once more."""
    found = subject.source.fingerprint(material["split"])
    require(found == material["fingerprint"], f"in another process the split '{material['split']}' has another fingerprint")
