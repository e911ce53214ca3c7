"""Whole checkpoint files whose content is wrong, cut ones and flipped bits, against the checks themselves (K1, K2, K5, K6, K8)."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ftlab import Backbone, FinetuneModule, checkpoint_io
from ftlab import checkpoint as ckpt
from ftlab.errors import CheckpointError, SecurityError
from ftlab.fingerprints import check, tokenizer_fingerprint
from ftlab.strategies.lora import LoRA
from ftlab.tasks.causal_lm import CausalLM
from tests.faults.conftest import Run
from tests.faults.damage import BEFORE, NEWEST, Content, built_in, killed, rewrite, vouch


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, _warm: Run) -> Path:
    return built_in(tmp_path_factory.mktemp("run"), _warm)


@pytest.fixture
def run(original: Path, tmp_path: Path) -> Path:
    return killed(original, tmp_path / "y")


@pytest.fixture(scope="module")
def module() -> FinetuneModule:
    module = FinetuneModule(Backbone(name="ftlab/tiny-llama"), CausalLM(block_size=16), LoRA(r=2))
    module.configure_model()
    return module


def accept(path: Path, module: FinetuneModule) -> None:
    """Everything that stands between a file and the model."""
    content = checkpoint_io.load(path)
    ckpt.verify(content, module.spec(), ckpt.keep_owned(module.state_dict(), module._owned()))
    check(content[ckpt.STAMP]["fingerprints"], {"base": module._base, "tokenizer": tokenizer_fingerprint(module.tokenizer)})


def refused(path: Path, module: FinetuneModule) -> bool:
    try:
        accept(path, module)
    except (CheckpointError, SecurityError):
        return True
    return False


def test_the_original_is_accepted(run: Path, module: FinetuneModule) -> None:
    accept(run / "checkpoints" / NEWEST, module)
    rewrite(run / "checkpoints" / NEWEST, checkpoint_io.load(run / "checkpoints" / NEWEST))
    accept(run / "checkpoints" / NEWEST, module)


def test_a_hundred_cuts(run: Path, module: FinetuneModule) -> None:
    """K1."""
    path = run / "checkpoints" / NEWEST
    whole = path.read_bytes()
    accepted = []
    for percent in range(100):
        path.write_bytes(whole[: len(whole) * percent // 100])
        accepted += [] if refused(path, module) else [percent]
        vouch(path)  # even where somebody says that the cut file is right
        accepted += [] if refused(path, module) else [percent]
        shutil.copy(run / "checkpoints" / BEFORE, path)
        rewrite(path, {})
    assert accepted == []


def test_a_hundred_flipped_bits(run: Path, module: FinetuneModule) -> None:
    """K2."""
    path = run / "checkpoints" / NEWEST
    whole = path.read_bytes()
    chance = random.Random(0)
    accepted = []
    for _ in range(100):
        place, bit = chance.randrange(len(whole)), chance.randrange(8)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        accepted += [] if refused(path, module) else [(place, bit)]
    path.write_bytes(whole)
    accept(path, module)
    assert accepted == []


def _pop(content: Content, name: str) -> None:
    del content["state_dict"][name]


def _rename(content: Content, name: str) -> None:
    content["state_dict"][name + "x"] = content["state_dict"].pop(name)


def _extra(content: Content, name: str) -> None:
    content["state_dict"][name.replace("lora_A", "base_layer").replace("lora_B", "base_layer")] = content["state_dict"][name]


def _number(value: float) -> Callable[[Content, str], None]:
    def change(content: Content, name: str) -> None:
        content["state_dict"][name].view(-1)[-1] = value

    return change


def _shape(content: Content, name: str) -> None:
    content["state_dict"][name] = content["state_dict"][name][..., :-1].clone()


def _dtype(content: Content, name: str) -> None:
    content["state_dict"][name] = content["state_dict"][name].double()


def _list(content: Content, name: str) -> None:
    content["state_dict"][name] = content["state_dict"][name].tolist()


TENSORS = [_pop, _rename, _extra, _number(float("nan")), _number(float("inf")), _shape, _dtype, _list]


def contents(good: Path) -> Iterator[Content]:
    """Whole files whose content is wrong."""
    names = sorted(checkpoint_io.load(good)["state_dict"])
    for change in TENSORS:
        for name in names[:: max(1, len(names) // 12)][:12]:
            content = checkpoint_io.load(good)
            change(content, name)
            yield content
    for key in (ckpt.STAMP, "state_dict"):
        content = checkpoint_io.load(good)
        del content[key]
        yield content
    for key in ("format", "spec", "fingerprints", "rng", "base_figures"):
        content = checkpoint_io.load(good)
        del content[ckpt.STAMP][key]
        yield content
    for key, value in (("format", 0), ("format", 99), ("fingerprints", {}), ("fingerprints", {"base": "0" * 64}), ("spec", {})):
        content = checkpoint_io.load(good)
        content[ckpt.STAMP][key] = value
        yield content
    changed: dict[str, Any] = {"r": 4, "alpha": 64.0, "dropout": 0.5, "target_modules": ["q_proj"]}
    for key, value in changed.items():
        content = checkpoint_io.load(good)
        content[ckpt.STAMP]["spec"]["model.tuning"]["init_args"][key] = value
        yield content


def test_a_hundred_wrong_contents_that_the_manifest_vouches_for(run: Path, module: FinetuneModule) -> None:
    """K5, K6, K8 of checkpoints: a right hash does not make a right content."""
    path = run / "checkpoints" / NEWEST
    tried, accepted = 0, []
    for number, content in enumerate(contents(run / "checkpoints" / BEFORE)):
        rewrite(path, content)
        tried += 1
        accepted += [] if refused(path, module) else [number]
    assert tried >= 100
    assert accepted == []


@pytest.mark.parametrize("content", [[1, 2], "text", 3.0, None])
def test_other_things_under_a_checkpoints_name(run: Path, module: FinetuneModule, content: object) -> None:
    rewrite(run / "checkpoints" / NEWEST, content)
    assert refused(run / "checkpoints" / NEWEST, module)
