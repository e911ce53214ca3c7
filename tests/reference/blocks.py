"""A transformer of 40 lines, whose halves a test can call one by one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, WIDE, VOCABULARY, LAYERS = 16, 24, 20, 2
IDS = torch.tensor([[3, 7, 1, 12, 9, 4], [5, 5, 18, 2, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])


class Block(nn.Module):
    """Pre-norm, one head; `attention` and `mlp` are the functions that an adapter stands behind or beside."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, WIDE), nn.Linear(WIDE, WIDTH)

    def attention(self, x: Tensor) -> Tensor:
        out: Tensor = self.o(F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x)))
        return out

    def mlp(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(F.gelu(self.up(x)))
        return out

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.before(x))
        return x + self.mlp(self.between(x))


class Tiny(nn.Module):
    """Two blocks between an embedding and a head, with the same random weights every time."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        config = SimpleNamespace(vocab_size=VOCABULARY, hidden_size=WIDTH)
        self.config: Any = SimpleNamespace(get_text_config=lambda: config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.embedding, self.head = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, VOCABULARY)
            self.layers = nn.ModuleList(Block() for _ in range(LAYERS))
        self.to(dtype)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> SimpleNamespace:
        x = self.embedding(input_ids)
        for layer in self.layers:
            x = layer(x)
        return SimpleNamespace(logits=self.head(x))


def spread(module: nn.Module) -> None:
    """Give every trainable tensor random values, in float32's steps."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            if p.requires_grad:
                p.copy_(torch.randn(p.shape, generator=generator) * 0.3)
