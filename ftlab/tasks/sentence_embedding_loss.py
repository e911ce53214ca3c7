"""The contrastive loss with the pairs of all ranks as negatives."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

_BASE = 6364136223846793005
"""Knuth's multiplier modulo 2^64; any odd number of many bits would do."""


def text_keys(ids: Tensor, mask: Tensor) -> Tensor:
    """(B,) numbers that are equal where two texts have the same tokens: a polynomial modulo 2^64 over (B, T) ids, padding left out."""
    powers = torch.full((ids.shape[1],), _BASE, dtype=torch.int64, device=ids.device).cumprod(0)
    return ((ids + 1) * mask * powers).sum(1)


class _Everywhere(torch.autograd.Function):
    """The rows of all ranks; a row's gradient is the sum of what all ranks' losses want of it."""

    @staticmethod
    def forward(ctx: FunctionCtx, rows: Tensor, sizes: list[int], start: int) -> Tensor:
        ctx.start, ctx.size = start, len(rows)  # type: ignore[attr-defined]  # what a context may hold is open
        return _concatenated(rows, sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:
        whole = gradient.contiguous()
        dist.all_reduce(whole)
        return whole.narrow(0, ctx.start, ctx.size), None, None  # type: ignore[attr-defined]  # what a context may hold is open


def _concatenated(rows: Tensor, sizes: list[int]) -> Tensor:
    """The rows of all ranks, one rank after the other; they travel padded to the most that a rank has."""
    padded = rows.new_zeros(max(sizes), *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def everywhere(vectors: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, int]:
    """Vectors and keys of all ranks, and where this rank's own begin.

    Args:
        vectors: (b, …); ranks may have different b, also 0.
        keys: (b, …) whole numbers.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return vectors, keys, 0
    counts = [torch.zeros(1, dtype=torch.int64, device=keys.device) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, torch.tensor([len(keys)], device=keys.device))
    sizes = [int(count) for count in counts]
    start = sum(sizes[: dist.get_rank()])
    found: Tensor = _Everywhere.apply(vectors, sizes, start)  # type: ignore[no-untyped-call]  # of torch
    return found, _concatenated(keys, sizes), start


def contrastive_sum(pairs: Tensor, keys: Tensor, temperature: float, symmetric: bool) -> Tensor:
    """Sum over this rank's pairs of −log of the share that the second text has among all second texts (InfoNCE), in float32.

    A pair that shares a text with the anchor's own is no negative: its second text would be right as well.

    Args:
        pairs: (b, 2, D) vectors of the first and second texts.
        keys: (b, 2) numbers that tell texts apart.
        temperature: Divides the products of two vectors.
        symmetric: Whether each second text also looks for its first; the loss is then the mean of both directions.
    """
    whole, all_keys, start = everywhere(pairs, keys)
    own = start + torch.arange(len(pairs), device=pairs.device)
    shared = (keys[:, None] == all_keys[None]).any(-1)
    shared[torch.arange(len(own), device=own.device), own] = False
    with torch.autocast(pairs.device.type, enabled=False):  # in bfloat16 a temperature of 0.05 would make errors of 0.1
        sums = [_directed(pairs[:, 0], whole[:, 1], shared, own, temperature)]
        if symmetric:
            sums.append(_directed(pairs[:, 1], whole[:, 0], shared, own, temperature))
    return torch.stack(sums).mean()


def _directed(anchors: Tensor, others: Tensor, shared: Tensor, own: Tensor, temperature: float) -> Tensor:
    logits = (anchors @ others.T / temperature).masked_fill(shared, -torch.inf)
    return F.cross_entropy(logits, own, reduction="sum")
