"""Tokens per CPU second of ftlab, of a hand-written loop with the same kernels, of HF Trainer and of TRL, and the fixed cost of a step.

    python experiments/benchmarks/overhead.py [--workload llama-6x384] [--repeats 5] [--contestants ftlab hand hf trl] [--out FILE]

Every contestant and repeat is a process of its own on one thread; they take turns. docs/benchmarks.md says what the figures mean.
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
    "hf": "HF Trainer + PEFT",
    "trl": "TRL SFTTrainer",
    "hand-peft": "hand-written loop, PEFT's own LoRA layers",
    "hand-bf16": "hand-written loop, bf16 base",
    "hand-peft-bf16": "hand-written loop, bf16 base, PEFT's own LoRA layers",
}


def command(name: str, workload: str, folder: Path, out: Path) -> list[str]:
    if name != "ftlab":
        return [sys.executable, str(HERE / "contestants.py"), name, workload, str(folder), str(out)]
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


def measured(name: str, workload: str, folder: Path) -> dict[str, list[float]]:
    """What a fresh process recorded: CPU seconds at the end of each step, and each step's loss."""
    out = folder / "out.json"
    out.unlink(missing_ok=True)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OVERHEAD_OUT": str(out), "FTLAB_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command(name, workload, folder, out), cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode or not out.is_file():
        raise RuntimeError(f"{name}: exit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    found: dict[str, list[float]] = json.loads(out.read_text(encoding="utf-8"))
    return found


def seconds_per_step(found: dict[str, list[float]], load: Workload) -> float:
    marks = found["marks"]
    assert len(marks) == load.steps, f"{len(marks)} steps instead of {load.steps}"
    return (marks[-1] - marks[load.warmup - 1]) / (load.steps - load.warmup)


def check_losses(losses: dict[str, list[float]]) -> None:
    """The contestants do the same work: equal first losses and, as far as rounding goes, equal curves."""
    reference = losses["hand"]
    for name, curve in losses.items():
        loose = name.endswith("bf16")
        worst = max(abs(a / b - 1) for a, b in zip(curve, reference, strict=True))
        assert abs(curve[0] / reference[0] - 1) < (1e-3 if loose else 1e-6), f"{name} begins at {curve[0]}, hand at {reference[0]}"
        assert worst < (5e-3 if loose else 1e-4), f"{name} leaves the curve of hand by {worst:.1e}"


def table(steps: dict[str, list[float]], load: Workload) -> str:
    """Medians over the repeats; ratios are taken within a repeat, because neighbours on the machine slow all of it down."""
    lines = ["| contestant | tokens per CPU second | min – max | CPU ms per step | × hand-written loop | ms per step more |"]
    lines.append("|---|---|---|---|---|---|")
    for name, values in steps.items():
        rates = [load.batch * load.tokens / s for s in values]
        ratio = statistics.median(h / s for h, s in zip(steps["hand"], values, strict=True))
        more = statistics.median(s - h for h, s in zip(steps["hand"], values, strict=True))
        lines.append(
            f"| {NAMES[name]} | {statistics.median(rates):,.0f} | {min(rates):,.0f} – {max(rates):,.0f} "
            f"| {1e3 * statistics.median(values):,.2f} | {ratio:.3f} | {1e3 * more:+.2f} |"
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
        for repeat in range(options.repeats):
            turn = names if repeat % 2 == 0 else names[::-1]
            runs.append({name: measured(name, options.workload, Path(folder)) for name in turn})
            check_losses({name: found["losses"] for name, found in runs[-1].items()})
            steps = {name: [seconds_per_step(run[name], load) for run in runs] for name in names}
            if options.out:
                options.out.write_text(json.dumps({"workload": options.workload, "seconds_per_step": steps, "runs": runs}), encoding="utf-8")
            print(f"{options.workload}, repeat {repeat + 1} of {options.repeats}\n{table(steps, load)}", flush=True)


if __name__ == "__main__":
    main()
