"""An exported adapter, what is done to it, and what must come of opening it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

import ftlab
from ftlab.adapter_check import open_adapter
from ftlab.errors import FtlabError
from ftlab.export import export_run
from ftlab.model_card import Facts
from ftlab.strategies.lora import LoRA
from tests.unit.exports import LLAMA, digest, trained

FIRST = "base_model.model.model.layers.0.self_attn.q_proj."
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def export(folder: Path) -> Path:
    """What ftlab exports of a LoRA run."""
    export_run(trained(LoRA(r=4, target_modules=["q_proj", "v_proj"])), folder, Facts())
    return folder


def base() -> nn.Module:
    model: nn.Module = AutoModelForCausalLM.from_pretrained(LLAMA.name)
    return model


def changed(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def configured(folder: Path, **entries: Any) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def untouched(folder: Path, kind: type[FtlabError], sentence: str) -> None:
    """Opening it fails with this error, and the model it was meant for is untouched."""
    model = base()
    before = digest(model)
    with pytest.raises(kind, match=sentence):
        open_adapter(model, folder)
    assert digest(model) == before
    assert model.state_dict().keys() == base().state_dict().keys()


def refused(folder: Path, kind: type[FtlabError], sentence: str) -> None:
    """The same, also by `ftlab.load`."""
    untouched(folder, kind, sentence)
    with pytest.raises(kind, match=sentence):
        ftlab.load(folder, base=LLAMA)


def refused_by_the_check(folder: Path, kind: type[FtlabError], sentence: str) -> None:
    """The same, and its control: without the check, that is with PEFT alone, the comparison fails."""
    refused(folder, kind, sentence)
    with mock.patch("ftlab.adapter_check.check_adapter", return_value=None), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises((Exception, pytest.fail.Exception)) as failure:
            untouched(folder, kind, sentence)
    assert not isinstance(failure.value, FtlabError), "the check was not left out"


def peft_takes(folder: Path) -> nn.Module:
    """What plain PEFT makes of it, which only warns if it says anything: the control of the check."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened: nn.Module = PeftModel.from_pretrained(base(), folder)
    return opened
