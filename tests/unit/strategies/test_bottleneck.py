"""Bottleneck adapters: what they refuse, where they stand in every family, and that a row depends on itself alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from ftlab.errors import ConfigError
from ftlab.export import export
from ftlab.model_card import Facts
from ftlab.opening import open_folder
from ftlab.strategies.base import NotMergeableError
from ftlab.strategies.bottleneck import Bottleneck, BottleneckAdapter
from ftlab.strategies.full import Full
from ftlab.strategies.targets import layer_list
from ftlab.tasks.base import Task
from ftlab.testing.models import DECODERS, FAMILIES
from tests.unit.backbones import (
    CASES,
    CLASSES,
    LANGUAGE,
    NAMES,
    TEXTS,
    Models,
    adapted,
    batch_of,
    gradients,
    row_results,
    stirred,
    widened,
)
from tests.unit.strategies.small import small

Kind = Literal["houlsby", "pfeiffer", "parallel"]
KINDS: list[Kind] = ["houlsby", "pfeiffer", "parallel"]
IDS = torch.tensor([[5, 9, 40, 7, 3, 11]])


def narrow(kind: Kind) -> BottleneckAdapter:
    return BottleneckAdapter(kind=kind, reduction_factor=4)


def adapters(model: nn.Module) -> dict[str, Bottleneck]:
    return {name: m for name, m in model.named_modules() if isinstance(m, Bottleneck)}


@torch.no_grad()
def logits(model: nn.Module, **inputs: Tensor) -> Tensor:
    found: Tensor = model.eval()(**(inputs or {"input_ids": IDS})).logits
    return found


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"reduction_factor": 0}, "model.tuning.reduction_factor is 0; it is a whole number of at least 1."),
        ({"scale": 0.0}, "model.tuning.scale is 0; it must be above 0, or the adapter has no effect and no gradient."),
        ({"scale": float("nan")}, "model.tuning.scale is nan; it must be above 0, or the adapter has no effect and no gradient."),
        ({"dropout": 1.0}, "model.tuning.dropout is 1; it is a probability, at least 0 and below 1."),
        ({"layers": []}, "model.tuning.layers is empty; name at least one, or write null."),
        ({"mlp_modules": []}, "model.tuning.mlp_modules is empty; name at least one, or write null."),
        (
            {"attention_modules": ["self_attn"]},
            "model.tuning.attention_modules is set, but kind pfeiffer adapts the MLP alone; set kind to houlsby.",
        ),
    ],
)
def test_bad_fields(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        BottleneckAdapter(**fields)  # type: ignore[arg-type]
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("family", "fields", "part"),
    [
        ("llama", {"layers": [2]}, "model.tuning.layers has 2, but model.layers has layers 0 to 1."),
        ("llama", {"mlp_modules": ["mlpp"]}, "model.tuning.mlp_modules has 'mlpp', which no layer has; did you mean mlp or"),
        (
            "bert",
            {"mlp_modules": ["attention.self.dropout"]},
            "mlp_modules means 'bert.encoder.layer.0.attention.self.dropout', which the model does not call on every token",
        ),
        ("bert", {"kind": "parallel", "mlp_modules": ["output.dense"]}, "which reads 48 and gives 32 numbers a token"),
        (
            "llama",
            {"kind": "houlsby", "attention_modules": ["mlp"], "mlp_modules": ["mlp"]},
            "model.tuning would put two adapters on 'model.layers.0.mlp'; name it once in",
        ),
        ("mixtral", {}, "cannot be told apart; name the modules of a layer with attention_modules and mlp_modules: it has self_attn, mlp,"),
        ("mamba", {}, "attention and MLP of MambaForCausalLM's backbone.layers.0 cannot be told apart"),
        ("t5", {}, "T5ForConditionalGeneration has an encoder and a decoder"),
    ],
)
def test_models_that_do_not_fit(family: str, fields: dict[str, Any], part: str) -> None:
    if family == "t5":
        from transformers import T5Config, T5ForConditionalGeneration

        model: nn.Module = T5ForConditionalGeneration(T5Config(d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4, vocab_size=300))
    else:
        model = small(family, **({"num_local_experts": 2, "num_key_value_heads": 2} if family == "mixtral" else {"bos_token_id": 1}))
    before = logits(model) if family == "llama" else None
    with pytest.raises(ConfigError) as error:
        BottleneckAdapter(**fields).apply(model, {})
    assert part in str(error.value)
    if before is not None:
        assert torch.equal(logits(model), before)


@pytest.mark.parametrize(("family", "task"), CASES, ids=NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_starts_at_the_base_and_trains(models: Models, family: str, task: Task, kind: Kind) -> None:
    base = adapted(models, family, task, Full())
    module = adapted(models, family, task, narrow(kind))
    batch = batch_of(module)
    assert torch.equal(logits(base.adapted, **batch.inputs), logits(module.adapted, **batch.inputs))
    own = {f"{name}.{part}" for name in adapters(module.adapted) for part in ("down", "down_bias", "up", "up_bias")}
    assert len(own) == 4 * 2 * (2 if kind == "houlsby" else 1)
    trainable = {name: p for name, p in module.adapted.named_parameters() if p.requires_grad}
    head = trainable.keys() - own
    assert not any(name.startswith(layer_list(module.adapted)[0]) for name in head)
    assert bool(head) is (task is CLASSES)
    assert trainable.keys() == own | head == module.tuning.owned(module.adapted)
    optimizer = torch.optim.AdamW(trainable.values(), lr=1e-2)
    gradients(module, batch)
    optimizer.step()
    found = gradients(module, batch)
    assert {name for name, g in found.items() if g is not None} == trainable.keys()
    assert [name for name in own if not found[name].any()] == []  # type: ignore[union-attr]


@pytest.mark.parametrize(("family", "task"), CASES, ids=NAMES)
def test_a_row_depends_on_itself_alone(models: Models, family: str, task: Task) -> None:
    kind = KINDS[CASES.index((family, task)) % 3]
    module = stirred(adapted(models, family, task, narrow(kind)))
    batch = batch_of(module)
    together = row_results(module, batch)
    alone = [row_results(module, batch_of(module, [text]))[0] for text in TEXTS]
    wide = row_results(module, widened(batch, 5, int(module.tokenizer.pad_token_id)))
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(together, wide, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_exported_with_new_tokens(models: Models, tmp_path: Path, family: str) -> None:
    task = LANGUAGE if family in DECODERS else CLASSES
    kind = KINDS[FAMILIES.index(family) % 3]
    module = stirred(adapted(models, family, task, narrow(kind), new_tokens=["<one>", "<two>"])).eval()
    new = [int(module.tokenizer.convert_tokens_to_ids(token)) for token in ("<one>", "<two>")]  # type: ignore[arg-type]
    rows = [p for name, p in module.adapted.named_parameters() if name.endswith(".new.weight")]
    assert rows
    assert all(p.requires_grad for p in rows)
    sample = {"input_ids": torch.tensor([[5, new[0], 9, 7, new[1], 30]])}
    assert export(module, tmp_path / "out", Facts(), [sample]).largest <= 1e-6
    opened = open_folder(tmp_path / "out")
    torch.testing.assert_close(logits(opened, **sample), logits(module.adapted, **sample), rtol=0, atol=1e-5)
    base = adapted(models, family, task, Full(), new_tokens=["<one>", "<two>"])
    assert not torch.allclose(logits(base.adapted, **sample), logits(opened, **sample), atol=1e-2)


@pytest.mark.parametrize("family", ["llama", "bert"])
@pytest.mark.parametrize("kind", KINDS)
def test_recomputed_activations(models: Models, family: str, kind: Kind) -> None:
    def found(recompute: bool) -> dict[str, Tensor | None]:
        task = LANGUAGE if family == "llama" else CLASSES
        module = stirred(adapted(models, family, task, narrow(kind), activation_checkpointing=recompute))
        return gradients(module, batch_of(module))

    torch.testing.assert_close(found(True), found(False))


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_are_in_float32_and_compute_in_the_type_of_the_base(models: Models, kind: Kind) -> None:
    base = adapted(models, "llama", LANGUAGE, Full(), dtype="bfloat16")
    module = adapted(models, "llama", LANGUAGE, narrow(kind), dtype="bfloat16")
    batch = batch_of(module)
    assert torch.equal(logits(base.adapted, **batch.inputs), logits(module.adapted, **batch.inputs))
    kinds: list[torch.dtype] = []
    for adapter in adapters(module.adapted).values():
        adapter.register_forward_hook(lambda m, args, out: kinds.extend((args[0].dtype, out.dtype)))
    found = gradients(stirred(module), batch)
    assert set(kinds) == {torch.bfloat16}
    own = [p for a in adapters(module.adapted).values() for p in a.parameters()]
    assert {p.dtype for p in own} == {torch.float32}
    assert {g.dtype for g in found.values() if g is not None} == {torch.float32}


@pytest.mark.parametrize("kind", KINDS)
def test_named_modules(kind: Kind) -> None:
    """What is found by itself, and what is named, are the same; a name may mean a module that returns a tuple."""
    attention = ["self_attn"] if kind == "houlsby" else None
    named = BottleneckAdapter(kind=kind, mlp_modules=["mlp"], attention_modules=attention, layers=[1])
    both = [strategy.apply(small("llama"), {}) for strategy in (BottleneckAdapter(kind=kind, layers=[1]), named)]
    for model in both:
        torch.manual_seed(3)
        for adapter in adapters(model).values():
            for p in adapter.parameters():
                nn.init.normal_(p, std=0.3)
    assert list(adapters(both[1])) == [f"model.layers.1.{n}.bottleneck" for n in [*(attention or []), "mlp"]]
    assert torch.equal(logits(both[0]), logits(both[1]))
    assert not torch.allclose(logits(both[0]), logits(small("llama")), atol=1e-3)


def test_a_mixture_of_experts_is_adapted_as_a_whole() -> None:
    settings = {"num_local_experts": 2, "num_key_value_heads": 2}
    for kind in KINDS:
        attention = ["self_attn"] if kind == "houlsby" else None
        model = BottleneckAdapter(kind=kind, mlp_modules=["mlp"], attention_modules=attention).apply(small("mixtral", **settings), {})
        assert len(adapters(model)) == (4 if kind == "houlsby" else 2)
        assert torch.equal(logits(model), logits(small("mixtral", **settings)))


def test_albert_shares_one_adapter_among_its_layers() -> None:
    model = BottleneckAdapter(kind="houlsby").apply(small("albert", embedding_size=16), {})
    calls: list[str] = []

    def counted(name: str) -> Callable[..., None]:
        return lambda module, args, output: calls.append(name)

    for name, adapter in adapters(model).items():
        adapter.register_forward_hook(counted(name))
    logits(model)
    assert len(adapters(model)) == 2
    assert sorted(calls) == sorted([*adapters(model)] * 2)


def test_width_scale_and_dropout() -> None:
    model = BottleneckAdapter(kind="parallel", reduction_factor=5, dropout=0.5).apply(small("llama"), {})
    (adapter, *_) = adapters(model).values()
    assert adapter.down.shape == (6, 32)
    assert adapter.scale == 4
    nn.init.ones_(adapter.up_bias)
    x = torch.zeros(50, 32)
    assert torch.equal(adapter.eval()(x), torch.full((50, 32), 4.0))
    assert set(adapter.train()(x).unique().tolist()) == {0.0, 8.0}
    assert next(iter(adapters(BottleneckAdapter().apply(small("llama"), {})).values())).scale == 1
    assert next(iter(adapters(BottleneckAdapter(scale=0.5, reduction_factor=99).apply(small("llama"), {})).values())).down.shape == (1, 32)


def test_built_while_another_type_is_the_default() -> None:
    torch.set_default_dtype(torch.bfloat16)
    try:
        built = Bottleneck(32, 2, "gelu", 1.0, 0.0)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {p.dtype for p in built.parameters()} == {torch.float32}


def test_the_seed_decides_and_copies_are_apart(models: Models) -> None:
    one, two = (stirred(adapted(models, "bert", CLASSES, narrow("parallel"))) for _ in range(2))
    state = one.adapted.state_dict()
    assert all(torch.equal(t, state[name]) for name, t in two.adapted.state_dict().items())
    batch = batch_of(one)
    before = logits(one.adapted, **batch.inputs)
    twin = copy.deepcopy(one.adapted)
    with torch.no_grad():
        for adapter in adapters(twin).values():
            adapter.up.zero_()
    assert torch.equal(logits(one.adapted, **batch.inputs), before)
    assert not torch.allclose(logits(twin, **batch.inputs), before, atol=1e-3)


def test_not_mergeable(models: Models) -> None:
    module = adapted(models, "llama", LANGUAGE, replace(narrow("houlsby"), layers=[0]))
    assert len(adapters(module.adapted)) == 2
    with pytest.raises(NotMergeableError, match="BottleneckAdapter has no merged form"):
        module.tuning.merge(module.adapted)
