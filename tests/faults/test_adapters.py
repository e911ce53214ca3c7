"""Adapters that are damaged, foreign or hostile: refused with the right code, and the base stays as it was."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

import ftlab
from ftlab.adapter_check import open_adapter
from ftlab.errors import CheckpointError, ConfigError, FtlabError, SecurityError
from ftlab.export import export_run
from ftlab.model_card import Facts
from ftlab.strategies.full import Full
from ftlab.strategies.lora import LoRA
from ftlab.testing.models import tiny_model_folder
from tests.unit.exports import LLAMA, difference, digest, ids, logits, trained

FIRST = "base_model.model.model.layers.0.self_attn.q_proj."
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ftlab exports of a LoRA run."""
    folder = tmp_path_factory.mktemp("adapter") / "good"
    export_run(trained(LoRA(r=4, target_modules=["q_proj", "v_proj"])), folder, Facts())
    return folder


@pytest.fixture
def good(exported: Path, tmp_path: Path) -> Path:
    """The same with its record."""
    return shutil.copytree(exported, tmp_path / "adapter")


@pytest.fixture
def foreign(good: Path) -> Path:
    """The same without it, as anybody's adapter is."""
    (good / "ftlab.json").unlink()
    return good


def base() -> nn.Module:
    model: nn.Module = AutoModelForCausalLM.from_pretrained(LLAMA.name)
    return model


