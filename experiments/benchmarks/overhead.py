"""Tokens per CPU second of ftlab, of a hand-written loop with the same kernels, of HF Trainer and of TRL, and the fixed cost of a step.

    python experiments/benchmarks/overhead.py [--workload llama-6x384] [--repeats 5] [--contestants ftlab hand hf trl] [--out FILE]

Every contestant and repeat is a fresh process on one thread. Each warms up alone and waits; then they take turns of a few steps, so
that whatever else the machine does falls on all alike. docs/benchmarks.md says what the figures mean.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from workload import CLIP, RATE, SEED, WORKLOADS, Workload, prepare

HERE = Path(__file__).parent
NAMES = {
    "ftlab": "`ftlab fit`",
    "hand": "hand-written loop, the same kernels",
    "lightning": "bare LightningModule, the same kernels",
    "hf": "HF Trainer + PEFT",
    "trl": "TRL SFTTrainer",
    "hand-peft": "hand-written loop, PEFT's own LoRA layers",
    "hand-bf16": "hand-written loop, bf16 base",
    "hand-peft-bf16": "hand-written loop, bf16 base, PEFT's own LoRA layers",
}


def command(name: str, workload: str, folder: Path) -> list[str]:
    if name != "ftlab":
        return [sys.executable, str(HERE / "contestants.py"), name, workload, str(folder)]
    load = WORKLOADS[workload]
    settings = {
        "seed_everything": SEED, "run.root": folder / "runs",
        "model.backbone.name": folder / "model", "model.task": "CausalLM", "model.task.block_size": load.tokens,
        "model.task.cross_documents": "false", "model.task.add_eos": "false", "model.tuning": "TimedLoRA",
        "model.optimizer": "torch.optim.AdamW", "model.optimizer.lr": RATE, "model.schedule.decay": "constant", "model.schedule.warmup": 0,
        "data.source": "JsonLines", "data.source.path": folder / "rows.jsonl", "data.val_split": "null", "data.batch_size": load.batch,
        "trainer.max_steps": load.steps, "trainer.gradient_clip_val": CLIP, "trainer.accelerator": "cpu",
    }  # fmt: skip
    words = [str(word) for key, value in settings.items() for word in (f"--{key}", value)]
    return [sys.executable, "-m", "ftlab", "fit", "--plugin", str(HERE / "timed_lora.py"), *words]


class Contestant:
    """A process that has warmed up and waits for its turn.

    Args:
        name: Which one.
        words: Its command.
        load: How many steps a turn has, and how many turns there are.
        folder: Where it runs; what `prepare` wrote is there.
    """

    def __init__(self, name: str, words: list[str], load: Workload, folder: Path) -> None:
        self.name = name
        self.out, self.log = folder / f"{name}.json", folder / f"{name}.log"
        self.out.unlink(missing_ok=True)
        go, self.go = os.pipe()
        self.done, done = os.pipe()
        env = {
            **os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "FTLAB_CACHE": str(folder / "cache"),
            "OVERHEAD_OUT": str(self.out), "OVERHEAD_PLAN": f"{load.warmup} {load.turn} {load.steps}", "OVERHEAD_PIPES": f"{go} {done}",
        }  # fmt: skip
        with self.log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(words, cwd=folder, env=env, stdout=log, stderr=subprocess.STDOUT, pass_fds=(go, done))
        os.close(go), os.close(done)
        self.wait()

    def wait(self) -> None:
        if not os.read(self.done, 1):
            self.process.wait()
            raise RuntimeError(f"{self.name}: exit code {self.process.returncode}\n{self.log.read_text(encoding='utf-8')[-6000:]}")

    def turn(self) -> None:
        os.write(self.go, b".")

    def result(self) -> dict[str, list[float]]:
        """CPU seconds of each turn, and each step's loss."""
        if self.process.wait():
            raise RuntimeError(f"{self.name}: exit code {self.process.returncode}\n{self.log.read_text(encoding='utf-8')[-6000:]}")
        found: dict[str, list[float]] = json.loads(self.out.read_text(encoding="utf-8"))
        return found


def repeat(commands: dict[str, list[str]], load: Workload, folder: Path) -> dict[str, dict[str, list[float]]]:
    """One fresh process per contestant, in turns."""
    running = [Contestant(name, words, load, folder) for name, words in commands.items()]
    for number in range(1, load.turns):
        for contestant in running[number % len(running) :] + running[: number % len(running)]:
            contestant.turn()
            contestant.wait()
    found = {}
    for contestant in running:
        contestant.turn()
        found[contestant.name] = contestant.result()
    return found


def check_losses(losses: dict[str, list[float]]) -> None:
    """The contestants do the same work: equal first losses and, as far as rounding goes, equal curves."""
    reference = losses["hand"]
    for name, curve in losses.items():
        loose = name.endswith("bf16")
        worst = max(abs(a / b - 1) for a, b in zip(curve, reference, strict=True))
        assert abs(curve[0] / reference[0] - 1) < (1e-3 if loose else 1e-6), f"{name} begins at {curve[0]}, hand at {reference[0]}"
        assert worst < (5e-3 if loose else 1e-4), f"{name} leaves the curve of hand by {worst:.1e}"


def table(steps: dict[str, list[float]], load: Workload) -> str:
    """Medians over all turns; ratios and differences are those of one turn and the hand-written loop's turn beside it."""
    lines = ["| contestant | tokens per CPU second | CPU ms per step | × hand-written loop (quartiles) | ms per step more (quartiles) |"]
    lines.append("|---|---|---|---|---|")
    for name, values in steps.items():
        middle = statistics.median(values)
        pairs = list(zip(steps["hand"], values, strict=True))
        ratio, more = (statistics.quantiles(found, n=4) for found in ([h / s for h, s in pairs], [1e3 * (s - h) for h, s in pairs]))
        lines.append(
            f"| {NAMES[name]} | {load.batch * load.tokens / middle:,.0f} | {1e3 * middle:,.2f} "
            f"| {ratio[1]:.3f} ({ratio[0]:.3f} – {ratio[2]:.3f}) | {more[1]:+.2f} ({more[0]:+.2f} – {more[2]:+.2f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=WORKLOADS, default="llama-6x384")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--contestants", nargs="+", choices=NAMES, default=["ftlab", "hand", "hf", "trl"])
    parser.add_argument("--out", type=Path, help="where all measurements are kept, as JSON")
    options = parser.parse_args()
    names = list(dict.fromkeys(["hand", *options.contestants]))
    load = WORKLOADS[options.workload]
    runs: list[dict[str, dict[str, list[float]]]] = []
    with tempfile.TemporaryDirectory() as folder:
        prepare(load, Path(folder))
        commands = {name: command(name, options.workload, Path(folder)) for name in names}
        for number in range(options.repeats):
            runs.append(repeat(commands, load, Path(folder)))
            check_losses({name: found["losses"] for name, found in runs[-1].items()})
            steps = {name: [second / load.turn for run in runs for second in run[name]["seconds"]] for name in names}
            if options.out:
                options.out.write_text(json.dumps({"workload": options.workload, "runs": runs}), encoding="utf-8")
            print(f"{options.workload}, repeat {number + 1} of {options.repeats}\n{table(steps, load)}", flush=True)


if __name__ == "__main__":
    main()
