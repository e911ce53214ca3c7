"""The state of every random generator, as values that a checkpoint may hold."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist


def states() -> list[dict[str, Any]]:
    """The state of each rank, in order of rank; all ranks must call this."""
    mine = _state()
    if not (dist.is_available() and dist.is_initialized()):
        return [mine]
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, mine)
    return gathered


def _state() -> dict[str, Any]:
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # others draw from it
    return {
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],
        "python": [version, list(internal), gauss],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), float(cached)],
    }


@contextmanager
def untouched() -> Iterator[None]:
    """Put this process's generators back afterwards."""
    before = _state()
    try:
        yield
    finally:
        restore([before], 0)


def restore(saved: list[dict[str, Any]], rank: int) -> None:
    """Put this rank's generators where they were.

    Args:
        saved: What `states` returned.
        rank: This rank; one that did not exist then keeps its own seed.
    """
    if rank >= len(saved):
        return
    state = saved[rank]
    torch.set_rng_state(state["torch"])
    for cuda in state["cuda"]:
        if torch.cuda.is_available():
            torch.cuda.set_rng_state(cuda)
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
