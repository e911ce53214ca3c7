"""Start-up: CPU seconds until `ftlab fit` takes its first step, beside those of the bare imports that the step needs.

python experiments/benchmarks/startup.py [repeats]

Each figure is the median over fresh processes, taken in turns; the token cache is warm. The bare imports are the modules of other
packages that are loaded when the step is taken; how many each package has is printed, so that one that is not needed shows.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

BARE = """
import contextlib, importlib, pathlib, time
for name in pathlib.Path("modules.txt").read_text().split():
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
print("CPU", time.process_time())
"""
TIMED = '''
import pathlib
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from ftlab import TuningStrategy


@dataclass(frozen=True, kw_only=True)
class Timed(TuningStrategy):
    """Full fine-tuning that prints the CPU seconds before its first step and leaves."""

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        return model

    def on_gradients(self, model: nn.Module, step: int) -> None:
        print("CPU", time.process_time(), flush=True)
        names = [n for n in sys.modules if n.partition(".")[0] not in ("ftlab", "timed", "__main__")]
        pathlib.Path("modules.txt").write_text("\\n".join(names))
        raise SystemExit(0)
'''


def cpu_seconds(command: list[str], folder: str) -> float:
    """What the process prints behind the word CPU."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    lines = [line for line in done.stdout.splitlines() if line.startswith("CPU")]
    if not lines:
        raise RuntimeError(done.stderr)
    return float(lines[-1].split()[1])


def main(repeats: int) -> None:
    """Print both medians and their difference."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FTLAB_CACHE"] = f"{folder}/cache"
        (Path(folder) / "timed.py").write_text(TIMED, encoding="utf-8")
        fit = [
            sys.executable, "-m", "ftlab", "fit", "--plugin", "timed.py", "--model.backbone.name", "ftlab/tiny-llama",
            "--model.task", "CausalLM", "--model.task.block_size", "16", "--model.tuning", "Timed", "--data.source", "Rows",
            "--data.source.items", '[{"text": "one row of text"}, {"text": "and another"}]', "--data.val_split", "0.5",
            "--trainer.num_sanity_val_steps", "0",
        ]  # fmt: skip
        bare = [sys.executable, "-c", BARE]
        for command in (fit, bare):
            cpu_seconds(command, folder)
        pairs = [(cpu_seconds(fit, folder), cpu_seconds(bare, folder)) for _ in range(repeats)]
        names = (Path(folder) / "modules.txt").read_text(encoding="utf-8").split()
        packages = Counter(n.partition(".")[0] for n in names if n.partition(".")[0] not in sys.stdlib_module_names)
    ours, imports = (statistics.median(column) for column in zip(*pairs, strict=True))
    print("modules:", ", ".join(f"{package} {count}" for package, count in packages.most_common(20)))
    print(f"first step of ftlab fit: {ours:.2f} s of CPU; its bare imports: {imports:.2f} s; difference {ours - imports:.2f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
