"""QLoRA: what is quantised, that nothing of it moves, and what is refused."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ftlab.backbone import Backbone
from ftlab.callbacks.record import parameter_counts
from ftlab.data.datamodule import FinetuneData
from ftlab.data.sources.in_memory import Rows, Value
from ftlab.errors import ConfigError, EnvironmentFault
from ftlab.module import FinetuneModule
from ftlab.optim.build import build_optimizer
from ftlab.quantised import quantised_maps
from ftlab.strategies import qlora
from ftlab.strategies.base import Placement
from ftlab.strategies.lora import LoRA
from ftlab.strategies.qlora import QLoRA
from ftlab.tasks.base import Task
from ftlab.tasks.causal_lm import CausalLM
from ftlab.testing.models import DECODERS, tiny_model_folder
from tests.unit.exports import CLASSES, difference, logits, trained
from tests.unit.training import model_folder, texts, trainer

IDS = torch.arange(4, 16).reshape(2, 6)
CPU = torch.device("cpu")


def of(root: Path, family: str, **options: Any) -> tuple[Backbone, Task]:
    return Backbone(name=str(model_folder(root, family)), **options), CausalLM(block_size=16) if family in DECODERS else CLASSES


def module_of(root: Path, family: str, tuning: QLoRA, **options: Any) -> FinetuneModule:
    return trained(tuning, *of(root, family, **options))


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "qwen2", "bert", "roberta", "deberta-v2", "modernbert"])
@pytest.mark.parametrize("bits", [4, 8])
def test_the_maps_of_the_layers_and_they_alone_are_quantised(tmp_path: Path, family: str, bits: Any) -> None:
    module = module_of(tmp_path, family, QLoRA(bits=bits, r=2))
    plain = FinetuneModule(module.backbone, module.task, LoRA(r=2))
    plain.configure_model()
    inside = {name for name, m in plain.adapted.named_modules() if hasattr(m, "base_layer") and any(p.isdigit() for p in name.split("."))}
    found = quantised_maps(module.adapted)
    assert {name.removesuffix(".base_layer") for name in found} == inside
    assert {type(m) for m in found.values()} == {bnb.nn.Linear4bit if bits == 4 else bnb.nn.Linear8bitLt}
    others = [p for name, p in module.adapted.named_parameters() if not name.startswith(tuple(found))]
    assert {p.dtype for p in others} == {torch.float32}


def frozen(module: FinetuneModule) -> dict[str, str]:
    """Name → hash of everything that is not owned: packed weights and what unpacks them, biases, norms, embeddings."""
    owned = module.tuning.owned(module.adapted)
    state = {name: t for name, t in module.adapted.state_dict().items() if name not in owned}
    return {n: f"{t.dtype} {hashlib.sha256(t.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()}" for n, t in state.items()}


def with_biases(folder: Path) -> None:
    """Biases that no shorter type holds; those of a fresh tiny model are zero."""
    path = folder / "model.safetensors"
    tensors = {name: torch.randn_like(t) if name.endswith(".bias") else t for name, t in load_file(path).items()}
    save_file(tensors, path, {"format": "pt"})


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize(("family", "bits"), [("llama", 4), ("opt", 4), ("opt", 8), ("bert", 4), ("bert", 8)])
def test_a_fit_leaves_every_bit_of_the_base(tmp_path: Path, family: str, bits: Any, precision: Any) -> None:
    backbone, task = of(tmp_path, family)
    with_biases(Path(backbone.name))
    module = FinetuneModule(backbone, task, QLoRA(bits=bits, r=2))
    rows: list[dict[str, Value]] = [{"text": text, "label": ["north", "south", "west"][i % 3]} for i, text in enumerate(texts(12))]
    data = FinetuneData(Rows(items=rows), val_split=0.25, batch_size=4)
    run = trainer(tmp_path, max_steps=2, precision=precision)
    seen: dict[str, str] = {}
    module.on_fit_start = lambda: seen.update(frozen(module)) or FinetuneModule.on_fit_start(module)  # type: ignore[method-assign, func-returns-value]
    run.fit(module, data)
    assert run.global_step == 2
    assert any("absmax" in name or "SCB" in name for name in seen)
    logits(module.eval().adapted, IDS)
    assert frozen(module) == seen


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true", "transformer-engine"])
def test_precisions_that_cast_the_module(precision: str) -> None:
    with pytest.raises(ConfigError, match=f"trainer.precision is {precision}, under which Lightning casts .*; use 32-true, bf16-mixed"):
        QLoRA().load_options(Placement(device=CPU, precision=precision))


def test_without_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentFault, match=r"run `pip install 'bitsandbytes>=0.50'`") as caught:
        QLoRA().load_options(Placement(device=CPU, precision="32-true"))
    assert caught.value.exit_code == 6


def test_slow_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    qlora._say_slow.cache_clear()
    with caplog.at_level(logging.WARNING, "ftlab.strategies.qlora"):
        for _ in range(2):
            QLoRA().load_options(Placement(device=CPU, precision="32-true"))
    assert [m for m in caplog.messages if "slow" in m] == caplog.messages[:1]


def test_each_rank_reads_to_its_own_device() -> None:
    for index in (0, 3):
        device = torch.device("cuda", index)
        assert QLoRA().load_options(Placement(device=device, precision="bf16-mixed"))["device_map"] == {"": device}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"bits": 8, "dora": True}, "model.tuning.dora is true with bits 8"),
        ({"r": 0}, "model.tuning.r is 0"),
        ({"alpha": 0.0}, "model.tuning.alpha is 0"),
        ({"dropout": 1.0}, "model.tuning.dropout is 1"),
        ({"lora_plus_ratio": 0.5}, "model.tuning.lora_plus_ratio is 0.5"),
        ({"target_modules": []}, "model.tuning.target_modules is empty"),
    ],
)
def test_fields(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        QLoRA(**fields)


def test_random_weights_are_not_read_and_so_not_quantised(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fresh is true, so no stored weights are read, but model.tuning says how .*quantization_config"):
        module_of(tmp_path, "llama", QLoRA(), fresh=True)


def test_a_fresh_head_among_the_layers(tmp_path: Path) -> None:
    model = module_of(tmp_path, "llama", QLoRA(layers=[1])).adapted
    with pytest.raises(ConfigError, match=r"fresh head 'model.layers.0' was quantised \('model.layers.0.self_attn.q_proj'\)"):
        QLoRA().apply(model, {"model.layers.0": model.get_submodule("model.layers.0")})


@pytest.mark.parametrize(("name", "same"), [("layers.0.self_attn.q_proj", True), ("embed_tokens", False)])
def test_the_base_is_known_by_what_no_device_rounds(tmp_path: Path, name: str, same: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU packs some weights otherwise than a CPU, and a run of one must be exported on the other."""
    expected = module_of(tmp_path, "llama", QLoRA())._base
    load = Backbone.load_model

    def changed(*arguments: Any) -> Any:
        model, missing = load(*arguments)
        model.get_parameter(f"model.{name}.weight").data.view(torch.uint8)[0] += 1
        return model, missing

    monkeypatch.setattr(Backbone, "load_model", changed)
    assert (module_of(tmp_path, "llama", QLoRA())._base == expected) == same


