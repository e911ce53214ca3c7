"""Cross-entropy over a big vocabulary without ever holding all the logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

Project = Callable[[Tensor], Tensor]
"""(n, D) hidden states → (n, V) logits."""

_CHUNK_ELEMENTS = 2**22
"""Logits held at once: 16 MiB in float32, and at least 128 rows so that the matrix product stays efficient."""


def chunk_rows(vocabulary: int) -> int:
    """How many positions are projected to logits at a time."""
    return max(128, _CHUNK_ELEMENTS // vocabulary)


class _ChunkedSum(torch.autograd.Function):
    """Sum of the cross-entropy; the gradient is taken chunk by chunk in the forward pass, so no logits are kept.

    A frozen head then costs two matrix products per position (logits and their gradient) instead of three.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        hidden: Tensor,
        labels: Tensor,
        project: Project,
        rows: int,
        *parameters: Tensor,
    ) -> Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        wants_hidden = ctx.needs_input_grad[0]  # type: ignore[attr-defined]
        by_hidden = torch.empty_like(hidden) if wants_hidden else None
        # In float32, because bfloat16 would lose what the later of many chunks add.
        by_parameter = [torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)) for p in parameters]
        for start in range(0, len(labels), rows):
            piece = hidden[start : start + rows].detach().requires_grad_(wants_hidden)
            with torch.enable_grad():
                loss = F.cross_entropy(project(piece).float(), labels[start : start + rows], reduction="sum")
            found = torch.autograd.grad(loss, [piece, *parameters] if wants_hidden else parameters, allow_unused=True)
            if by_hidden is not None:
                by_hidden[start : start + rows] = found[0]
                found = found[1:]
            for kept, new in zip(by_parameter, found, strict=True):
                if new is not None:
                    kept += new
            total += loss.detach()
        ctx.by_hidden, ctx.by_parameter, ctx.kinds = by_hidden, by_parameter, [p.dtype for p in parameters]  # type: ignore[attr-defined]
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, scale: Tensor) -> tuple[Tensor | None, ...]:
        by_hidden, by_parameter, kinds = ctx.by_hidden, ctx.by_parameter, ctx.kinds  # type: ignore[attr-defined]
        first = None if by_hidden is None else by_hidden * scale.to(by_hidden.dtype)
        return (first, None, None, None, *((g * scale).to(kind) for g, kind in zip(by_parameter, kinds, strict=True)))


def cross_entropy_sum(hidden: Tensor, labels: Tensor, project: Project, head: nn.Module, vocabulary: int) -> Tensor:
    """Sum of −log p(label) over all positions, in float32.

    Args:
        hidden: (n, D), only the positions that are scored.
        labels: (n,), no ignored ones among them.
        project: Hidden states to logits.
        head: The module behind `project`; its trainable parameters get their gradient.
        vocabulary: V, which sets the size of a chunk.
    """
    if torch.is_grad_enabled():
        parameters = [p for p in head.parameters() if p.requires_grad]
        if hidden.requires_grad or parameters:  # even without a position: every rank needs a loss to call backward on
            return _ChunkedSum.apply(hidden, labels, project, chunk_rows(vocabulary), *parameters)  # type: ignore[no-any-return,no-untyped-call]
    return token_losses(hidden, labels, project, vocabulary).sum()


@torch.no_grad()
def token_losses(hidden: Tensor, labels: Tensor, project: Project, vocabulary: int) -> Tensor:
    """−log p(label) of each position (n,), in float32, without a gradient."""
    rows = chunk_rows(vocabulary)
    pieces = [
        F.cross_entropy(project(hidden[start : start + rows]).float(), labels[start : start + rows], reduction="none")
        for start in range(0, len(labels), rows)
    ]
    return torch.cat(pieces) if pieces else hidden.new_zeros(0, dtype=torch.float32)
