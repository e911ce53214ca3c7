"""Ways in which a checkpoint or an adapter is not what was written, and the whole ones that they are done to."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from ftlab import Backbone
from ftlab.checkpoint import STAMP
from ftlab.checkpoint_io import MANIFEST
from ftlab.folders import file_hash
from ftlab.testing.models import tiny_model_folder
from tests.faults.conftest import GOOD, Run

NEWEST, BEFORE = "step-00000003.ckpt", "step-00000002.ckpt"
STEPS = ("step-00000001.ckpt", BEFORE, NEWEST)
WEIGHTS, CONFIG, RECORD = "adapter_model.safetensors", "adapter_config.json", "ftlab.json"
Content = dict[str, Any]
Change = Callable[[dict[str, Tensor], str], None]
InFile = Callable[[Path, random.Random], None]
"""Damages a file."""
Damage = Callable[[Path, "Whole", random.Random], None]
"""Damages the folder of a run or an adapter."""


@dataclass(frozen=True)
class Whole:
    """Runs of three steps with three checkpoints and an export each.

    Args:
        run: The one that is damaged.
        other: The same on another base of the same shape, the source of files that get mixed in.
        wide: The same with twice the rank.
        base: What `run` was trained on.
    """

    run: Path
    other: Path
    wide: Path
    base: Backbone


def whole(folder: Path, ftlab: Run) -> Whole:
    """Train the three runs below `folder`."""
    bases = [tiny_model_folder("llama", folder / name, seed=seed) for seed, name in enumerate(("base", "another"))]
    runs = [_fit(folder, ftlab, "run", bases[0], 2), _fit(folder, ftlab, "other", bases[1], 2), _fit(folder, ftlab, "wide", bases[0], 4)]
    return Whole(run=runs[0], other=runs[1], wide=runs[2], base=Backbone(name=str(bases[0])))


def _fit(folder: Path, ftlab: Run, name: str, base: Path, rank: int) -> Path:
    tuning = {"class_path": "LoRA", "init_args": {"r": rank, "target_modules": ["q_proj", "v_proj"]}}
    task = {"class_path": "CausalLM", "init_args": {"block_size": 16}}
    config = {
        "model": {"backbone": {"name": str(base)}, "task": task, "tuning": tuning},
        "data": {**GOOD["data"], "batch_size": 2},
        "trainer": {"max_steps": 3, "max_epochs": None, "accelerator": "cpu"},
        "save": {"every_n_steps": 1, "keep": 9},
        "run": {"root": str(folder / "runs"), "name": name, "id": "x"},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    result = ftlab(folder, "fit", "--config", f"{name}.yaml")
    assert result.code == 0, result.err
    return folder / "runs" / name / "x"


def built_in(folder: Path, ftlab: Run) -> Path:
    """A run of three steps with three checkpoints, on the built-in model."""
    config = {**GOOD, "trainer": {"max_steps": 3, "max_epochs": None, "accelerator": "cpu"}, "save": {"every_n_steps": 1, "keep": 9}}
    (folder / "good.yaml").write_text(yaml.safe_dump({**config, "data": {**GOOD["data"], "batch_size": 2}}))
    result = ftlab(folder, "fit", "--config", "good.yaml", "--run.name", "x", "--run.id", "y")
    assert result.code == 0, result.err
    return folder / "runs" / "x" / "y"


def killed(run: Path, folder: Path) -> Path:
    """A copy of a run as if it had been killed after its last checkpoint."""
    shutil.copytree(run, folder, symlinks=True)
    (folder / "summary.json").unlink()
    shutil.rmtree(folder / "export")
    return folder


def rewrite(path: Path, content: object) -> None:
    """Put another content under a checkpoint's name, and the manifest right for it."""
    torch.save(content, path)
    vouch(path)


def vouch(path: Path) -> None:
    """Make the manifest say that a file is what was written."""
    manifest = json.loads((path.parent / MANIFEST).read_text())
    manifest["files"][path.name] |= {"sha256": file_hash(path), "bytes": path.stat().st_size}
    (path.parent / MANIFEST).write_text(json.dumps(manifest))


def cut(path: Path, draw: random.Random) -> None:
    """Keep the beginning, sometimes nothing."""
    content = path.read_bytes()
    path.write_bytes(content[: draw.choice([0, draw.randrange(len(content)), len(content) - 1])])


def flip(path: Path, draw: random.Random) -> None:
    """Turn one bit."""
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def drop(tensors: dict[str, Tensor], name: str) -> None:
    del tensors[name]


def add(tensors: dict[str, Tensor], name: str) -> None:
    tensors[name.replace(".0.", ".9.").replace(".1.", ".9.")] = tensors[name].clone()


