"""What the tests of exports share: small trained modules on the built-in backbones, and their logits."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import torch
from torch import Tensor, nn

from ftlab.backbone import ASSETS, Backbone
from ftlab.module import FinetuneModule
from ftlab.strategies.base import TuningStrategy
from ftlab.tasks.base import Task
from ftlab.tasks.causal_lm import CausalLM
from ftlab.tasks.sequence_classification import SequenceClassification

LLAMA = Backbone(name=str(ASSETS / "tiny-llama"))
BERT = Backbone(name=str(ASSETS / "tiny-bert"))
LANGUAGE = CausalLM()
CLASSES = SequenceClassification(labels=["north", "south", "west"])
NEW = ["<first>", "<second>"]
VOCABULARY = 3072


def grown(backbone: Backbone) -> Backbone:
    return replace(backbone, new_tokens=NEW)


def trained(tuning: TuningStrategy, backbone: Backbone = LLAMA, task: Task = LANGUAGE) -> FinetuneModule:
    """A module whose trainable tensors have all moved, in evaluation mode."""
    module = FinetuneModule(backbone, task, tuning)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module.configure_model()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    module.eval()
    return module


def ids(backbone: Backbone) -> Tensor:
    """(2, 12) token ids; new tokens are among them where there are any."""
    found = torch.arange(4, 28).reshape(2, 12)
    for place, _ in enumerate(backbone.new_tokens):
        found[:, 3 + place] = VOCABULARY + place
    return found


@torch.no_grad()
def logits(model: nn.Module, tokens: Tensor) -> Tensor:
    found: Tensor = model(input_ids=tokens).logits
    return found


def difference(expected: Tensor, got: Tensor) -> float:
    """The largest difference by the largest size."""
    return float((expected - got).abs().max() / expected.abs().max())


def digest(model: nn.Module) -> str:
    """Of every tensor of a model."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(name.encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
