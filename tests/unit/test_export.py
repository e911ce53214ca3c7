"""Exports: merged, rounded, refused; the live model stays as it is, and nothing half done is left."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from ftlab.backbone import Backbone
from ftlab.data.datamodule import FinetuneData
from ftlab.data.sources.in_memory import Rows
from ftlab.errors import CheckpointError, ConfigError, StorageError
from ftlab.export import export, export_run
from ftlab.folders import published
from ftlab.model_card import Facts, card
from ftlab.module import FinetuneModule
from ftlab.opening import open_folder
from ftlab.parity import compare
from ftlab.saving import save_whole
from ftlab.strategies.base import NotMergeableError, TuningStrategy
from ftlab.strategies.full import Full
from ftlab.strategies.lora import LoRA
from ftlab.testing.models import tiny_model_folder
from tests.unit.exports import BERT, CLASSES, LANGUAGE, LLAMA, NEW, difference, digest, grown, ids, logits, trained
from tests.unit.training import trainer


def sample(backbone: Backbone = LLAMA) -> list[Mapping[str, Tensor]]:
    return [{"input_ids": ids(backbone)}]


MERGEABLE = {"lora": LoRA(r=4), "dora": LoRA(r=4, dora=True), "pissa": LoRA(r=4, init="pissa"), "full": Full()}


@pytest.mark.parametrize("tuning", MERGEABLE.values(), ids=MERGEABLE.keys())
@pytest.mark.parametrize("new", [False, True])
def test_merged_is_the_trained_model(tmp_path: Path, tuning: TuningStrategy, new: bool) -> None:
    backbone = grown(LLAMA) if new else LLAMA
    module = trained(tuning, backbone)
    found = export(module, tmp_path / "out", Facts(), sample(backbone), merge=True)
    assert found.largest <= found.tolerance == 1e-5
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert type(plain.model.layers[0].self_attn.q_proj) is nn.Linear
    assert difference(logits(module.adapted, ids(backbone)), logits(plain, ids(backbone))) <= 1e-5
    if new:
        assert AutoTokenizer.from_pretrained(tmp_path / "out").convert_tokens_to_ids(NEW) == [3072, 3073]


def test_merged_head_and_labels(tmp_path: Path) -> None:
    module = trained(LoRA(r=4), grown(BERT), CLASSES)
    export(module, tmp_path / "out", Facts(), sample(grown(BERT)), merge=True)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert plain.config.id2label == {0: "north", 1: "south", 2: "west"}
    assert plain.config.architectures == ["BertForSequenceClassification"]
    assert difference(logits(module.adapted, ids(grown(BERT))), logits(plain, ids(grown(BERT)))) <= 1e-5


def test_merged_into_the_base_in_its_own_type(tmp_path: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(LLAMA.name, dtype=torch.bfloat16)
    base.save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(LLAMA.name).save_pretrained(tmp_path / "base")
    module = trained(LoRA(r=4, target_modules=["q_proj"]), Backbone(name=str(tmp_path / "base"), dtype="float32"))
    found = export(module, tmp_path / "out", Facts(), sample(), merge=True)
    assert found.tolerance == 5e-2
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert {t.dtype for t in stored.values()} == {torch.bfloat16}
    state = module.adapted.state_dict()
    name = "model.layers.2.self_attn.q_proj"
    product = state[f"{name}.lora_B.default.weight"].double() @ state[f"{name}.lora_A.default.weight"].double()
    exact = (base.state_dict()[f"{name}.weight"].double() + 4.0 * product).float()
    assert torch.equal(stored[f"{name}.weight"], exact.bfloat16()), "the sum is rounded once"


def test_merged_head_in_the_type_of_the_base(tmp_path: Path) -> None:
    AutoModelForCausalLM.from_pretrained(LLAMA.name, dtype=torch.bfloat16).save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(LLAMA.name).save_pretrained(tmp_path / "base")
    module = trained(LoRA(r=4), Backbone(name=str(tmp_path / "base"), dtype="float32"), CLASSES)
    export(module, tmp_path / "out", Facts(), sample(), merge=True)
    assert {t.dtype for t in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.bfloat16}


@pytest.mark.parametrize("family", ["roberta", "distilbert", "electra", "deberta-v2", "modernbert"])
def test_families_with_heads(tmp_path: Path, family: str) -> None:
    module = trained(LoRA(r=4), Backbone(name=str(tiny_model_folder(family, tmp_path / "base"))), CLASSES)
    tokens = torch.tensor([[5, 8, 9, 40, 30], [7, 6, 50, 51, 52]])
    assert export(module, tmp_path / "out", Facts(), [{"input_ids": tokens}]).largest <= 1e-6


def test_a_pad_token_that_the_base_lacks(tmp_path: Path) -> None:
    folder = tiny_model_folder("llama", tmp_path / "base", {"pad_token_id": None})
    module = trained(LoRA(r=4), Backbone(name=str(folder)), CLASSES)
    pad = module.tokenizer.pad_token_id
    tokens = torch.tensor([[5, 8, 9, 40, 30], [7, 6, 50, pad, pad]])
    assert export(module, tmp_path / "out", Facts(), [{"input_ids": tokens}]).largest <= 1e-6


@pytest.mark.parametrize(("tuning", "file"), [(LoRA(r=4), "adapter_model.safetensors"), (Full(), "model.safetensors")])
def test_dtype(tmp_path: Path, tuning: TuningStrategy, file: str) -> None:
    module = trained(tuning)
    found = export(module, tmp_path / "out", Facts(), sample(), dtype="float16")
    assert 0 < found.largest <= found.tolerance == 1e-2
    assert {t.dtype for t in load_file(tmp_path / "out" / file).values()} == {torch.float16}


@pytest.mark.parametrize(
    ("tuning", "backbone"),
    [(LoRA(r=4, init="pissa"), grown(LLAMA)), (Full(), grown(LLAMA)), (Full(), grown(BERT))],
    ids=["lora", "full", "bert"],
)
def test_the_live_model_stays(tmp_path: Path, tuning: TuningStrategy, backbone: Backbone) -> None:
    module = trained(tuning, backbone, CLASSES if backbone.name == BERT.name else LANGUAGE)
    module.train()
    modes = {name: m.training for name, m in module.named_modules()}
    before = digest(module), [(n, p.requires_grad, id(p)) for n, p in module.named_parameters()], torch.get_rng_state()
    export_run(module, tmp_path / "run", Facts())
    export(module, tmp_path / "merged", Facts(), sample(backbone), merge=True)
    assert (digest(module), [(n, p.requires_grad, id(p)) for n, p in module.named_parameters()]) == before[:2]
    assert {name: m.training for name, m in module.named_modules()} == modes
    assert torch.equal(torch.get_rng_state(), before[2])


class Exporter(Callback):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, FinetuneModule)
        export_run(pl_module, self.folder, Facts())


@pytest.mark.parametrize("tuning", [LoRA(r=4), Full()], ids=["lora", "full"])
def test_at_the_end_of_a_fit(tmp_path: Path, tuning: TuningStrategy) -> None:
    module = FinetuneModule(grown(LLAMA), replace(LANGUAGE, block_size=8), tuning)
    data = FinetuneData(Rows(items=[{"text": f"file number {n}"} for n in range(8)]), val_split=None)
    trainer(tmp_path, [Exporter(tmp_path / "out")], max_steps=2).fit(module, data)
    opened = open_folder(tmp_path / "out")
    module.eval()
    assert difference(logits(module.adapted, ids(grown(LLAMA))), logits(opened, ids(grown(LLAMA)))) <= 1e-6


@dataclass(frozen=True, kw_only=True)
class Wrong(Full):
    """Writes another model than it trained."""

    def save(self, model: nn.Module, folder: Path) -> None:
        weight = model.get_parameter("model.norm.weight")
        kept = weight.detach().clone()
        weight.data += 1e-3
        save_whole(model, folder)
        weight.data.copy_(kept)


def test_another_model_is_refused_and_removed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"not the trained one: largest difference .* \(tolerance 1e-06\), KL .*; nothing was left"):
        export(trained(Wrong()), tmp_path / "out", Facts(), sample())
    assert list(tmp_path.iterdir()) == []


@dataclass(frozen=True, kw_only=True)
class Plain(TuningStrategy):
    """Only what a strategy must have."""

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        return model.requires_grad_(True)


def test_a_strategy_need_not_know_of_exports(tmp_path: Path) -> None:
    module = trained(Plain(), grown(LLAMA))
    assert export(module, tmp_path / "out", Facts(), sample(grown(LLAMA))).largest <= 1e-6
    with pytest.raises(NotMergeableError, match="Plain has no merged form"):
        export(module, tmp_path / "merged", Facts(), sample(grown(LLAMA)), merge=True)
    assert not (tmp_path / "merged").exists()


def test_what_an_adapter_cannot_hold(tmp_path: Path) -> None:
    module = trained(LoRA(r=4))
    module.adapted.get_parameter("model.norm.weight").requires_grad_(True)
    module.adapted.register_parameter("odd", nn.Parameter(torch.ones(1)))
    with pytest.raises(ConfigError, match="has no place for 'base_model.model.odd'; use `ftlab export --merge`"):
        export_run(module, tmp_path / "out", Facts())
    assert list(tmp_path.iterdir()) == []


def test_random_bases_are_lost(tmp_path: Path) -> None:
    fresh = Backbone(name=str(tiny_model_folder("llama", tmp_path / "base")), fresh=True)
    assert not export_run(trained(LoRA(r=4), fresh), tmp_path / "adapter", Facts())
    with pytest.raises(ConfigError, match="random weights are stored nowhere"):
        export(trained(LoRA(r=4), fresh), tmp_path / "adapter", Facts(), sample())
    assert not (tmp_path / "adapter").exists()
    module = trained(Full(), fresh)
    assert export(module, tmp_path / "full", Facts(), sample()).largest <= 1e-6


@pytest.mark.parametrize("family", ["gpt2", "gemma", "qwen2", "opt"])
@pytest.mark.parametrize("tuning", [LoRA(r=4), Full(last_layers=1)], ids=["lora", "full"])
def test_families_with_new_tokens(tmp_path: Path, family: str, tuning: TuningStrategy) -> None:
    backbone = Backbone(name=str(tiny_model_folder(family, tmp_path / "base")), new_tokens=["one", "two"])
    module = trained(tuning, backbone)
    tokens = torch.tensor([[5, module.tokenizer.convert_tokens_to_ids("one"), 9, module.tokenizer.convert_tokens_to_ids("two"), 30]])
    assert export(module, tmp_path / "out", Facts(), [{"input_ids": tokens}]).largest <= 1e-6


def test_untied_new_rows(tmp_path: Path) -> None:
    folder = tiny_model_folder("llama", tmp_path / "base", {"tie_word_embeddings": False})
    module = trained(LoRA(r=4), Backbone(name=str(folder), new_tokens=["one"]))
    tokens = torch.tensor([[5, module.tokenizer.convert_tokens_to_ids("one"), 9]])
    export(module, tmp_path / "out", Facts(), [{"input_ids": tokens}])
    opened = open_folder(tmp_path / "out")
    assert difference(logits(module.adapted, tokens), logits(opened, tokens)) <= 1e-6
    indices = json.loads((tmp_path / "out" / "adapter_config.json").read_text())["trainable_token_indices"]
    assert set(indices) == {"model.embed_tokens", "lm_head"}


def test_pissa_doubles_the_rank(tmp_path: Path) -> None:
    export_run(trained(LoRA(r=4, alpha=8, rslora=True, init="olora")), tmp_path / "out", Facts())
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["r"], config["init_lora_weights"]) == (8, True)
    assert config["lora_alpha"] / 8**0.5 == pytest.approx(8 / 4**0.5)


def test_the_base_is_named_as_configured(tmp_path: Path) -> None:
    export_run(trained(LoRA(r=4), replace(LLAMA, name="ftlab/tiny-llama")), tmp_path / "out", Facts())
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["task_type"], config["inference_mode"]) == ("ftlab/tiny-llama", "CAUSAL_LM", True)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(LLAMA.name), LoraConfig(r=4, target_modules="all-linear"))
    assert set(config["target_modules"]) == set(model.peft_config["default"].target_modules)


def test_targets_that_hold_something(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("full", "file", "link"):
        with pytest.raises(ConfigError, match="exists and is not an empty folder"), published(tmp_path / name):
            pass
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "full", "link"]
    (tmp_path / "empty").mkdir()
    with published(tmp_path / "empty") as work:
        (work / "y").touch()
    assert [p.name for p in (tmp_path / "empty").iterdir()] == ["y"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written"), published(tmp_path / "file" / "out"):
        pass


def test_the_card_is_text(tmp_path: Path) -> None:
    config = {
        "seed_everything": 7,
        "model": {"tuning": {"class_path": "ftlab.strategies.lora.LoRA", "init_args": {"r": 8, "layers": None}}},
        "data": {"source": {"class_path": "x.Csv", "init_args": {"path": "a|b\n<script>"}}},
    }
    text = card(Facts(config=config, metrics={"val_loss": 1.25, "note": "no number"}), "org/name", "open()\n", adapter=True)
    header, _, body = text.removeprefix("---\n").partition("---\n")
    assert yaml.safe_load(header) == {"library_name": "peft", "tags": ["ftlab"], "base_model": "org/name"}
    lines = ("| seed | 7 |", "| tuning | LoRA |", "| tuning: r | 8 |", "| data source: path | a\\|b &lt;script> |", "| val_loss | 1.25 |")
    assert set(lines) <= set(body.splitlines())
    assert "no number" not in body
    assert f"| torch | {torch.__version__.partition('+')[0]}" in body


def test_parity_figures() -> None:
    left = torch.tensor([[1.0, 2.0, 4.0], [3.0, 0.0, 1.0]])
    right = left.clone()
    right[0, 0] = 5.0
    found = compare([left], [right], 2, 0.5)
    probabilities, others = left.softmax(-1), right.softmax(-1)
    assert found.largest == pytest.approx(1.0)
    assert found.agreement == 0.5
    assert found.divergence == pytest.approx(float((probabilities * (probabilities / others).log()).sum() / 2), rel=1e-5)
    assert not found.holds
    assert not compare([left], [right * float("nan")], 2, 0.5).holds
    assert not compare([left], [right[:, :2]], 2, 0.5).holds
