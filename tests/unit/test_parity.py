"""Models with several outputs are compared in all of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ftlab import parity

IDS = {"input_ids": torch.tensor([[1, 2, 3], [4, 5, 0]]), "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}


class TwoHeads(nn.Module):
    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor | tuple[Tensor, ...] | None]:
        words = torch.stack([input_ids.float(), -input_ids.float()], dim=-1)
        return {"loss": None, "prediction_logits": words, "relation_logits": words.sum(1) + self.shift, "hidden_states": (words,)}


def test_every_head_counts() -> None:
    expected, same, other = (parity.logits_of(TwoHeads(shift), [IDS]) for shift in (0.0, 0.0, 0.5))
    assert [t.shape for t in expected] == [(5, 2), (2, 2)]
    assert parity.compare(expected, same, 2, 0.0).holds
    found = parity.compare(expected, other, 2, 1e-5)
    assert not found.holds
    assert found.largest == pytest.approx(0.5 / 9)
    assert found.agreement == 1.0


def test_what_is_not_finite_never_agrees() -> None:
    expected = parity.logits_of(TwoHeads(), [IDS])
    assert not parity.compare(expected, [expected[0], expected[1] * float("nan")], 2, 1.0).holds
