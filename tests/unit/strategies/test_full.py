"""Full fine-tuning: what is trained, by name, for each way to say it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ftlab.backbone import Backbone
from ftlab.errors import ConfigError
from ftlab.strategies.full import Full
from ftlab.testing.models import tiny_model_folder
from tests.unit.backbones import CLASSES, LANGUAGE, configured

LAST = {
    "bert": ({"bert.encoder.layer.1", "bert.pooler", "classifier"}, {"bert.pooler", "classifier"}),
    "deberta-v2": ({"deberta.encoder.layer.1", "pooler", "classifier"}, {"pooler", "classifier"}),
    "distilbert": ({"distilbert.transformer.layer.1", "pre_classifier", "classifier"}, {"pre_classifier", "classifier"}),
    "electra": ({"electra.encoder.layer.1", "classifier"}, {"classifier"}),
    "gemma": ({"model.layers.1", "model.norm", "score"}, {"score"}),
    "gpt2": ({"transformer.h.1", "transformer.ln_f", "score"}, {"score"}),
    "gpt_neox": ({"gpt_neox.layers.1", "gpt_neox.final_layer_norm", "score"}, {"score"}),
    "llama": ({"model.layers.1", "model.norm", "score"}, {"score"}),
    "mistral": ({"model.layers.1", "model.norm", "score"}, {"score"}),
    "modernbert": ({"model.layers.1", "model.final_norm", "head", "classifier"}, {"head", "classifier"}),
    "opt": ({"model.decoder.layers.1", "model.decoder.final_layer_norm", "model.decoder.project_out", "score"}, {"score"}),
    "qwen2": ({"model.layers.1", "model.norm", "score"}, {"score"}),
    "qwen3": ({"model.layers.1", "model.norm", "score"}, {"score"}),
    "roberta": ({"roberta.encoder.layer.1", "classifier"}, {"classifier"}),
}
"""Family → the modules that are trained with the last layer, and with the head alone, read off the architectures by hand."""

NARROW: dict[str, dict[str, object]] = {"opt": {"word_embed_proj_dim": 16}}
"""OPT's projection into the stack and ELECTRA's stand beside it, but below."""


def trained(family: str, tuning: Full, folder: Path) -> set[str]:
    model = configured(Backbone(name=str(tiny_model_folder(family, folder, NARROW.get(family)))), CLASSES, tuning).adapted
    return {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("family", LAST)
@pytest.mark.parametrize("count", [1, 0])
def test_last_layers(family: str, count: int, tmp_path: Path) -> None:
    names = trained(family, Full(), tmp_path)
    expected = {n for n in names if any(n.startswith(f"{m}.") for m in LAST[family][1 - count])}
    assert trained(family, Full(last_layers=count), tmp_path) == expected


def test_all_layers_leave_out_the_embedding(tmp_path: Path) -> None:
    assert trained("llama", Full(), tmp_path) - trained("llama", Full(last_layers=2), tmp_path) == {"model.embed_tokens.weight"}


def test_the_head_of_a_language_model_is_its_output_embedding(tmp_path: Path) -> None:
    for tied, name in ((False, "lm_head.weight"), (True, "model.embed_tokens.weight")):
        backbone = Backbone(name=str(tiny_model_folder("llama", tmp_path, {"tie_word_embeddings": tied})))
        model = configured(backbone, LANGUAGE, Full(last_layers=0)).adapted
        assert {n for n, p in model.named_parameters() if p.requires_grad} == {name}


def test_pattern(tmp_path: Path) -> None:
    found = trained("llama", Full(pattern=r".*\.(0|1)\..*norm.*"), tmp_path)
    norms = {f"model.layers.{i}.{n}_layernorm.weight" for i in (0, 1) for n in ("input", "post_attention")}
    assert found == norms | {"score.weight"}


def test_finding_the_last_layers_leaves_no_trace(tmp_path: Path) -> None:
    model, _ = Backbone(name=str(tiny_model_folder("bert", tmp_path))).load_model("AutoModelForSequenceClassification", {}, {})
    state = torch.get_rng_state()
    Full(last_layers=1).apply(model, {})
    assert torch.equal(torch.get_rng_state(), state)
    assert all(m.training and not m._forward_hooks for m in model.modules())


def test_merge_gives_the_model_itself(tmp_path: Path) -> None:
    model = configured(Backbone(name=str(tiny_model_folder("llama", tmp_path))), LANGUAGE, Full()).adapted
    assert Full().merge(model) is model


def test_more_layers_than_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="^model.tuning.last_layers is 3; LlamaForSequenceClassification has 2 layers.$"):
        trained("llama", Full(last_layers=3), tmp_path)


def test_a_pattern_that_matches_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="^model.tuning.pattern 'score' matches no parameter; did you mean score.weight"):
        trained("llama", Full(pattern="score"), tmp_path)


def test_settings_that_contradict() -> None:
    with pytest.raises(ConfigError, match="both set; choose one"):
        Full(last_layers=1, pattern=".*")
    with pytest.raises(ConfigError, match="model.tuning.last_layers is -1; it must be 0"):
        Full(last_layers=-1)
    with pytest.raises(ConfigError, match="is not a regular expression"):
        Full(pattern="(")
