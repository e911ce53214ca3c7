"""LoReFT: what it refuses, which tokens it edits, and that a row depends on itself alone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from ftlab.backbone import Backbone
from ftlab.data.datamodule import FinetuneData
from ftlab.data.sources.in_memory import Rows
from ftlab.errors import ConfigError
from ftlab.export import export
from ftlab.model_card import Facts
from ftlab.module import FinetuneModule
from ftlab.opening import open_folder
from ftlab.strategies.base import NotMergeableError
from ftlab.strategies.full import Full
from ftlab.strategies.loreft import Edit, LoReFT
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
from tests.unit.training import texts, trainer

SMALL = LoReFT(r=2, first=2)
APART = LoReFT(r=2, first=2, last=1, tied=False)


def edits(model: nn.Module) -> dict[str, Edit]:
    return {name: m for name, m in model.named_modules() if isinstance(m, Edit)}


@torch.no_grad()
def logits(model: nn.Module, **inputs: Tensor) -> Tensor:
    found: Tensor = model.eval()(**inputs).logits
    return found


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"r": 0}, "model.tuning.r is 0; a rank is a whole number of at least 1."),
        ({"first": -1}, "model.tuning.first is -1; it counts tokens, so it must be 0 or more."),
        ({"last": -2}, "model.tuning.last is -2; it counts tokens, so it must be 0 or more."),
        ({"first": 0}, "model.tuning.first is 0 and model.tuning.last is None, so nothing is edited; set one above 0."),
        ({"layers": []}, "model.tuning.layers is empty; name at least one layer, or write null."),
    ],
)
def test_bad_fields(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        LoReFT(**fields)  # type: ignore[arg-type]
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("task", "fields", "part"),
    [
        (LANGUAGE, {"layers": [5]}, "model.tuning.layers has 5, but model.layers has layers 0 to 1."),
        (LANGUAGE, {"r": 33}, "model.tuning.r is 33, but hidden states have 32 dimensions; choose 32 or less."),
        (LANGUAGE, {"last": 1}, "model.tuning.last is 1, but LlamaForCausalLM predicts each token from those before it, and edits"),
    ],
)
def test_models_that_do_not_fit(models: Models, task: Task, fields: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError) as error:
        adapted(models, "llama", task, LoReFT(**fields))
    assert part in str(error.value)


IDS = torch.ones(2, 5, dtype=torch.long)


@pytest.mark.parametrize(("family", "task"), CASES, ids=NAMES)
def test_starts_at_the_base_and_trains(models: Models, family: str, task: Task) -> None:
    base = adapted(models, family, task, Full())
    module = adapted(models, family, task, SMALL)
    batch = batch_of(module)
    assert torch.equal(logits(base.adapted, **batch.inputs), logits(module.adapted, **batch.inputs))
    own = {f"{name}.{part}" for name in edits(module.adapted) for part in ("basis", "source", "bias")}
    assert len(own) == 3 * 2
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
    module = stirred(adapted(models, family, task, APART if task is CLASSES else SMALL))
    batch = batch_of(module)
    together = row_results(module, batch)
    alone = [row_results(module, batch_of(module, [text]))[0] for text in TEXTS]
    wide = row_results(module, widened(batch, 5, int(module.tokenizer.pad_token_id)))
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(together, wide, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_generation_edits_what_a_whole_pass_does(models: Models, family: str) -> None:
    """The first answer token is among the first two of the short row, which is padded on the left and read from a cache."""
    model: Any = stirred(adapted(models, family, LANGUAGE, SMALL)).adapted.eval()
    ids = torch.tensor([[1, 1, 0], [9, 30, 7]])
    mask = torch.tensor([[0, 0, 1], [1, 1, 1]])
    found = model.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=3, min_new_tokens=3, do_sample=False,
        return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip
    for row, begin in ((0, 2), (1, 0)):
        whole = logits(model, input_ids=found.sequences[row : row + 1, begin:-1])[0, -3:]
        torch.testing.assert_close(torch.stack([step[row] for step in found.logits]), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_exported_with_new_tokens(models: Models, tmp_path: Path, family: str) -> None:
    task = LANGUAGE if family in DECODERS else CLASSES
    module = stirred(adapted(models, family, task, SMALL, new_tokens=["<one>", "<two>"])).eval()
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


@pytest.mark.parametrize(("family", "task"), [("llama", LANGUAGE), ("bert", CLASSES)], ids=["llama", "bert"])
def test_recomputed_activations(models: Models, family: str, task: Task) -> None:
    """Two batches of other masks are computed before the first one's gradient, so that a mask which is looked up late is wrong."""

    def found(recompute: bool) -> list[Tensor]:
        module = stirred(adapted(models, family, task, SMALL, activation_checkpointing=recompute)).train()
        batches = [batch_of(module), batch_of(module, ["a", "three words here"])]
        total = torch.stack([torch.stack(list(task.forward(module.adapted, b).sums.values())).sum() for b in batches]).sum()
        total.backward()
        return [p.grad for edit in edits(module.adapted).values() for p in edit.parameters() if p.grad is not None]

    torch.testing.assert_close(found(True), found(False))


