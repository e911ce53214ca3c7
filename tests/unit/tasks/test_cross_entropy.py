"""The chunked loss beside the plain one: value, gradients, and the biggest tensor that either makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from ftlab.tasks import cross_entropy
from ftlab.tasks.cross_entropy import cross_entropy_sum, token_losses


class LowRank(nn.Module):
    """A frozen map with a trained product of two small matrices, as LoRA on the output embedding has it."""

    def __init__(self, width: int, vocabulary: int, rank: int = 3) -> None:
        super().__init__()
        self.base = nn.Linear(width, vocabulary, bias=False).requires_grad_(False)
        self.a = nn.Linear(width, rank, bias=False)
        self.b = nn.Linear(rank, vocabulary, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        result: Tensor = self.base(hidden) + 2 * self.b(self.a(hidden))
        return result


class LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor that any operation returned."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for item in result if isinstance(result, tuple | list) else (result,):
            if isinstance(item, Tensor):
                self.elements = max(self.elements, item.numel())
        return result


HEADS: dict[str, Callable[[int, int], nn.Module]] = {
    "plain": lambda width, size: nn.Linear(width, size, bias=False),
    "bias": nn.Linear,
    "frozen": lambda width, size: nn.Linear(width, size).requires_grad_(False),
    "low-rank": LowRank,
}


def case(
    head: str, positions: int = 41, width: int = 16, vocabulary: int = 50, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, nn.Module]:
    torch.manual_seed(3)
    module = HEADS[head](width, vocabulary).to(dtype)
    hidden = (torch.randn(positions, width) * 3).to(dtype).requires_grad_(True)
    return hidden, torch.randint(vocabulary, (positions,)), module


def results(loss: Tensor, hidden: Tensor, head: nn.Module) -> list[Tensor]:
    """The loss, then its gradients by the hidden states and by everything trainable, for a loss weighted as the module does it."""
    wanted = [hidden, *(p for p in head.parameters() if p.requires_grad)]
    return [loss.detach(), *torch.autograd.grad(loss / 7, wanted)]


def distance(got: Tensor, expected: Tensor) -> float:
    return float((got.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("rows", [1, 8, 41, 100])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_value_and_gradients_are_those_of_the_plain_loss(
    head: str, rows: int, dtype: torch.dtype, limit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_entropy, "chunk_rows", lambda vocabulary: rows)
    hidden, labels, module = case(head, dtype=dtype)
    ours = results(cross_entropy_sum(hidden, labels, module, module, 50), hidden, module)
    plain = results(F.cross_entropy(module(hidden).float(), labels, reduction="sum"), hidden, module)
    assert [t.dtype for t in ours] == [t.dtype for t in plain]
    assert max(distance(a, b) for a, b in zip(ours, plain, strict=True)) <= limit


def test_gradients_in_bfloat16_are_as_good_with_many_chunks_as_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, labels, module = case("plain", positions=2048, dtype=torch.bfloat16)
    wide, wide_module = hidden.detach().double().requires_grad_(True), nn.Linear(16, 50, bias=False).double()
    wide_module.load_state_dict(module.state_dict())
    exact = results(F.cross_entropy(wide_module(wide), labels, reduction="sum"), wide, wide_module)[2]
    errors = []
    for rows in (4, 2048):
        monkeypatch.setattr(cross_entropy, "chunk_rows", lambda vocabulary, rows=rows: rows)
        ours = results(cross_entropy_sum(hidden, labels, module, module, 50), hidden, module)[2]
        errors.append(distance(ours, exact))
    assert errors[0] <= 1.5 * errors[1]


@pytest.mark.parametrize("head", HEADS)
def test_single_losses_add_up(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "chunk_rows", lambda vocabulary: 8)
    hidden, labels, module = case(head)
    expected = F.cross_entropy(module(hidden), labels, reduction="none").detach()
    torch.testing.assert_close(token_losses(hidden, labels, module, 50), expected)
    with torch.no_grad():
        torch.testing.assert_close(cross_entropy_sum(hidden, labels, module, module, 50), expected.sum())


@pytest.mark.parametrize("head", HEADS)
def test_no_position_is_a_loss_of_zero_that_can_be_differentiated(head: str) -> None:
    hidden, labels, module = case(head, positions=0)
    loss, *found = results(cross_entropy_sum(hidden, labels, module, module, 50), hidden, module)
    assert loss.item() == 0
    assert not any(g.any() for g in found)


def test_a_head_below_frozen_layers_is_trained_without_any_position() -> None:
    hidden, labels, module = case("plain", positions=0)
    loss = cross_entropy_sum(hidden.detach(), labels, module, module, 50)
    loss.backward()
    assert module.weight.grad is not None


def test_a_huge_activation_without_gradients_stays_finite() -> None:
    hidden = torch.full((300, 16), 300.0, dtype=torch.float16)
    module = nn.Linear(16, 50, bias=False).half()
    nn.init.zeros_(module.weight)
    labels = torch.zeros(300, dtype=torch.long)
    with torch.no_grad():
        total = cross_entropy_sum(hidden, labels, module, module, 50)
    assert total.item() == pytest.approx(300 * torch.tensor(50.0).log().item(), rel=1e-3)


@pytest.mark.parametrize("positions", [1024, 4096])
def test_no_tensor_grows_with_positions_times_vocabulary(positions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    width, vocabulary = 8, 3000
    monkeypatch.setattr(cross_entropy, "_CHUNK_ELEMENTS", 2**18)
    hidden, labels, module = case("bias", positions, width, vocabulary)
    with LargestTensor() as ours:
        results(cross_entropy_sum(hidden, labels, module, module, vocabulary), hidden, module)
    with LargestTensor() as plain:
        results(F.cross_entropy(module(hidden), labels, reduction="sum"), hidden, module)
    assert plain.elements == positions * vocabulary
    assert ours.elements == 128 * vocabulary  # the least number of rows per chunk
