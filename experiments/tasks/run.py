"""Each task by full fine-tuning, LoRA and bottleneck adapters, from tiny-bert and from the same network with fresh weights; one table.

    python experiments/tasks/run.py [--tasks wnut17 stsb ...] [--workers 2] [--only-table]

A run is one `ftlab fit` on one thread; what differs from <task>.yaml stands in METHODS and BASES. The learning rate of each method is the
better of two by the validation loss, tried from tiny-bert with a seed of its own. What results/<task>.json has is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
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
SEARCH_SEED = 100
METHODS: dict[str, tuple[dict[str, Any], tuple[float, float]]] = {
    "Full": ({"class_path": "Full"}, (3e-4, 1e-3)),
    "LoRA": ({"class_path": "LoRA", "init_args": {"r": 16}}, (1e-3, 3e-3)),
    "BottleneckAdapter": ({"class_path": "BottleneckAdapter", "init_args": {"kind": "houlsby"}}, (3e-3, 1e-2)),
}
"""Name → (model.tuning, learning rates to choose from)."""
BASES = {"tiny-bert": "false", "fresh weights": "true"}
"""Name → model.backbone.fresh."""
FIGURES = {
    "wnut17": {"test_f1": 100.0},
    "xquad": {"val_exact_match": 1.0, "val_f1": 1.0},
    "stsb": {"test_spearman": 100.0},
    "xquad_retrieval": {"val_recall_at_1": 100.0},
    "banking77": {"test_accuracy": 100.0},
    "wikitext_mlm": {"val_loss": 1.0},
}
"""Task → its figures, and what the table multiplies them by."""


def fit(task: str, method: str, base: str, rate: float, seed: int, *words: str) -> dict[str, Any]:
    """The figures of one run; of the test rows where the task has some."""
    figures = FIGURES[task]
    settings = [
        "--model.tuning", json.dumps(METHODS[method][0]), "--model.optimizer.lr", f"{rate:g}", "--model.backbone.fresh", BASES[base],
        "--seed_everything", str(seed),
    ]  # fmt: skip
    kept = ("val_loss", "steps", "trainable_params", "cpu_seconds", "error", *figures)
    return fits.fit(HERE / f"{task}.yaml", settings, *words, kept=kept, test=any(name.startswith("test_") for name in figures))


def search(results: Results, method: str) -> None:
    """Both learning rates, from tiny-bert."""
    for rate in METHODS[method][1]:
        results.of(method, f"search {rate:g}", partial(fit, results.task, method, "tiny-bert", rate, SEARCH_SEED))


def chosen(results: Results, method: str) -> float:
    """The learning rate with the lower validation loss."""
    return min(METHODS[method][1], key=lambda rate: results.found[method][f"search {rate:g}"].get("val_loss", float("inf")))


def report(results: Results, method: str, base: str, seed: int) -> None:
    """One run of the table."""
    make = partial(fit, results.task, method, base, chosen(results, method), seed, "--save.verify_merge", "false")
    results.of(method, f"{base}, seed {seed}", make)


def cell(runs: list[dict[str, Any]], task: str) -> str:
    """Mean and standard deviation of each figure."""
    parts = []
    for name, factor in FIGURES[task].items():
        scores = [factor * run[name] for run in runs if name in run]
        spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
        parts.append(f"{statistics.mean(scores):.2f}{spread}" if scores else "")
    seeds = "" if len(runs) == len(SEEDS) else f" ({len(runs)} of {len(SEEDS)} seeds)"
    return " / ".join(parts) + seeds


def table(tasks: Iterable[Results]) -> Iterable[str]:
    """The lines of the Markdown table."""
    yield "| task | method | learning rate | from tiny-bert | from fresh weights | trainable | CPU s of a run |"
    yield "|---|---|---|---|---|---|---|"
    for results in tasks:
        for method in METHODS:
            kept = results.found.get(method, {})
            runs = {base: [kept[key] for seed in SEEDS if (key := f"{base}, seed {seed}") in kept] for base in BASES}
            if not runs["tiny-bert"]:
                continue
            cells = " | ".join(cell(found, results.task) for found in runs.values())
            first = runs["tiny-bert"][0]
            seconds = statistics.median(run["cpu_seconds"] for found in runs.values() for run in found)
            yield (f"| {results.task} | {method} | {chosen(results, method):g} | {cells} | {first['trainable_params']:,} | {seconds:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=FIGURES, default=list(FIGURES))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only-table", action="store_true")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    tasks = [Results(HERE / "results" / f"{task}.json") for task in options.tasks]
    pairs = [(results, method) for results in tasks for method in METHODS]
    if not options.only_table:
        with ThreadPoolExecutor(options.workers) as pool:
            list(pool.map(search, *zip(*pairs, strict=True)))
            for seed in SEEDS:
                runs = [(results, method, base) for results, method in pairs for base in BASES]
                list(pool.map(partial(report, seed=seed), *zip(*runs, strict=True)))
    print("\n".join(table(tasks)))


if __name__ == "__main__":
    main()