def test_edits_are_in_float32_over_any_base(models: Models) -> None:
    base = adapted(models, "llama", LANGUAGE, Full(), dtype="bfloat16")
    module = adapted(models, "llama", LANGUAGE, SMALL, dtype="bfloat16")
    batch = batch_of(module)
    assert torch.equal(logits(base.adapted, **batch.inputs), logits(module.adapted, **batch.inputs))
    kinds: list[torch.dtype] = []
    for edit in edits(module.adapted).values():
        edit.register_forward_hook(lambda m, args, out: kinds.extend((args[0].dtype, out.dtype)))
    found = gradients(stirred(module), batch)
    assert set(kinds) == {torch.bfloat16}
    assert {g.dtype for g in found.values() if g is not None} == {torch.float32}


def test_rotation_stays_orthonormal_under_weight_decay() -> None:
    torch.manual_seed(0)
    edit = Edit(32, 4)
    optimizer = torch.optim.AdamW(edit.parameters(), lr=0.1, weight_decay=0.5)
    hidden, where = torch.randn(2, 5, 32), torch.ones(2, 5, dtype=torch.bool)
    start = edit.rotation().detach()
    for _ in range(20):
        optimizer.zero_grad()
        edit(hidden, where).pow(2).sum().backward()
        optimizer.step()
    rotation = edit.rotation()
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(4), rtol=0, atol=1e-5)
    assert not torch.allclose(rotation, start, atol=0.1)


def test_layers_and_spans(models: Models) -> None:
    one = adapted(models, "bert", CLASSES, LoReFT(layers=[1], last=3)).adapted
    assert list(edits(one)) == ["bert.encoder.layer.1.edits.0"]
    assert next(iter(edits(one).values())).basis.shape == (4, 32)
    two = adapted(models, "bert", CLASSES, LoReFT(tied=False)).adapted
    assert list(edits(two)) == [f"bert.encoder.layer.{i}.edits.{k}" for i in (0, 1) for k in (0, 1)]
    assert len(edits(adapted(models, "bert", CLASSES, LoReFT(tied=False, last=0)).adapted)) == 2
    layers: Any = adapted(models, "modernbert", CLASSES, LoReFT()).adapted.get_submodule("model.layers")
    assert layers[0].attention_type == layers[0].layer.attention_type
    with pytest.raises(AttributeError):
        _ = layers[0].nothing


def test_the_batch_is_forgotten(models: Models) -> None:
    model: Any = adapted(models, "opt", LANGUAGE, SMALL).adapted
    positions = model.model.decoder.layers[0].positions
    logits(model, input_ids=IDS)
    assert positions.now == []
    with pytest.raises(IndexError):
        model(input_ids=IDS + 1000)
    assert positions.now == []
    with pytest.raises(RuntimeError, match="the layer was called by itself"):
        model.model.decoder.layers[0](torch.zeros(2, 5, 32))
    model.model.decoder(input_ids=IDS)


def test_built_while_another_type_is_the_default() -> None:
    torch.set_default_dtype(torch.bfloat16)
    try:
        built = Edit(32, 2)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {p.dtype for p in built.parameters()} == {torch.float32}


def test_the_seed_decides_and_copies_are_apart(models: Models) -> None:
    one, two = (stirred(adapted(models, "bert", CLASSES, SMALL)) for _ in range(2))
    state = one.adapted.state_dict()
    assert all(torch.equal(t, state[name]) for name, t in two.adapted.state_dict().items())
    batch = batch_of(one)
    before = logits(one.adapted, **batch.inputs)
    twin = copy.deepcopy(one.adapted)
    assert torch.equal(logits(twin, **batch.inputs), before)
    with torch.no_grad():
        for edit in edits(twin).values():
            edit.bias.add_(1)
    assert torch.equal(logits(one.adapted, **batch.inputs), before)
    assert not torch.allclose(logits(twin, **batch.inputs), before, atol=1e-3)


def fitted(models: Models, folder: Path, resume: Path | None = None) -> dict[str, Tensor]:
    torch.manual_seed(0)
    module = FinetuneModule(Backbone(name=str(models.folder("llama"))), LANGUAGE, SMALL)
    data = FinetuneData(Rows(items=[{"text": text} for text in texts(24)]), batch_size=2, val_split=None)
    keep = ModelCheckpoint(dirpath=folder, filename="{step}", save_top_k=-1, every_n_train_steps=2)
    runner = trainer(folder, [keep], max_steps=4, enable_checkpointing=True)
    runner.fit(module, data, ckpt_path=resume, weights_only=True)
    return {name: t for name, t in module.adapted.state_dict().items() if name in module.tuning.owned(module.adapted)}


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_resumed_run_is_the_same_run(models: Models, tmp_path: Path) -> None:
    whole = fitted(models, tmp_path)
    again = fitted(models, tmp_path, tmp_path / "step=2.ckpt")
    start = adapted(models, "llama", LANGUAGE, SMALL).adapted.state_dict()
    for name, tensor in whole.items():
        assert torch.equal(tensor, again[name]), name
        assert not torch.equal(tensor, start[name]), name


def test_not_mergeable(models: Models) -> None:
    module = adapted(models, "llama", LANGUAGE, SMALL)
    with pytest.raises(NotMergeableError, match="LoReFT has no merged form"):
        module.tuning.merge(module.adapted)
