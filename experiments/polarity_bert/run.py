"""Full fine-tuning and LoRA over three seeds; prints a table and writes results/runs.json.

python experiments/polarity_bert/run.py [full|lora ...]

Each run is one `ftlab fit`; what differs from polarity_bert.yaml stands in METHODS.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
CONFIG = HERE.parent / "polarity_bert.yaml"
SEEDS = (0, 1, 2)
METHODS = {"full": [], "lora": ["--model.tuning", "LoRA", "--model.tuning.r", "16", "--model.optimizer.lr", "1.5e-3"]}
KEPT = ("val_accuracy", "val_loss", "base_val_loss", "trainable_params", "total_params", "seconds")


def fit(method: str, seed: int) -> dict[str, float]:
    """One run; the figures of its summary."""
    name = f"polarity-{method}"
    words = [sys.executable, "-m", "ftlab", "fit", "--config", str(CONFIG), *METHODS[method]]
    words += ["--seed_everything", str(seed), "--run.name", name, "--run.id", f"seed{seed}"]
    folder = Path("runs") / name / f"seed{seed}"
    if not (folder / "summary.json").is_file():
        subprocess.run(words, check=True)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return {key: summary[key] for key in KEPT}


def main(methods: list[str]) -> None:
    """Run what is missing, then print the table."""
    results = HERE / "results" / "runs.json"
    found = json.loads(results.read_text(encoding="utf-8")) if results.is_file() else {}
    for method in methods:
        found[method] = {str(seed): fit(method, seed) for seed in SEEDS}
    results.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    for method, runs in found.items():
        scores = [run["val_accuracy"] for run in runs.values()]
        spread = f"{statistics.mean(scores):.4f} ± {statistics.stdev(scores):.4f}"
        print(f"| {method} | {spread} | {', '.join(f'{s:.4f}' for s in scores)} | {runs['0']['trainable_params']:,} |")


if __name__ == "__main__":
    main(sys.argv[1:] or list(METHODS))
