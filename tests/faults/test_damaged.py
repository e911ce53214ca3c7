"""Checkpoints that are damaged, mixed up or hostile: none is accepted, and a run goes back to its last good one (K1-K6, K8, K13, X1)."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ftlab import Backbone, FinetuneModule, checkpoint_io
from ftlab import checkpoint as ckpt
from ftlab.checkpoint_io import MANIFEST, Manifest
from ftlab.errors import CheckpointError, SecurityError
from ftlab.fingerprints import check, tokenizer_fingerprint
from ftlab.strategies.lora import LoRA
from ftlab.tasks.causal_lm import CausalLM
from tests.faults.conftest import GOOD, Result, Run

NEWEST, BEFORE = "step-00000003.ckpt", "step-00000002.ckpt"
Content = dict[str, Any]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, _warm: Run) -> Path:
    """A folder with a run of three steps and three checkpoints."""
    folder = tmp_path_factory.mktemp("run")
    config = {**GOOD, "trainer": {"max_steps": 3, "max_epochs": None, "accelerator": "cpu"}, "save": {"every_n_steps": 1, "keep": 9}}
    config["data"] = {**GOOD["data"], "batch_size": 2}
    (folder / "good.yaml").write_text(yaml.safe_dump(config))
    result = _warm(folder, "fit", "--config", "good.yaml", "--run.name", "x", "--run.id", "y")
    assert result.code == 0, result.err
    return folder


@pytest.fixture
def run(original: Path, tmp_path: Path) -> Path:
    """A copy of that run, as if it had been killed after its last checkpoint."""
    shutil.copytree(original / "runs" / "x" / "y", tmp_path / "y", symlinks=True)
    (tmp_path / "y" / "summary.json").unlink()
    return tmp_path / "y"


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


def rewrite(path: Path, content: object) -> None:
    """Put another content under a checkpoint's name, and the manifest right for it."""
    torch.save(content, path)
    vouch(path)


def vouch(path: Path) -> None:
    manifest = json.loads((path.parent / MANIFEST).read_text())
    manifest["files"][path.name] |= {"sha256": checkpoint_io.file_hash(path), "bytes": path.stat().st_size}
    (path.parent / MANIFEST).write_text(json.dumps(manifest))


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


def test_a_stranger_in_the_folder_is_not_in_the_manifest(run: Path, module: FinetuneModule) -> None:
    stranger = run / "checkpoints" / "step-00000009.ckpt"
    shutil.copy(run / "checkpoints" / NEWEST, stranger)
    with pytest.raises(CheckpointError, match="is not listed"):
        accept(stranger, module)
    found = checkpoint_io.newest(run / "checkpoints")
    assert found is not None
    assert found.name == NEWEST


def test_a_link_to_another_runs_file_is_not_taken_for_the_own(run: Path, original: Path) -> None:
    path = run / "checkpoints" / NEWEST
    path.unlink()
    path.symlink_to(original / "runs" / "x" / "y" / "checkpoints" / NEWEST)
    found = checkpoint_io.newest(run / "checkpoints")
    assert found is not None
    assert found.name == BEFORE


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", '{"format": 1}', '{"format": 2, "files": {}, "best": null, "best_value": null}',
        '{"format": 1, "files": {"../../x": {"sha256": "", "bytes": 0, "step": 9, "epoch": 0}}, "best": null, "best_value": null}',
        '{"format": 1, "files": {"a": {"sha256": "", "bytes": 0, "step": "9", "epoch": 0}}, "best": null, "best_value": null}',
        '{"format": 1, "files": {"a": {"step": 9}}, "best": null, "best_value": null}',
        '{"format": 1, "files": ["a"], "best": null, "best_value": null}',
    ],
)  # fmt: skip
def test_a_damaged_manifest_is_refused(run: Path, text: str) -> None:
    (run / "checkpoints" / MANIFEST).write_text(text)
    with pytest.raises(CheckpointError, match="manifest.json"):
        checkpoint_io.newest(run / "checkpoints")


def resume(warm: Run, run: Path) -> Result:
    return warm("fit", "--resume", str(run))


def test_the_command_goes_back_to_the_last_good_one_and_says_so(run: Path, warm: Run) -> None:
    path = run / "checkpoints" / NEWEST
    path.write_bytes(path.read_bytes()[:-700])
    result = resume(warm, run)
    assert result.code == 0, result.err
    assert f"{NEWEST} has " in result.err
    assert f"going back to {BEFORE}" in result.err
    assert (run / "summary.json").is_file()
    assert Manifest.read(run / "checkpoints").newest_first()[0] == NEWEST  # trained and written anew
    assert checkpoint_io.problem(path) is None


def _none_good(run: Path) -> None:
    for path in (run / "checkpoints").glob("step-*"):
        path.write_bytes(b"")


def _no_manifest(run: Path) -> None:
    (run / "checkpoints" / MANIFEST).unlink()


def _old_format(run: Path) -> None:
    manifest = json.loads((run / "checkpoints" / MANIFEST).read_text())
    (run / "checkpoints" / MANIFEST).write_text(json.dumps(manifest | {"format": 0}))


def _nan(run: Path) -> None:
    content = checkpoint_io.load(run / "checkpoints" / NEWEST)
    next(iter(content["state_dict"].values())).fill_(float("nan"))
    rewrite(run / "checkpoints" / NEWEST, content)


@pytest.mark.parametrize("damage", [_none_good, _no_manifest, _old_format, _nan])
def test_the_command_refuses_a_run_without_a_good_checkpoint(run: Path, warm: Run, damage: Callable[[Path], None]) -> None:
    damage(run)
    metrics = (run / "metrics.jsonl").read_bytes()
    result = resume(warm, run)
    assert result.code == 4, result.err
    assert result.err.splitlines()[-1].startswith("ftlab: error: ")
    assert "Traceback" not in result.err
    if damage is not _nan:
        assert (run / "metrics.jsonl").read_bytes() == metrics  # nothing was begun


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def test_a_pickle_that_would_run_code_is_not_opened(run: Path, warm: Run, tmp_path: Path) -> None:
    marker = tmp_path / "PWNED"
    path = run / "checkpoints" / NEWEST
    rewrite(path, {**checkpoint_io.load(path), "payload": Payload(marker)})
    with pytest.raises(SecurityError, match="could run code"):
        checkpoint_io.load(path)
    result = resume(warm, run)
    assert result.code == 7, result.err
    result = warm("fit", "--config", str(run / "config.yaml"), "--ckpt_path", str(path))
    assert result.code == 7, result.err
    assert not marker.exists()
    torch.load(path, weights_only=False)  # the payload is live
    assert marker.exists()


@pytest.mark.parametrize("path", ["https://example.org/last.ckpt", "s3://bucket/last.ckpt", "memory://last.ckpt"])
def test_a_checkpoint_from_elsewhere_is_not_fetched(warm: Run, path: str) -> None:
    assert warm("fit", "--config", "good.yaml", "--ckpt_path", path).code == 7
    with pytest.raises(SecurityError):
        checkpoint_io.load(path)
