"""What next-sentence prediction adds: three objectives on the same rows for the same steps, and what each network is then worth downstream.

    python experiments/tasks/nsp.py [--workers 2] [--only-table]

Each of nsp_mlm.yaml, nsp_both.yaml and nsp_order.yaml goes on from tiny-bert; the exported network is then trained as stsb.yaml and
xquad_retrieval.yaml say. What results/nsp.json has is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import fits
from fits import Results

HERE = Path(__file__).parent
SEEDS = (0, 1, 2)
ARMS = {"nsp_mlm": "masked tokens", "nsp_both": "masked tokens + next sentence", "nsp_order": "masked tokens + sentence order"}
DOWNSTREAM = {"stsb": "test_spearman", "xquad_retrieval": "val_recall_at_1"}
"""Task → its figure."""


def chain(arm: str, seed: int) -> dict[str, Any]:
    """The figures of one network before and after its downstream tasks."""
    words = ("--seed_everything", str(seed))
    with tempfile.TemporaryDirectory() as folder:
        code, cpu, said = fits.ftlab("fit", HERE / f"{arm}.yaml", folder, *words)
        if code:
            return {"error": said.splitlines()[-1]}
        run = Path(folder, "fit", "one")
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        last = [line for line in lines if "val_loss_mlm" in line][-1]
        found = {key: last[key] for key in ("val_loss_mlm", "val_loss_nsp", "val_nsp_accuracy") if key in last}
        found |= {"steps": json.loads((run / "summary.json").read_text(encoding="utf-8"))["steps"], "cpu_seconds": round(cpu, 2)}
        for task, figure in DOWNSTREAM.items():
            settings = ["--model.backbone.name", str(run / "export"), *words]
            tuned = fits.fit(HERE / f"{task}.yaml", settings, kept=(figure,), test=figure.startswith("test_"))
            found |= {f"{task} {name}": value for name, value in tuned.items()}
    return found


def spread(runs: list[dict[str, Any]], key: str, factor: float = 1.0) -> str:
    """Mean and standard deviation of a figure."""
    scores = [factor * run[key] for run in runs if key in run]
    if len(scores) < 2:
        return "".join(f"{score:.3f}" for score in scores)
    return f"{statistics.mean(scores):.3f} ± {statistics.stdev(scores):.3f}"


def table(results: Results) -> Iterable[str]:
    """The lines of the Markdown table."""
    yield "| objective | held-out MLM, nats | pairs told apart | STS-B, Spearman | XQuAD retrieval, recall@1 | steps | CPU s |"
    yield "|---|---|---|---|---|---|---|"
    for arm, label in ARMS.items():
        runs = list(results.found.get(arm, {}).values())
        if runs:
            figures = ("val_loss_mlm", "val_nsp_accuracy", *(f"{task} {figure}" for task, figure in DOWNSTREAM.items()))
            cells = " | ".join(spread(runs, figure) for figure in figures)
            seconds = statistics.median(run["cpu_seconds"] for run in runs)
            yield f"| {label} | {cells} | {runs[0]['steps']} | {seconds:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only-table", action="store_true")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    results = Results(HERE / "results" / "nsp.json")
    if not options.only_table:
        with ThreadPoolExecutor(options.workers) as pool:
            runs = [pool.submit(results.of, arm, f"seed {seed}", partial(chain, arm, seed)) for seed in SEEDS for arm in ARMS]
            for run in runs:
                run.result()
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