def rename(tensors: dict[str, Tensor], name: str) -> None:
    tensors[name + "x"] = tensors.pop(name)


def nan(tensors: dict[str, Tensor], name: str) -> None:
    tensors[name] = tensors[name].clone()
    tensors[name].view(-1)[-1] = float("nan")


CHANGES: dict[str, Change] = {"tensor missing": drop, "tensor extra": add, "tensor renamed": rename, "tensor NaN": nan}
"""Kind → what is done to the tensors of a checkpoint or an adapter."""


def in_checkpoint(change: Change) -> InFile:
    """The change, done to a checkpoint file; what the manifest says stays."""

    def damage(path: Path, draw: random.Random) -> None:
        content: Content = torch.load(path, weights_only=True)
        change(content["state_dict"], draw.choice(sorted(content["state_dict"])))
        torch.save(content, path)

    return damage


def in_adapter(change: Change) -> InFile:
    """The change, done to a file of safetensors."""

    def damage(path: Path, draw: random.Random) -> None:
        tensors = load_file(path)
        change(tensors, draw.choice(sorted(tensors)))
        save_file(tensors, path, {"format": "pt"})

    return damage


def newest(change: InFile, vouched: bool = False) -> Damage:
    def damage(run: Path, whole: Whole, draw: random.Random) -> None:
        path = run / "checkpoints" / NEWEST
        change(path, draw)
        if vouched:
            vouch(path)

    return damage


def every(change: InFile) -> Damage:
    def damage(run: Path, whole: Whole, draw: random.Random) -> None:
        for name in STEPS:
            change(run / "checkpoints" / name, draw)

    return damage


def of_another_base(vouched: bool) -> Damage:
    """The checkpoint of a run that differs in nothing but the weights of its base."""

    def damage(run: Path, whole: Whole, draw: random.Random) -> None:
        path = run / "checkpoints" / NEWEST
        spec = torch.load(path, weights_only=True)[STAMP]["spec"]
        content = torch.load(whole.other / "checkpoints" / draw.choice(STEPS[1:]), weights_only=True)
        content[STAMP]["spec"] = spec
        torch.save(content, path)
        if vouched:
            vouch(path)

    return damage


def older_under_the_newest_name(run: Path, whole: Whole, draw: random.Random) -> None:
    shutil.copy(run / "checkpoints" / draw.choice(STEPS[:2]), run / "checkpoints" / NEWEST)


def manifest_of_another(run: Path, whole: Whole, draw: random.Random) -> None:
    shutil.copy(draw.choice([whole.other, whole.wide]) / "checkpoints" / MANIFEST, run / "checkpoints" / MANIFEST)


def all_of_another(run: Path, whole: Whole, draw: random.Random) -> None:
    shutil.rmtree(run / "checkpoints")
    shutil.copytree(draw.choice([whole.other, whole.wide]) / "checkpoints", run / "checkpoints", symlinks=True)


def optimiser_nan(path: Path, draw: random.Random) -> None:
    content = torch.load(path, weights_only=True)
    state = draw.choice(sorted(content["optimizer_states"][0]["state"].items()))[1]
    state[draw.choice(["exp_avg", "exp_avg_sq"])].view(-1)[0] = float("nan")
    torch.save(content, path)


def in_weights(change: InFile) -> Damage:
    return lambda folder, whole, draw: change(folder / WEIGHTS, draw)


def in_any_file(change: InFile) -> Damage:
    return lambda folder, whole, draw: change(draw.choice(sorted(p for p in folder.iterdir() if p.name != RECORD)), draw)


def files_of_another(names: Sequence[str]) -> Damage:
    def damage(folder: Path, whole: Whole, draw: random.Random) -> None:
        name = draw.choice(list(names))
        shutil.copy(whole.wide / "export" / name, folder / name)

    return damage


def base_of_another(folder: Path, whole: Whole, draw: random.Random) -> None:
    """Name another base, of the same shape, as the one to put the adapter on, which the record vouches for."""
    record = json.loads((folder / RECORD).read_text())
    other = json.loads((whole.other / "export" / RECORD).read_text())
    record["base"]["name"] = other["base"]["name"]
    (folder / RECORD).write_text(json.dumps(record))


def longer_base(folder: Path, whole: Whole, draw: random.Random) -> None:
    """Weights for a base of another shape."""
    tensors = load_file(folder / WEIGHTS)
    save_file({n: t.repeat((1, 2) if n.split(".")[-2] == "lora_A" else (2, 1)) for n, t in tensors.items()}, folder / WEIGHTS)
