"""A checkpoint of an adapter is as large as the adapter."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ftlab import Backbone, FinetuneModule
from ftlab.checkpoint import keep_owned
from ftlab.strategies.lora import LoRA
from ftlab.tasks.causal_lm import CausalLM
from ftlab.tasks.sequence_classification import SequenceClassification
from ftlab.testing.models import DECODERS, FAMILIES, tiny_model_folder


def kept(folder: Path) -> dict[str, Tensor]:
    """The model part of a checkpoint of LoRA r 8 on that backbone."""
    task = CausalLM() if folder.name in DECODERS else SequenceClassification(labels=["a", "b"])
    module = FinetuneModule(Backbone(name=str(folder)), task, LoRA(r=8))
    module.configure_model()
    content = {"state_dict": module.state_dict()}
    return keep_owned(content["state_dict"], frozenset(f"model.{n}" for n in module.tuning.owned(module.adapted)))


def sizes(tensors: dict[str, Tensor]) -> tuple[int, int]:
    """Bytes of the tensors' numbers, and of the memory behind them, which is what torch writes."""
    memory = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors.values()}
    return sum(t.numel() * t.element_size() for t in tensors.values()), sum(memory.values())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore:.*model.tuning.r is")
def test_no_memory_of_the_base_hangs_on_an_owned_tensor(tmp_path: Path, family: str) -> None:
    tensors = kept(tiny_model_folder(family, tmp_path / family))
    needed, held = sizes(tensors)
    assert all(not name.endswith("base_layer.weight") for name in tensors)
    assert 0 < held <= 1.05 * needed


def test_the_file_is_as_large_as_its_tensors(tmp_path: Path) -> None:
    """torch adds some 330 bytes for each tensor, which count on the smallest models alone."""
    settings = {"hidden_size": 512, "intermediate_size": 1024, "num_attention_heads": 8, "num_key_value_heads": 8}
    tensors = kept(tiny_model_folder("llama", tmp_path / "llama", settings))
    file = io.BytesIO()
    torch.save(tensors, file)
    assert len(file.getvalue()) <= 1.05 * sizes(tensors)[0]