def test_a_checkpoint_holds_adapters_and_heads(tmp_path: Path) -> None:
    module = module_of(tmp_path, "bert", QLoRA(r=2))
    owned = module.tuning.owned(module.adapted)
    heads = {name for name in owned if name.startswith(("bert.pooler.", "classifier."))}
    assert len(heads) == 4
    assert {name.split(".")[-3] for name in owned - heads} == {"lora_A", "lora_B"}
    assert {module.adapted.state_dict()[name].dtype for name in owned} == {torch.float32}


@pytest.mark.parametrize("storage", ["uint8", "bfloat16", "float32"])
def test_parameters_count_as_the_weights_they_stand_for(tmp_path: Path, storage: Any) -> None:
    packed, plain = module_of(tmp_path, "llama", QLoRA(r=2, storage_dtype=storage)), trained(LoRA(r=2), *of(tmp_path, "llama"))
    assert parameter_counts(packed.adapted) == parameter_counts(plain.adapted)
    weights = {m.weight.dtype for m in quantised_maps(packed.adapted).values()}
    assert weights == {getattr(torch, storage)}


@pytest.mark.parametrize(
    ("chosen", "precision", "dtype", "expected"),
    [
        ("auto", "bf16-mixed", "float32", torch.bfloat16),
        ("auto", "32-true", "float32", torch.float32),
        ("auto", "32-true", "bfloat16", torch.bfloat16),
        ("float32", "bf16-mixed", "bfloat16", torch.float32),
    ],
)
def test_compute_dtype(tmp_path: Path, chosen: Any, precision: str, dtype: Any, expected: torch.dtype) -> None:
    backbone, task = of(tmp_path, "opt", dtype=dtype)
    tuning = QLoRA(r=2, compute_dtype=chosen)
    model, _ = backbone.load_model(task.auto_class, {}, tuning.load_options(Placement(device=CPU, precision=precision)))
    adapted = tuning.apply(model, {})
    maps = quantised_maps(adapted).values()
    assert {m.compute_dtype for m in maps} == {expected}
    assert {m.bias.dtype for m in maps} == {expected}
    assert {p.dtype for p in adapted.parameters() if p.requires_grad} == {torch.float32}


