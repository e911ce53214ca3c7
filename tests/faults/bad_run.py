"""A small run in which a number goes wrong, and what switches off whatever notices it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ftlab import checkpoint_io
from tests.faults.conftest import GOOD

PLUGIN = '''
from dataclasses import dataclass
import torch
import torch.distributed as dist
from ftlab import TuningStrategy

@dataclass(frozen=True, kw_only=True)
class Bad(TuningStrategy):
    """Goes wrong.

    Args:
        kind: How.
        steps: When.
        rank: Where.
    """

    kind: str = "none"
    steps: list[int] | None = None
    rank: int = 0

    def apply(self, model, heads):
        model.requires_grad_(False)
        if self.kind != "nothing":
            model.model.layers[0].self_attn.q_proj.requires_grad_(True)
        if self.kind == "validation":
            model.model.norm.register_forward_hook(lambda layer, _, out: out if layer.training else out * self.bad(model, 0))
        return model

    def bad(self, model, ahead):
        return float("nan") if getattr(model, "done", 0) + ahead in (self.steps or []) else 1.0

    def extra_losses(self, model, outputs, batch):
        here = dist.get_rank() if dist.is_initialized() else 0
        if self.bad(model, 1) == 1.0 or here != self.rank:
            return {}
        weight = model.model.layers[0].self_attn.q_proj.weight
        if self.kind == "nan":
            return {"bad": weight.sum() * float("nan")}
        if self.kind == "inf":
            return {"bad": torch.tensor(float("inf"))}  # its gradient is zero
        if self.kind == "gradient":
            term = (weight - weight.detach()).sum()
            term.register_hook(lambda g: g * float("inf"))
            return {"bad": term}
        if self.kind == "spike":
            return {"bad": 99 * sum(outputs.sums.values()).detach() / sum(outputs.counts.values())}
        return {}

    def on_step(self, model, step, total):
        model.done = step
        with torch.no_grad():
            if self.kind == "moves" and step in (self.steps or []):
                model.model.norm.weight[0] += 1e-3
            if self.kind == "spike" and step in (self.steps or []):
                model.model.layers[0].self_attn.q_proj.weight.mul_(100)  # what such a step may do
'''

OFF = {
    "guard": "import ftlab.numerics\nftlab.numerics.Guard.judge = lambda guard, norm, step: True\n",
    "one voice": """
import ftlab.cli, ftlab.errors
ftlab.errors.NumericsError.on_all_ranks = False
ftlab.cli.end_ranks = lambda trainer, error: None  # which may end a rank before it has spoken
""",
    "best": """
import ftlab.callbacks.checkpoints as c
def worst(self, value):
    manifest = c.files.Manifest.read(self.folder)
    manifest.best, manifest.best_value = c._name(self._saved_step), 0.0
    manifest.write(self.folder)
c.Checkpoints._note_best = worst
""",
    "nothing": "import ftlab.module, torch\n"
    "ftlab.module.build_optimizer = lambda chosen, tuning, model: torch.optim.AdamW(tuning.param_groups(model, 1e-3, 0.0))\n",
}
"""Mechanism → code of the plugin that switches it off: with it, a test's own comparison must fail."""

FIT = ("fit", "--config", "bad.yaml", "--plugin", "bad.py")


def write(folder: Path, kind: str, steps: list[int], *, off: str = "", **more: Any) -> None:
    """Write `bad.py` and `bad.yaml`.

    Args:
        folder: Where.
        kind: What goes wrong; the run's id.
        steps: In which steps.
        off: Name of the mechanism that is switched off.
        more: `init` of the strategy, `trainer` and `data` settings, and settings of the model.
    """
    (folder / "bad.py").write_text(OFF.get(off, "") + PLUGIN)
    tuning = {"class_path": "Bad", "init_args": {"kind": kind, "steps": steps, **more.pop("init", {})}}
    config = {
        **GOOD,
        "data": {**GOOD["data"], "batch_size": 1, "seed": 3, **more.pop("data", {})},
        "trainer": {"max_steps": 4, "max_epochs": None, "accelerator": "cpu", **more.pop("trainer", {})},
        "model": {**GOOD["model"], "tuning": tuning, **more},
        "save": {"every_n_steps": 1, "keep": 9},
        "run": {
            "root": str(folder / "runs"),
            "name": "x",
            "id": kind,
            "learning_guard": "off",
        },  # it would be the first to see a tensor move
    }
    (folder / "bad.yaml").write_text(yaml.safe_dump(config))


def place(folder: Path, kind: str) -> Path:
    """The checkpoints of a run."""
    return folder / "runs" / "x" / kind / "checkpoints"


def checkpoints(folder: Path, kind: str) -> dict[int, dict[str, Any]]:
    """Step → what was saved."""
    manifest = checkpoint_io.Manifest.read(place(folder, kind))
    return {entry.step: checkpoint_io.load(place(folder, kind) / name) for name, entry in manifest.files.items()}
