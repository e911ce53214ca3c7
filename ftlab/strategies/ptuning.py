"""P-tuning: the vectors in the input of a frozen model come from a small trained network."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ftlab.errors import ConfigError
from ftlab.strategies.base import Traits, TuningStrategy
from ftlab.strategies.prompt_tuning import check_length, embedded
from ftlab.strategies.soft_prompt import attach, save_prompt


class Encoded(nn.Module):
    """What PEFT's prompt encoder makes of its own P inputs, (P, D), in the encoder's own precision.

    On a processor without AVX-512 torch cannot run an LSTM under autocast to bfloat16, and the encoder is small beside the model.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self) -> Tensor:
        table: Tensor = self.encoder.embedding.weight  # type: ignore[union-attr,assignment]  # PEFT's embedding
        kind = table.device.type
        with nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False):  # autocast knows no meta device
            vectors: Tensor = self.encoder(torch.arange(len(table), device=table.device)[None])
        return vectors[0]


@dataclass(frozen=True, kw_only=True)
class PTuning(TuningStrategy):
    """Train vectors in the input of the frozen model as the output of a small network; placed as by PromptTuning.

    Args:
        length: Number of vectors; they take as many positions of the model's context.
        encoder: The network; an MLP, or a bidirectional LSTM with an MLP behind it.
        hidden: Width of the network.
        lstm_layers: Layers of the LSTM.
        dropout: Probability of dropping a value between the layers of the LSTM while training.
    """

    traits = Traits(learning_rate=1e-3, starts_at_base=False, paper="Liu et al. 2021, GPT Understands, Too")

    length: int = 20
    encoder: Literal["lstm", "mlp"] = "lstm"
    hidden: int = 128
    lstm_layers: int = 2
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_length(self.length)
        for name, value in (("hidden", self.hidden), ("lstm_layers", self.lstm_layers)):
            if value < 1:
                raise ConfigError(f"model.tuning.{name} is {value}; it must be at least 1.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.tuning.dropout is {self.dropout:g}; it is a probability, at least 0 and below 1.")
        if self.dropout and (self.encoder == "mlp" or self.lstm_layers == 1):
            raise ConfigError(f"model.tuning.dropout is {self.dropout:g}, but it acts between layers of an LSTM; set it to 0 or take two.")

    def virtual_tokens(self) -> int:
        return self.length

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        from peft.tuners.p_tuning import PromptEncoder, PromptEncoderConfig

        width = embedded(model, torch.zeros(1, dtype=torch.long)).shape[1]
        config = PromptEncoderConfig(
            num_virtual_tokens=self.length,
            num_transformer_submodules=1,
            token_dim=width,
            encoder_reparameterization_type=self.encoder.upper(),
            encoder_hidden_size=self.hidden,
            encoder_num_layers=self.lstm_layers if self.encoder == "lstm" else 2,
            encoder_dropout=self.dropout,
        )
        return attach(Encoded(PromptEncoder(config)), self.length, model, heads)

    def save(self, model: nn.Module, folder: Path) -> None:
        save_prompt(self, model, folder)