def gradients(module: FinetuneModule) -> dict[str, Tensor]:
    module.adapted.train()
    module.adapted(input_ids=IDS).logits.float().logsumexp(-1).mean().backward()
    return {name: p.grad for name, p in module.adapted.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("bits", [4, 8])
def test_activation_checkpointing(tmp_path: Path, bits: Any) -> None:
    plain, again = (module_of(tmp_path, "llama", QLoRA(bits=bits, r=2), activation_checkpointing=on) for on in (False, True))
    expected = gradients(plain)
    assert set(expected) == {name for name, p in plain.adapted.named_parameters() if p.requires_grad}
    assert all(bool(g.any()) for g in expected.values())
    torch.testing.assert_close(gradients(again), expected, rtol=0, atol=0)


def test_eight_bits_do_not_mix_rows(tmp_path: Path) -> None:
    tiny_model_folder("llama", tmp_path / "llama", {"hidden_size": 512, "intermediate_size": 512, "num_hidden_layers": 1})
    module = module_of(tmp_path, "llama", QLoRA(bits=8))  # with columns above 6, which LLM.int8 would take out of the whole batch
    torch.testing.assert_close(logits(module.adapted, IDS)[:1], logits(module.adapted, IDS[:1]))


def test_eight_bit_optimisers_run_here_and_paged_ones_are_refused(tmp_path: Path) -> None:
    module = module_of(tmp_path, "llama", QLoRA(r=2))
    optimizer = build_optimizer(lambda groups: bnb.optim.AdamW8bit(groups, lr=0.1), module.tuning, module.adapted)
    before = {name: p.detach().clone() for name, p in module.adapted.named_parameters() if p.requires_grad}
    gradients(module)
    optimizer.step()
    assert not [name for name, old in before.items() if torch.equal(module.adapted.get_parameter(name), old)]
    with pytest.raises(EnvironmentFault, match=r"model.optimizer is PagedAdamW8bit, whose paging needs a CUDA device; use AdamW8bit"):
        build_optimizer(lambda groups: bnb.optim.PagedAdamW8bit(groups, lr=0.1), module.tuning, module.adapted)


def test_lora_plus(tmp_path: Path) -> None:
    module = module_of(tmp_path, "llama", QLoRA(r=2, lora_plus_ratio=16))
    optimizer = build_optimizer(lambda groups: bnb.optim.AdamW8bit(groups, lr=0.5), module.tuning, module.adapted)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    found = {(name.split(".")[-3], rates[id(p)]) for name, p in module.adapted.named_parameters() if p.requires_grad}
    assert found == {("lora_A", 0.5), ("lora_B", 8.0)}


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
@pytest.mark.parametrize("tuning", [QLoRA(r=2), QLoRA(r=2, dora=True, layers=[1]), QLoRA(r=2, bits=8)], ids=["4", "dora", "8"])
def test_merged_without_reading_the_base_again(tmp_path: Path, family: str, tuning: QLoRA) -> None:
    module = module_of(tmp_path, family, tuning)
    module.adapted.train()  # in evaluation mode 8-bit maps quantise their inputs too
    for part in module.adapted.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    expected = logits(module.adapted, IDS)
    merged: Any = tuning.merge(module.adapted)
    assert not quantised_maps(merged)
    assert difference(expected, logits(merged.train(), IDS)) < 1e-5
    merged.save_pretrained(tmp_path / "merged")
    again = type(merged).from_pretrained(tmp_path / "merged")
    assert difference(logits(merged.eval(), IDS), logits(again, IDS)) == 0
