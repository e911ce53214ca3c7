"""Which tokens are the first and last of their rows: padded, packed, cached."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from ftlab.errors import ConfigError
from ftlab.strategies.positions import Positions


def chosen(spans: list[tuple[int, int]], **given: object) -> list[list[list[int]]]:
    """For each span and row, the places of the tokens that it means."""
    return [[row.nonzero().flatten().tolist() for row in where] for where in Positions(spans)._chosen(given)]


IDS = torch.ones(2, 5, dtype=torch.long)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"input_ids": IDS}, [[0, 1, 4], [0, 1, 4]]),
        ({"inputs_embeds": torch.ones(2, 5, 3)}, [[0, 1, 4], [0, 1, 4]]),
        ({"input_ids": IDS, "attention_mask": torch.tensor([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]])}, [[0, 1, 3], [0, 1]]),
        ({"input_ids": IDS, "attention_mask": torch.tensor([[0, 1, 1, 1, 1], [0, 0, 0, 0, 1]])}, [[1, 2, 4], [4]]),
        ({"input_ids": IDS, "position_ids": torch.tensor([[0, 1, 2, 3, 4], [0, 1, 2, 0, 1]])}, [[0, 1, 4], [0, 1, 2, 3, 4]]),
        (
            {"input_ids": IDS, "position_ids": torch.tensor([[0, 1, 2, 3, 4]]), "attention_mask": torch.tensor([[1, 1, 1, 1, 0]] * 2)},
            [[0, 1, 3], [0, 1, 3]],
        ),
        ({"input_ids": IDS[:, :1], "attention_mask": torch.tensor([[1, 1, 1], [0, 0, 1]])}, [[0], [0]]),
        ({"input_ids": IDS[:, :2], "attention_mask": torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1]])}, [[1], [0, 1]]),
    ],
    ids=["whole", "embedded", "right", "left", "packed", "packed and padded", "one more token", "two more tokens"],
)
def test_first_two_and_last(given: dict[str, object], expected: list[list[int]]) -> None:
    assert chosen([(2, 1)], **given) == [expected]


def test_spans_do_not_overlap() -> None:
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    assert chosen([(2, 0), (0, 2)], input_ids=IDS, attention_mask=mask) == [[[0, 1], [0, 1]], [[3, 4], []]]


def test_tokens_in_a_cache_are_counted() -> None:
    for held, expected in ((1, [[0], [0]]), (3, [[], []])):
        cache = SimpleNamespace(get_seq_length=lambda held=held: held)
        assert chosen([(2, 0)], input_ids=IDS[:, :1], past_key_values=cache) == [expected]


def test_the_outermost_call_decides() -> None:
    """A body may be handed a mask that its model has rewritten, and something may follow it."""
    positions, counts = Positions([(2, 0)]), []

    class Inner(nn.Module):
        def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
            counts.append(int(positions.now[0].sum()))
            return input_ids

    class Outer(Inner):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

        def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
            return super().forward(self.inner(input_ids))

    model = Outer()
    for module in model.modules():
        positions.watch(module)
    model(IDS, torch.tensor([[0, 0, 0, 1, 1], [0, 0, 0, 0, 1]]))
    assert counts == [3, 3]
    model.inner(IDS)
    assert counts == [3, 3, 4]


def test_masks_of_pairs_are_refused() -> None:
    with pytest.raises(ConfigError, match="attention_mask is not one number a token"):
        chosen([(1, 1)], input_ids=IDS, attention_mask=torch.ones(2, 1, 5, 5))
