"""Which weights may be absent from a file, and which make it the file of another model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ftlab.backbone import Backbone
from ftlab.errors import CheckpointError, ConfigError
from ftlab.heads import fresh_modules
from ftlab.strategies.lora import LoRA
from ftlab.tasks.base import Task
from ftlab.tasks.question_answering import QuestionAnswering
from ftlab.tasks.sentence_embedding import SentenceEmbedding
from ftlab.tasks.sequence_classification import SequenceClassification
from ftlab.testing.models import FAMILIES, tiny_model_folder
from tests.unit.backbones import CLASSES, LANGUAGE, configured

Stored = dict[str, Tensor]


def rewritten(folder: Path, change: Callable[[Stored], Stored]) -> Path:
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})
    return folder


def without(*prefixes: str) -> Callable[[Stored], Stored]:
    return lambda stored: {name: t for name, t in stored.items() if not name.startswith(prefixes)}


@pytest.mark.parametrize(
    ("family", "prefix", "task"),
    [
        ("llama", "model.layers.1.mlp.up_proj.weight", LANGUAGE),
        ("llama", "model.layers.1.", LANGUAGE),
        ("llama", "model.layers.", CLASSES),
        ("llama", "model.embed_tokens.", LANGUAGE),
        ("llama", "model.norm.", LANGUAGE),
        ("qwen2", "model.layers.0.self_attn.q_proj.bias", CLASSES),
        ("gpt2", "transformer.wpe.", LANGUAGE),
        ("gpt2", "transformer.ln_f.bias", LANGUAGE),
        ("bert", "bert.encoder.layer.0.output.", CLASSES),
        ("bert", "bert.embeddings.LayerNorm.weight", CLASSES),
        ("electra", "electra.encoder.", CLASSES),
    ],
)
def test_a_weight_of_the_network_itself_must_be_there(family: str, prefix: str, task: Task, tmp_path: Path) -> None:
    folder = rewritten(tiny_model_folder(family, tmp_path), without(prefix))
    with pytest.raises(CheckpointError) as caught:
        configured(Backbone(name=str(folder)), task, LoRA())
    assert str(caught.value).startswith(f"{folder} has no weight for '{prefix.split('.')[0]}")
    assert str(caught.value).endswith("the file is damaged or of another model, or the configuration was changed.")


@pytest.mark.parametrize("settings", [{"vocab_size": 300}, {"intermediate_size": 64}])
def test_a_changed_configuration_does_not_make_random_weights(settings: dict[str, object], tmp_path: Path) -> None:
    stored = tiny_model_folder("llama", tmp_path / "stored")
    changed = tiny_model_folder("llama", tmp_path / "changed", settings)
    (stored / "config.json").write_text((changed / "config.json").read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(CheckpointError, match="which is part of the pretrained network and no head"):
        configured(Backbone(name=str(stored)), CLASSES, LoRA())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_classifier_of_other_labels_gets_a_fresh_head_and_keeps_the_rest(family: str, tmp_path: Path) -> None:
    folder = tiny_model_folder(family, tmp_path / "base")
    two = configured(Backbone(name=str(folder)), SequenceClassification(labels=["yes", "no"]), LoRA())
    plain, _ = Backbone(name=str(folder)).load_model("AutoModelForSequenceClassification", {"num_labels": 2}, {})
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.add_(0.25)
    plain.save_pretrained(tmp_path / "two")
    two.tokenizer.save_pretrained(tmp_path / "two")
    backbone = Backbone(name=str(tmp_path / "two"))
    model, missing = backbone.load_model("AutoModelForSequenceClassification", {"num_labels": 3}, {})
    fresh = {f"{head}.{n}" for head, module in fresh_modules(model, missing, backbone).items() for n, _ in module.named_parameters()}
    differs = {n for n, p in model.named_parameters() if p.shape != plain.get_parameter(n).shape}
    assert fresh == differs != set()
    assert all(torch.equal(p, plain.get_parameter(n)) for n, p in model.named_parameters() if n not in fresh)


def test_a_class_that_names_the_body_otherwise_is_told() -> None:
    said = r"none of the weights of 'transformer', the body of LlamaForQuestionAnswering: it is of another model, or named otherwise; save"
    with pytest.raises(CheckpointError, match=said):
        configured(Backbone(name="ftlab/tiny-llama"), QuestionAnswering(), LoRA())


def test_half_a_head_is_a_damaged_file(tmp_path: Path) -> None:
    plain, _ = Backbone(name=str(tiny_model_folder("bert", tmp_path))).load_model(
        "AutoModelForSequenceClassification", {"num_labels": 3}, {}
    )
    plain.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="has no weight for 'classifier'"):
        configured(Backbone(name=str(rewritten(tmp_path, without("classifier.bias")))), CLASSES, LoRA())


def test_a_module_beside_the_network_may_be_fresh(tmp_path: Path) -> None:
    folder = rewritten(tiny_model_folder("modernbert", tmp_path), without("head.norm."))
    assert "head.norm.weight" in LoRA().owned(configured(Backbone(name=str(folder)), CLASSES, LoRA()).adapted)


def test_an_untied_output_embedding_may_be_fresh(tmp_path: Path) -> None:
    folder = rewritten(tiny_model_folder("llama", tmp_path), without("lm_head."))
    model = configured(Backbone(name=str(folder)), LANGUAGE, LoRA()).adapted
    assert {n for n, p in model.named_parameters() if p.requires_grad and "lora_" not in n} == {"lm_head.weight"}


@pytest.mark.parametrize("family", FAMILIES)
def test_fresh_weights_have_their_head_trained(family: str, tmp_path: Path) -> None:
    model = configured(Backbone(name=str(tiny_model_folder(family, tmp_path)), fresh=True), CLASSES, LoRA()).adapted
    heads = {n for n, p in model.named_parameters() if p.requires_grad and "lora_" not in n}
    assert heads
    assert heads == {
        n for child, m in model.named_children() if m is not model.base_model for n in (f"{child}.{p}" for p, _ in m.named_parameters())
    }


def test_a_body_alone_with_fresh_weights_has_no_head(tmp_path: Path) -> None:
    model = configured(Backbone(name=str(tiny_model_folder("bert", tmp_path)), fresh=True), SentenceEmbedding(), LoRA()).adapted
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)


def test_a_task_that_the_family_does_not_offer(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(Backbone(name=str(tiny_model_folder("distilbert", tmp_path))), LANGUAGE, LoRA())
    assert str(caught.value) == (
        f"model.backbone.name {tmp_path} is a distilbert model, which AutoModelForCausalLM does not offer; choose another task."
    )
