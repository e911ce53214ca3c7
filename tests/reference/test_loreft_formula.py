"""LoReFT against its formula, token by token, in double precision: logits and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ftlab.strategies.loreft import Edit, LoReFT
from tests.reference.blocks import IDS, MASK, WIDTH, Tiny, spread


def gram_schmidt(rows: Tensor) -> Tensor:
    """Orthonormal rows that span what `rows` span, one after another."""
    done: list[Tensor] = []
    for row in rows:
        for other in done:
            row = row - (other @ row) * other
        done.append(row / row.norm())
    return torch.stack(done)


def edited(h: Tensor, basis: Tensor, source: Tensor, bias: Tensor) -> Tensor:
    """Φ(h) = h + Rᵀ(W·h + b − R·h), Wu et al. 2024, equation 2, for one token (D)."""
    rotation = gram_schmidt(basis)
    return h + rotation.T @ (source @ h + bias - rotation @ h)


def meant(row: Tensor, first: int, last: int) -> set[int]:
    real = row.nonzero().flatten().tolist()
    return {*real[:first], *real[len(real) - last :]} if last else set(real[:first])


def reference(model: Tiny, strategy: LoReFT, mask: Tensor, own: list[list[list[Tensor]]]) -> Tensor:
    """Logits in double precision; `own` has, for each layer and edit, basis, source and bias."""
    first, last = strategy.first, strategy.first if strategy.last is None else strategy.last
    x = model.embedding(IDS)
    for layer, edits in zip(model.layers, own, strict=True):
        x = layer(x)
        rows = []
        for row, real in zip(x, mask, strict=True):
            tokens = list(row)
            begin, end = meant(real, first, 0), meant(real, 0, last)
            spans = [begin | end] if strategy.tied else [begin, end - begin]
            for edit, span in zip(edits, spans, strict=True):
                for t in span:
                    tokens[t] = edited(tokens[t], *edit)
            rows.append(torch.stack(tokens))
        x = torch.stack(rows)
    logits: Tensor = model.head(x)
    return logits


@pytest.mark.parametrize(
    ("strategy", "mask"),
    [
        (LoReFT(r=3, first=2, last=1), MASK),
        (LoReFT(r=3, first=2, last=1), MASK.flip(1)),
        (LoReFT(r=2, first=3, last=3), MASK),
        (LoReFT(r=3, first=1), MASK),
        (LoReFT(r=2, first=3, last=2, tied=False), MASK),
        (LoReFT(r=WIDTH, first=9, last=0), MASK),
    ],
    ids=["right", "left", "overlapping", "as many", "untied", "whole space"],
)
def test_same_as_the_formula(strategy: LoReFT, mask: Tensor) -> None:
    model = Tiny()
    strategy.apply(model, {})
    spread(model)
    logits = model(IDS, mask).logits
    logits.pow(2).mean().backward()
    ours = [[list(m.parameters()) for m in layer.modules() if isinstance(m, Edit)] for layer in model.layers]
    twins = [[[p.detach().double().requires_grad_() for p in edit] for edit in edits] for edits in ours]
    expected = reference(Tiny(torch.float64), strategy, mask, twins)
    expected.pow(2).mean().backward()
    torch.testing.assert_close(logits.double(), expected, rtol=1e-5, atol=1e-5)
    for edits, others in zip(ours, twins, strict=True):
        for edit, other in zip(edits, others, strict=True):
            for mine, theirs in zip(edit, other, strict=True):
                assert mine.grad is not None
                assert theirs.grad is not None
                scale = float(theirs.grad.abs().max())
                assert scale > 0
                torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=1e-4, atol=1e-5 * scale)


def test_rotation_is_torchs_own_for_the_same_rows() -> None:
    torch.manual_seed(0)
    edit = Edit(WIDTH, 3)
    theirs = nn.utils.parametrizations.orthogonal(nn.Linear(WIDTH, 3, bias=False), use_trivialization=False)
    theirs.weight = edit.basis.detach()
    torch.testing.assert_close(edit.rotation(), theirs.weight, rtol=0, atol=1e-6)
