"""What the tests of virtual tokens share: tiny models, rows of them with padding on either side, and moved prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from ftlab.strategies.base import TuningStrategy
from ftlab.strategies.prefix_tuning import PrefixTuning
from ftlab.strategies.prompt_tuning import PromptTuning
from ftlab.strategies.ptuning import PTuning
from ftlab.testing.models import DECODERS, tiny_model_folder

PAD = 1
ROWS = ([0, 65, 67, 80, 90, 101], [0, 77, 88])
WORDS = [40, 41, 42, 99, 100]
LENGTH = len(WORDS)
KINDS: dict[str, TuningStrategy] = {
    "prompt": PromptTuning(length=LENGTH),
    "ptuning": PTuning(length=LENGTH, hidden=6),
    "prefix": PrefixTuning(length=LENGTH),
    "prefix-network": PrefixTuning(length=LENGTH, hidden=6),
}
KEYLESS = ("deberta-v2", "distilbert", "modernbert")
"""Families whose attention takes no keys and values from outside."""


class Bases:
    """Tiny models, each written once and read anew for every use."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, family: str) -> Path:
        path = self.root / family
        return path if path.is_dir() else tiny_model_folder(family, path)

    def __call__(self, family: str, task: str = "", **options: Any) -> Any:
        """A model in evaluation mode; `task` is `SequenceClassification`, `PreTraining` or empty for the language model."""
        auto = getattr(transformers, f"AutoModelFor{task or ('CausalLM' if family in DECODERS else 'MaskedLM')}")
        if task == "SequenceClassification":
            options["num_labels"] = 3
        torch.manual_seed(0)
        model = auto.from_pretrained(self.folder(family), **options)
        model.config.pad_token_id = PAD
        return model.eval()


def batch(side: str = "right", rows: Sequence[list[int]] = ROWS) -> dict[str, Tensor]:
    """The rows with two more columns of padding than they need."""
    width = max(map(len, rows)) + 2
    ids = torch.full((len(rows), width), PAD)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        ids[i, place] = torch.tensor(row)
        mask[i, place] = 1
    return {"input_ids": ids, "attention_mask": mask}


def moved(model: nn.Module) -> nn.Module:
    """`model` with noise on everything that is trained."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return model


@torch.no_grad()
def alone(model: nn.Module, row: list[int], **options: Any) -> Tensor:
    """The logits (T, V) or (V) of one row by itself."""
    found: Tensor = model(input_ids=torch.tensor([row]), **options).logits[0]
    return found


@torch.no_grad()
def together(model: nn.Module, inputs: dict[str, Tensor]) -> list[Tensor]:
    """The logits of every row of a batch, without those of its padding."""
    logits = model(**inputs).logits
    real = inputs["attention_mask"].bool()
    return [row if row.ndim == 1 else row[real[i]] for i, row in enumerate(logits)]


def close(some: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(some, other, rtol=0, atol=1e-5 * float(other.detach().abs().max()))


def trainables(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