def changed(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def configured(folder: Path, **entries: Any) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def refused(folder: Path, kind: type[FtlabError], sentence: str) -> None:
    """Opening it fails with this error, and the model it was meant for is untouched."""
    model = base()
    before = digest(model)
    with pytest.raises(kind, match=sentence):
        open_adapter(model, folder)
    assert digest(model) == before
    assert model.state_dict().keys() == base().state_dict().keys()
    with pytest.raises(kind, match=sentence):
        ftlab.load(folder, base=LLAMA)


def peft_takes(folder: Path) -> nn.Module:
    """What plain PEFT makes of it, which only warns if it says anything: the control of the check."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened: nn.Module = PeftModel.from_pretrained(base(), folder)
    return opened


def test_good_ones_open(good: Path, foreign: Path) -> None:
    expected = logits(trained(LoRA(r=4, target_modules=["q_proj", "v_proj"])).adapted, ids(LLAMA))
    assert difference(expected, logits(ftlab.load(foreign, base=LLAMA).model, ids(LLAMA))) <= 1e-6


def test_k3_one_bit(good: Path) -> None:
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


def test_damage_of_any_kind(good: Path, tmp_path: Path) -> None:
    """100 damaged exports: cut, one bit flipped, a file of another export, a file gone; none is accepted."""
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
    (good / CONFIG).write_text((good / CONFIG).read_text().replace("16.0", "17.0"))
    with pytest.raises(CheckpointError, match=r"adapter_config.json is not the file that was exported"):
        ftlab.load(good)
    (good / CONFIG).unlink()
    with pytest.raises(CheckpointError, match="lacks adapter_config.json"):
        ftlab.load(good)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.5, 0.99])
def test_k4_cut(foreign: Path, share: float) -> None:
    path = foreign / WEIGHTS
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    refused(foreign, CheckpointError, rf"{WEIGHTS} has {int(len(whole) * share)} bytes")


def test_k4_names_the_size(good: Path, exported: Path) -> None:
    size = (good / WEIGHTS).stat().st_size
    (good / WEIGHTS).write_bytes((good / WEIGHTS).read_bytes()[: size // 2])
    refused(good, CheckpointError, f"has {size // 2} bytes instead of {size}")


def test_k5_missing(foreign: Path) -> None:
    changed(foreign, lambda t: t.pop(f"{FIRST}lora_A.weight"))
    peft_takes(foreign)
    refused(foreign, CheckpointError, f"lacks '{FIRST}lora_A.weight'")


def test_k6_unknown(foreign: Path) -> None:
    changed(foreign, lambda t: t.update({"base_model.model.model.layers.9.x.lora_A.weight": torch.zeros(4, 4)}))
    peft_takes(foreign)
    refused(foreign, CheckpointError, "holds 'base_model.model.model.layers.9.x.lora_A.weight'")


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.base_layer.weight", "model.norm.weight"])
def test_k7_overwrites_the_base(foreign: Path, name: str) -> None:
    weight = base().get_parameter(name.replace("base_layer.", ""))
    changed(foreign, lambda t: t.update({f"base_model.model.{name}": torch.full_like(weight, 7.0).detach()}))
    assert peft_takes(foreign).get_parameter(f"base_model.model.{name}").eq(7.0).all(), "PEFT no longer overwrites"
    refused(foreign, SecurityError, f"holds 'base_model.model.{name}', a weight of the base model")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_k8_not_finite(foreign: Path, value: float) -> None:
    changed(foreign, lambda t: t[f"{FIRST}lora_B.weight"].__setitem__((0, 0), value))
    peft_takes(foreign)
    refused(foreign, CheckpointError, f"'{FIRST}lora_B.weight' holds NaN or infinity")


def test_k9_config(foreign: Path) -> None:
    configured(foreign, peft_type="EVIL")
    refused(foreign, CheckpointError, r"peft_type 'EVIL'; the types that ftlab opens are LORA")
    configured(foreign, peft_type="LORA", unheard_of=3)
    refused(foreign, CheckpointError, "sets unheard_of, which this PEFT does not know")
    for text in ("{", "[]", ""):
        (foreign / CONFIG).write_text(text)
        refused(foreign, CheckpointError, "is not JSON|holds list")
    (foreign / CONFIG).unlink()
    refused(foreign, CheckpointError, f"has no {CONFIG}")


def test_k10_rank(foreign: Path) -> None:
    configured(foreign, r=8)
    refused(foreign, CheckpointError, f"rank is 8 in {CONFIG} and 4 in {WEIGHTS}")


def test_of_another_model(foreign: Path, tmp_path: Path) -> None:
    other = AutoModelForCausalLM.from_pretrained(tiny_model_folder("llama", tmp_path / "other"))
    with pytest.raises(CheckpointError, match="it is damaged or of another model|it is of another model|name the model"):
        open_adapter(other, foreign)


def test_a_foreign_adapter_needs_a_base(foreign: Path) -> None:
    with pytest.raises(ConfigError, match="is an adapter that ftlab did not write; say which model it belongs to"):
        ftlab.load(foreign)


KILLED = """
import os, signal, sys
from pathlib import Path
from ftlab import folders
with folders.published(Path(sys.argv[1])) as work:
    (work / "adapter_config.json").write_text("{}")
    if sys.argv[2] == "now":
        os.kill(os.getpid(), signal.SIGKILL)
    (work / "adapter_model.safetensors").write_text("x")
"""


@pytest.mark.parametrize(("when", "code", "seen"), [("now", -signal.SIGKILL, False), ("never", 0, True)])
def test_k11_killed_between_two_files(tmp_path: Path, when: str, code: int, seen: bool) -> None:
    target = tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.run([sys.executable, "-c", KILLED, str(target), when], env=environment, check=False)
    assert process.returncode == code
    assert target.exists() == seen
    assert not seen or len(list(target.iterdir())) == 2


def test_k12_shards(tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    model = AutoModelForCausalLM.from_pretrained(LLAMA.name)
    model.save_pretrained(folder, max_shard_size="1MB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    shards[1].unlink()
    with pytest.raises(CheckpointError, match=f"lacks {shards[1].name}, which model.safetensors.index.json names"):
        ftlab.load(folder)


def test_whole_models_are_checked_too(tmp_path: Path) -> None:
    folder = tmp_path / "full"
    export_run(trained(Full()), folder, Facts())
    (folder / "ftlab.json").unlink()
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    save_file({n: t for n, t in tensors.items() if n != "model.layers.0.mlp.up_proj.weight"}, weights, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks the tensor 'model.layers.0.mlp.up_proj.weight'"):
        ftlab.load(folder)
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"'model.norm.weight' holds NaN or infinity"):
        ftlab.load(folder)


def test_x15_pickle(foreign: Path, tmp_path: Path) -> None:
    (foreign / WEIGHTS).unlink()
    marker = tmp_path / "PWNED"
    (foreign / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR.")
    refused(foreign, SecurityError, "is a pickle, which can run code")
    (foreign / CONFIG).unlink()
    refused(foreign, CheckpointError, f"has no {CONFIG}")
    assert not marker.exists()


def test_x15_foreign_code(foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "PWNED"
    for name in ("evm", "evm2"):
        (tmp_path / f"{name}.py").write_text(f"open({str(marker)!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    mapping = {"base_model_class": "X", "parent_library": "evm2"}
    configured(foreign, auto_mapping=mapping, base_model_name_or_path="evil/model", task_type=None)
    model = open_adapter(base(), foreign)
    assert difference(logits(model, ids(LLAMA)), logits(peft_takes_clean(foreign), ids(LLAMA))) <= 1e-6
    configured(foreign, megatron_config={"tensor_model_parallel_size": 1}, megatron_core="evm")
    refused(foreign, SecurityError, "names a package to import")
    configured(foreign, peft_type="PROMPT_TUNING", tokenizer_kwargs={"trust_remote_code": True})
    refused(foreign, CheckpointError, "peft_type 'PROMPT_TUNING'")
    assert not marker.exists()


def peft_takes_clean(folder: Path) -> nn.Module:
    configured(folder, auto_mapping=None)
    return peft_takes(folder).eval()


def test_x16_claims(foreign: Path) -> None:
    path = foreign / WEIGHTS
    path.write_bytes((100 * 2**30).to_bytes(8, "little") + path.read_bytes()[8:])
    refused(foreign, CheckpointError, "its header alone claims 107374182400")


OUTSIDE = json.dumps({"format": 1, "files": {"../x": {"sha256": hashlib.sha256(b"x").hexdigest(), "bytes": 1}}})


@pytest.mark.parametrize("text", ["{", "{}", '{"format": 99, "files": {}}', OUTSIDE])
def test_records_are_not_believed(good: Path, text: str) -> None:
    (good.parent / "x").write_text("x")
    (good / "ftlab.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"is damaged|reads up to|lacks \.\./x"):
        ftlab.load(good)
