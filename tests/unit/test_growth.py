"""New tokens: rows beside the old ones, trained and owned by every strategy, while the old rows stay what they were."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from ftlab.backbone import Backbone
from ftlab.batch import Batch
from ftlab.errors import ConfigError
from ftlab.growth import GrownEmbedding, GrownLinear
from ftlab.heads import output_of
from ftlab.module import FinetuneModule
from ftlab.strategies.base import TuningStrategy
from ftlab.strategies.full import Full
from ftlab.strategies.lora import LoRA
from ftlab.tasks.base import Task
from ftlab.tasks.bert_pretraining import BertPretraining
from ftlab.tasks.lm_head import language_head
from ftlab.tasks.masked_lm import MaskedLM
from ftlab.testing.models import DECODERS, ENCODERS, FAMILIES, tiny_model_folder
from tests.unit.backbones import CLASSES, LANGUAGE, batch_of, configured, gradients

NEW = ["<call>", "<result>"]
TEXTS = ("one <call> two", "<result>", "three<call><result> four")
SIZE = 261  # five special tokens and the bytes
MASKED, PAIRS = MaskedLM(), BertPretraining()
CASES: list[tuple[str, Task]] = [
    *((f, LANGUAGE) for f in DECODERS),
    *((f, MASKED) for f in (*ENCODERS, "albert")),
    *((f, PAIRS) for f in ("bert", "albert")),
]
EVERY = pytest.mark.parametrize(("family", "task"), CASES, ids=[f"{family}-{type(task).__name__}" for family, task in CASES])


def grown(folder: Path, tuning: TuningStrategy, settings: Mapping[str, object] | None = None, task: Task = LANGUAGE) -> FinetuneModule:
    return configured(Backbone(name=str(folder), **{"new_tokens": NEW, **(settings or {})}), task, tuning)  # type: ignore[arg-type]  # fields of several types, by name


def base_folder(family: str, task: Task, folder: Path, settings: Mapping[str, object] | None = None) -> Path:
    """A tiny model of the task's own class, whose biases are not the zeros that they begin as."""
    tiny_model_folder(family, folder, settings)
    torch.manual_seed(0)
    model = getattr(transformers, task.auto_class).from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape))
    model.save_pretrained(folder)
    return folder


def batch_for(module: FinetuneModule) -> Batch:
    """The texts with what the task needs; each token is scored by a masked model, though none is masked."""
    if module.task is LANGUAGE:
        return batch_of(module, TEXTS)
    encoded = [{**module.tokenizer(text), "row": [i], "nsp": [i % 2]} for i, text in enumerate(TEXTS)]
    return module.task.collate([{**e, "mlm": e["input_ids"]} for e in encoded], module.tokenizer)


