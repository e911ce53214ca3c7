"""Every own strategy on two tasks: a search for the learning rate, three seeds at the one found, a table for each task.

    python experiments/strategies/run.py [--tasks polarity guanaco] [--methods LoRA IA3 ...] [--workers 2] [--only-tables]

A run is one `ftlab fit` on one thread; what differs from <task>.yaml stands in METHODS. What results/<task>.json has is not run again.
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
SEARCH_SEED = 100
RATES = [*(float(f"{m}e{e}") for e in range(-5, 0) for m in (1, 3)), 1.0]
FIGURE = {"polarity": "test_accuracy", "guanaco": "test_loss"}
KEPT = (
    "val_loss", "val_accuracy", "test_loss", "test_accuracy", "train_loss", "steps", "tokens", "trainable_params", "model_bytes",
    "file_bytes", "cpu_seconds", "warnings", "error",
)  # fmt: skip


def _tuning(name: str, **fields: object) -> dict[str, Any]:
    return {"class_path": name, "init_args": fields}


METHODS: dict[str, tuple[dict[str, Any], dict[str, float | str]]] = {
    "Full": (_tuning("Full"), {"polarity": 3e-4, "guanaco": 3e-3}),
    "LoRA": (_tuning("LoRA"), {"polarity": 1e-3, "guanaco": 3e-3}),
    "LoRA, lora_plus_ratio 8": (_tuning("LoRA", lora_plus_ratio=8.0), {"polarity": 3e-4, "guanaco": 1e-3}),
    "QLoRA, nf4": (_tuning("QLoRA", quant_type="nf4"), {"polarity": "LoRA", "guanaco": "LoRA"}),
    "BottleneckAdapter, houlsby": (
        _tuning("BottleneckAdapter", kind="houlsby"),
        {"polarity": "BottleneckAdapter, pfeiffer", "guanaco": "BottleneckAdapter, pfeiffer"},
    ),
    "BottleneckAdapter, pfeiffer": (_tuning("BottleneckAdapter", kind="pfeiffer"), {"polarity": 3e-3, "guanaco": 3e-2}),
    "BottleneckAdapter, parallel": (_tuning("BottleneckAdapter", kind="parallel"), {"polarity": 1e-3, "guanaco": 1e-2}),
    "LoReFT": (_tuning("LoReFT"), {"polarity": 3e-3, "guanaco": 3e-2}),
    "PromptTuning": (_tuning("PromptTuning"), {"polarity": 3e-2, "guanaco": 1.0}),
    "PTuning": (_tuning("PTuning"), {"polarity": 3e-3, "guanaco": 3e-2}),
    "PrefixTuning": (_tuning("PrefixTuning"), {"polarity": 3e-2, "guanaco": 3e-1}),
    "IA3": (_tuning("IA3"), {"polarity": 1e-2, "guanaco": 1e-1}),
    "BitFit": (_tuning("BitFit"), {"polarity": 3e-3}),  # stories260K has no bias
    "NormTuning": (_tuning("NormTuning"), {"polarity": "BitFit", "guanaco": 3e-2}),
    "Compose, LoRA + BitFit": (_tuning("Compose", strategies=[_tuning("LoRA"), _tuning("BitFit")]), {"polarity": "LoRA"}),
    "Compose, LoRA + NormTuning": (_tuning("Compose", strategies=[_tuning("LoRA"), _tuning("NormTuning")]), {"guanaco": "LoRA"}),
    "Full, last_layers 0 (head alone)": (_tuning("Full", last_layers=0), {"polarity": 1e-2, "guanaco": 3e-2}),
}
"""Name → (model.tuning, task → learning rate to begin the search at, or the method whose rate it takes)."""


def config(task: str) -> Path:
    """The YAML of a task."""
    return HERE / f"{task}.yaml"


def fit(task: str, method: str, rate: float, seed: int, *words: str, test: bool = False) -> dict[str, Any]:
    """The figures of one run."""
    settings = ["--model.tuning", json.dumps(METHODS[method][0]), "--model.optimizer.lr", f"{rate:g}", "--seed_everything", str(seed)]
    return fits.fit(config(task), settings, *words, kept=KEPT, test=test)


def search(results: Results, method: str) -> None:
    """Find the rate of the grid whose validation loss is below that of both its neighbours, downhill from the one to begin at."""
    start = METHODS[method][1][results.task]
    if isinstance(start, str):
        return
    best, middle = RATES.index(start), -1
    while best != middle:
        middle, losses = best, {}
        for place in (p for p in (middle, middle - 1, middle + 1) if 0 <= p < len(RATES)):
            rate = RATES[place]
            run = results.of(
                method, f"search {rate:g}", partial(fit, results.task, method, rate, SEARCH_SEED, "--save.verify_merge", "false")
            )
            losses[place] = run.get("val_loss", float("inf"))
        best = min(losses, key=lambda place: losses[place])


def chosen(results: Results, method: str) -> tuple[float, str]:
    """The rate of a method, and where it is from."""
    start = METHODS[method][1][results.task]
    if isinstance(start, str):
        return chosen(results, start)[0], f"as {start}"
    runs = {float(key.split()[1]): run for key, run in results.found[method].items() if key.startswith("search")}
    rate = min(runs, key=lambda rate: runs[rate].get("val_loss", float("inf")))
    return rate, ", ".join(f"{other:g}" for other in sorted(runs) if other != rate)


def report(results: Results, method: str, seed: int) -> None:
    """One reported run, without validation; before the first, the run of one step that its CPU time is counted from."""
    rate, unseen = chosen(results, method)[0], ("--trainer.limit_val_batches", "0")
    if seed == SEEDS[0]:  # too short for the learning guard: LoRA's A has no gradient yet
        one = (*unseen, "--trainer.max_steps", "1", "--run.learning_guard", "off")
        results.of(method, "one step", partial(fit, results.task, method, rate, seed, *one))
    results.of(method, f"seed {seed}", partial(fit, results.task, method, rate, seed, *unseen, test=True))


def untuned(results: Results, seed: int) -> None:
    """The test figures of the base; a fresh head is random."""

    def make() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            found = fits.measured("test", config(results.task), folder, "--seed_everything", str(seed))
            return {key: found[key] for key in KEPT if key in found}

    results.of("untuned", f"seed {seed}", make)


def table(results: Results) -> Iterable[str]:
    """The lines of the Markdown table."""
    figure = FIGURE[results.task]
    yield f"| strategy | learning rate (of) | {figure}, mean ± sd | trainable | model's bytes | checkpoint's bytes | CPU s / 1,000 tokens |"
    yield "|---|---|---|---|---|---|---|"
    for method in ("untuned", *METHODS):
        kept = results.found.get(method, {})
        runs = [kept[key] for key in (f"seed {seed}" for seed in SEEDS) if figure in kept.get(key, {})]
        if len(runs) < len(SEEDS):
            continue
        scores = [run[figure] for run in runs]
        line = f"{statistics.mean(scores):.3f} ± {statistics.stdev(scores):.3f}"
        if method == "untuned":
            yield f"| untuned | | {line} | 0 | | | |"
            continue
        rate, others = chosen(results, method)
        first, start = runs[0], kept["one step"]
        cost = min(1e3 * (run["cpu_seconds"] - start["cpu_seconds"]) / (run["tokens"] - start["tokens"]) for run in runs)
        yield (
            f"| {method} | **{rate:g}** ({others}) | {line} | {first['trainable_params']:,} | {first['model_bytes']:,} "
            f"| {first['file_bytes']:,} | {cost:.3f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=FIGURE, default=list(FIGURE))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only-tables", action="store_true")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    tasks = [Results(HERE / "results" / f"{task}.json") for task in options.tasks]
    plan = [(results, method) for method in options.methods for results in tasks if results.task in METHODS[method][1]]
    if not options.only_tables:
        with ThreadPoolExecutor(options.workers) as pool:
            list(pool.map(search, *zip(*plan, strict=True)))
            for seed in SEEDS:  # each strategy's runs lie apart, so that a busy hour does not fall on one of them alone
                list(pool.map(partial(untuned, seed=seed), tasks))
                list(pool.map(partial(report, seed=seed), *zip(*plan, strict=True)))
    for results in tasks:
        print("\n".join([results.task, *table(results), ""]))


if __name__ == "__main__":
    main()
