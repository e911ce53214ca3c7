"""Twelve trials that one process forks beside the same twelve as commands of their own: CPU time, wall time, whether they are equal.

python experiments/benchmarks/study_sharing.py [CONFIG] [--trials N] [--features] [what follows `ftlab fit`]

The two ways take turns, trial by trial, so that neighbours on the machine disturb both alike; one thread each. The token cache is warm for
both. Equal means: the same losses to the last digit, and the same tensors in the last checkpoint. With --features the trials train the head
alone, at three learning rates, and those that are forked read the hidden states below it from a file, which the first of them writes; the
largest difference between two losses is printed.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import torch

from ftlab.commands.verify import equal
from ftlab.studies.warm import Warm

VARIANTS = (
    ("--model.tuning", "LoRA", "--model.tuning.r", "4"),
    ("--model.tuning", "LoRA", "--model.tuning.r", "32", "--model.tuning.dropout", "0.1"),
    ("--model.tuning", "Full"),
)
RATES = ("1e-3", "3e-3", "1e-2")
HEADS = tuple(("--model.tuning", "Full", "--model.tuning.last_layers", "0", "--model.optimizer.lr", rate) for rate in RATES)


class Way:
    """One way to run trials, and what it has cost."""

    def __init__(self, name: str, run: Callable[[list[str], Path], int]) -> None:
        self.name, self.run = name, run
        self.wall = 0.0

    def take(self, words: list[str], root: Path) -> Path:
        """Run a trial; gives its folder."""
        begun, number = time.monotonic(), words[-1]
        code = self.run([*words, "--run.root", str(root), "--run.name", self.name], root / f"{self.name}-{number}.log")
        self.wall += time.monotonic() - begun
        if code:
            raise RuntimeError((root / f"{self.name}-{number}.log").read_text()[-2000:])
        return root / self.name / number


def alone(words: list[str], log: Path) -> int:
    with log.open("w") as file:
        return subprocess.run([sys.executable, "-P", "-m", "ftlab", *words], stdout=file, stderr=file, check=False).returncode


def forked(warm: Warm, features: Path | None) -> Callable[[list[str], Path], int]:
    def run(words: list[str], log: Path) -> int:
        child = warm.start(words, log, {} if features is None else {"FTLAB_FEATURES": str(features)})
        while (code := child.poll()) is None:
            time.sleep(0.01)
        return code

    return run


def children() -> float:
    """CPU seconds of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def result(folder: Path) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [{k: v for k, v in line.items() if k == "step" or "loss" in k} for line in lines]
    return losses, torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def apart_by(first: list[dict[str, float]], second: list[dict[str, float]]) -> float:
    """The largest difference between two losses."""
    return max(abs(a[k] - b[k]) for a, b in zip(first, second, strict=True) for k in a)


def main(config: str, trials: int, features: bool, words: list[str]) -> None:
    """Print the table."""
    os.environ["OMP_NUM_THREADS"] = "1"
    same, difference = 0, 0.0
    with tempfile.TemporaryDirectory() as folder, Warm() as warm:
        os.environ["FTLAB_CACHE"] = f"{folder}/cache"
        root, base = Path(folder), ["fit", "--config", config, *words]
        filling = [*base, "--trainer.max_steps", "1", "--run.root", folder, "--run.name", "first", "--run.id", "one"]
        if alone(filling, root / "first.log"):
            raise RuntimeError((root / "first.log").read_text()[-2000:])
        apart, together, cpu = Way("alone", alone), Way("forked", forked(warm, root / "features" if features else None)), children()
        for number, variant in enumerate(islice(cycle(HEADS if features else VARIANTS), trials)):
            trial = [*base, *variant, "--seed_everything", str(number), "--run.id", str(number)]
            first, second = result(apart.take(trial, root)), result(together.take(trial, root))
            same += equal(first, second)
            difference = max(difference, apart_by(first[0], second[0]))
        # What has been forked counts only when the process that forked it has ended.
        apart_cpu, middle = children() - cpu, children()
        warm.close()
        together_cpu = children() - middle
    print(f"{trials} trials of {config} {' '.join(words)}: {same} of {trials} bit-equal, losses differ by {difference:.1e} at most")
    print("| way | CPU s | wall s |\n|---|---|---|")
    print(f"| `ftlab fit` each | {apart_cpu:.1f} | {apart.wall:.1f} |\n| one `Warm` | {together_cpu:.1f} | {together.wall:.1f} |")
    print(f"| ratio | {together_cpu / apart_cpu:.2f} | {together.wall / apart.wall:.2f} |")


if __name__ == "__main__":
    rest = sys.argv[1:]
    path = rest.pop(0) if rest and not rest[0].startswith("-") else "experiments/quickstart.yaml"
    count = int(rest.pop(rest.index("--trials") + 1)) if "--trials" in rest else 12
    main(path, count, "--features" in rest, [word for word in rest if word not in ("--trials", "--features")])