def trainable(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def new_rows(model: nn.Module) -> set[str]:
    return {name for name in trainable(model) if name.endswith(".new.weight")}


@EVERY
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("tuning", [Full(), Full(last_layers=0), Full(last_layers=1), LoRA(r=2)])
def test_new_rows_are_trained_owned_and_reached(family: str, task: Task, tied: bool, tuning: TuningStrategy, tmp_path: Path) -> None:
    module = grown(tiny_model_folder(family, tmp_path, {"tie_word_embeddings": tied}), tuning, task=task)
    model = module.adapted
    rows = new_rows(model)
    assert len(rows) == (1 if tied else 2)
    assert rows <= tuning.owned(model)
    assert model.config.get_text_config().vocab_size == SIZE + 2  # type: ignore[operator,union-attr]
    found = gradients(module, batch_for(module))
    for name in rows:
        gradient = found[name]
        assert gradient is not None
        assert bool(gradient.any(dim=1).all())  # every new row


@EVERY
@pytest.mark.parametrize("tied", [True, False])
def test_under_lora_a_step_moves_the_new_rows_and_no_old_one(family: str, task: Task, tied: bool, tmp_path: Path) -> None:
    module = grown(base_folder(family, task, tmp_path, {"tie_word_embeddings": tied}), LoRA(r=2), task=task)
    model = module.adapted
    assert {n for n in trainable(model) if "lora_" not in n} == new_rows(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    gradients(module, batch_for(module))
    optimizer.step()
    for name, parameter in model.named_parameters():
        if name in new_rows(model):
            assert bool((parameter != before[name]).any(dim=1).all())
        elif not parameter.requires_grad:
            assert torch.equal(parameter, before[name])


@EVERY
@pytest.mark.parametrize("rows", [SIZE, 272], ids=["no room", "room"])
def test_logits_are_those_of_a_model_that_transformers_resized(family: str, task: Task, rows: int, tmp_path: Path) -> None:
    """The second implementation puts the same rows into one table, which has biases for the unused ones that it had before."""
    folder = base_folder(family, task, tmp_path, {"vocab_size": rows})
    module = grown(folder, Full(), task=task)
    model = module.adapted.eval()
    plain: Any = getattr(transformers, task.auto_class).from_pretrained(folder)
    plain.resize_token_embeddings(max(rows, SIZE + 2), mean_resizing=False)
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    for ours, theirs in ((embedding, plain.get_input_embeddings()), (output_of(model), plain.get_output_embeddings())):
        assert isinstance(ours, GrownEmbedding | GrownLinear)
        theirs.weight.data[SIZE : SIZE + 2] = ours.new.weight.data
    inputs = batch_for(module).inputs
    expected: Tensor = plain.eval()(**inputs)[0]
    got: Tensor = model(**inputs)[0]
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert task is not LANGUAGE or language_head(model) is not None


@pytest.mark.parametrize("family", FAMILIES)
def test_classifiers_grow_too(family: str, tmp_path: Path) -> None:
    backbone = Backbone(name=str(tiny_model_folder(family, tmp_path)), new_tokens=NEW)
    module = configured(backbone, CLASSES, LoRA(r=2))
    found = gradients(module, batch_of(module, TEXTS))
    (rows,) = new_rows(module.adapted)
    gradient = found[rows]
    assert gradient is not None
    assert bool(gradient.any(dim=1).all())


def test_new_rows_start_at_the_mean_of_the_old_ones_in_float32(tmp_path: Path) -> None:
    model = grown(tiny_model_folder("qwen2", tmp_path), Full(), {"dtype": "bfloat16"}).adapted
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    assert embedding.new.weight.dtype == torch.float32
    assert isinstance(embedding, GrownEmbedding)
    mean = embedding.base.weight.detach().float().numpy().mean(0)
    torch.testing.assert_close(embedding.new.weight.detach(), torch.from_numpy(mean).expand(2, -1))


def test_rows_that_the_table_already_has_room_for_are_trained_as_well(tmp_path: Path) -> None:
    """Qwen2 and others pad their embedding to a round size; without care the new tokens would get frozen, untrained rows."""
    module = grown(tiny_model_folder("qwen2", tmp_path, {"vocab_size": 272}), LoRA(r=2))
    model = module.adapted
    assert len(new_rows(model)) == 2
    assert model.config.vocab_size == 272  # type: ignore[union-attr]
    found = gradients(module, batch_of(module, TEXTS))
    assert all(found[name] is not None and bool(found[name].any(dim=1).all()) for name in new_rows(model))  # type: ignore[union-attr]
    assert model(**batch_of(module, TEXTS).inputs).logits.shape[-1] == 272


def test_all_linear_leaves_the_grown_output_embedding_alone(tmp_path: Path) -> None:
    model = grown(tiny_model_folder("llama", tmp_path), LoRA(r=2)).adapted
    adapted = {name for name in trainable(model) if "lora_" in name}
    assert adapted
    assert all(name.startswith("model.layers.") for name in adapted)


def test_the_output_embedding_keeps_its_name_as_a_target(tmp_path: Path) -> None:
    module = grown(tiny_model_folder("llama", tmp_path), LoRA(r=2, target_modules=["lm_head"]))
    assert {n for n in trainable(module.adapted) if "lora_" in n} == {f"lm_head.base.lora_{x}.default.weight" for x in "AB"}
    assert language_head(module.adapted) is not None


def test_a_new_pad_token_gets_a_row(tmp_path: Path) -> None:
    module = grown(tiny_model_folder("llama", tmp_path), LoRA(r=2), {"new_tokens": [], "pad_token": "<fill>"})
    assert module.tokenizer.pad_token_id == SIZE
    assert module.adapted.config.pad_token_id == SIZE  # type: ignore[union-attr]
    assert module.adapted.config.vocab_size == SIZE + 1  # type: ignore[union-attr]
    gradients(module, batch_of(module))
    both = grown(tiny_model_folder("llama", tmp_path), LoRA(r=2), {"pad_token": "<fill>"})
    assert both.adapted.config.vocab_size == SIZE + 3  # type: ignore[union-attr]


def test_a_pad_token_that_exists_changes_nothing(tmp_path: Path) -> None:
    module = grown(tiny_model_folder("llama", tmp_path), LoRA(r=2), {"new_tokens": [], "pad_token": "</s>"})
    assert module.tokenizer.pad_token_id == 2
    assert not new_rows(module.adapted)


def test_recomputed_activations_reach_the_new_rows(tmp_path: Path) -> None:
    found = []
    for recompute in (False, True):
        torch.manual_seed(0)
        module = grown(tiny_model_folder("llama", tmp_path), LoRA(r=2), {"activation_checkpointing": recompute})
        found.append({n: g for n, g in gradients(module, batch_of(module, TEXTS)).items() if g is not None})
    assert found[0].keys() == found[1].keys() == trainable(module.adapted)
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("settings", [{"new_tokens": []}, {"new_tokens": NEW}, {"new_tokens": [], "pad_token": "<fill>"}])
def test_the_tokenizer_of_another_model_is_refused(settings: dict[str, object], tmp_path: Path) -> None:
    small = tiny_model_folder("llama", tmp_path / "small", {"vocab_size": 200})
    big = tiny_model_folder("llama", tmp_path / "big")
    with pytest.raises(ConfigError) as caught:
        grown(small, LoRA(r=2), {"tokenizer": str(big), **settings})
    tokens = SIZE + ("pad_token" in settings)
    assert str(caught.value) == (
        f"model.backbone: the tokenizer of {big} has {tokens} tokens, but {small} has an embedding of 200, "
        "so they belong to different models; name the model's own tokenizer."
    )


@pytest.mark.parametrize("family", ["DebertaV2", "MobileBert"])
def test_a_head_that_is_more_than_a_map_of_its_own_is_refused(family: str, tmp_path: Path) -> None:
    """The newer head of DeBERTa takes the rows of the input, MobileBERT's the weights of two maps."""
    folder = tiny_model_folder("deberta-v2", tmp_path, {"legacy": False})
    if family == "MobileBert":
        widths = {"hidden_size": 32, "embedding_size": 16, "intra_bottleneck_size": 16, "intermediate_size": 32}
        config = transformers.MobileBertConfig(**widths, vocab_size=SIZE, num_hidden_layers=1, pad_token_id=0)  # type: ignore[arg-type]  # numbers, by name
        transformers.MobileBertForMaskedLM(config).save_pretrained(folder)
    grown(folder, Full(), {"new_tokens": []}, MASKED)
    wanted = f"model.backbone.new_tokens: {family}ForMaskedLM has no plain output embedding to grow; use tokens it knows."
    with pytest.raises(ConfigError, match=f"^{re.escape(wanted)}$"):
        grown(folder, Full(), task=MASKED)
    configured(Backbone(name=str(folder), new_tokens=NEW), CLASSES, Full())


@pytest.mark.parametrize("tokens", [["a"], ["<call>", "<call>"], ["</s>"]])
def test_a_token_that_is_not_new_is_refused(tokens: list[str], tmp_path: Path) -> None:
    backbone = Backbone(name=str(tiny_model_folder("llama", tmp_path)), new_tokens=tokens)
    with pytest.raises(
        ConfigError, match=f"model.backbone.new_tokens has '{tokens[-1]}' twice, or the tokenizer of .* has it already; remove it."
    ):
        backbone.load_tokenizer()


def test_a_token_that_cannot_be_added_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="model.backbone.new_tokens is \\[''\\], of which the tokenizer of .* cannot add all; write plain words."
    ):
        Backbone(name=str(tiny_model_folder("llama", tmp_path)), new_tokens=[""]).load_tokenizer()
