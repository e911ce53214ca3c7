"""What an offline run of W&B holds: records in blocks of 32 KiB, as LevelDB's log has them, behind a header of seven bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2 as messages

_BLOCK = 2**15
_HEADER = 7


def _parts(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = _HEADER
    while at + _HEADER <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _HEADER:
            at += left
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        yield kind, data[at + _HEADER : at + _HEADER + size]
        at += _HEADER + size


def records(path: Path) -> Iterator[Any]:
    """Every record, put together from its parts (whole 1, first 2, middle 3, last 4)."""
    held = b""
    for kind, part in _parts(path.read_bytes()):
        held = part if kind in (1, 2) else held + part
        if kind in (1, 4):
            yield messages.Record.FromString(held)


def _flat(items: Any) -> dict[str, Any]:
    return {"/".join([item.key] if item.key else list(item.nested_key)): json.loads(item.value_json) for item in items}


def read(path: Path) -> dict[str, Any]:
    """`run`, `config`, `summary`, `history` (a list) and the names of `artifacts`."""
    found: dict[str, Any] = {"config": {}, "summary": {}, "history": [], "artifacts": []}
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found["run"] = record.run
            found["config"] |= _flat(record.run.config.update)
        elif kind in ("config", "summary"):
            found[kind] |= _flat(getattr(record, kind).update)
        elif kind == "history":
            found["history"].append(_flat(record.history.item))
        elif kind == "artifact":
            found["artifacts"].append(record.artifact.name)
    return found
