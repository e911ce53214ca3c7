"""Hidden states in files: one for the rows of a split, named by everything that they depend on."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ftlab.errors import StorageError
from ftlab.features import Cut, Table
from ftlab.fingerprints import base_fingerprint
from ftlab.folders import sync_folder

log = logging.getLogger(__name__)

_FORMAT = 1


def name_of(cut: Cut, rows: str, precision: str) -> str:
    """A hash of the weights below a cut, of the rows, and of how the states are computed.

    Args:
        cut: The cut.
        rows: Identity of the split's examples.
        precision: Of the trainer.
    """
    config = cut.body.config
    key = {
        "format": _FORMAT, "weights": base_fingerprint(cut.below, ()), "depth": cut.depth, "rows": rows, "precision": precision,
        "model": type(cut.body).__name__, "attention": config._attn_implementation,
        "config": json.loads(config.to_json_string(use_diff=False)),
        "device": cut.body.device.type, "versions": [torch.__version__, transformers.__version__],
    }  # fmt: skip
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def table_at(folder: Path, name: str, compute: Callable[[], Mapping[bytes, Tensor]]) -> Table:
    """The table called `name`; computed and written where it is not there.

    Args:
        folder: Where tables are kept.
        name: What `name_of` gives.
        compute: The bytes of a row's tokens → its states (T, D).

    Raises:
        StorageError: It cannot be written or read.
    """
    path = folder / f"{name}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder / f".{name}.lock"):
            if not path.is_file():
                _write(path, compute())
        return _read(path)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"cache_features: {path} cannot be written or read ({error}); free space, or remove that file.") from error


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process computes what the others wait for."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, states: Mapping[bytes, Tensor]) -> None:
    keys = list(states)
    tensors = {
        "states": torch.cat([states[key] for key in keys]),
        "lengths": torch.tensor([len(states[key]) for key in keys]),
        "sizes": torch.tensor([len(key) for key in keys]),
        "keys": torch.from_numpy(np.frombuffer(b"".join(keys), dtype=np.uint8).copy()),
    }
    work = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        save_file(tensors, work)
        with work.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(work, path)
        sync_folder(path.parent)
    finally:
        with suppress(OSError):
            work.unlink(missing_ok=True)
    log.info("cache_features: states of %d rows, %.1f MiB, written to %s", len(keys), tensors["states"].nbytes / 2**20, path)


def _read(path: Path) -> Table:
    with safe_open(path, framework="pt") as file:
        states, lengths, sizes, keys = (file.get_tensor(name) for name in ("states", "lengths", "sizes", "keys"))
    whole = keys.numpy().tobytes()
    ends = list(accumulate(sizes.tolist()))
    begins = list(accumulate(lengths.tolist(), initial=0))[:-1]
    return Table(states=states, places={whole[end - size : end]: at for end, size, at in zip(ends, sizes.tolist(), begins, strict=True)})
