"""Made-up studies: records as the storage gives them, and run folders with the files that a report reads."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ftlab.studies.records import TrialRecord

FACTORS: Mapping[str, Sequence[str]] = {"model.tuning": ("Full", "LoRA", "PromptTuning"), "size": ("small", "large")}
_GAIN = {"Full": 0.30, "LoRA": 0.28, "PromptTuning": 0.05, "large": 0.06}
_PARAMS = {"Full": 1_600_000, "LoRA": 24_000, "PromptTuning": 1_200}


def records(
    folder: Path, factors: Mapping[str, Sequence[str]] = FACTORS, seeds: int = 5, tuning: int = 4, steps: int = 40, noise: float = 0.02
) -> list[TrialRecord]:
    """A finished study, its run folders written below `folder`."""
    random = np.random.default_rng(0)
    found = []
    for values in itertools.product(*factors.values()):
        levels = dict(zip(factors, values, strict=True))
        found += [_trial(folder, levels, "tune", n, steps, noise, random) for n in range(tuning)]
        found += [_trial(folder, levels, "seeds", n, steps, noise, random) for n in range(seeds)]
    return found


def odd(folder: Path, kind: str) -> list[TrialRecord]:
    """A study in which something is missing, or of an unusual size."""
    if kind == "one run":
        return records(folder, {"model.tuning": ("LoRA",)}, seeds=1, tuning=0, steps=1)
    made = records(folder, seeds=2, tuning=2, steps=2)
    changes: dict[str, Callable[[TrialRecord], TrialRecord]] = {
        "waiting": lambda r: replace(r, state="waiting", value=None, cpu_seconds=None, wall_seconds=None, peak_memory=None, folder="gone"),
        "failed": lambda r: replace(r, state="failed", value=None, error="why"),
        "no factor": lambda r: replace(r, levels={}, variant="base"),
        "constant": lambda r: replace(r, value=0.0, cpu_seconds=0.0, trainable_params=0),
        "not finite": lambda r: replace(r, value=math.inf if r.seed else math.nan),
        "far apart": lambda r: replace(r, value=10.0 ** (9 * len(r.variant) - 80)),
    }
    return [] if kind == "empty" else [changes[kind](r) for r in made]


ODD = ("one run", "waiting", "failed", "no factor", "constant", "not finite", "far apart", "empty")


def _trial(
    folder: Path, levels: Mapping[str, str], phase: str, seed: int, steps: int, noise: float, random: np.random.Generator
) -> TrialRecord:
    variant = "-".join(levels.values())
    place = f"runs/{variant}/{'tune' if phase == 'tune' else 'seed'}-{seed}"
    rate = float(10 ** random.uniform(-4.5, -2.0)) if phase == "tune" else 1.3e-3
    missed = 0.15 * (np.log10(rate) + 3) ** 2 if phase == "tune" else 0.0
    end = 0.69 - sum(_GAIN.get(v, 0.0) for v in levels.values()) + missed + float(random.normal(0, noise))
    _run_folder(folder / place, end, steps, random)
    return TrialRecord(
        key=f"{variant}-{phase}-{seed}",
        variant=variant,
        levels=dict(levels),
        phase="tune" if phase == "tune" else "seeds",
        seed=seed,
        state="complete",
        value=end,
        settings={**levels, "model.optimizer.lr": rate},
        tuned={"model.optimizer.lr": rate},
        metrics={"val_loss": end, "val_accuracy": 1 - end / 2},
        cpu_seconds=20.0 + 10 * len(variant) + float(random.uniform(0, 2)),
        wall_seconds=25.0 + 10 * len(variant),
        peak_memory=300_000_000 + 5_000_000 * len(variant),
        trainable_params=next((n * (3 if "large" in levels.values() else 1) for k, n in _PARAMS.items() if k in levels.values()), 500),
        tokens=1024 * steps,
        folder=place,
    )


def _run_folder(place: Path, end: float, steps: int, random: np.random.Generator) -> None:
    place.mkdir(parents=True, exist_ok=True)
    lines = []
    for step in range(1, steps + 1):
        now = end + (0.7 - end) * float(np.exp(-4 * step / steps))
        lines.append({"step": step, "time": 1.0, "train_loss": now + float(random.normal(0, 0.03)), "lr": 1e-3 * (1 - step / steps)})
        if step % max(1, steps // 10) == 0:
            lines.append({"step": step, "time": 1.0, "val_loss": now, "val_accuracy": 1 - now / 2})
    (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (place / "config.yaml").write_text("seed_everything: 1\ndata:\n  source:\n    class_path: ftlab.data.sources.PythonDocs\n", "utf-8")
    versions = {"packages": {"python": "3.11.7", "torch": "2.13.0"}, "plugins": {}}
    (place / "versions.json").write_text(json.dumps(versions), "utf-8")
