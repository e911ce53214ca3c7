"""The bridge to PEFT: which methods and fields it takes, what it refuses, and what it asks of the loop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ftlab.adapter_check import KNOWN_TYPES
from ftlab.batch import Batch
from ftlab.errors import ConfigError, EnvironmentFault
from ftlab.export import put
from ftlab.native import TENSORS
from ftlab.spec import built_from, spec_of
from ftlab.strategies.base import NotMergeableError, TuningStrategy
from ftlab.strategies.ia3 import IA3
from ftlab.strategies.lora import LoRA
from ftlab.strategies.peft_bridge import NATIVE, Peft
from ftlab.strategies.peft_loop import bridge_of
from ftlab.strategies.peft_options import _APART, _INSTEAD
from tests.reference.peft_cases import CASES, VARIANTS, Case
from tests.unit.strategies.test_bitfit import classifier, model_of
from tests.unit.strategies.test_lora import llama

IDS = torch.tensor([[1, 5, 9, 40, 7, 3]])
BATCH = Batch(inputs={"input_ids": IDS}, labels={"lm": IDS}, rows=torch.zeros(1, dtype=torch.long))
QUERIES: dict[str, Any] = {"target_modules": ["q_proj"]}


def adapted(method: str, **options: Any) -> tuple[Peft, nn.Module]:
    strategy = Peft(method=method, options={**QUERIES, **options})
    return strategy, strategy.apply(llama(), {})


def test_every_method_of_peft_is_bridged_or_has_its_reason() -> None:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    bridged = {case.method for case in CASES}
    assert bridged | _INSTEAD.keys() | _APART.keys() == {kind.value for kind in PEFT_TYPE_TO_CONFIG_MAPPING}
    assert bridged == set(KNOWN_TYPES) | NATIVE.keys()


def test_the_table_in_the_docs_has_every_method() -> None:
    table = (Path(__file__).parents[3] / "docs" / "reference" / "peft.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")} - {"method"}
    assert rows == {str(case) for case in (*CASES, *VARIANTS)}


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        ("ADALORRA", "model.tuning.method is 'ADALORRA', which PEFT does not have; did you mean ADALORA"),
        ("p_tuning", "is P_TUNING, which puts learnt tokens before the input and injects no layers; use PTuning, one of"),
        ("XLORA", "is XLORA, which mixes adapters that other runs have finished"),
        ("SHADOW", "is SHADOW, which trains a second network beside the model"),
    ],
)
def test_methods_that_are_no_injected_layers(method: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        Peft(method=method)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"lora_alhpa": 4}, "model.tuning.options has 'lora_alhpa', which is no field of PEFT's LORA; did you mean lora_alpha"),
        ({"kasa_config": {"bata": 1}}, "model.tuning.options.kasa_config has 'bata', which is no field of PEFT's LORA; did you mean beta"),
        ({"corda_config": {"cache_file": "x"}, "init_lora_weights": "corda"}, "corda_config.cache_file is no option: what is computed"),
        ({"megatron_core": "evil"}, "model.tuning.options.megatron_core is no option: it names a package to import; leave it out."),
        ({"modules_to_save": ["score"]}, "modules_to_save is no option: fresh heads are trained and saved anyhow"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens is no option: only PEFT's own model class looks"),
        ({"init_lora_weights": "evva"}, "model.tuning.options"),
        ({"init_lora_weights": "eva"}, "so that no checkpoint would fit again; set model.tuning.options.eva_config to {rho: 1.0}"),
        ({"init_lora_weights": "eva", "eva_config": {"rho": 1.5}}, "set model.tuning.options.eva_config to {rho: 1.0}"),
        ({"init_lora_weights": "eva", "eva_config": {"rho": 0.5}}, "model.tuning.options is refused by PEFT's LORA: `rho` must be >= 1.0"),
        ({"r": 0}, "PEFT refuses LORA on LlamaForCausalLM: `r` should be a positive integer"),
        ({"target_modules": ["q_prjo"]}, "target_modules has 'q_prjo', which is no module of LlamaForCausalLM; did you mean q_proj"),
        ({"target_modules": ".*nothing"}, "PEFT refuses LORA on LlamaForCausalLM"),
    ],
)
@pytest.mark.filterwarnings("ignore:.init_lora_weights. is 'eva':UserWarning")
def test_fields_that_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        Peft(method="LORA", options={**QUERIES, **options}).apply(llama(), {})
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("method", "options", "sentence"),
    [
        ("ADALORA", {"total_step": 10}, "total_step is no option: the run knows its steps"),
        ("ADALORA", {"init_r": 4, "target_r": 4}, "starts with rank init_r 4 and shrinks it to target_r 4, which must be smaller"),
        ("POLY", {"n_tasks": 3}, "model.tuning.options.n_tasks is 3; a run has one task, so it must be 1."),
    ],
)
def test_what_a_method_cannot_have(method: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        adapted(method, **options)
    assert sentence in str(error.value)


def test_init_batches_must_be_some() -> None:
    with pytest.raises(ConfigError, match="model.tuning.init_batches is 0; it must be 1 or more."):
        Peft(method="LORA", init_batches=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="PEFT computes LoftQ on a GPU")
def test_loftq_needs_a_gpu() -> None:
    with pytest.raises(EnvironmentFault, match="which PEFT computes on a GPU, and there is none; use QLoRA"):
        adapted("LORA", init_lora_weights="loftq", loftq_config={"loftq_bits": 4})


def test_the_strategy_is_its_configuration() -> None:
    strategy = Peft(method="LORA", options={"r": 4, "kasa_config": {"beta": 0.1}, **QUERIES})
    assert built_from(json.loads(json.dumps(spec_of(strategy))), "strategies") == strategy


def test_all_linear_leaves_heads_and_the_output_embedding(tmp_path: Path) -> None:
    _, model = adapted("LOHA", target_modules="all-linear", r=2)
    names = {name.split(".")[-1] for name, m in model.named_modules() if hasattr(m, "hada_w1_a")}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    encoder, heads = classifier(tmp_path)
    Peft(method="LOHA", options={"target_modules": "all-linear", "r": 2}).apply(encoder, heads)
    assert all(not hasattr(m, "hada_w1_a") for head in heads.values() for m in head.modules())
    assert all(p.requires_grad for head in heads.values() for p in head.parameters())


def test_a_fresh_head_is_no_target(tmp_path: Path) -> None:
    model, heads = classifier(tmp_path)
    with pytest.raises(ConfigError, match="means the fresh head 'classifier', which is trained whole; leave it out"):
        Peft(method="LOHA", options={"target_modules": ["query", "classifier"], "r": 2}).apply(model, heads)


def test_heads_go_into_pefts_format_and_into_ftlabs_where_there_is_no_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, heads = classifier(tmp_path / "a")
    strategy = Peft(method="LOHA", options={"target_modules": ["query"], "r": 2})
    strategy.save(strategy.apply(model, heads), tmp_path / "loha")
    config = json.loads((tmp_path / "loha" / "adapter_config.json").read_text())
    assert sorted(config["modules_to_save"]) == ["bert.pooler.dense", "classifier"]
    model, heads = classifier(tmp_path / "b")
    strategy = Peft(method="TRAINABLE_TOKENS", options={"token_indices": [5, 6]})
    strategy.save(strategy.apply(model, heads), tmp_path / "tokens")
    assert (tmp_path / "tokens" / TENSORS).is_file()
    assert "PEFT's format has no modules_to_save for TRAINABLE_TOKENS" in caplog.text


def test_extra_losses_are_those_of_the_method() -> None:
    strategy, model = adapted("ADALORA", init_r=4, target_r=2, orth_reg_weight=0.25)
    found = strategy.extra_losses(model, None, BATCH)
    parts = [(n.split(".")[-2], p) for n, p in model.named_parameters() if p.requires_grad]
    grams = [p @ p.T if part == "lora_A" else p.T @ p for part, p in parts if part != "lora_E"]
    expected = 0.25 * torch.stack([(gram - torch.eye(4)).norm() for gram in grams]).mean()
    assert found.keys() == {"orthogonality"}
    torch.testing.assert_close(found["orthogonality"], expected)
    assert adapted("LORA")[0].extra_losses(adapted("LORA")[1], None, BATCH) == {}
    strategy, model = adapted("LORA", r=4, kasa_config={"beta": 0.1, "gamma": 0.1})
    assert strategy.extra_losses(model, None, BATCH).keys() == {"kasa"}


def test_adalora_needs_steps_to_shrink_in_and_bears_a_step_that_was_left_out() -> None:
    strategy, model = adapted("ADALORA", init_r=4, target_r=2, tinit=3, tfinal=3)
    with pytest.raises(ConfigError, match="tinit 3 and tfinal 3 leave nothing of the run's 6 steps"):
        strategy.on_step(model, 1, 6)
    strategy, model = adapted("ADALORA", init_r=4, target_r=2, tinit=1, tfinal=1, deltaT=1)
    for step in range(1, 5):
        strategy.on_step(model, step, 4)  # no gradient at all
    assert all(p.grad is None for p in model.parameters())
    assert bool(bridge_of(model).pruned)


def test_a_pruned_subspace_gets_no_gradient_and_stays_declared() -> None:
    allocation: dict[str, Any] = {"use_asa": True, "init_warmup": 1, "final_warmup": 3, "mask_interval": 1, "asa_target_subspaces": 4}
    strategy, model = adapted("ADAMSS", r=8, num_subspaces=3, **allocation)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    for name in trained:
        nn.init.normal_(model.get_parameter(name), std=0.1)
    for step in range(1, 4):
        model(input_ids=IDS, labels=IDS).loss.backward()
        strategy.on_gradients(model, step - 1)
        if step < 3:
            strategy.on_step(model, step, 4)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == trained
    active = bridge_of(model).get_buffer("active")
    assert 0 < int(active.sum()) < len(active)
    assert sum(p.grad is not None for p in model.parameters()) == int(active.sum())


def test_what_peft_cannot_merge_is_said() -> None:
    strategy, model = adapted("LILY", r=4)
    with pytest.raises(NotMergeableError, match="PEFT's LILY has no merged form; export the adapter instead."):
        strategy.merge(model)


def test_merged_weights_have_the_type_of_the_base_and_are_rounded_once() -> None:
    strategy = Peft(method="LORA", options={**QUERIES, "r": 4})
    model: Any = strategy.apply(llama().to(torch.bfloat16), {})
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    layer = model.model.layers[0].self_attn.q_proj
    nn.init.normal_(layer.lora_B["default"].weight)
    exact = layer.base_layer.weight.float() + layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    merged: Any = strategy.merge(model)
    assert {p.dtype for p in merged.parameters()} == {torch.bfloat16}
    assert torch.equal(merged.model.layers[0].self_attn.q_proj.weight, exact.to(torch.bfloat16))


def test_transposed_maps_need_no_word(tmp_path: Path) -> None:
    strategy = Peft(method="LORA", options={"target_modules": ["c_attn"], "r": 4})
    model: Any = strategy.apply(model_of("gpt2", tmp_path), {})  # PEFT warns where fan_in_fan_out is not said
    layer = model.transformer.h[0].attn.c_attn
    assert layer.fan_in_fan_out


def test_ranks_are_exported_by_another_process(tmp_path: Path) -> None:
    strategy, model = adapted("ADALORA", init_r=4, target_r=2, tinit=1, tfinal=1, deltaT=1)
    for step in range(1, 5):
        model(input_ids=IDS, labels=IDS).loss.backward()
        strategy.on_step(model, step, 4)
    other = strategy.apply(llama(), {})
    put(other, {name: t for name, t in model.state_dict().items() if name in strategy.owned(model)})
    for number, kind in enumerate((model, other)):
        strategy.save(kind, tmp_path / str(number))
    configs = [json.loads((tmp_path / str(i) / "adapter_config.json").read_text()) for i in range(2)]
    assert configs[0]["rank_pattern"]
    assert configs[0]["rank_pattern"] == configs[1]["rank_pattern"]


@pytest.mark.parametrize("first", [LoRA(target_modules=["k_proj"]), IA3()], ids=["LoRA", "IA3"])
def test_two_methods_of_peft_cannot_share_a_model(first: TuningStrategy) -> None:
    model = first.apply(llama(), {})
    with pytest.raises(ConfigError, match="LOHA and (LORA|IA3) are both PEFT's, which has one configuration for a model; drop one"):
        Peft(method="LOHA", options=QUERIES).apply(model, {})


@pytest.mark.parametrize("case", [c for c in CASES if c.method in ("ADALORA", "OSF", "VBLORA", "ADAMSS", "LOHA")], ids=str)
def test_over_a_bfloat16_base_the_same_tensors_are_trained_in_float32(case: Case) -> None:
    strategy = Peft(method=case.method, options=case.on(False))
    plain, half = (strategy.apply(llama().to(kind), {}) for kind in (torch.float32, torch.bfloat16))
    trained = [{name: p for name, p in model.named_parameters() if p.requires_grad} for model in (plain, half)]
    assert trained[0].keys() == trained[1].keys()
    assert {p.dtype for p in trained[1].values()} == {torch.float32}
    hooks = [sum(bool(p._backward_hooks) for p in found.values()) for found in trained]
    assert hooks[0] == hooks[1]
    assert (hooks[0] > 0) == (case.method == "OSF")
    half(input_ids=IDS, labels=IDS).loss.backward()
    assert all(p.grad is not None for p in trained[1].values())
