"""Switching between runs in an AdapterBank, beside loading each anew: python experiments/benchmarks/bank.py [--repeats 20].

Makes three adapters on ftlab/tiny-llama with random values, since neither time nor equality depends on what was learnt.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from ftlab import AdapterBank, Backbone, FinetuneModule, TuningStrategy, load
from ftlab.export import export_run
from ftlab.model_card import Facts
from ftlab.strategies.bottleneck import BottleneckAdapter
from ftlab.strategies.lora import LoRA
from ftlab.strategies.prompt_tuning import PromptTuning
from ftlab.tasks.causal_lm import CausalLM

RUNS: dict[str, TuningStrategy] = {"lora": LoRA(), "adapter": BottleneckAdapter(), "prompt": PromptTuning(length=8)}


def write(tuning: TuningStrategy, folder: Path) -> None:
    """Export an adapter whose numbers are random."""
    module = FinetuneModule(Backbone(name="ftlab/tiny-llama"), CausalLM(), tuning)
    module.configure_model()
    with torch.no_grad():
        for parameter in module.adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
    export_run(module, folder, Facts())


def cpu_ms(work: Callable[[], object]) -> float:
    """CPU milliseconds of a call."""
    began = time.process_time_ns()
    work()
    return (time.process_time_ns() - began) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    repeats = parser.parse_args().repeats
    tokens = torch.arange(64).reshape(2, 32)
    with tempfile.TemporaryDirectory() as place:
        folders = {name: Path(place) / name for name in RUNS}
        bank = AdapterBank()
        for name, tuning in RUNS.items():
            write(tuning, folders[name])
            bank.add(name, folders[name])
        alone = {name: load(folder).model for name, folder in folders.items()}
        equal = all(torch.equal(bank.use(n)(tokens).logits, m(tokens).logits) for n, m in alone.items())
        anew = statistics.median(cpu_ms(partial(load, folder)) for _ in range(repeats) for folder in folders.values())
        switch = statistics.median(cpu_ms(partial(bank.use, name)) for _ in range(repeats) for name in RUNS)
        apart = sum(p.numel() * p.element_size() for m in alone.values() for p in m.parameters())
    print(f"load anew {anew:,.0f} ms of CPU, use() {1e3 * switch:,.0f} µs; outputs bit-equal: {equal}")
    print(f"three runs: {bank.bytes():,} bytes in the bank, {apart:,} loaded apart")


if __name__ == "__main__":
    main()
