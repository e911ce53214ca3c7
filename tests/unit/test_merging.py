"""Merge parity: what is compared, against other people's quantisation, and what happens to a merge that is wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from ftlab.backbone import Backbone
from ftlab.callbacks.checkpoints import SaveOptions
from ftlab.callbacks.defaults import run_callbacks
from ftlab.callbacks.exporting import VerifyMerge
from ftlab.data.datamodule import FinetuneData
from ftlab.data.sources.in_memory import Rows
from ftlab.errors import CheckpointError
from ftlab.export import export, export_run
from ftlab.merging import merged
from ftlab.model_card import Facts
from ftlab.module import FinetuneModule
from ftlab.quantised import keep_bits, quantised_maps
from ftlab.run_folder import RunOptions
from ftlab.saving import save_whole
from ftlab.strategies.base import NotMergeableError, Traits, TuningStrategy
from ftlab.strategies.full import Full
from ftlab.strategies.lora import LoRA
from ftlab.strategies.lora_peft import add_lora, merge_lora
from ftlab.strategies.qlora import QLoRA
from ftlab.tasks.causal_lm import CausalLM
from tests.unit.exports import difference, digest, logits, trained
from tests.unit.training import model_folder, texts, trainer

IDS = torch.arange(4, 44).reshape(4, 10)
SAMPLE: list[Mapping[str, Tensor]] = [{"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}]
NF4 = BitsAndBytesConfig(
    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, llm_int8_skip_modules=["lm_head"]
)  # fmt: skip


def quantised_by_transformers(folder: str | Path) -> nn.Module:
    model: nn.Module = AutoModelForCausalLM.from_pretrained(folder, quantization_config=NF4, device_map={"": "cpu"}, dtype=torch.float32)
    keep_bits(model)
    return model.eval()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_figures_of_a_quantised_base(tmp_path: Path, family: str) -> None:
    backbone = Backbone(name=str(model_folder(tmp_path, family)))
    module = trained(QLoRA(r=4, alpha=4.0), backbone)
    before = digest(module), {name: m.training for name, m in module.named_modules()}, torch.get_rng_state()
    made = merged(module, SAMPLE)
    assert (digest(module), {name: m.training for name, m in module.named_modules()}) == before[:2]
    assert torch.equal(torch.get_rng_state(), before[2])
    expected = logits(module.adapted, IDS)
    save_whole(made.model, tmp_path / "merged")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    found = made.parity
    assert found.folded.largest < found.folded.tolerance == 1e-5
    assert found.requantised is not None
    assert found.merged.largest == pytest.approx(difference(expected, logits(plain, IDS)), rel=1e-4)
    again = quantised_by_transformers(tmp_path / "merged")
    assert len(quantised_maps(again)) == len(quantised_maps(module.adapted))
    assert found.requantised.largest == pytest.approx(difference(expected, logits(again, IDS)), rel=1e-3)
    untuned = logits(AutoModelForCausalLM.from_pretrained(backbone.name), IDS)
    assert found.merged.tolerance == pytest.approx(8 * difference(untuned, logits(quantised_by_transformers(backbone.name), IDS)), rel=1e-3)
    assert found.holds


def test_into_the_weights_that_were_quantised(tmp_path: Path) -> None:
    backbone = Backbone(name=str(model_folder(tmp_path)))
    module = trained(QLoRA(r=2, target_modules=["q_proj"]), backbone)
    export(module, tmp_path / "out", Facts(), SAMPLE, merge=True)
    found, base = (AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (tmp_path / "out", backbone.name))
    name = "model.layers.0.self_attn.q_proj"
    state = module.adapted.state_dict()
    product = state[f"{name}.lora_B.default.weight"].double() @ state[f"{name}.lora_A.default.weight"].double()
    torch.testing.assert_close(found[f"{name}.weight"], (base[f"{name}.weight"].double() + 8 * product).float())
    assert {n for n in base if not torch.equal(found[n], base[n])} == {f"model.layers.{i}.self_attn.q_proj.weight" for i in (0, 1)}


def test_an_unquantised_base_has_two_figures() -> None:
    module = trained(LoRA(r=4))
    made = merged(module, SAMPLE)
    found = made.parity
    assert set(found.figures()) == {"folded", "merged"}
    assert found.merged.tolerance == 1e-5
    assert found.merged.largest == pytest.approx(difference(logits(module.adapted, IDS), logits(made.model, IDS)))
    assert found.holds


def test_a_base_that_changed_after_it_was_read() -> None:
    """As by a start that data decides: it is not in the base that is read again."""
    module = trained(LoRA(r=4, target_modules=["q_proj"]))
    module.adapted.get_parameter("model.layers.0.self_attn.v_proj.weight").data.mul_(1.01)
    found = merged(module, SAMPLE).parity
    assert found.folded.holds
    assert not found.merged.holds
    assert not found.holds


@dataclass(frozen=True, kw_only=True)
class Forgetful(TuningStrategy):
    """Leaves one adapter out of the merge."""

    traits = Traits(mergeable=True, learning_rate=1e-2)
    packed: bool = False

    def load_options(self, placement: Any) -> dict[str, object]:
        return QLoRA().load_options(placement) if self.packed else {}

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        from peft import LoraConfig

        add_lora(model, heads, LoraConfig(r=2, lora_alpha=8.0, init_lora_weights="gaussian"), ["q_proj", "v_proj"], None)
        return model

    def save(self, model: nn.Module, folder: Path) -> None:
        LoRA().save(model, folder)

    def merge(self, model: nn.Module) -> nn.Module:
        model.get_submodule("model.layers.0.self_attn.v_proj.lora_B.default").weight.data.zero_()  # type: ignore[operator]
        return merge_lora(model)


def fit(folder: Path, tuning: TuningStrategy) -> None:
    module = FinetuneModule(Backbone(name=str(model_folder(folder))), CausalLM(block_size=16), tuning)
    data = FinetuneData(Rows(items=[{"text": text} for text in texts(12)]), val_split=0.25, batch_size=4)
    run = trainer(folder, [VerifyMerge(folder)], max_steps=2)
    run.fit(module, data)


@pytest.mark.parametrize("packed", [False, True])
def test_a_wrong_merge_ends_the_fit_and_is_kept(tmp_path: Path, packed: bool) -> None:
    with pytest.raises(CheckpointError, match=r"the merged model is not the trained one: folded in: .* kept in .*merged-differs") as caught:
        fit(tmp_path, Forgetful(packed=packed))
    assert caught.value.exit_code == 4
    kept = AutoModelForCausalLM.from_pretrained(tmp_path / "merged-differs")
    assert type(kept.model.layers[0].self_attn.q_proj) is nn.Linear
    figures = json.loads((tmp_path / "merge.json").read_text())
    assert figures["folded"]["holds"] is False
    assert ("requantised" in figures) == packed


def test_a_right_merge_leaves_its_figures(tmp_path: Path) -> None:
    fit(tmp_path, QLoRA(r=2))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["llama", "merge.json"]
    figures = json.loads((tmp_path / "merge.json").read_text())
    assert [figures[name]["holds"] for name in ("folded", "merged", "requantised")] == [True] * 3
    assert figures["folded"]["rows"] == 4


def test_a_wrong_merge_is_kept_by_export_under_another_name(tmp_path: Path) -> None:
    module = trained(Forgetful(packed=True))
    with pytest.raises(CheckpointError, match=r"kept in .*out-differs: use the adapter") as caught:
        export(module, tmp_path / "out", Facts(), SAMPLE, merge=True)
    assert caught.value.exit_code == 4
    assert [p.name for p in tmp_path.iterdir()] == ["out-differs"]
    AutoModelForCausalLM.from_pretrained(tmp_path / "out-differs")
    assert export_run(module, tmp_path / "adapter", Facts())


@dataclass(frozen=True, kw_only=True)
class Never(LoRA):
    """Has no merge."""

    merge = TuningStrategy.merge


@dataclass(frozen=True, kw_only=True)
class NotNow(LoRA):
    """Finds out that it cannot merge."""

    def merge(self, model: nn.Module) -> nn.Module:
        raise NotMergeableError("not with these fields.")


@pytest.mark.parametrize(("tuning", "memory", "said"), [
    (Never(r=2), None, "not applicable, Never has no merged form"),
    (NotNow(r=2), None, "not applicable, not with these fields"),
    (Full(), None, "not applicable, Full trains the model's own weights"),
    (LoRA(r=2), 1, "not applicable, a second copy of the base may take"),
])  # fmt: skip
def test_not_applicable(
    tmp_path: Path, tuning: TuningStrategy, memory: int | None, said: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    if memory is not None:
        monkeypatch.setattr(os, "sysconf", lambda name: memory)
    with caplog.at_level("INFO", "ftlab.callbacks.exporting"):
        fit(tmp_path, tuning)
    assert any(said in message for message in caplog.messages)
    assert not (tmp_path / "merge.json").exists()


@pytest.mark.parametrize("wanted", [True, False])
def test_the_option(tmp_path: Path, wanted: bool) -> None:
    run: Any = type("Config", (), {"callbacks": None, "enable_progress_bar": False, "enable_checkpointing": True})
    found = run_callbacks(tmp_path, dict, RunOptions(), SaveOptions(verify_merge=wanted), run)
    names = [type(c).__name__ for c in found]
    assert ("VerifyMerge" in names) == wanted
    assert SaveOptions().verify_merge
    if wanted:
        assert names.index("Export") < names.index("VerifyMerge") < names.index("Report")
