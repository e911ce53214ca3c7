"""What every contestant of overhead.py trains on: a fresh Llama, and rows in the order in which ftlab deals them."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

RATE = 2e-4
CLIP = 1.0
RANK, ALPHA = 8, 16.0
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]
SEED = 42


@dataclass(frozen=True)
class Workload:
    """A model and a number of steps."""

    layers: int
    width: int
    heads: int
    inner: int
    vocabulary: int
    tokens: int
    warmup: int
    turn: int
    turns: int
    batch: int = 8

    @property
    def steps(self) -> int:
        """Optimiser steps of a process."""
        return self.warmup + self.turn * self.turns


WORKLOADS = {
    "llama-6x384": Workload(6, 384, 6, 1024, 8192, 256, warmup=3, turn=1, turns=10),
    "tiny": Workload(1, 32, 2, 64, 256, 16, warmup=100, turn=50, turns=20),
}
"""`tiny` is nearly all fixed cost: beside steps of two seconds a millisecond cannot be seen. Its turns of 50 steps log five times."""


def prepare(load: Workload, folder: Path) -> None:
    """Write `model/`, `rows.jsonl` (text) and `rows.npy` (ids in ftlab's order)."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from ftlab.data.order import epoch_batches

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=load.vocabulary, hidden_size=load.width, num_hidden_layers=load.layers, num_attention_heads=load.heads,
        intermediate_size=load.inner, max_position_embeddings=load.tokens, pad_token_id=0, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    words = ["<pad>", "</s>", "<unk>", *(f"w{i}" for i in range(3, load.vocabulary))]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=load.tokens
    )
    tokenizer.save_pretrained(folder / "model")
    ids = np.random.default_rng(0).integers(3, load.vocabulary, (load.steps * load.batch, load.tokens))
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for row in ids:
            file.write(json.dumps({"text": " ".join(words[i] for i in row)}) + "\n")
    lengths = np.full(len(ids), load.tokens)
    order = np.concatenate(epoch_batches(lengths, load.batch, seed=SEED, epoch=0, shuffle=True, group=True))
    np.save(folder / "rows.npy", ids[order])


def seed_adapter(model: nn.Module) -> None:
    """The same A in every contestant; B is zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_A" in name.split("."):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)


class Recorder:
    """CPU seconds of each turn and the loss of each step, which all pay for alike.

    Losses are kept as numbers: a tensor of four bytes that stays where a batch's logits were leaves a hole that the next ones do not fit.

    A turn is a few steps, taken when the parent says so; in between the process waits, and the others have theirs.
    """

    def __init__(self) -> None:
        self.warmup, self.turn, self.steps = (int(word) for word in os.environ["OVERHEAD_PLAN"].split())
        self.go, self.done = (int(word) for word in os.environ["OVERHEAD_PIPES"].split())
        self.taken = 0
        self.began = 0.0
        self.seconds: list[float] = []
        self.losses: list[float] = []

    def loss(self, total: Tensor, count: Tensor | float = 1.0) -> None:
        """Note a loss."""
        self.losses.append(float(total.detach()) / float(count))

    def step(self) -> None:
        now = time.process_time()
        self.taken += 1
        beyond = self.taken - self.warmup
        if beyond < 0 or beyond % self.turn:
            return
        if beyond:
            self.seconds.append(now - self.began)
        if self.taken == self.steps:
            found = {"seconds": self.seconds, "losses": self.losses}
            Path(os.environ["OVERHEAD_OUT"]).write_text(json.dumps(found), encoding="utf-8")
            return
        os.write(self.done, b".")
        if not os.read(self.go, 1):
            raise SystemExit("the benchmark was broken off")
        self.began = time.process_time()
