"""QLoRA against PEFT and transformers driven by hand: logits, gradients, five steps, and what they make of an export."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

import ftlab
from ftlab.backbone import Backbone
from ftlab.errors import CheckpointError
from ftlab.export import export, export_run
from ftlab.folders import RECORD
from ftlab.model_card import Facts
from ftlab.module import FinetuneModule
from ftlab.strategies.base import Placement
from ftlab.strategies.qlora import QLoRA
from ftlab.tasks.causal_lm import CausalLM
from tests.unit.exports import BERT, CLASSES, LLAMA, NEW, difference, grown, ids, logits, trained
from tests.unit.training import model_folder

IDS = torch.tensor([[1, 5, 9, 40, 7, 3], [1, 8, 8, 12, 90, 2]])
OF_LORA = {"r": 4, "lora_alpha": 16, "target_modules": "all-linear"}
CONFIGS: dict[str, tuple[QLoRA, dict[str, Any], dict[str, Any]]] = {
    "nf4": (QLoRA(r=4), {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}, {}),
    "fp4-dora": (QLoRA(r=4, quant_type="fp4", double_quant=False, dora=True), {"load_in_4bit": True}, {"use_dora": True}),
    "eight": (QLoRA(r=4, bits=8, rslora=True), {"load_in_8bit": True, "llm_int8_threshold": 0.0}, {"use_rslora": True}),
}


def as_stored(model: nn.Module) -> nn.Module:
    """Without the repacking of 4-bit weights that bitsandbytes does on some CPUs, which fails for narrow maps."""
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
    return model


def spread(model: nn.Module) -> nn.Module:
    """B starts at zero, and then A has no gradient; random values make every tensor count."""
    for name, parameter in model.named_parameters():
        if "lora_B" in name.split("."):
            nn.init.normal_(parameter, std=0.05)
    return model


def by_peft(folder: Path, quantisation: dict[str, Any], lora: dict[str, Any]) -> nn.Module:
    base = AutoModelForCausalLM.from_pretrained(folder, quantization_config=BitsAndBytesConfig(**quantisation), device_map={"": "cpu"})
    torch.manual_seed(0)
    return spread(get_peft_model(as_stored(base), LoraConfig(**OF_LORA, **lora)))


def by_ftlab(folder: Path, tuning: QLoRA) -> nn.Module:
    options = tuning.load_options(Placement(device=torch.device("cpu"), precision="32-true"))
    model, _ = Backbone(name=str(folder)).load_model("AutoModelForCausalLM", {}, options)
    torch.manual_seed(0)
    return spread(tuning.apply(model, {}))


def trainables(model: nn.Module) -> dict[str, nn.Parameter]:
    return {n.removeprefix("base_model.model."): p for n, p in model.named_parameters() if p.requires_grad}


def five_steps(model: nn.Module) -> tuple[list[float], dict[str, Tensor]]:
    """Losses, and the gradients of the first step."""
    optimizer = torch.optim.AdamW(trainables(model).values(), lr=1e-3)
    losses, first = [], {}
    for step in range(5):
        loss = model(input_ids=IDS, labels=IDS).loss
        loss.backward()
        losses.append(loss.item())
        if not step:
            first = {n: p.grad.clone() for n, p in trainables(model).items() if p.grad is not None}
        optimizer.step()
        optimizer.zero_grad()
    return losses, first


@pytest.mark.parametrize("name", CONFIGS)
def test_same_as_peft(tmp_path: Path, name: str) -> None:
    tuning, quantisation, lora = CONFIGS[name]
    folder = model_folder(tmp_path)
    mine, peft = by_ftlab(folder, tuning).train(), by_peft(folder, quantisation, lora).train()
    assert trainables(mine).keys() == trainables(peft).keys()
    for key, parameter in trainables(peft).items():
        assert torch.equal(trainables(mine)[key], parameter), key
    assert torch.equal(logits(mine, IDS), logits(peft, IDS))
    some, other = five_steps(mine), five_steps(peft)
    assert some[0] == other[0]
    assert len(other[1]) == len(trainables(peft))
    torch.testing.assert_close(some[1], other[1], rtol=0, atol=0)
    assert torch.equal(logits(mine.eval(), IDS), logits(peft.eval(), IDS))


def opened_by_its_card(folder: Path) -> nn.Module:
    found = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        exec(found[1].replace('"this folder"', repr(str(folder))), names)
    return as_stored(names["model"]).eval()


EXPORTS = {
    "causal": (QLoRA(r=4), LLAMA, CausalLM()),
    "grown": (QLoRA(r=4, rank_pattern={"q_proj": 2}), grown(LLAMA), CausalLM()),
    "classes": (QLoRA(r=4, dora=True), grown(BERT), CLASSES),
    "eight": (QLoRA(r=4, bits=8), BERT, CLASSES),
    "fp4": (QLoRA(r=4, quant_type="fp4", double_quant=False, storage_dtype="float32"), LLAMA, CausalLM()),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_plain_peft_opens_an_export_on_the_same_quantised_base(tmp_path: Path, name: str) -> None:
    tuning, backbone, task = EXPORTS[name]
    module = trained(tuning, backbone, task)
    tokens = ids(backbone)
    found = export(module, tmp_path / "out", Facts(), [{"input_ids": tokens}])
    assert found.largest <= found.tolerance == 1e-6
    assert difference(logits(module.adapted, tokens), logits(opened_by_its_card(tmp_path / "out"), tokens)) <= 1e-6
    assert difference(logits(module.adapted, tokens), logits(ftlab.load(tmp_path / "out").model, tokens)) <= 1e-6
    if backbone.new_tokens:
        assert ftlab.load(tmp_path / "out").tokenizer.convert_tokens_to_ids(NEW) == [3072, 3073]


def test_what_was_computed_in_bfloat16_is_opened_so(tmp_path: Path) -> None:
    module = FinetuneModule(LLAMA, CausalLM(), QLoRA(r=4, compute_dtype="bfloat16"))
    module.configure_model()
    tokens = ids(LLAMA)
    found = export(module.eval(), tmp_path / "out", Facts(), [{"input_ids": tokens}])
    assert found.tolerance == 5e-2
    assert found.largest <= 1e-6


def test_a_record_that_does_not_say_how_the_base_was_quantised(tmp_path: Path) -> None:
    export_run(trained(QLoRA(r=4)), tmp_path / "out", Facts())
    path = tmp_path / "out" / RECORD
    path.write_text(path.read_text().replace('"bnb_4bit_quant_type"', '"bnb_4bit_quant"'))
    with pytest.raises(CheckpointError, match="does not say how the base was quantised; export the run again"):
        ftlab.load(tmp_path / "out")
