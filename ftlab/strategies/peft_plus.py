"""LoRA+ (Hayou et al. 2024): B learns faster than A."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def with_faster_b(groups: Iterable[Mapping[str, Any]], ratio: float) -> list[dict[str, object]]:
    """Optimiser groups in which B and all vectors have `ratio` times the learning rate, as the authors' own code has them.

    Args:
        groups: Groups of (name, parameter) with a learning rate.
        ratio: λ, the learning rate of B over that of A.
    """
    found: list[dict[str, object]] = []
    for group in groups:
        fast = [(name, p) for name, p in group["params"] if p.ndim == 1 or "lora_B" in name.split(".")]
        names = {name for name, _ in fast}
        slow = [(name, p) for name, p in group["params"] if name not in names]
        found += [{**group, "params": slow}] if slow else []
        found += [{**group, "params": fast, "lr": group["lr"] * ratio}] if fast else []
    return found
