"""Given to `ftlab fit` by --plugin: writes down what a disk would hold after a power cut, that is, nothing that was not synced.

At each fsync of a file its content is kept, at each fsync of a folder its entries, under the folder that `POWER_LAYER` names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ftlab import TuningStrategy

_real = os.fsync


def _entry(entry: os.DirEntry[str]) -> list[str | int]:
    if entry.is_symlink():
        return ["link", os.readlink(entry.path)]
    return ["folder" if entry.is_dir() else "file", entry.inode()]


def _fsync(descriptor: int) -> None:
    _real(descriptor)
    store, path = Path(os.environ["POWER_LAYER"]), os.readlink(f"/proc/self/fd/{descriptor}")
    if os.path.isdir(path):
        with (store / "folders.jsonl").open("a") as file:
            file.write(json.dumps([path, {e.name: _entry(e) for e in os.scandir(path)}]) + "\n")
        return
    number = os.stat(descriptor).st_ino
    held = store / f"{number}.held"
    if not held.exists():
        os.link(path, held)  # its number is then not given to another file
    (store / str(number)).write_bytes(Path(path).read_bytes())


def _forgotten(descriptor: int) -> None:
    """An fsync that does nothing, for the negative control."""


setattr(os, "fsync", _forgotten if "POWER_LAYER_OFF" in os.environ else _fsync)  # noqa: B010  # narrower than its type, on purpose


@dataclass(frozen=True, kw_only=True)
class Unused(TuningStrategy):
    """What `--plugin` asks for."""

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        return model
