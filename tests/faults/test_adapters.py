"""Adapters that are damaged or foreign: refused with the right error, and the base stays as it was (K3-K10)."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
import torch
from transformers import AutoModelForCausalLM

import ftlab
from ftlab import Backbone
from ftlab.adapter_check import open_adapter
from ftlab.errors import CheckpointError, ConfigError, SecurityError
from ftlab.export import export_run
from ftlab.model_card import Facts
from ftlab.strategies.lora import LoRA
from ftlab.testing.models import tiny_model_folder
from tests.faults.adapter_files import CONFIG, FIRST, WEIGHTS, base, changed, configured, peft_takes, refused_by_the_check
from tests.unit.exports import LLAMA, difference, ids, logits, trained


def test_good_ones_open(good: Path, foreign: Path) -> None:
    expected = logits(trained(LoRA(r=4, target_modules=["q_proj", "v_proj"])).adapted, ids(LLAMA))
    assert difference(expected, logits(ftlab.load(foreign, base=LLAMA).model, ids(LLAMA))) <= 1e-6


def test_k3_one_bit(good: Path) -> None:
    """K3."""
    path = good / WEIGHTS
    whole = path.read_bytes()
    chance = random.Random(0)
    for _ in range(50):
        place = chance.randrange(len(whole))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << chance.randrange(8)]) + whole[place + 1 :])
        with pytest.raises(CheckpointError, match="is not the file that was exported"):
            ftlab.load(good)
    with pytest.raises(CheckpointError, match="is not the file that was exported"):
        open_adapter(base(), good)
    path.write_bytes(whole)
    ftlab.load(good)
    path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
    (good / "ftlab.json").unlink()
    ftlab.load(good, base=LLAMA)  # the control: nothing but the record sees a bit


def test_damage_of_any_kind(good: Path, tmp_path: Path) -> None:
    """K3, K4: 100 damaged exports: cut, one bit flipped, a file of another export, a file gone; none is accepted."""
    other = tmp_path / "other"
    export_run(trained(LoRA(r=4, alpha=8, target_modules=["q_proj", "v_proj"])), other, Facts())
    chance = random.Random(1)
    files = {p.name: p.read_bytes() for p in good.iterdir() if p.name != "ftlab.json"}
    damages: list[Callable[[str, bytes], bytes | None]] = [
        lambda _, whole: whole[: chance.randrange(len(whole))],
        lambda _, whole: bytes([whole[0] ^ 1 << chance.randrange(8)]) + whole[1:],
        lambda name, whole: (other / name).read_bytes() if (other / name).read_bytes() != whole else None,
        lambda name, whole: None,
    ]
    for _ in range(100):
        name, damage = chance.choice(sorted(files)), chance.choice(damages)
        content = damage(name, files[name])
        (good / name).unlink() if content is None else (good / name).write_bytes(content)
        with pytest.raises(CheckpointError):
            ftlab.load(good)
        (good / name).write_bytes(files[name])
    ftlab.load(good)


def test_k3_any_file(good: Path) -> None:
    """K3."""
    (good / CONFIG).write_text((good / CONFIG).read_text().replace("16.0", "17.0"))
    with pytest.raises(CheckpointError, match=r"adapter_config.json is not the file that was exported"):
        ftlab.load(good)
    (good / CONFIG).unlink()
    with pytest.raises(CheckpointError, match="lacks adapter_config.json"):
        ftlab.load(good)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.5, 0.99])
def test_k4_cut(foreign: Path, share: float) -> None:
    """K4."""
    path = foreign / WEIGHTS
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    refused_by_the_check(foreign, CheckpointError, rf"{WEIGHTS} has {int(len(whole) * share)} bytes")


def test_k4_names_the_size(good: Path, exported: Path) -> None:
    """K4."""
    size = (good / WEIGHTS).stat().st_size
    (good / WEIGHTS).write_bytes((good / WEIGHTS).read_bytes()[: size // 2])
    refused_by_the_check(good, CheckpointError, f"has {size // 2} bytes instead of {size}")


def test_k5_missing(foreign: Path) -> None:
    """K5."""
    changed(foreign, lambda t: t.pop(f"{FIRST}lora_A.weight"))
    peft_takes(foreign)
    refused_by_the_check(foreign, CheckpointError, f"lacks '{FIRST}lora_A.weight'")


def test_k6_unknown(foreign: Path) -> None:
    """K6."""
    changed(foreign, lambda t: t.update({"base_model.model.model.layers.9.x.lora_A.weight": torch.zeros(4, 4)}))
    peft_takes(foreign)
    refused_by_the_check(foreign, CheckpointError, "holds 'base_model.model.model.layers.9.x.lora_A.weight'")


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.base_layer.weight", "model.norm.weight"])
def test_k7_overwrites_the_base(foreign: Path, name: str) -> None:
    """K7; the base keeps its hash."""
    weight = base().get_parameter(name.replace("base_layer.", ""))
    changed(foreign, lambda t: t.update({f"base_model.model.{name}": torch.full_like(weight, 7.0).detach()}))
    assert peft_takes(foreign).get_parameter(f"base_model.model.{name}").eq(7.0).all(), "PEFT no longer overwrites"
    refused_by_the_check(foreign, SecurityError, f"holds 'base_model.model.{name}', a weight of the base model")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_k8_not_finite(foreign: Path, value: float) -> None:
    """K8."""
    changed(foreign, lambda t: t[f"{FIRST}lora_B.weight"].__setitem__((0, 0), value))
    peft_takes(foreign)
    refused_by_the_check(foreign, CheckpointError, f"'{FIRST}lora_B.weight' holds NaN or infinity")


def test_k9_config(foreign: Path) -> None:
    """K9."""
    configured(foreign, peft_type="EVIL")
    refused_by_the_check(foreign, CheckpointError, r"peft_type 'EVIL'; the types that ftlab opens are LORA")
    configured(foreign, peft_type="LORA", unheard_of=3)
    refused_by_the_check(foreign, CheckpointError, "sets unheard_of, which this PEFT does not know")
    for text in ("{", "[]", ""):
        (foreign / CONFIG).write_text(text)
        refused_by_the_check(foreign, CheckpointError, "is not JSON|holds list")
    (foreign / CONFIG).unlink()
    refused_by_the_check(foreign, CheckpointError, f"has no {CONFIG}")


def test_k10_rank(foreign: Path) -> None:
    """K10."""
    configured(foreign, r=8)
    refused_by_the_check(foreign, CheckpointError, f"rank is 8 in {CONFIG} and 4 in {WEIGHTS}")


def test_of_another_model(foreign: Path, tmp_path: Path) -> None:
    other = AutoModelForCausalLM.from_pretrained(tiny_model_folder("llama", tmp_path / "other"))
    with pytest.raises(CheckpointError, match="it is damaged or of another model|it is of another model|name the model"):
        open_adapter(other, foreign)


def test_another_base_of_the_same_shape(good: Path, tmp_path: Path) -> None:
    """Other base: an export knows the weights that it was trained on; and the control, without that look at them."""
    other = base()
    other.get_parameter("model.norm.weight").data[0] += 1e-3
    other.save_pretrained(tmp_path / "other")  # type: ignore[operator]
    ftlab.load(good, base=LLAMA)
    with pytest.raises(CheckpointError, match="belongs to other weights than"):
        ftlab.load(good, base=Backbone(name=str(tmp_path / "other")))
    with mock.patch("ftlab.opening._check_base"):
        ftlab.load(good, base=Backbone(name=str(tmp_path / "other")))


def test_a_foreign_adapter_needs_a_base(foreign: Path) -> None:
    with pytest.raises(ConfigError, match="is an adapter that ftlab did not write; say which model it belongs to"):
        ftlab.load(foreign)
